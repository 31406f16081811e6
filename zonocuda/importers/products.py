"""Products with constants: matrices, stacks of matrices, and sums of products over labelled dimensions.

Every function appends nodes to a builder, as those of :mod:`zonocuda.importers.lowering` do.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from zonocuda.graph import Conv, Transpose
from zonocuda.importers import lowering
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse, refuse_batch

Labels = Sequence[Hashable]
"""One for each dimension, none of them twice."""


def matmul_right(builder: GraphBuilder, name: str, x: Value, weight: Numbers) -> Value:
    """x @ weight."""
    x = lowering.widened(builder, f"{name}/rank", x, weight.dim() if weight.dim() > 2 else 0)
    _check_rank(builder, x, weight)
    if any(extent != 1 for extent in weight.shape[:-2]):
        return _stacked(builder, name, x, weight, left=False)
    matrix = _matrix(weight)
    if matrix.dim() == 1:
        out = lowering.linear(builder, f"{name}/product", x, matrix.unsqueeze(0))
        return lowering.reshape(builder, name, out, out.shape[:-1])
    return lowering.linear(builder, name, x, matrix.t())


def matmul_left(builder: GraphBuilder, name: str, weight: Numbers, x: Value) -> Value:
    """weight @ x."""
    x = lowering.widened(builder, f"{name}/rank", x, weight.dim() if weight.dim() > 2 and len(x.shape) > 1 else 0)
    _check_rank(builder, x, weight)
    if any(extent != 1 for extent in weight.shape[:-2]):
        return _stacked(builder, name, x, weight, left=True)
    matrix = _matrix(weight)
    if builder.full_rank(x) == 1:
        out = lowering.linear(builder, f"{name}/product", x, matrix.reshape(-1, matrix.shape[-1]))
        return out if matrix.dim() == 2 else lowering.reshape(builder, name, out, out.shape[:-1])
    if len(x.shape) < 2:
        refuse_batch("a product with a constant on the left sums over the batch dimension")
    swap = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
    columns = builder.emit(f"{name}/columns", Transpose(swap), x)
    product = lowering.linear(builder, f"{name}/product", columns, matrix.reshape(-1, matrix.shape[-1]))
    if matrix.dim() == 1:
        return lowering.reshape(builder, name, product, product.shape[:-1])
    return builder.emit(name, Transpose(swap), product)


def _check_rank(builder: GraphBuilder, x: Value, weight: Numbers) -> None:
    if weight.dim() == 0:
        refuse("a product needs a vector or a matrix, not a scalar")
    if weight.dim() > max(builder.full_rank(x), 2):
        reason = f"a constant of shape {tuple(weight.shape)} adds dimensions to a tensor of features {x.shape}"
        refuse_batch(reason)


def _matrix(weight: Numbers) -> Numbers:
    """A constant factor of a product without leading dimensions, which are 1."""
    return weight.reshape(weight.shape[-2:]) if weight.dim() > 2 else weight


def _stacked(builder: GraphBuilder, name: str, x: Value, weight: Numbers, left: bool) -> Value:
    """A product with a stack of matrices, on the left or on the right; leading dimensions broadcast."""
    if weight.dim() == builder.full_rank(x):
        weight = lowering.without_batch(builder, weight)
    if len(x.shape) < 2:
        refuse_batch(f"a stack of matrices, of shape {tuple(weight.shape)}, meets the batch dimension")
    lead = len(x.shape) - 2
    stack = [1] * (lead - weight.dim() + 2) + [*weight.shape[:-2]]
    shared = list(range(lead))
    own = [i for i in shared if x.shape[i] != 1 or stack[i] == 1]
    theirs = [i for i in shared if stack[i] != 1]
    x = lowering.reshape(builder, f"{name}/own", x, (*(x.shape[i] for i in own), *x.shape[-2:]))
    weight = weight.reshape([*(stack[i] for i in theirs), *weight.shape[-2:]])
    rows, inner, columns = ("rows",), ("inner",), ("columns",)
    pairs = ((*rows, *inner), (*inner, *columns))
    constant, value = pairs if left else pairs[::-1]
    return contraction(builder, name, x, (*own, *value), weight, (*theirs, *constant), (*shared, *rows, *columns))


def contraction(
    builder: GraphBuilder, name: str, x: Value, x_labels: Labels, weight: Numbers, w_labels: Labels, out: Labels
) -> Value:
    """sum x[x_labels] weight[w_labels], over the labels that are not in ``out``: the features of the result.

    Labels that both have and the sum keeps become groups of a convolution with kernel 1.
    """
    for labels in (x_labels, w_labels, out):
        if len(set(labels)) != len(labels):
            refuse("a diagonal of a tensor, one label for two dimensions, is not supported in a product")
    extents = dict(zip(x_labels, x.shape, strict=True))
    for label, extent in zip(w_labels, weight.shape, strict=True):
        if extents.setdefault(label, extent) != extent:
            refuse(f"extents {extents[label]} and {extent} of one dimension do not fit")
    if any(label not in extents for label in out):
        refuse("a dimension of its result is in none of its operands")
    if any(label not in x_labels and label not in out for label in w_labels):
        refuse("it sums over a dimension that a constant has alone; sum the constant before")
    summed = [d for d, label in enumerate(x_labels) if label not in w_labels and label not in out]
    x = lowering.reduce(builder, f"{name}/sum", x, tuple(summed), mean=False, keepdim=False)
    x_labels = [label for label in x_labels if label in w_labels or label in out]
    kept = [label for label in x_labels if label in w_labels and label in out]
    inner = [label for label in x_labels if label in w_labels and label not in out]
    free = [label for label in x_labels if label not in w_labels]
    new = [label for label in w_labels if label not in x_labels]

    def sizes(labels: Labels) -> tuple[int, ...]:
        return tuple(extents[label] for label in labels)

    def moved(labels: Labels) -> Value:
        order = [list(x_labels).index(label) for label in labels]
        return _permuted(builder, f"{name}/operand", x, order)

    def weights(labels: Labels, shape: tuple[int, ...]) -> Numbers:
        return weight.permute(*(list(w_labels).index(label) for label in labels)).reshape(shape)

    groups, terms, results = (math.prod(sizes(labels)) for labels in (kept, inner, new))
    if not kept:
        ordered = lowering.reshape(builder, f"{name}/rows", moved([*free, *inner]), (*sizes(free), terms))
        product = lowering.linear(builder, f"{name}/product", ordered, weights([*new, *inner], (results, terms)))
        found = [*free, *new]
    elif not inner and not new:
        scale = weights(kept, sizes(kept))
        product = lowering.scale_shift(builder, f"{name}/product", moved([*free, *kept]), scale, None)
        found = [*free, *kept]
    else:
        ordered = lowering.reshape(
            builder, f"{name}/rows", moved([*kept, *inner, *free]), (groups * terms, math.prod(sizes(free)))
        )
        held = builder.constants(weight=weights([*kept, *new, *inner], (groups * results, terms, 1)), bias=None)
        window = Conv(**held, stride=(1,), padding=((0, 0),), dilation=(1,), groups=groups)
        product = builder.emit(f"{name}/product", window, ordered)
        found = [*kept, *new, *free]
    product = lowering.reshape(builder, f"{name}/result", product, sizes(found))
    return _permuted(builder, name, product, [found.index(label) for label in out])


def along(builder: GraphBuilder, name: str, x: Value, dim: int, weight: Numbers) -> Value:
    """weight ``[out, in]`` times ``x`` along the feature dimension ``dim``."""
    rank = len(x.shape)
    out: list[Hashable] = [*range(dim), "out", *range(dim + 1, rank)]
    return contraction(builder, name, x, range(rank), weight, ("out", dim), out)


def _permuted(builder: GraphBuilder, name: str, x: Value, order: Sequence[int]) -> Value:
    return x if list(order) == list(range(len(order))) else builder.emit(name, Transpose(tuple(order)), x)


def times(builder: GraphBuilder, *factors: Numbers) -> Numbers:
    """The product of constants, elementwise."""
    wide = [f if isinstance(f, Enclosure) else Enclosure.exact(f, builder.executed) for f in factors]
    result = wide[0]
    for other in wide[1:]:
        result = enclosure.multiply(result, other)
    builder.differs_as_executed = True
    return result


def einsum(
    builder: GraphBuilder, name: str, operands: Sequence[Value | Numbers], labels: Sequence[Labels], out: Labels
) -> Value:
    """A sum of products of one value and at most one constant, whose labels are those of all their dimensions."""
    values = [i for i, operand in enumerate(operands) if isinstance(operand, Value)]
    if len(values) != 1:
        refuse("a product of two tensors that depend on the input is not affine")
    if len(operands) > 2:
        refuse("a product of more than one constant with what depends on the input; multiply the constants before")
    x = operands[values[0]]
    assert isinstance(x, Value)
    own = list(labels[values[0]])
    if len(operands) == 2:
        weight, theirs = operands[1 - values[0]], list(labels[1 - values[0]])
    else:
        weight, theirs = torch.ones((), dtype=x.dtype, device="cpu"), []
    assert isinstance(weight, Tensor | Enclosure)
    if builder.batched:
        batch, *own = own
        if not out or out[0] != batch or batch in own:
            refuse_batch("it moves the batch dimension, or sums over it")
        out = out[1:]
        if batch in theirs:
            place = theirs.index(batch)
            order = [place, *(d for d in range(len(theirs)) if d != place)]
            weight = lowering.without_batch(builder, weight.permute(*order))
            theirs.remove(batch)
    if weight.dim() != len(theirs):
        refuse(f"a constant of shape {tuple(weight.shape)} does not fit")
    if not theirs and len(operands) == 1:
        if len(set(own)) != len(own):
            refuse("a diagonal of a tensor, one label for two dimensions, is not supported")
        summed = tuple(d for d, label in enumerate(own) if label not in out)
        kept = [label for label in own if label in out]
        x = lowering.reduce(builder, f"{name}/sum", x, summed, mean=False, keepdim=False)
        return _permuted(builder, name, x, [kept.index(label) for label in out])
    return contraction(builder, name, x, own, weight, theirs, out)


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of every operand and of the result, as ``torch.einsum`` reads them.

    Raises:
        UnsupportedNetworkError: an equation with an ellipsis, or one that does not fit.
    """
    text = equation.replace(" ", "")
    if "." in text:
        refuse(f"equation {equation!r}: an ellipsis is not supported; name the dimensions")
    left, arrow, right = text.partition("->")
    labels = left.split(",")
    if [len(part) for part in labels] != list(ranks):
        refuse(f"equation {equation!r} does not fit operands of {list(ranks)} dimensions")
    if not arrow:
        counts: Mapping[str, int] = {label: left.count(label) for label in set(left) - {","}}
        right = "".join(sorted(label for label, count in counts.items() if count == 1))
    return labels, right
