"""Reference twins of :func:`zonocuda.ops.window_scale` and :func:`zonocuda.ops.window_scale_`."""

from __future__ import annotations

from torch import Tensor

from zonocuda.in_place import refuse_gradients
from zonocuda.reference.window_dense import cut_windows, window_dense


def window_scale(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """``multiplier`` ``[B, C, H, W]`` times the dense generators, cut out at the windows again."""
    dense = window_dense(patches, corners, multiplier.shape[2], multiplier.shape[3])
    return cut_windows(dense * multiplier.unsqueeze(1), corners, (patches.shape[3], patches.shape[4]))


def window_scale_(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """The same, in place."""
    refuse_gradients("window_scale_", patches, multiplier)
    return patches.copy_(window_scale(patches, corners, multiplier))
