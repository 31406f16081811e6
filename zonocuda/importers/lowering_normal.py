"""Quotients, softmax, norms and attention, as products with reciprocals and roots of affine maps.

    x / y                  x * (1 / y), and x * y^-1/2 where y is a root
    softmax(x)_i           1 / sum_j e^(x_j - x_i): differences cancel what x_i and x_j have in common
    log softmax(x)_i       -log sum_j e^(x_j - x_i)
    log sum_j e^x_j        x_0 + log sum_j e^(x_j - x_0)
    (x - m) / sqrt(v + e)  d * (mean d^2 + e)^-1/2 for d = x - mean x
    attention              softmax(Q K^T s + mask) V

As in :mod:`zonocuda.importers.lowering_piecewise` the nodes of an operator are its parts, and the last one carries
``name``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.functions import FunctionName
from zonocuda.graph import Add, Elementary, Expand, Reduce
from zonocuda.graph.ops import Shape
from zonocuda.graph.whole import Divide, Extremes, LogSumExp, MaskedSoftmax, Softmax, Standardise
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse
from zonocuda.importers.lowering import (
    add,
    expand,
    feature_constant,
    negate,
    permute,
    reduce,
    reshape,
    scale_shift,
    select,
)
from zonocuda.importers.lowering_piecewise import written
from zonocuda.importers.lowering_products import MAX_FACTORS, matmul, multiply


def divide(builder: GraphBuilder, name: str, x: Value | Numbers, y: Value) -> Value:
    """x / y, elementwise, for a divisor that depends on the input; bounds are finite where its sign is proven."""
    constant = None if isinstance(x, Value) else feature_constant(builder, x, y)
    is_root = _is(builder, y, "sqrt")
    source = builder.before(y) if is_root else y
    function: FunctionName = "rsqrt" if is_root else "reciprocal"
    inputs = [x, source] if isinstance(x, Value) else [source]

    def write() -> Value:
        own = name if constant is not None and _is_one(constant) else f"{name}/reciprocal"
        inverse = _emit(builder, own, source, function)
        if isinstance(x, Value):
            return multiply(builder, name, x, inverse)
        return inverse if own == name else scale_shift(builder, name, inverse, x, None)

    held = constant.held() if isinstance(constant, Enclosure) else constant
    return written(builder, Divide(held, is_root), inputs, write)


def softmax(builder: GraphBuilder, name: str, x: Value, dim: int, log: bool = False) -> Value:
    """e^x_i / sum_j e^x_j along a feature dimension, or its logarithm."""

    def write() -> Value:
        total = _sum_of_exp(builder, f"{name}/sum", _differences(builder, name, x, dim, None), dim + 1)
        if log:
            return negate(builder, name, _emit(builder, f"{name}/log", total, "log"))
        return _emit(builder, name, total, "reciprocal")

    return written(builder, Softmax(dim, log), [x], write)


def masked_softmax(builder: GraphBuilder, name: str, x: Value, allowed: Tensor) -> Value:
    """e^x_i / sum_j e^x_j along the last feature dimension over the allowed j, and 0 for an i that is not; ``allowed``
    broadcasts to ``x``."""
    mask = allowed.expand(x.shape)
    if not bool(mask.any(-1).all()):
        refuse("its mask leaves nothing for some row")
    last = len(x.shape) - 1

    def write() -> Value:
        exps = _emit(builder, f"{name}/exp", _differences(builder, name, x, last, None), "exp")
        chosen = scale_shift(builder, f"{name}/chosen", exps, mask.unsqueeze(last).to(torch.float32), None)
        total = reduce(builder, f"{name}/sum", chosen, (last + 1,), mean=False, keepdim=False)
        share = _emit(builder, f"{name}/share", total, "reciprocal")
        return scale_shift(builder, name, share, mask.to(torch.float32), None)

    return written(builder, MaskedSoftmax(mask), [x], write)


def log_sum_exp(builder: GraphBuilder, name: str, x: Value, dims: Shape, keepdim: bool) -> Value:
    """log sum e^x over feature dimensions."""
    rest = [d for d in range(len(x.shape)) if d not in dims]
    shape = tuple(1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d not in dims)

    def write() -> Value:
        order = [d + builder.batched for d in (*rest, *dims)]
        moved = permute(builder, f"{name}/moved", x, [*range(builder.batched), *order])
        last, count = len(rest), math.prod(x.shape[d] for d in dims)
        flat = reshape(builder, f"{name}/flat", moved, (*(x.shape[d] for d in rest), count))
        first = select(builder, f"{name}/first", flat, last, [0])
        total = _sum_of_exp(builder, f"{name}/sum", _differences(builder, name, flat, last, first), last + 1)
        found = add(builder, f"{name}/total", first, _emit(builder, f"{name}/log", total, "log"))
        return reshape(builder, name, found, shape)

    return written(builder, LogSumExp(dims, keepdim), [x], write)


def _differences(builder: GraphBuilder, name: str, x: Value, dim: int, of: Value | None) -> Value:
    """x_j - x_i for each i, or i of ``of``, along ``dim``, and each j along the dimension behind it."""
    before, n, after = x.shape[:dim], x.shape[dim], x.shape[dim + 1 :]
    own = x if of is None else of
    shape = (*before, own.shape[dim], n, *after)
    if math.prod(shape) > MAX_FACTORS:
        refuse(f"it would take differences of more than {MAX_FACTORS} pairs")
    left = reshape(builder, f"{name}/all", x, (*before, 1, n, *after))
    right = reshape(builder, f"{name}/each", own, (*before, own.shape[dim], 1, *after))
    sides = (expand(builder, f"{name}/{side}", v, shape) for side, v in (("left", left), ("right", right)))
    return builder.emit(f"{name}/difference", Add(-1), *sides)


def _sum_of_exp(builder: GraphBuilder, name: str, x: Value, dim: int) -> Value:
    """The sums of e^x along a dimension, without it."""
    return reduce(builder, name, _emit(builder, f"{name}/exp", x, "exp"), (dim,), mean=False, keepdim=False)


# ---- norms -----------------------------------------------------------------------------------------------------------


def standardise(builder: GraphBuilder, name: str, x: Value, dims: Shape, eps: Numbers, centered: bool = True) -> Value:
    """d / sqrt(mean d^2 + eps) over feature dimensions, for d = x - mean x, or x itself.

    With eps >= 0 each of n numbers is at most sqrt n, as d_i^2 <= sum d^2 = n mean d^2; and where d is what x differs
    from its mean by, at most sqrt(n - 1): d_i is then minus the sum of the others, of which the square is at most n - 1
    times that of theirs (Cauchy and Schwarz), so that n d_i^2 <= (n - 1) sum d^2.
    """
    number = float(eps.value if isinstance(eps, Enclosure) else eps)
    if not number > (float(eps.error) if isinstance(eps, Enclosure) else 0):
        refuse(f"its epsilon must be positive, got {number:.3g}")

    def write() -> Value:
        d = x
        if centered:
            mean = reduce(builder, f"{name}/mean", x, dims, mean=True, keepdim=True)
            d = add(builder, f"{name}/center", x, mean, -1)
        square = builder.emit(f"{name}/square", Elementary("power", 2.0), d)
        variance = reduce(builder, f"{name}/variance", square, dims, mean=True, keepdim=True)
        shifted = scale_shift(builder, f"{name}/eps", variance, None, eps)
        n = math.prod(x.shape[i] for i in dims)
        limit = math.nextafter(math.sqrt(n - 1 if centered else n), math.inf)
        return multiply(builder, name, d, _emit(builder, f"{name}/rsqrt", shifted, "rsqrt"), limit)

    return written(builder, Standardise(dims, number, centered), [x], write)


def layer_norm(
    builder: GraphBuilder,
    name: str,
    x: Value,
    dims: Shape,
    weight: Numbers | None,
    bias: Numbers | None,
    eps: Numbers,
    centered: bool = True,
) -> Value:
    """:func:`standardise`, times a weight, plus a bias, which broadcast."""
    if weight is None and bias is None:
        return standardise(builder, name, x, dims, eps, centered)
    out = standardise(builder, f"{name}/standard", x, dims, eps, centered)
    return scale_shift(builder, name, out, weight, bias, roundings=1)


def group_norm(
    builder: GraphBuilder,
    name: str,
    x: Value,
    groups: int,
    weight: Numbers | None,
    bias: Numbers | None,
    eps: Numbers,
) -> Value:
    """Each group of channels of features ``[C, ...]`` standardised; a weight and a bias ``[C]``."""
    if not x.shape or groups < 1 or x.shape[0] % groups:
        refuse(f"features {x.shape} do not fit {groups} groups")
    affine = weight is not None or bias is not None
    inner = f"{name}/groups" if affine else name
    flat = reshape(builder, f"{name}/flat", x, (groups, math.prod(x.shape) // groups))
    out = reshape(builder, inner, standardise(builder, f"{name}/standard", flat, (1,), eps), x.shape)
    if not affine:
        return out
    shape = (-1, *[1] * (len(x.shape) - 1))
    scale, shift = (None if c is None else c.reshape(shape) for c in (weight, bias))
    return scale_shift(builder, name, out, scale, shift, roundings=1)


# ---- attention -------------------------------------------------------------------------------------------------------


def attention(
    builder: GraphBuilder,
    name: str,
    query: Value,
    key: Value,
    value: Value,
    scale: Numbers | None,
    added: Numbers | None = None,
    allowed: Tensor | None = None,
) -> Value:
    """softmax(Q K^T scale + added) V over the last two feature dimensions, for the allowed pairs of positions; by
    default the scale is 1 / sqrt(E) for queries of E numbers."""
    rank = len(key.shape)
    swap = [*range(builder.batched), *(d + builder.batched for d in (*range(rank - 2), rank - 1, rank - 2))]
    transposed = permute(builder, f"{name}/keys", key, swap)
    root = torch.tensor(query.shape[-1] ** -0.5, dtype=torch.float64, device="cpu")
    scaled = scale_shift(builder, f"{name}/scaled", query, root if scale is None else scale, None, roundings=2)
    scores = matmul(builder, f"{name}/scores", scaled, transposed)
    if added is not None:
        scores = scale_shift(builder, f"{name}/masked", scores, None, added)
    if allowed is None:
        shares = softmax(builder, f"{name}/shares", scores, len(scores.shape) - 1)
    else:
        shares = masked_softmax(builder, f"{name}/shares", scores, allowed)
    return matmul(builder, name, shares, value)


# ---- recognised ------------------------------------------------------------------------------------------------------


def recognised_softmax(builder: GraphBuilder, name: str, a: Value, b: Value) -> Value | None:
    """a / b where a is e^x, or e^(x - max x), and b its sum along a dimension: the softmax of x; None elsewhere."""
    total = builder.node(b).op
    if not _is(builder, a, "exp") or not isinstance(total, Reduce) or total.mean or not total.keepdim:
        return None
    if builder.before(b).node != a.node or len(total.dims) != 1:
        return None
    return softmax(builder, name, _without_largest(builder, builder.before(a), total.dims[0]), total.dims[0])


def _without_largest(builder: GraphBuilder, x: Value, dim: int) -> Value:
    """y where x is y - max y along a dimension."""
    op = builder.node(x).op
    if not isinstance(op, Add) or op.sign != -1:
        return x
    y, largest = builder.before(x), builder.before(x, 1)
    if isinstance(builder.node(largest).op, Expand):
        largest = builder.before(largest)
    part = builder.node(largest).part
    whole = None if part is None else part.whole
    every = tuple((i,) for i in range(y.shape[dim]))
    found = isinstance(whole, Extremes) and whole.sign == 1 and whole.axes == ((dim, every),)
    return y if found and part is not None and part.inputs == (y.node,) else x


def _is(builder: GraphBuilder, value: Value, function: FunctionName) -> bool:
    op = builder.node(value).op
    return isinstance(op, Elementary) and op.function == function


def _is_one(constant: Numbers) -> bool:
    enclosed = constant if isinstance(constant, Enclosure) else Enclosure.exact(constant)
    return enclosed.is_exact and bool((enclosed.value == 1).all()) and enclosed.numel() == 1


def _emit(builder: GraphBuilder, name: str, x: Value, function: FunctionName) -> Value:
    return builder.emit(name, Elementary(function), x)
