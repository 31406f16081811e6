"""Reference twin of :func:`zonocuda.ops.diagonal_conv`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from zonocuda.reference.error_block import error_block
from zonocuda.reference.window_dense import cut_windows
from zonocuda.windows import Pair, diagonal_conv_corners, window_size


def diagonal_conv(
    coefficients: Tensor,
    index: Tensor,
    weight: Tensor,
    channels: int,
    height: int,
    width: int,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out_height: int,
    out_width: int,
) -> Tensor:
    """The convolution of the dense generators, of which the windows are cut out: ``[B, K, O, rows, columns]``.

    Raises:
        IndexError: an index that is no neuron.
    """
    kernel = (weight.shape[2], weight.shape[3])
    dense = error_block(coefficients, index, (channels, height, width)).flatten(0, 1)
    ends = [
        max(
            0,
            stride[axis] * (size - 1) + dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - dense.shape[2 + axis],
        )
        for axis, size in enumerate((max(1, out_height), max(1, out_width)))
    ]
    padded = F.pad(dense, (padding[1], ends[1], padding[0], ends[0]))
    if padded.numel() and weight.numel():
        image = F.conv2d(padded, weight, stride=stride, dilation=dilation, groups=groups)
        image = image[..., :out_height, :out_width]
    else:
        image = padded.new_zeros(len(padded), len(weight), out_height, out_width) + 0 * (padded.sum() + weight.sum())
    image = image.reshape(*coefficients.shape, *image.shape[1:])
    corners = diagonal_conv_corners(index, channels, height, width, kernel, stride, padding, dilation)
    return cut_windows(image, corners, window_size(kernel, stride, dilation))
