"""Reference twin of :func:`zonocuda.ops.dual_relu`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule
from zonocuda.reference.relu_relaxation import Relaxation, relu_relaxation


class DualReluOutput(NamedTuple):
    """Rows at the input of a ReLU, and what they add to the rows' lower and upper bounds."""

    rows: Tensor
    low: Tensor
    high: Tensor


def dual_relu(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    negative: Tensor | None = None,
    nonnegative: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> DualReluOutput:
    """v lam, sum min(v, 0) 2 mu and sum max(v, 0) 2 mu, with one relaxation for each sign of v.

    Differentiated by autograd; the derivatives of low and high at v = 0 are 0, and v = 0 has the slope of v > 0.
    """
    features = tuple(range(2, rows.dim()))

    def relax(slope: Tensor | None) -> Relaxation:
        low, high = lower.unsqueeze(1), upper.expand(lower.shape).unsqueeze(1)
        if slope is not None:
            low, high = (t.expand(-1, slope.shape[1], *t.shape[2:]) for t in (low, high))
        return relu_relaxation(low, high, slope, kink=kink, tolerance=tolerance)

    below = relax(negative)
    above = below if nonnegative is None else relax(nonnegative)
    is_negative, zero = rows < 0, torch.zeros_like(rows)
    image = rows * torch.where(is_negative, below.multiplier, above.multiplier)
    low = torch.where(is_negative, rows * (2 * below.offset), zero).sum(features) if features else None
    high = torch.where(rows <= 0, zero, rows * (2 * above.offset)).sum(features) if features else None
    if low is None or high is None:  # a number for each row: sum(()) would sum everything
        low = torch.where(is_negative, rows * (2 * below.offset), zero)
        high = torch.where(rows <= 0, zero, rows * (2 * above.offset))
    return DualReluOutput(image, low, high)
