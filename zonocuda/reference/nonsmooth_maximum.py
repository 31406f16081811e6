"""Reference twin of :func:`zonocuda.ops.nonsmooth_maximum`."""

from __future__ import annotations

import torch
from torch import Tensor


def nonsmooth_maximum(a: Tensor, b: Tensor, first: float = 0.5) -> Tensor:
    """The larger one; on a tie first a + (1 - first) b, less what would move the value."""
    both_nan = a.isnan() & b.isnan()
    tied = (a == b) | both_nan
    mixture = a.detach() + torch.where(tied, first * a + (1 - first) * b - (first * a + (1 - first) * b).detach(), 0)
    finite = a.isfinite() | ~tied  # inf - inf is NaN: there the mixture itself has the value
    mixture = torch.where(finite, mixture, first * a + (1 - first) * b)
    b_wins = (b > a) | (b.isnan() & ~a.isnan())
    return torch.where(tied, mixture, torch.where(b_wins, b, a))
