"""Reference twins of :func:`zonocuda.ops.scale` and :func:`zonocuda.ops.scale_`."""

from __future__ import annotations

from torch import Tensor

from zonocuda.in_place import refuse_gradients


def scale(generators: Tensor, multiplier: Tensor) -> Tensor:
    """``multiplier`` ``[B, *features]`` times every generator of ``[B, K, *features]``."""
    return generators * multiplier.unsqueeze(1)


def scale_(generators: Tensor, multiplier: Tensor) -> Tensor:
    """The same, in place."""
    refuse_gradients("scale_", generators, multiplier)
    return generators.mul_(multiplier.unsqueeze(1))
