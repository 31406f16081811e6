"""Layers as both importers see them, written with the operators of the graph.

Constants come with the dimensions they have in the original network, the batch included where it has one.
Every function appends nodes to a builder; the last one carries ``name``, the ones before it ``name/part``.
All raise ``UnsupportedNetworkError`` where the graph cannot express what is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    AveragePool,
    Cast,
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Linear,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.graph.ops import Pads, Shape
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants.enclosure import Enclosure, Numbers, holds
from zonocuda.importers.errors import refuse, refuse_batch


def feature_dim(builder: GraphBuilder, dim: int, rank: int) -> int:
    """The feature dimension of dimension ``dim`` (negative ones count from the end) of ``rank`` dimensions."""
    position = dim + rank if dim < 0 else dim
    if not 0 <= position < rank:
        refuse(f"dimension {dim} does not exist in a tensor of {rank} dimensions")
    if builder.batched and position == 0:
        refuse_batch("it works on the batch dimension")
    return position - builder.batched


def feature_dims(builder: GraphBuilder, dims: Sequence[int], rank: int) -> tuple[int, ...]:
    """``feature_dim`` of every dimension, each of which may occur once."""
    found = tuple(feature_dim(builder, dim, rank) for dim in dims)
    if len(set(found)) != len(found):
        refuse(f"dimensions {tuple(dims)} name one dimension twice")
    return found


def feature_shape(builder: GraphBuilder, shape: Sequence[int]) -> Shape:
    """The features of a full shape, whose batch extent must be 1."""
    if not builder.batched:
        return tuple(shape)
    if not shape or shape[0] != 1:
        refuse_batch(f"shape {tuple(shape)} moves, removes or absorbs the batch dimension, which must stay first")
    return tuple(shape[1:])


def feature_constant(builder: GraphBuilder, constant: Numbers, value: Value) -> Numbers:
    """A constant that meets ``value`` elementwise, with as many dimensions as ``value`` has features."""
    rank = len(value.shape)
    if constant.dim() > builder.full_rank(value):
        refuse_batch(
            f"a constant of shape {tuple(constant.shape)} adds dimensions to a tensor of features {value.shape}"
        )
    if constant.dim() > rank:
        constant = without_batch(builder, constant)
    return constant if constant.dim() == rank else constant.reshape([1] * (rank - constant.dim()) + [*constant.shape])


def without_batch(builder: GraphBuilder, constant: Numbers) -> Numbers:
    """A constant that has a dimension for the batch, if the network's tensors have one: what every sample meets."""
    if not builder.batched:
        return constant
    if constant.shape[0] != 1:
        parts = (constant.value, constant.error) if isinstance(constant, Enclosure) else (constant,)
        if constant.shape[0] != builder.batch or not all(bool((t[1:] == t[:1]).all()) for t in parts):
            refuse_batch(f"a constant of shape {tuple(constant.shape)} broadcasts over the batch dimension")
        builder.depends_on_batch = True
        constant = constant.of(*(t[:1] for t in parts)) if isinstance(constant, Enclosure) else constant[:1]
    return constant.squeeze(0)


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The shape of tensors that meet elementwise."""
    try:
        return np.broadcast_shapes(*(tuple(shape) for shape in shapes))
    except ValueError:
        refuse(f"shapes {' and '.join(str(tuple(shape)) for shape in shapes)} do not broadcast")


def expand(builder: GraphBuilder, name: str, x: Value, shape: Shape) -> Value:
    """Broadcast ``x`` to the feature shape ``shape``."""
    if broadcast(x.shape, shape) != shape:
        refuse(f"features {x.shape} do not expand to {shape}")
    return x if x.shape == shape else builder.emit(name, Expand(shape), x)


def constant_output(builder: GraphBuilder, name: str, constant: Numbers) -> Value:
    """An output that does not depend on the input, of features: 0 times an input, and the constant."""
    flat = reshape(builder, f"{name}/inputs", builder.input, (math.prod(builder.input.shape),))
    first = select(builder, f"{name}/first", flat, 0, [0])
    zero = torch.zeros(1, dtype=torch.float32, device="cpu")
    nothing = builder.emit(f"{name}/zero", ScaleShift(zero, None), first)
    shape = tuple(constant.shape)
    spread = reshape(builder, f"{name}/shape", nothing, (1,) * len(shape))
    return scale_shift(builder, name, spread, None, constant)


def scale_shift(
    builder: GraphBuilder, name: str, x: Value, scale: Numbers | None, shift: Numbers | None, roundings: int = 0
) -> Value:
    """scale * x + shift, elementwise; a constant may expand ``x``. For ``roundings`` see :class:`graph.Affine`."""
    x = widened(builder, f"{name}/rank", x, *(c.dim() for c in (scale, shift) if c is not None))
    constants = [None if c is None else feature_constant(builder, c, x) for c in (scale, shift)]
    shape = broadcast(x.shape, *(c.shape for c in constants if c is not None))
    x = expand(builder, f"{name}/expand", x, shape)
    return builder.emit(name, ScaleShift(**builder.constants(roundings, scale=constants[0], shift=constants[1])), x)


def widened(builder: GraphBuilder, name: str, x: Value, *ranks: int) -> Value:
    """``x`` with leading extents of 1 for constants of more dimensions, where none of them is a batch."""
    missing = max(ranks, default=0) - len(x.shape)
    return x if builder.batched or missing <= 0 else reshape(builder, name, x, (1,) * missing + x.shape)


def derived(constant: Tensor, *factors: Tensor) -> Tensor:
    """A float64 product or quotient of constants, refused where it underflows: no count of roundings covers that."""
    lost = constant.detach().abs() < torch.finfo(torch.float64).tiny
    for factor in factors:
        lost = lost & (factor.detach() != 0)
    if bool(lost.any()):
        refuse("a constant derived from its constants is too small for float64")
    return constant


def times(builder: GraphBuilder, name: str, constant: Tensor, factor: float) -> Tensor:
    """factor * constant; in float64, where the product of two float32 numbers is exact, unless the factor is 1.

    A machine may multiply what the constant meets, or sums of it, instead: 2^20 at most keeps small what it may have
    flushed to zero before, and 2^-32 at least what may have overflowed
    (:data:`zonocuda.bounds.rounding.ledger.HEADROOM`).
    """
    if factor == 1:
        return constant
    if not 2.0**-32 <= abs(factor) <= 2.0**20:
        builder.unaccounted(f"node {name!r}: what a machine multiplies by {factor:.3g} may leave the dtype's range")
    return derived(constant.double() * factor, constant, torch.tensor(factor, dtype=torch.float64, device="cpu"))


def reciprocal(divisor: Tensor) -> Tensor:
    """1 / divisor in float64, so that a division becomes a multiplication by a constant of one rounding."""
    if bool((divisor == 0).any()):
        refuse("it divides by zero")
    return derived(1.0 / divisor.double())


def negate(builder: GraphBuilder, name: str, x: Value, shift: Numbers | None = None) -> Value:
    """shift - x."""
    dtype = shift.dtype if isinstance(shift, Tensor) else torch.float32
    minus = torch.tensor(-1.0, dtype=dtype, device="cpu")
    return scale_shift(builder, name, x, minus, shift)


def add(builder: GraphBuilder, name: str, x: Value, y: Value, sign: int = 1) -> Value:
    """x + sign * y of two branches, which broadcast against each other."""
    if builder.batched and len(x.shape) != len(y.shape):
        refuse_batch(f"branches of features {x.shape} and {y.shape} would broadcast over the batch dimension")
    shape = broadcast(x.shape, y.shape)
    left = expand(builder, f"{name}/left", x, shape)
    right = expand(builder, f"{name}/right", y, shape)
    return builder.emit(name, Add(sign), left, right)


def relu(builder: GraphBuilder, name: str, x: Value) -> Value:
    """max(x, 0)."""
    return builder.emit(name, Relu(), x)


def cast(builder: GraphBuilder, name: str, x: Value, dtype: torch.dtype) -> Value:
    """A conversion to another floating-point type.

    It is exact where that type holds what it gets: the type in which ``x`` was last computed, or to which it was last
    rounded; else the network asks for a rounding, which the graph keeps.
    """
    if not dtype.is_floating_point:
        refuse(f"a cast of what depends on the input to {dtype} is no continuous function; leave it out of the network")
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        refuse(f"a cast to {dtype} is not supported; float16, bfloat16, float32 and float64 are")
    if dtype != x.dtype:
        builder.unaccounted(f"node {name!r} changes the precision to {dtype}")
    if holds(dtype, x.held):
        return replace(x, dtype=dtype)
    rounded = builder.emit(name, Cast(dtype), x, dtype=dtype)
    return replace(rounded, held=dtype)


def reshape(builder: GraphBuilder, name: str, x: Value, shape: Shape) -> Value:
    """Row-major reshape of the features."""
    if math.prod(shape) != math.prod(x.shape):
        refuse(f"features {x.shape} do not reshape to {shape}")
    return x if shape == x.shape else builder.emit(name, Reshape(shape), x)


def permute(builder: GraphBuilder, name: str, x: Value, permutation: Sequence[int]) -> Value:
    """Permutation of all dimensions of the original network's tensor; the batch must stay first."""
    rank = builder.full_rank(x)
    dims = [dim + rank if dim < 0 else dim for dim in permutation]
    if sorted(dims) != list(range(rank)):
        refuse(f"{list(permutation)} is not a permutation of {rank} dimensions")
    if builder.batched and dims[0] != 0:
        refuse_batch(f"permutation {list(permutation)} moves the batch dimension")
    features = tuple(dim - builder.batched for dim in dims[builder.batched :])
    return x if features == tuple(range(len(features))) else builder.emit(name, Transpose(features), x)


def select(builder: GraphBuilder, name: str, x: Value, dim: int, index: Sequence[int]) -> Value:
    """The positions ``index`` (nonnegative) along the feature dimension ``dim``."""
    extent = x.shape[dim]
    if not index:
        refuse("it selects nothing")
    if not all(0 <= i < extent for i in index):
        refuse(f"an index lies outside 0..{extent - 1}")
    return x if list(index) == list(range(extent)) else builder.emit(name, Gather(dim, tuple(index)), x)


def concat(builder: GraphBuilder, name: str, parts: Sequence[Value], dim: int) -> Value:
    """Concatenation along the feature dimension ``dim``."""
    return parts[0] if len(parts) == 1 else builder.emit(name, Concat(dim), *parts)


def concat_with_constants(builder: GraphBuilder, name: str, parts: Sequence[Value | Numbers], dim: int) -> Value:
    """Concatenation of values and constants, both of features, along the feature dimension ``dim``.

    Constants join as padding of a neighbouring value, whose zeros a shift then fills.
    """
    joined: list[Value] = []
    before: list[Numbers] = []
    for position, part in enumerate(parts):
        if isinstance(part, Value):
            joined.append(_join(builder, f"{name}/{position}", part, before, [], dim))
            before = []
        elif joined:
            joined[-1] = _join(builder, f"{name}/{position}", joined[-1], [], [part], dim)
        else:
            before.append(part)
    return concat(builder, name, joined, dim)


def _join(
    builder: GraphBuilder, name: str, x: Value, before: Sequence[Numbers], after: Sequence[Numbers], dim: int
) -> Value:
    """``x`` with constants before and after it along ``dim``."""
    if not before and not after:
        return x
    zeros = torch.zeros(x.shape, dtype=(*before, *after)[0].dtype, device="cpu")
    parts = [*before, zeros, *after]
    try:
        shift: Numbers
        if any(isinstance(part, Enclosure) for part in parts):
            wide = [part if isinstance(part, Enclosure) else Enclosure.exact(part) for part in parts]
            like = next(part for part in parts if isinstance(part, Enclosure))
            shift = like.of(torch.cat([w.value for w in wide], dim), torch.cat([w.error for w in wide], dim))
        else:
            shift = torch.cat([part for part in parts if isinstance(part, Tensor)], dim=dim)
    except RuntimeError:
        refuse(f"its constant inputs do not fit features {x.shape}")
    pads = [(0, 0)] * len(x.shape)
    pads[dim] = (sum(part.shape[dim] for part in before), sum(part.shape[dim] for part in after))
    padded = pad(builder, f"{name}/pad", x, tuple(pads))
    return scale_shift(builder, name, padded, None, shift)


def pad(builder: GraphBuilder, name: str, x: Value, pads: Pads, value: float = 0.0) -> Value:
    """Constant padding of every feature dimension."""
    if any(amount < 0 for pair in pads for amount in pair):
        refuse(f"negative padding {pads} is not supported")
    if not math.isfinite(value):
        refuse(f"it pads with {value}")
    if value == 0 and builder.charged:
        refuse("it pads with a constant that rounding cannot tell from zero")
    return builder.emit(name, Pad(pads, value), x) if any(a or b for a, b in pads) else x


def reduce(builder: GraphBuilder, name: str, x: Value, dims: Shape, mean: bool, keepdim: bool) -> Value:
    """Sum or mean over feature dimensions."""
    return builder.emit(name, Reduce(tuple(sorted(dims)), mean, keepdim), x) if dims else x


def linear(
    builder: GraphBuilder, name: str, x: Value, weight: Numbers, bias: Numbers | None = None, roundings: int = 0
) -> Value:
    """weight x + bias on the last feature dimension. ``roundings``: see :class:`zonocuda.graph.Affine`."""
    if not x.shape:
        refuse("a tensor without features cannot enter a linear layer")
    return builder.emit(name, Linear(**builder.constants(roundings, weight=weight, bias=bias)), x)


def conv(
    builder: GraphBuilder,
    name: str,
    x: Value,
    weight: Numbers,
    bias: Numbers | None,
    stride: Shape,
    pads: Pads,
    dilation: Shape,
    groups: int,
) -> Value:
    """Convolution over 1, 2 or 3 dimensions of features ``[C, *spatial]``."""
    _check_window(builder, x, weight, stride, pads, dilation)
    held = builder.constants(weight=weight, bias=bias)
    window: dict[str, Any] = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}
    return builder.emit(name, Conv(**held, **window), x)


def conv_transpose(
    builder: GraphBuilder,
    name: str,
    x: Value,
    weight: Numbers,
    bias: Numbers | None,
    stride: Shape,
    pads: Pads,
    output_padding: Shape,
    dilation: Shape,
    groups: int,
) -> Value:
    """Transposed convolution over 1, 2 or 3 dimensions of features ``[C, *spatial]``."""
    _check_window(builder, x, weight, stride, pads, dilation)
    if len(output_padding) != len(stride) or any(amount < 0 for amount in output_padding):
        refuse(f"output padding {output_padding} is not supported")
    held = builder.constants(weight=weight, bias=bias)
    window: dict[str, Any] = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}
    return builder.emit(name, ConvTranspose(**held, **window, output_padding=output_padding), x)


def _check_window(builder: GraphBuilder, x: Value, weight: Numbers, stride: Shape, pads: Pads, dilation: Shape) -> None:
    spatial = weight.dim() - 2
    if not 1 <= spatial <= 3:
        refuse(f"a convolution over {spatial} dimensions is not supported")
    if len(x.shape) != spatial + 1:
        refuse(f"a convolution over {spatial} dimensions needs features [C, {spatial} extents], got {x.shape}")
    if not len(stride) == len(pads) == len(dilation) == spatial:
        refuse(f"strides {stride}, pads {pads} and dilations {dilation} do not fit {spatial} dimensions")
    if any(n < 1 for n in (*stride, *dilation)) or any(n < 0 for pair in pads for n in pair):
        refuse(f"strides {stride}, pads {pads} or dilations {dilation} are not supported")


def average_pool(
    builder: GraphBuilder, name: str, x: Value, kernel: Shape, stride: Shape, pads: Pads, count_padding: bool
) -> Value:
    """Mean over windows of features ``[C, *spatial]``; ``count_padding``: zeros of the padding count in the mean."""
    if not 1 <= len(kernel) <= 3 or len(x.shape) != len(kernel) + 1:
        refuse(f"pooling with kernel {kernel} needs features [C, {len(kernel)} extents], got {x.shape}")
    if not len(stride) == len(pads) == len(kernel) or any(n < 1 for n in (*kernel, *stride)):
        refuse(f"kernel {kernel}, strides {stride} and pads {pads} do not fit")
    if any(amount >= size for pair, size in zip(pads, kernel, strict=True) for amount in pair):
        refuse(f"pads {pads} must be smaller than the kernel {kernel}")
    padded = pad(builder, f"{name}/pad", x, ((0, 0), *pads))
    if count_padding or padded == x:
        return builder.emit(name, AveragePool(kernel, stride), padded)
    pooled = builder.emit(f"{name}/pool", AveragePool(kernel, stride), padded)
    scale = torch.ones((), dtype=torch.float64, device="cpu")
    for extent, size, step, (begin, _), out in zip(x.shape[1:], kernel, stride, pads, pooled.shape[1:], strict=True):
        starts = torch.arange(out, device="cpu") * step - begin
        counts = (starts + size).clamp(max=extent) - starts.clamp(min=0)
        if bool((counts < 1).any()):
            refuse("a window lies in the padding entirely")
        scale = scale.unsqueeze(-1) * (size / counts.double())
    return builder.emit(name, ScaleShift(scale.unsqueeze(0), None, roundings=2 * len(kernel)), pooled)


def batch_norm(
    builder: GraphBuilder,
    name: str,
    x: Value,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    eps_error: float = 0.0,
) -> Value:
    """(x - mean) * weight / sqrt(variance + eps) + bias over features ``[C, ...]``, with running statistics.

    Two nodes: the subtraction of the mean, whose constant is exact, and the rest. A single shift
    bias - mean * scale would carry the rounding of a cancellation. The scale is computed in float64 and carries
    three roundings: of the sum, the root (which halves it) and the quotient. With e = ``eps_error``, by which eps may
    be off, and w = variance + eps >= 4 e, the scale is off by at most e / w of itself: 1/2 e / w (1 - e / w)^-1.5.
    """
    if not x.shape or any(t is not None and tuple(t.shape) != (x.shape[0],) for t in (mean, variance, weight, bias)):
        refuse(f"its statistics do not fit features {x.shape}")
    shape = (-1, *[1] * (len(x.shape) - 1))
    if builder.charged and bool((variance < 0).any()):
        refuse("its variance is negative and was rounded when it was computed")
    wide = variance.double() + eps
    if not bool((wide > 0).all()):
        refuse("variance + epsilon must be positive")
    if not bool((wide >= 4 * eps_error).all()):
        refuse(f"its eps of {eps:.3g} is too small for the type that it computes in")
    root = wide.sqrt()
    if not bool(((root >= 2.0**-32) & (root <= 2.0**32)).all()):
        builder.unaccounted(f"node {name!r}: what a machine divides by its deviation may leave the dtype's range")
    scale = derived(1.0 / root) if weight is None else derived(weight.double() / root, weight)
    centered = builder.emit(f"{name}/center", ScaleShift(None, -mean.reshape(shape)), x)
    shift = None if bias is None else bias.reshape(shape)
    doubt = {}
    if eps_error:
        doubt["scale"] = (scale.detach().abs() * (eps_error / wide.detach())).clamp(min=2.0**-500).reshape(shape)
    return builder.emit(name, ScaleShift(scale.reshape(shape), shift, roundings=4, doubt=doubt), centered)
