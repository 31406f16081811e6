"""ONNX operators that are quotients and norms: see :mod:`zonocuda.importers.lowering_normal`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from onnx import TensorProto
from torch import Tensor

from zonocuda.importers import functions, lowering
from zonocuda.importers import lowering_normal as normal
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse
from zonocuda.importers.onnx.node import OnnxNode

_WIDE = (TensorProto.FLOAT, TensorProto.DOUBLE)


def quotient(node: OnnxNode) -> Value:
    """x / y for a divisor that depends on the input."""
    builder, name, y = node.builder, node.name, node.value(1)
    if not node.is_value(0):
        return normal.divide(builder, name, node.numbers(0), y)
    x = node.value(0)
    for known in (functions.recognised_quotient, normal.recognised_softmax):
        found = known(builder, name, x, y)
        if found is not None:
            return found
    return normal.divide(builder, name, x, y)


def softmax(node: OnnxNode) -> Value:
    """e^x / sum e^x along an axis, or over all from it on up to operator set 12."""
    return _softmax(node, log=False)


def log_softmax(node: OnnxNode) -> Value:
    """Its logarithm."""
    return _softmax(node, log=True)


def _softmax(node: OnnxNode, log: bool) -> Value:
    builder, name, x = node.builder, node.name, node.value(0)
    dim = node.dim(int(node.attribute("axis")), x)
    if node.opset >= 13 or dim == len(x.shape) - 1:
        return normal.softmax(builder, name, x, dim, log)
    flat = lowering.reshape(builder, f"{name}/flat", x, (*x.shape[:dim], math.prod(x.shape[dim:])))
    return lowering.reshape(builder, name, normal.softmax(builder, f"{name}/softmax", flat, dim, log), x.shape)


def reduce_log_sum_exp(node: OnnxNode) -> Value:
    """log sum e^x over axes."""
    x, keepdim = node.value(0), bool(node.attribute("keepdims"))
    does_nothing, axes = bool(node.attribute("noop_with_empty_axes")), node.axes(1)
    if not axes:
        if does_nothing:
            return x
        axes = list(range(node.rank(x)))
    return normal.log_sum_exp(
        node.builder, node.name, x, lowering.feature_dims(node.builder, axes, node.rank(x)), keepdim
    )


def layer_normalization(node: OnnxNode) -> Value:
    """Standardised over the axes from one on, times a scale, plus a bias."""
    return _over_last(node, centered=True)


def rms_normalization(node: OnnxNode) -> Value:
    """The same without a mean and a bias."""
    return _over_last(node, centered=False)


def _over_last(node: OnnxNode, centered: bool) -> Value:
    x = node.value(0)
    _not_narrowed(int(node.attribute("stash_type")), x)
    first = node.dim(int(node.attribute("axis")), x)
    dims = tuple(range(first, len(x.shape)))
    bias = node.optional_numbers(2) if centered else None
    return normal.layer_norm(node.builder, node.name, x, dims, node.numbers(1), bias, _epsilon(node), centered)


def group_normalization(node: OnnxNode) -> Value:
    """Groups of channels standardised; scale and bias of each channel, or of each group up to operator set 20."""
    groups = int(node.attribute("num_groups"))
    if node.opset >= 21:  # before, there is no such attribute
        _not_narrowed(int(node.attribute("stash_type")), node.value(0))

    def layer(name: str, x: Value) -> Value:
        weight, bias = node.tensor(1), node.tensor(2)
        if node.opset < 21 and x.shape and groups > 0:
            weight, bias = (t.repeat_interleave(x.shape[0] // groups) for t in (weight, bias))
        return normal.group_norm(node.builder, name, x, groups, weight, bias, _epsilon(node))

    return node.per_sample(node.value(0), layer)


def instance_normalization(node: OnnxNode) -> Value:
    """Every channel standardised."""

    def layer(name: str, x: Value) -> Value:
        if not x.shape:
            refuse("its input has no channels")
        return normal.group_norm(node.builder, name, x, x.shape[0], node.numbers(1), node.numbers(2), _epsilon(node))

    return node.per_sample(node.value(0), layer)


def _not_narrowed(stash_type: int, x: Value) -> None:
    """Refuse statistics of ``x`` in a type that is narrower than its own: their rounding would count for nothing."""
    if stash_type not in _WIDE or (stash_type == TensorProto.FLOAT and x.dtype == torch.float64):
        refuse(
            "its statistics are rounded to a narrower type (stash_type) than its input's; state stash_type=11 for a "
            "float64 one"
        )


def _epsilon(node: OnnxNode) -> Tensor:
    return torch.tensor(node.attribute("epsilon"), dtype=torch.float32, device="cpu")


CONVERTERS: dict[str, Callable[[OnnxNode], Value]] = {
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "LogSoftmax": log_softmax,
    "RMSNormalization": rms_normalization,
    "ReduceLogSumExp": reduce_log_sum_exp,
    "Softmax": softmax,
}
