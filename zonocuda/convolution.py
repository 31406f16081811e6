"""Convolutions over one to three axes, and their transposes: torch's, or one product for all images.

Where cuDNN must stay out (:func:`zonocuda.precision.summed_products`), torch's convolutions on CUDA launch an im2col
and a product for every single image, and a proof's images are thousands of generators or rows. Here the windows of many
images become one matrix (:func:`zonocuda.ops.im2col`), and a convolution one product with it. Every output is a sum of
the products of its window, in the order that the matrix product takes: the error bound of such sums holds as before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

UNFOLDED_BYTES = 32 * 2**20
"""Of a matrix of windows and its product, at a time: half of what a forecast allows a layer beside its image."""

Sizes = Sequence[int]


def unfolds(x: Tensor) -> bool:
    """Whether torch would convolve image after image: on CUDA, without cuDNN."""
    return x.is_cuda and not torch.backends.cudnn.enabled


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """The convolution of ``x`` ``[N, C, *size]`` with ``weight`` ``[O, C / groups, *kernel]``.

    Depthwise ones of maps stay torch's, which has a kernel for all images: their windows would be far more than they
    are.

    Args:
        stride, padding, dilation: one number for each axis; ``padding`` at both ends.

    Returns:
        ``[N, O, *output size]``.
    """
    kernel = weight.shape[2:]
    if not unfolds(x) or (x.dim() == 4 and groups == x.shape[1] > 1):
        return _CONVOLUTIONS[len(kernel)](x, weight, bias, stride, padding, dilation, groups)
    from zonocuda.ops import im2col

    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    rows = weight.reshape(groups, len(weight) // groups, -1)

    def piece(images: slice, lines: slice) -> Tensor:
        begin = [padding[0] - lines.start * stride[0], *padding[1:]]
        outputs = [lines.stop - lines.start, *size[1:]]
        columns = im2col(x[images], kernel, stride, begin, dilation, outputs)
        image = _product(rows, columns.reshape(groups, rows.shape[2], -1))
        return image.reshape(len(weight), -1, *outputs).transpose(0, 1)

    line_bytes = (x.shape[1] * prod(kernel) + len(weight)) * prod(size[1:]) * x.element_size()
    out = _filled((len(x), len(weight), *size), x, piece, 2, line_bytes)
    return out if bias is None else out + bias.reshape(-1, *[1] * len(kernel))


def convolve_transpose(
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    """The transposed convolution of ``x`` ``[N, O, *size]`` with ``weight`` ``[O, C / groups, *kernel]``.

    Args:
        stride, padding, output_padding, dilation: one number for each axis, as torch has them.

    Returns:
        ``[N, C, *output size]``.
    """
    kernel = weight.shape[2:]
    if not unfolds(x):
        return _TRANSPOSED[len(kernel)](x, weight, None, stride, padding, output_padding, groups, dilation)
    from zonocuda.ops import col2im

    taps, inputs, each = prod(kernel), len(weight) // groups, weight.shape[1]
    channel_bytes = (taps + inputs // max(1, each)) * prod(x.shape[2:]) * x.element_size()
    if groups > 1 and groups * each * channel_bytes > UNFOLDED_BYTES:
        pairs = zip(torch.split(x, inputs, 1), torch.split(weight, inputs), strict=True)
        parts = [convolve_transpose(v, w, stride, padding, output_padding, 1, dilation) for v, w in pairs]
        return torch.cat(parts, 1)
    size = [
        (m - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for m, s, p, d, k, extra in zip(x.shape[2:], stride, padding, dilation, kernel, output_padding, strict=True)
    ]
    rows = weight.reshape(groups, inputs, -1).transpose(1, 2)

    def piece(images: slice, channels: slice) -> Tensor:
        part = rows[:, channels.start * taps : channels.stop * taps]  # of all groups where there are several
        columns = _product(part, _matrix(x[images]).reshape(groups, inputs, -1)).flatten(0, 1)
        shape = [images.stop - images.start, channels.stop - channels.start, *size]
        return col2im(columns, shape, kernel, stride, padding, dilation, x.shape[2:])

    return _filled((len(x), groups * each, *size), x, piece, 1, channel_bytes)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b for each group ``[groups, ...]``."""
    return torch.mm(a[0], b[0]).unsqueeze(0) if len(a) == 1 else torch.bmm(a, b)


def _matrix(x: Tensor) -> Tensor:
    """``[N, O, *size]`` as ``[O, N * prod(size)]``: a view where channels come last in memory."""
    last = x.movedim(1, -1)
    if last.is_contiguous():
        return last.reshape(-1, x.shape[1]).T
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def _filled(
    shape: tuple[int, ...], like: Tensor, piece: Callable[[slice, slice], Tensor], dim: int, unit_bytes: int
) -> Tensor:
    """A tensor of ``shape`` that ``piece`` gives for some images and for some units of dimension ``dim``.

    So many of them at a time as UNFOLDED_BYTES allow, where a unit of an image needs ``unit_bytes``: all units of
    several images, or some of one.
    """
    images, units = shape[0], shape[dim]
    count = UNFOLDED_BYTES // max(1, unit_bytes)
    steps = max(1, count // max(1, units)), max(1, min(count, units))
    if 0 < images <= steps[0] and 0 < units <= steps[1]:
        return piece(slice(0, images), slice(0, units))
    out = like.new_empty(shape)
    for first, begin in product(range(0, images, steps[0]), range(0, units, steps[1])):
        some = slice(first, min(first + steps[0], images)), slice(begin, min(begin + steps[1], units))
        out[some[0]].narrow(dim, begin, some[1].stop - begin).copy_(piece(*some))
    return out
