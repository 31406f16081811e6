"""The ATen operators that depend on the network's input, each with the function that converts it.

``torch.export`` followed by ``run_decompositions({})`` leaves no operator that writes to its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zonocuda.graph.ops import Pads, Shape
from zonocuda.importers import functions, lowering, lowering_products
from zonocuda.importers.aten import normal, piecewise, smooth
from zonocuda.importers.aten.moves import MOVES, move
from zonocuda.importers.aten.node import AtenNode
from zonocuda.importers.aten.products import PRODUCTS
from zonocuda.importers.aten.resize import RESIZES, adaptive_average_pool
from zonocuda.importers.builder import Value
from zonocuda.importers.constants.call import rounded
from zonocuda.importers.errors import refuse

Converter = Callable[[AtenNode], Any]
"""To a value, a constant, or several results: those, and None or ``Undecided`` for what nothing may read."""

IGNORED = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_scalar.default"})
"""Operators without a result."""


def _identity(node: AtenNode) -> Value:
    return node.value("self")


def cast(node: AtenNode) -> Value:
    """A conversion to another type or device."""
    return lowering.cast(node.builder, node.name, node.value("self"), node.traced.dtype)


def _dropout(node: AtenNode) -> Value:
    if node["train"]:
        refuse("it is in training mode; call model.eval() first")
    return node.value("input")


def _relu(node: AtenNode) -> Value:
    return lowering.relu(node.builder, node.name, node.value("self"))


def _add(node: AtenNode) -> Value:
    return _sum(node, "self", "other", 1)


def _sub(node: AtenNode) -> Value:
    return _sum(node, "self", "other", -1)


def _rsub(node: AtenNode) -> Value:
    return _sum(node, "other", "self", -1)


def _sum(node: AtenNode, first: str, second: str, sign: int) -> Value:
    """first + sign * alpha * second."""
    alpha = node.number("alpha") if node.get("alpha", 1) != 1 else 1
    builder, name = node.builder, node.name
    if node.is_value(first) and node.is_value(second):
        right = node.value(second)
        if alpha != 1:
            factor = rounded(alpha, node.dtype)
            right = lowering.scale_shift(builder, f"{name}/alpha", right, factor, None)
        return lowering.add(builder, name, node.value(first), right, sign)
    if node.is_value(first):
        if alpha == 1:
            shift = node.numbers(second)
            return lowering.scale_shift(builder, name, node.value(first), None, shift if sign == 1 else -shift)
        shift = lowering.times(builder, name, node.constant(second), sign * alpha)
        return lowering.scale_shift(builder, name, node.value(first), None, shift, roundings=1)
    factor = rounded(sign * alpha, node.dtype)
    return lowering.scale_shift(
        builder, name, node.value(second), None if sign * alpha == 1 else factor, node.numbers(first)
    )


def _mul(node: AtenNode) -> Value:
    if node.is_value("self") and node.is_value("other"):
        a, b = node.value("self"), node.value("other")
        found = functions.recognised_product(node.builder, node.name, a, b)
        return lowering_products.multiply(node.builder, node.name, a, b) if found is None else found
    x, constant = ("self", "other") if node.is_value("self") else ("other", "self")
    return lowering.scale_shift(node.builder, node.name, node.value(x), node.numbers(constant), None)


def _div(node: AtenNode) -> Value:
    if node.is_value("other"):
        return normal.quotient(node)
    factor = lowering.reciprocal(node.constant("other"))
    return lowering.scale_shift(node.builder, node.name, node.value("self"), factor, None, roundings=1)


def _neg(node: AtenNode) -> Value:
    return lowering.negate(node.builder, node.name, node.value("self"))


def _linear(node: AtenNode) -> Value:
    weight = node.weights("weight")
    if weight.dim() != 2:
        refuse(f"a weight of shape {tuple(weight.shape)} is not supported")
    return lowering.linear(node.builder, node.name, node.value("input"), weight, node.optional_weights("bias"))


def _conv(node: AtenNode) -> Value:
    if node.get("transposed", False):
        return _conv_transpose(node)
    weight = node.weights("weight")
    count = weight.dim() - 2
    stride, dilation = node.ints("stride", count), node.ints("dilation", count)
    pads = _padding(node, tuple(weight.shape[2:]), stride, dilation)
    return lowering.conv(
        node.builder,
        node.name,
        node.value("input"),
        weight,
        node.optional_weights("bias"),
        stride,
        pads,
        dilation,
        node["groups"],
    )


def _padding(node: AtenNode, kernel: Shape, stride: Shape, dilation: Shape) -> Pads:
    """Padding as numbers, or as 'valid' or 'same': an odd total of 'same' pads once more at the end."""
    padding = node["padding"]
    if not isinstance(padding, str):
        return tuple((amount, amount) for amount in node.ints("padding", len(kernel)))
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same" or any(step != 1 for step in stride):
        refuse(f"padding {padding!r} with strides {stride} is not supported")
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _conv_transpose(node: AtenNode) -> Value:
    weight = node.weights("weight")
    count = weight.dim() - 2
    return lowering.conv_transpose(
        node.builder,
        node.name,
        node.value("input"),
        weight,
        node.optional_weights("bias"),
        node.ints("stride", count),
        tuple((amount, amount) for amount in node.ints("padding", count)),
        node.ints("output_padding", count),
        node.ints("dilation", count),
        node["groups"],
    )


def _batch_norm(node: AtenNode) -> tuple[Value | None, ...]:
    """Kernels add eps to a float32 variance as a float32 number or as a double: both are enclosed."""
    if node.get("training", False):
        refuse("it is in training mode, or has no running statistics; call model.eval() first")
    out = lowering.batch_norm(
        node.builder,
        node.name,
        node.value("input"),
        node.tensor("running_mean"),
        node.tensor("running_var"),
        node.optional_tensor("weight"),
        node.optional_tensor("bias"),
        node.number("eps"),
        abs(node["eps"] - node.number("eps")),
    )
    return (out, None, None)


def _single_batch_norm(node: AtenNode) -> Value:
    out = _batch_norm(node)[0]
    assert out is not None
    return out


def _average_pool(node: AtenNode) -> Value:
    x = node.value("self")
    count = len(x.shape) - 1
    if node["ceil_mode"]:
        refuse("ceil_mode is not supported")
    if node.get("divisor_override", None) is not None:
        refuse("divisor_override is not supported")
    kernel = node.ints("kernel_size", count)
    stride = node.ints("stride", count) if node["stride"] else kernel
    pads = tuple((amount, amount) for amount in node.ints("padding", count))
    return lowering.average_pool(
        node.builder, node.name, x, kernel, stride, pads, count_padding=node["count_include_pad"]
    )


def _adaptive_average_pool(node: AtenNode) -> Value:
    x = node.value("self")
    extents = x.shape[1:]
    size = node.ints("output_size", len(extents))
    if len(size) != len(extents):
        refuse(f"features {x.shape} do not fit an output of {size}")
    if all(n == 1 for n in size):
        dims = tuple(range(1, len(x.shape)))
        return lowering.reduce(node.builder, node.name, x, dims, mean=True, keepdim=True)
    if any(extent % n for extent, n in zip(extents, size, strict=True)):
        return adaptive_average_pool(node)
    kernel = tuple(extent // n for extent, n in zip(extents, size, strict=True))
    pads = ((0, 0),) * len(kernel)
    return lowering.average_pool(node.builder, node.name, x, kernel, kernel, pads, count_padding=True)


def _mean(node: AtenNode) -> Value:
    return _reduce(node, mean=True)


def _total(node: AtenNode) -> Value:
    return _reduce(node, mean=False)


def _whole(node: AtenNode) -> Value:
    refuse("it works on all dimensions, the batch included; name those of a sample")


def _reduce(node: AtenNode, mean: bool) -> Value:
    x = node.value("self")
    return lowering.reduce(node.builder, node.name, x, node.dims("dim", x), mean, node["keepdim"])


def _reshape(node: AtenNode) -> Value:
    """Any operator that keeps the row-major order, by the shape of its result.

    A row-major reshape that keeps the extent of dimension 0 works on every sample alone.
    """
    return lowering.reshape(node.builder, node.name, node.value("self"), tuple(node.traced.shape[1:]))


def _squeeze(node: AtenNode) -> Value:
    node.dims("dim", node.value("self"))
    return _reshape(node)


def _squeeze_all(node: AtenNode) -> Value:
    refuse("it removes a batch of 1; name the dimensions")


def _permute(node: AtenNode) -> Value:
    return lowering.permute(node.builder, node.name, node.value("self"), node["dims"])


def _transpose(node: AtenNode) -> Value:
    x = node.value("self")
    order = list(range(node.builder.full_rank(x)))
    first, second = node["dim0"], node["dim1"]
    order[first], order[second] = order[second], order[first]
    return lowering.permute(node.builder, node.name, x, order)


def _t(node: AtenNode) -> Value:
    x = node.value("self")
    return lowering.permute(node.builder, node.name, x, list(reversed(range(node.builder.full_rank(x)))))


def _slice(node: AtenNode) -> Value:
    x = node.value("self")
    start, end, step = node["start"], node["end"], node["step"]
    if node["dim"] == 0 and start in (None, 0) and step == 1 and (end is None or end >= 2**31 - 1):
        return x
    dim = node.dim("dim", x)
    index = range(*slice(start, end, step).indices(x.shape[dim]))
    return lowering.select(node.builder, node.name, x, dim, list(index))


def _select(node: AtenNode) -> Value:
    x = node.value("self")
    dim = node.dim("dim", x)
    index = node["index"] + x.shape[dim] if node["index"] < 0 else node["index"]
    one = lowering.select(node.builder, f"{node.name}/select", x, dim, [index])
    return lowering.reshape(node.builder, node.name, one, (*x.shape[:dim], *x.shape[dim + 1 :]))


def _index_select(node: AtenNode) -> Value:
    x = node.value("self")
    return _gather(node, x, node.dim("dim", x), node.tensor("index"))


def _gather(node: AtenNode, x: Value, dim: int, index: Tensor) -> Value:
    if index.dim() != 1 or index.dtype not in (torch.int32, torch.int64):
        refuse("an index that is not a list of integers is not supported")
    positions = [i + x.shape[dim] if i < 0 else i for i in index.tolist()]
    return lowering.select(node.builder, node.name, x, dim, positions)


def _split(node: AtenNode) -> tuple[Value | None, ...]:
    """Consecutive parts along one dimension, as long as torch made them."""
    x = node.value("self")
    dim = node.dim("dim", x)
    parts, begin = [], 0
    for count, part in enumerate(node.traced):
        size = part.shape[dim + 1]
        index = list(range(begin, begin + size))
        parts.append(lowering.select(node.builder, f"{node.name}/{count}", x, dim, index))
        begin += size
    return tuple(parts)


def _expand(node: AtenNode) -> Value:
    return lowering.expand(node.builder, node.name, node.value("self"), tuple(node.traced.shape[1:]))


def _pad(node: AtenNode) -> Value:
    """Pads are listed from the last dimension on."""
    if node.get("mode", "constant") != "constant":
        found: Value = move(node)
        return found
    x = node.value("self")
    amounts = list(node["pad"])
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)]
    if len(pairs) > len(x.shape) and any(pair != (0, 0) for pair in pairs[len(x.shape) :]):
        refuse("it pads the batch dimension")
    pairs = (pairs + [(0, 0)] * len(x.shape))[: len(x.shape)]
    value = float(rounded(node["value"] or 0.0, node.dtype))
    return lowering.pad(node.builder, node.name, x, tuple(reversed(pairs)), value)


_FUNCTIONS: dict[Converter, str] = {
    _identity: "alias.default clone.default contiguous.default detach.default lift_fresh_copy.default",
    cast: "_to_copy.default to.dtype to.dtype_layout to.device type_as.default",
    _dropout: "dropout.default feature_dropout.default",
    _relu: "relu.default",
    _add: "add.Tensor add.Scalar",
    _sub: "sub.Tensor sub.Scalar",
    _rsub: "rsub.Tensor rsub.Scalar",
    _mul: "mul.Tensor mul.Scalar",
    _div: "div.Tensor div.Scalar",
    _neg: "neg.default",
    _linear: "linear.default",
    _conv: "conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding "
    "convolution.default",
    _conv_transpose: "conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input",
    _batch_norm: "_native_batch_norm_legit_no_training.default",
    _single_batch_norm: "batch_norm.default",
    _average_pool: "avg_pool1d.default avg_pool2d.default avg_pool3d.default",
    _adaptive_average_pool: "adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default "
    "_adaptive_avg_pool2d.default _adaptive_avg_pool3d.default",
    _whole: "sum.default mean.default",
    _mean: "mean.dim",
    _total: "sum.dim_IntList",
    _reshape: "view.default _unsafe_view.default reshape.default flatten.using_ints unflatten.int unsqueeze.default",
    _squeeze: "squeeze.dim squeeze.dims",
    _squeeze_all: "squeeze.default",
    _permute: "permute.default",
    _transpose: "transpose.int",
    _t: "t.default",
    _slice: "slice.Tensor",
    _select: "select.int",
    _index_select: "index_select.default",
    _split: "split.Tensor split_with_sizes.default chunk.default",
    _expand: "expand.default",
    _pad: "pad.default constant_pad_nd.default",
}

CONVERTERS: dict[str, Converter] = {
    **MOVES,
    **PRODUCTS,
    **RESIZES,
    **{
        f"aten.{name}": function
        for functions_ in (_FUNCTIONS, piecewise.FUNCTIONS, smooth.FUNCTIONS, normal.FUNCTIONS)
        for function, names in functions_.items()
        for name in names.split()
    },
}
