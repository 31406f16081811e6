"""Reference twin of :func:`zonocuda.ops.window_radius`."""

from __future__ import annotations

from torch import Tensor

from zonocuda.reference.window_dense import window_dense


def window_radius(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """sum_k |G_k| of the dense generators, ``[B, C, height, width]``."""
    return window_dense(patches, corners, height, width).abs().sum(1)
