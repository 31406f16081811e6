"""Reference twin of :func:`zonocuda.ops.concretize`."""

from __future__ import annotations

from torch import Tensor


def concretize(center: Tensor, generators: Tensor) -> tuple[Tensor, Tensor]:
    """c - r and c + r with r = sum_k |G_k|, for center ``[B, *features]`` and generators ``[B, K, *features]``."""
    radius = generators.abs().sum(1)
    return center - radius, center + radius
