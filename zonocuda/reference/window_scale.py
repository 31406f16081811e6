"""Reference twin of :func:`zonocuda.ops.window_scale`."""

from __future__ import annotations

from torch import Tensor

from zonocuda.reference.window_dense import cut_windows, window_dense


def window_scale(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """``multiplier`` ``[B, C, H, W]`` times the dense generators, cut out at the windows again."""
    dense = window_dense(patches, corners, multiplier.shape[2], multiplier.shape[3])
    return cut_windows(dense * multiplier.unsqueeze(1), corners, (patches.shape[3], patches.shape[4]))
