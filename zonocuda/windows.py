"""Where the windows of a convolution lie: index arithmetic that the native ops and the reference share.

A *windowed* generator is a patch ``[channels, rows, columns]`` with a corner ``(y0, x0)``: element ``[c, t, u]``
belongs to position ``(c, y0 + t, x0 + u)`` of a map, and to none where that lies outside the map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
"""Two numbers of a map's axes: of y, then of x."""


def on_axes(operation: Callable[[Tensor, int], Tensor], places: Tensor, by: Pair) -> Tensor:
    """``operation(places, n)`` for ``places`` ``[K, 2]``, n the number of ``by`` of each axis.

    Numbers of Python: a tensor of them would be a copy from the host, for which a GPU is waited for.
    """
    if by[0] == by[1]:
        return operation(places, by[0])
    return torch.stack([operation(places[:, axis], n) for axis, n in enumerate(by)], 1)


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


def convolution_matrix(
    weight: Tensor, size: Pair, outputs: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    """The matrix of a 2-d convolution in one group.

    Where a map has no more positions than the kernel, as 2 x 2 under 3 x 3, a product with the matrix takes no more
    multiplications than the convolution's sums over the padded map.

    Args:
        weight: ``[out, in, *kernel]``.
        size, outputs: rows and columns of the map and of its image.
        stride, padding, dilation: those of the convolution; padding is that at the beginning of each axis.

    Returns:
        ``[out * prod(outputs), in * prod(size)]``; zero where no tap of the kernel joins two positions.
    """
    rows, columns = (
        _taps(n, m, k, s, p, d, weight.device)
        for n, m, k, s, p, d in zip(size, outputs, weight.shape[2:], stride, padding, dilation, strict=True)
    )
    taps = F.pad(weight, (0, 1, 0, 1)).flatten(2).permute(2, 0, 1).contiguous()  # of a tap, a matrix [out, in]
    entries = taps[rows[:, None, :, None] * (weight.shape[3] + 1) + columns[None, :, None, :]]
    return entries.permute(4, 0, 1, 5, 2, 3).reshape(len(weight) * outputs[0] * outputs[1], -1)


def _taps(
    size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int, device: torch.device
) -> Tensor:
    """``[outputs, size]``: the tap that joins an output and a position of an axis; ``kernel`` where none does."""
    reach = torch.arange(size, device=device) + padding - stride * torch.arange(outputs, device=device).unsqueeze(1)
    tap = reach // dilation
    return torch.where((reach % dilation == 0) & (tap >= 0) & (tap < kernel), tap, kernel)
