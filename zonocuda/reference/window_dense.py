"""Reference twin of :func:`zonocuda.ops.window_dense`."""

from __future__ import annotations

import torch
from torch import Tensor


def window_places(corners: Tensor, window: tuple[int, int], height: int, width: int) -> Tensor:
    """``[K, rows * columns]`` int64: every window element's flattened map position, outside the map height * width."""
    axes = []
    for axis, (size, length) in enumerate(zip(window, (height, width), strict=True)):
        corner = corners[:, axis].clamp(-size, length)  # moves only windows that lie outside, and then they still do
        axes.append(corner.unsqueeze(-1) + torch.arange(size, device=corners.device))
    y, x = axes[0].unsqueeze(-1), axes[1].unsqueeze(-2)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(inside, y * width + x, height * width).flatten(1)


def window_dense(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """``[B, K, C, height, width]``: patches ``[B, K, C, rows, columns]`` at ``corners`` ``[K, 2]``, zero elsewhere."""
    places = window_places(corners, (patches.shape[3], patches.shape[4]), height, width)
    dense = patches.new_zeros((*patches.shape[:3], height * width + 1))  # the last number: all that lies outside
    dense = dense.scatter(3, places.unsqueeze(1).expand(*patches.shape[:3], -1), patches.flatten(3))
    return dense[..., :-1].reshape(*patches.shape[:3], height, width)


def cut_windows(dense: Tensor, corners: Tensor, window: tuple[int, int]) -> Tensor:
    """``[B, K, C, rows, columns]``: what dense generators ``[B, K, C, H, W]`` hold at the windows, else zero."""
    places = window_places(corners, window, dense.shape[3], dense.shape[4])
    flat = torch.cat([dense.flatten(3), dense.new_zeros((*dense.shape[:3], 1))], dim=3)
    cut = flat.gather(3, places.unsqueeze(1).expand(*dense.shape[:3], -1))
    return cut.reshape(*dense.shape[:3], *window)
