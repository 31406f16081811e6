"""Reference twin of :func:`zonocuda.ops.dual_lines`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DualLinesOutput(NamedTuple):
    """Rows at the input of an activation, and what they add to the rows' lower and upper bounds."""

    rows: Tensor
    low: Tensor
    high: Tensor


def dual_lines(
    rows: Tensor, lower: Tensor, below: Tensor, above: Tensor, upper: Tensor | None = None
) -> DualLinesOutput:
    """v times the slope on its side, and the sums of v times the offset there, and of v times that on the other side.

    Differentiated by autograd; the derivatives of low and high at v = 0 are 0, and v = 0 has the slope of v > 0.
    """
    negative, zero = rows < 0, torch.zeros_like(rows)
    image = rows * torch.where(negative, lower if upper is None else upper, lower)
    low = torch.where(rows == 0, zero, rows * torch.where(negative, above, below))
    high = torch.where(rows == 0, zero, rows * torch.where(negative, below, above))
    features = tuple(range(2, rows.dim()))
    if features:  # else a number for each row: sum(()) would sum everything
        low, high = low.sum(features), high.sum(features)
    return DualLinesOutput(image, low, high)
