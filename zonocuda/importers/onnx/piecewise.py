"""ONNX operators that are piecewise linear: see :mod:`zonocuda.importers.lowering_piecewise`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zonocuda.importers import lowering
from zonocuda.importers import lowering_piecewise as piecewise
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.enclosure import Numbers
from zonocuda.importers.errors import refuse
from zonocuda.importers.onnx.node import OnnxNode


def maximum(node: OnnxNode) -> Value:
    """The largest of its inputs, of which some may be constant."""
    return _extreme(node, 1)


def minimum(node: OnnxNode) -> Value:
    """The least of its inputs."""
    return _extreme(node, -1)


def _extreme(node: OnnxNode, sign: int) -> Value:
    values = [node.value(i) for i in range(node.arity) if node.is_value(i)]
    limits = [node.numbers(i) for i in range(node.arity) if not node.is_value(i)]
    names = [*(f"{node.name}/{i}" for i in range(len(limits))), node.name]
    found = piecewise.extreme(node.builder, names[0], values, sign)
    for name, limit in zip(names[1:], limits, strict=True):
        pair = (limit, None) if sign == 1 else (None, limit)
        found = piecewise.clip(node.builder, name, found, *pair)
    return found


def clip(node: OnnxNode) -> Value:
    """min(max(x, min), max); the limits are attributes up to operator set 10."""
    limits: list[Numbers | None] = []
    for position, name in enumerate(("min", "max"), start=1):
        attribute = node.attribute(name)
        limits.append(node.optional_numbers(position) if attribute is None else _number(attribute))
    node.builder.check_underflow(f"node {node.name!r}", limits)
    return piecewise.clip(node.builder, node.name, node.value(0), *limits)


def leaky_relu(node: OnnxNode) -> Value:
    """x where x >= 0, else alpha x."""
    return _leaky(node, _number(node.attribute("alpha")))


def prelu(node: OnnxNode) -> Value:
    """x where x >= 0, else slope x."""
    slope, shape = tuple(node.numbers(1).shape), node.full_shape(node.value(0))
    if len(slope) > len(shape) or any(n not in (1, m) for n, m in zip(slope[::-1], shape[::-1], strict=False)):
        refuse(f"its slope, of shape {slope}, does not broadcast to its input, of shape {shape}")
    return _leaky(node, node.numbers(1))


def _leaky(node: OnnxNode, slope: Numbers) -> Value:
    node.builder.check_underflow(f"node {node.name!r}", [slope])
    return piecewise.leaky_relu(node.builder, node.name, node.value(0), slope)


def absolute(node: OnnxNode) -> Value:
    """|x|."""
    return piecewise.absolute(node.builder, node.name, node.value(0))


def hard_sigmoid(node: OnnxNode) -> Value:
    """min(max(alpha x + beta, 0), 1)."""
    alpha, beta = (_number(node.attribute(name)) for name in ("alpha", "beta"))
    node.builder.check_underflow(f"node {node.name!r}", [alpha, beta])
    line = lowering.scale_shift(node.builder, f"{node.name}/line", node.value(0), alpha, beta)
    return piecewise.clip(node.builder, node.name, line, _number(0.0), _number(1.0))


def thresholded_relu(node: OnnxNode) -> Value:
    """x where x > alpha, else 0: continuous for alpha = 0 alone."""
    if node.attribute("alpha") != 0:
        refuse("it jumps at alpha; only alpha = 0 makes it continuous")
    return lowering.relu(node.builder, node.name, node.value(0))


def reduce_max(node: OnnxNode) -> Value:
    """The largest value over feature dimensions."""
    return _reduce(node, 1)


def reduce_min(node: OnnxNode) -> Value:
    """The least value over feature dimensions."""
    return _reduce(node, -1)


def _reduce(node: OnnxNode, sign: int) -> Value:
    x, keepdim = node.value(0), bool(node.attribute("keepdims"))
    does_nothing, axes = bool(node.attribute("noop_with_empty_axes")), node.axes(1)
    if not axes:
        if does_nothing:
            return x
        axes = list(range(node.rank(x)))
    dims = lowering.feature_dims(node.builder, axes, node.rank(x))
    return piecewise.reduce_extreme(node.builder, node.name, x, dims, sign, keepdim)


def where(node: OnnxNode) -> Value:
    """One input or the other, by a constant condition."""
    if node.is_value(0):
        refuse("a condition that depends on the network's input is not supported")
    condition = node.constant(0)
    if condition.dtype != np.bool_:
        refuse("its condition must be of truth values")
    sides = [node.value(i) if node.is_value(i) else node.numbers(i) for i in (1, 2)]
    return piecewise.choose(node.builder, node.name, torch.from_numpy(np.array(condition)), sides[0], sides[1])


def _number(attribute: float) -> Tensor:
    """An attribute, a float32 number."""
    return torch.tensor(attribute, dtype=torch.float32, device="cpu")
