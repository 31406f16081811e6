"""ATen operators that are piecewise linear: see :mod:`zonocuda.importers.lowering_piecewise`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zonocuda.importers import lowering
from zonocuda.importers import lowering_piecewise as piecewise
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.call import Undecided, rounded
from zonocuda.importers.constants.enclosure import Numbers
from zonocuda.importers.errors import refuse

_INDICES = Undecided("the indices of maxima are no continuous function of the input; leave them out of the network")


def maximum(node: AtenNode) -> Value:
    """The larger of two, of which one may be constant."""
    return _extreme(node, 1)


def minimum(node: AtenNode) -> Value:
    """The smaller of two."""
    return _extreme(node, -1)


def _extreme(node: AtenNode, sign: int) -> Value:
    values = [node.value(name) for name in ("self", "other") if node.is_value(name)]
    if len(values) == 2:
        return piecewise.extreme(node.builder, node.name, values, sign)
    limit = node.numbers("other" if node.is_value("self") else "self")
    return piecewise.clip(node.builder, node.name, values[0], *((limit, None) if sign == 1 else (None, limit)))


def clamp(node: AtenNode) -> Value:
    """min(max(x, min), max)."""
    limits = [node.numbers(name) if node.get(name, None) is not None else None for name in ("min", "max")]
    return _limited(node, *limits)


def hardtanh(node: AtenNode) -> Value:
    """min(max(x, min_val), max_val)."""
    return _limited(node, node.numbers("min_val"), node.numbers("max_val"))


def relu6(node: AtenNode) -> Value:
    """min(max(x, 0), 6)."""
    return _limited(node, rounded(0, node.dtype), rounded(6, node.dtype))


def threshold(node: AtenNode) -> Value:
    """x where x > threshold, else value: continuous where the two are one number."""
    limit = node.number("threshold")
    if limit != node.number("value"):
        refuse("it jumps at its threshold; only a value equal to it makes it continuous")
    return _limited(node, rounded(limit, node.dtype), None)


def _limited(node: AtenNode, lower: Numbers | None, upper: Numbers | None) -> Value:
    node.builder.check_underflow(f"node {node.name!r}", [lower, upper])
    return piecewise.clip(node.builder, node.name, node.value("self"), lower, upper)


def hardsigmoid(node: AtenNode) -> Value:
    """min(max(x + 3, 0), 6) / 6."""
    builder, name = node.builder, node.name
    three, zero, six = (rounded(number, node.dtype) for number in (3, 0, 6))
    moved = lowering.scale_shift(builder, f"{name}/moved", node.value("self"), None, three)
    limited = piecewise.clip(builder, f"{name}/limited", moved, zero, six)
    return lowering.scale_shift(builder, name, limited, lowering.reciprocal(six), None, roundings=1)


def leaky_relu(node: AtenNode) -> Value:
    """x where x > 0, else negative_slope x."""
    return _leaky(node, rounded(node["negative_slope"], node.dtype))


def rrelu(node: AtenNode) -> Value:
    """In evaluation: a leaky ReLU whose slope is the mean of the two."""
    if node["training"]:
        refuse("it is in training mode; call model.eval() first")
    return _leaky(node, rounded((float(node["lower"]) + float(node["upper"])) / 2, node.dtype))


def prelu(node: AtenNode) -> Value:
    """A leaky ReLU with one slope, or one for each channel."""
    slope, rank = node.weights("weight"), len(node.value("self").shape)
    if slope.dim() == 1 and rank:
        slope = slope.reshape(-1, *[1] * (rank - 1))
    return _leaky(node, slope)


def _leaky(node: AtenNode, slope: Numbers) -> Value:
    node.builder.check_underflow(f"node {node.name!r}", [slope])
    return piecewise.leaky_relu(node.builder, node.name, node.value("self"), slope)


def absolute(node: AtenNode) -> Value:
    """|x|."""
    return piecewise.absolute(node.builder, node.name, node.value("self"))


def amax(node: AtenNode) -> Value:
    """The largest value over dimensions."""
    return _reduced(node, 1)


def amin(node: AtenNode) -> Value:
    """The least value over dimensions."""
    return _reduced(node, -1)


def max_of_dim(node: AtenNode) -> tuple[Any, ...]:
    """The largest value over a dimension, without its index."""
    return _reduced(node, 1), _INDICES


def min_of_dim(node: AtenNode) -> tuple[Any, ...]:
    """The least value over a dimension, without its index."""
    return _reduced(node, -1), _INDICES


def _reduced(node: AtenNode, sign: int) -> Value:
    x = node.value("self")
    return piecewise.reduce_extreme(node.builder, node.name, x, node.dims("dim", x), sign, node["keepdim"])


def max_pool(node: AtenNode) -> Value:
    """Maxima over windows, as many as torch makes."""
    x = node.value("self")
    count = len(x.shape) - 1
    kernel = node.ints("kernel_size", count)
    stride = node.ints("stride", count) if node["stride"] else kernel
    pads = tuple((amount, amount) for amount in node.ints("padding", count))
    out = tuple((node.traced[0] if isinstance(node.traced, tuple | list) else node.traced).shape[2:])
    return piecewise.max_pool(node.builder, node.name, x, kernel, stride, pads, node.ints("dilation", count), out)


def max_pool_with_indices(node: AtenNode) -> tuple[Any, ...]:
    """Maxima over windows, without their indices."""
    return max_pool(node), _INDICES


def adaptive_max_pool(node: AtenNode) -> tuple[Any, ...]:
    """Maxima over the parts of the input that torch makes, without their indices."""
    x = node.value("self")
    count = len(x.shape) - 1
    out = node.ints("output_size", count)
    if len(out) != count:
        refuse(f"features {x.shape} do not fit an output of {out}")
    return piecewise.adaptive_max_pool(node.builder, node.name, x, out), _INDICES


def where(node: AtenNode) -> Value:
    """One operand or the other, by a constant condition."""
    condition = node["condition"]
    if not isinstance(condition, Tensor) or condition.dtype != torch.bool:
        refuse("a condition that is no constant tensor of truth values is not supported")
    sides = [node.value(name) if node.is_value(name) else node.numbers(name) for name in ("self", "other")]
    return piecewise.choose(node.builder, node.name, condition, sides[0], sides[1])


FUNCTIONS: dict[Callable[[AtenNode], Value | tuple[Any, ...]], str] = {
    maximum: "maximum.default max.other",
    minimum: "minimum.default min.other",
    clamp: "clamp.default clamp.Tensor clip.default clip.Tensor clamp_min.default clamp_min.Tensor clamp_max.default "
    "clamp_max.Tensor",
    hardtanh: "hardtanh.default",
    relu6: "relu6.default",
    threshold: "threshold.default",
    hardsigmoid: "hardsigmoid.default",
    leaky_relu: "leaky_relu.default",
    rrelu: "rrelu.default",
    prelu: "prelu.default _prelu_kernel.default",
    absolute: "abs.default",
    amax: "amax.default",
    amin: "amin.default",
    max_of_dim: "max.dim",
    min_of_dim: "min.dim",
    max_pool: "max_pool1d.default max_pool2d.default max_pool3d.default",
    max_pool_with_indices: "max_pool1d_with_indices.default max_pool2d_with_indices.default "
    "max_pool3d_with_indices.default",
    adaptive_max_pool: "adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default",
    where: "where.self where.ScalarSelf where.ScalarOther",
}
"""By function the names of ATen's overloads."""
