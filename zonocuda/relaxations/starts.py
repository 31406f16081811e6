"""Slopes to begin with, where a smooth function bends more than one way on [l, u].

With t the place of d(s) = min (f - s x), and T that of e(s) = max (f - s x), derivatives in s are -t and -T. So

* the distance e - d of the lines is convex in s and least where t - T changes its sign (minimum area);
* the lower line's value in the middle m, d + s m, is concave and largest where m - t does: that line wastes least, as
  the area below f that it leaves out is the width times (the mean of f - that value);
* the upper line's value there, e + s m, is least where m - T does.

Each is found by bisection on the slopes that f has in [l, u]. None of this need be exact.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from zonocuda.relaxations.curve import CONCAVE, CONVEX, Curve, Parts

Aim = Literal["area", "below", "above"]
"""Least distance, or least waste of the lower or of the upper line."""

HALVINGS = 14


class Curved(Protocol):
    """A function on intervals."""

    @property
    def curve(self) -> Curve:
        """The function."""

    def parts(self, lower: Tensor, upper: Tensor, slope: Tensor, bend: int) -> Parts:
        """The parts of [l, u] with one bend."""

    def reach(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest slope on [l, u]."""


def balanced(rule: Curved, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
    """The slopes, for flat float64 bounds."""
    low, high = rule.reach(lower, upper)
    middle = lower / 2 + upper / 2
    ends = [rule.curve.value(lower), rule.curve.value(upper)]
    for _ in range(HALVINGS):
        slope = low / 2 + high / 2
        least = middle if aim == "above" else _place(rule, lower, upper, ends, slope, CONVEX)
        most = middle if aim == "below" else _place(rule, lower, upper, ends, slope, CONCAVE)
        rises = most > least if aim == "area" else (least < middle if aim == "below" else most > middle)
        low, high = torch.where(rises, slope, low), torch.where(rises, high, slope)
    return low / 2 + high / 2


def _place(rule: Curved, lower: Tensor, upper: Tensor, ends: list[Tensor], slope: Tensor, bend: int) -> Tensor:
    """About where f - s x is least (CONVEX) or largest."""
    best, at = bend * (ends[0] - slope * lower), lower
    candidates: list[tuple[Tensor, Tensor, Tensor | None]] = [(upper, ends[1], None)]
    for a, b, t in rule.parts(lower, upper, slope, bend):
        candidates.append((t, rule.curve.value(t), a > b))
    for point in rule.curve.breaks:
        x = torch.full_like(lower, point)
        candidates.append((x, rule.curve.value(x[:1]), (x < lower) | (x > upper)))
    for x, f, missing in candidates:
        found = bend * (f - slope * x)
        if missing is not None:
            found = found.masked_fill(missing, math.inf)
        better = found < best
        best, at = torch.where(better, found, best), torch.where(better, x, at)
    return at
