"""Reference twin of :func:`zonocuda.ops.dual_split`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule
from zonocuda.reference.dual_relu import dual_relu


class DualSplitOutput(NamedTuple):
    """Rows at the input of a ReLU, and what they add to the rows' lower bounds."""

    rows: Tensor
    low: Tensor


def dual_split(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    splits: Tensor,
    multipliers: Tensor | None = None,
    negative: Tensor | None = None,
    nonnegative: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> DualSplitOutput:
    """The image and low of :func:`zonocuda.reference.dual_relu` on the free neurons; v - max(beta, 0) and max(beta, 0)
    on those split to active and to dead, which low leaves out.

    Differentiated by autograd; at beta = 0 the derivative is that of beta > 0.
    """
    free = splits == 0
    # An entry of 0 adds nothing to low, whatever the bounds are.
    through = dual_relu(rows.where(free, 0.0), lower, upper, negative, nonnegative, kink=kink, tolerance=tolerance)
    moved = torch.zeros_like(rows) if multipliers is None else multipliers.clamp(min=0)
    image = torch.where(splits > 0, rows - moved, torch.where(splits < 0, rows * 0 + moved, through.rows))
    return DualSplitOutput(image, through.low)
