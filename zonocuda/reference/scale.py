"""Reference twin of :func:`zonocuda.ops.scale`."""

from __future__ import annotations

from torch import Tensor


def scale(generators: Tensor, multiplier: Tensor) -> Tensor:
    """``multiplier`` ``[B, *features]`` times every generator of ``[B, K, *features]``."""
    return generators * multiplier.unsqueeze(1)
