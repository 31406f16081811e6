"""Cutting a box by what a row's linear bound leaves open.

Where row(x) >= lower + sum_j |v_j| t_j holds on a box, t_j being the distance of x_j from the end of the box where v_j
x_j is least, the row can be at most zero only where every t_j <= -lower / |v_j|. A disjunct is open only where all its
rows are at most zero; what is left of the box is the hull over the disjuncts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ABOVE = 1 + 2.0**-48
"""Covers the roundings of a quotient and of a product in float64."""
_SPARE = 2.0**-16
"""Of a box's width."""


def cut(
    lower: Tensor,
    upper: Tensor,
    bound: Tensor,
    weight: Tensor,
    disjuncts: Sequence[Sequence[int]],
    singly: bool = False,
) -> tuple[Tensor, Tensor]:
    """The part of every box that some disjunct leaves open, rounded outward; empty (lower > upper) where none does.

    Args:
        lower, upper: the boxes ``[S, N]``.
        bound: ``[S, R]``, proven bounds of the rows; one that is not finite cuts nothing.
        weight: ``[S, R, N]``, v: row(x) >= bound + v . (x - corner) on the box, the corner being where v . x is least.
        disjuncts: the rows of each disjunct.
        singly: whether on each side of what is left one row has to refute each disjunct, as a tree of splits says it,
            and with something to spare, for those who count other roundings; else a disjunct that two rows refute
            between them counts no more.
    """
    low, high, v = lower.double().unsqueeze(1), upper.double().unsqueeze(1), weight.double()
    says = bound.isfinite().unsqueeze(2) & v.isfinite()
    reach = (-bound.double() * _ABOVE).unsqueeze(2) / v.abs() * _ABOVE  # [S, R, N]: how far x_j may be from the corner
    if singly:
        reach = reach + (high - low) * _SPARE
    tops = torch.where(says & (v > 0), _outward(low + reach, 1), high)
    bottoms = torch.where(says & (v < 0), _outward(high - reach, -1), low)
    refuted = (bound > 0) & bound.isfinite()
    parts = []
    for rows in disjuncts:
        members = list(rows)
        bottom = torch.maximum(bottoms[:, members].amax(1), low.squeeze(1))
        top = torch.minimum(tops[:, members].amin(1), high.squeeze(1))
        empty = refuted[:, members].any(1, keepdim=True)
        if not singly:
            empty = empty | (bottom > top).any(1, keepdim=True)
        parts.append((bottom.masked_fill(empty, torch.inf), top.masked_fill(empty, -torch.inf)))
    bottom = torch.stack([part[0] for part in parts]).amin(0)
    top = torch.stack([part[1] for part in parts]).amax(0)
    return (
        torch.maximum(_narrowed(bottom, lower.dtype, -1), lower),
        torch.minimum(_narrowed(top, upper.dtype, 1), upper),
    )


def _outward(x: Tensor, sign: int) -> Tensor:
    return torch.nextafter(x, torch.full_like(x, sign * torch.inf))


def _narrowed(x: Tensor, dtype: torch.dtype, sign: int) -> Tensor:
    """``x`` in ``dtype``, rounded towards ``sign`` infinity."""
    held = x.to(dtype)
    wrong = held.double() > x if sign < 0 else held.double() < x
    return torch.where(wrong, _outward(held, sign), held)
