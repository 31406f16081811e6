"""Where the windows of a convolution lie: index arithmetic that the native ops and the reference share.

A *windowed* generator is a patch ``[channels, rows, columns]`` with a corner ``(y0, x0)``: element ``[c, t, u]``
belongs to position ``(c, y0 + t, x0 + u)`` of a map, and to none where that lies outside the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[int, int]
"""Two numbers of a map's axes: of y, then of x."""


def window_size(kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """Rows and columns of the window of outputs that one input position reaches: ceil(extent / stride).

    The extent of a kernel is (kernel - 1) dilation + 1.
    """
    return _axis_size(kernel[0], stride[0], dilation[0]), _axis_size(kernel[1], stride[1], dilation[1])


def _axis_size(kernel: int, stride: int, dilation: int) -> int:
    return ((kernel - 1) * dilation + stride) // stride


def diagonal_conv_corners(
    index: Tensor, channels: int, height: int, width: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The corners of the patches that :func:`zonocuda.ops.diagonal_conv` returns.

    A symbol at position p of an axis reaches the outputs i with 0 <= p + padding - stride i < extent, the last of which
    is floor((p + padding) / stride); the corner is that minus (window - 1).

    Args:
        index: ``[K]`` int64, the symbols' places in a flattened ``[channels, height, width]``.
        channels, height, width: the sizes of the convolution's input.
        kernel, stride, padding, dilation: those of the convolution; padding is that at the beginning of each axis.

    Returns:
        ``[K, 2]`` int64, rows (y0, x0). The corner of an index outside the input is (0, 0), so that the NaN which the
        op writes for it on CUDA lies on the map.
    """
    rows, columns = window_size(kernel, stride, dilation)
    position = index % (height * width) if height * width > 0 else torch.zeros_like(index)
    y = position // width if width > 0 else position
    x = position - y * width
    corners = torch.stack(
        [(y + padding[0]) // stride[0] - (rows - 1), (x + padding[1]) // stride[1] - (columns - 1)], dim=-1
    )
    valid = (index >= 0) & (index < channels * height * width)
    return torch.where(valid.unsqueeze(-1), corners, 0)
