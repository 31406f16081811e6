"""ONNX operators that move a window over the spatial dimensions."""

from __future__ import annotations

from zonocuda.graph.ops import Pads, Shape
from zonocuda.importers import lowering
from zonocuda.importers import lowering_piecewise as piecewise
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse
from zonocuda.importers.onnx.node import OnnxNode


def conv(node: OnnxNode) -> Value:
    """Convolution with constant weights."""
    weight, bias = node.numbers(1), node.optional_numbers(2)
    kernel = _kernel(node, tuple(weight.shape[2:]))
    stride, dilation = _per_dim(node, "strides", kernel), _per_dim(node, "dilations", kernel)
    x = node.value(0)
    pads = _pads(node, _spatial(node, x, kernel), kernel, stride, dilation)
    groups = node.attribute("group")
    return node.per_sample(
        x, lambda name, x: lowering.conv(node.builder, name, x, weight, bias, stride, pads, dilation, groups)
    )


def conv_transpose(node: OnnxNode) -> Value:
    """Transposed convolution with constant weights."""
    weight, bias = node.numbers(1), node.optional_numbers(2)
    kernel = _kernel(node, tuple(weight.shape[2:]))
    stride, dilation = _per_dim(node, "strides", kernel), _per_dim(node, "dilations", kernel)
    if node.attribute("output_shape") is not None:
        refuse("attribute 'output_shape' is not supported; export explicit pads and output_padding")
    mode = node.attribute("auto_pad")
    if mode not in ("NOTSET", "VALID"):
        refuse(f"auto_pad {mode} is not supported; export explicit pads")
    pads = _explicit_pads(node, kernel)
    extra = tuple(int(amount) for amount in node.attribute("output_padding") or [0] * len(kernel))
    groups = node.attribute("group")
    return node.per_sample(
        node.value(0),
        lambda name, x: lowering.conv_transpose(
            node.builder, name, x, weight, bias, stride, pads, extra, dilation, groups
        ),
    )


def average_pool(node: OnnxNode) -> Value:
    """Mean over windows."""
    size = node.attribute("kernel_shape")
    if size is None:
        refuse("attribute 'kernel_shape' is missing")
    kernel = tuple(int(extent) for extent in size)
    if node.attribute("ceil_mode"):
        refuse("attribute 'ceil_mode' = 1 is not supported")
    if any(amount != 1 for amount in _per_dim(node, "dilations", kernel)):
        refuse("attribute 'dilations' other than 1 is not supported")
    stride = _per_dim(node, "strides", kernel)
    x = node.value(0)
    pads = _pads(node, _spatial(node, x, kernel), kernel, stride, (1,) * len(kernel))
    counted = bool(node.attribute("count_include_pad"))
    return node.per_sample(
        x, lambda name, x: lowering.average_pool(node.builder, name, x, kernel, stride, pads, counted)
    )


def global_average_pool(node: OnnxNode) -> Value:
    """Mean over all spatial dimensions, which stay with extent 1."""

    def mean(name: str, x: Value) -> Value:
        if len(x.shape) < 2:
            refuse(f"features {x.shape} have no spatial dimensions")
        return lowering.reduce(node.builder, name, x, tuple(range(1, len(x.shape))), mean=True, keepdim=True)

    return node.per_sample(node.value(0), mean)


def max_pool(node: OnnxNode) -> Value:
    """Maximum over windows; with ``ceil_mode`` also over a last one that leaves the padded input, if it begins in the
    input or in the padding before it."""
    size = node.attribute("kernel_shape")
    if size is None:
        refuse("attribute 'kernel_shape' is missing")
    kernel = tuple(int(extent) for extent in size)
    node.ignore("storage_order")  # of the indices, which are refused
    stride, dilation = _per_dim(node, "strides", kernel), _per_dim(node, "dilations", kernel)
    x = node.value(0)
    spatial = _spatial(node, x, kernel)
    pads = _pads(node, spatial, kernel, stride, dilation)
    ceil = bool(node.attribute("ceil_mode"))
    out = []
    for n, k, s, d, (begin, end) in zip(spatial, kernel, stride, dilation, pads, strict=True):
        room = n + begin + end - d * (k - 1) - 1
        if room < 0:
            refuse(f"a kernel of {kernel} does not fit an input of {spatial}")
        count = (-(-room // s) if ceil else room // s) + 1
        out.append(count - 1 if ceil and (count - 1) * s >= n + begin else count)
    return node.per_sample(
        x,
        lambda name, x: piecewise.max_pool(node.builder, name, x, kernel, stride, pads, dilation, tuple(out)),
    )


def global_max_pool(node: OnnxNode) -> Value:
    """Maximum over all spatial dimensions, which stay with extent 1."""

    def largest(name: str, x: Value) -> Value:
        if len(x.shape) < 2:
            refuse(f"features {x.shape} have no spatial dimensions")
        return piecewise.reduce_extreme(node.builder, name, x, tuple(range(1, len(x.shape))), 1, keepdim=True)

    return node.per_sample(node.value(0), largest)


def _kernel(node: OnnxNode, extents: Shape) -> Shape:
    """The kernel of a weight, which the attribute must repeat where it is there."""
    stated = node.attribute("kernel_shape")
    if stated is not None and tuple(stated) != extents:
        refuse(f"attribute 'kernel_shape' {tuple(stated)} contradicts the weight's kernel {extents}")
    if not extents:
        refuse("its weight has no spatial dimensions")
    return extents


def _spatial(node: OnnxNode, x: Value, kernel: Shape) -> Shape:
    """The spatial extents of ``x``."""
    shape = node.full_shape(x)
    if len(shape) != len(kernel) + 2:
        refuse(f"its input, of shape {shape}, does not fit a kernel of {len(kernel)} dimensions")
    return shape[2:]


def _per_dim(node: OnnxNode, name: str, kernel: Shape) -> Shape:
    """An attribute with one number per spatial dimension, 1 where it is absent."""
    stated = node.attribute(name)
    if stated is None:
        return (1,) * len(kernel)
    if len(stated) != len(kernel) or any(number < 1 for number in stated):
        refuse(f"attribute {name!r} {tuple(stated)} does not fit a kernel of {len(kernel)} dimensions")
    return tuple(int(number) for number in stated)


def _explicit_pads(node: OnnxNode, kernel: Shape) -> Pads:
    """Attribute ``pads``: all begins, then all ends."""
    stated = node.attribute("pads") or [0] * (2 * len(kernel))
    if len(stated) != 2 * len(kernel) or any(amount < 0 for amount in stated):
        refuse(f"attribute 'pads' {tuple(stated)} does not fit a kernel of {len(kernel)} dimensions")
    half = len(kernel)
    return tuple((int(begin), int(end)) for begin, end in zip(stated[:half], stated[half:], strict=True))


def _pads(node: OnnxNode, spatial: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Pads:
    """The padding, explicit or automatic.

    SAME_*: the output has ceil(n / stride) positions; an odd total pads once more at the end (UPPER) or at the
    begin (LOWER).
    """
    mode = node.attribute("auto_pad")
    explicit = _explicit_pads(node, kernel)
    if mode == "NOTSET":
        return explicit
    if any(amount for pair in explicit for amount in pair):
        refuse(f"auto_pad {mode} contradicts attribute 'pads'")
    if mode == "VALID":
        return explicit
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        refuse(f"auto_pad {mode!r} is not supported")
    pads = []
    for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return tuple(pads)
