"""Slopes to begin with, where a smooth function bends more than one way on [l, u].

With t the place of d(s) = min (f - s x), and T that of e(s) = max (f - s x), derivatives in s are -t and -T. So

* the distance e - d of the lines is convex in s and least where t - T changes its sign (minimum area);
* the lower line's value in the middle m, d + s m, is concave and largest where m - t does: that line wastes least, as
  the area below f that it leaves out is the width times (the mean of f - that value);
* the upper line's value there, e + s m, is least where m - T does.

Each is the minimum of a convex function of s, whose value and slope are known wherever they are asked for: the next s
is where the tangents at the ends of what is left of [low, high] meet (Kelley, The cutting-plane method, 1960). That is
soon the minimum where it is a kink, as it mostly is. None of this need be exact.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from zonocuda.relaxations.curve import CONCAVE, CONVEX, STRAIGHT, Curve, Parts

Aim = Literal["area", "below", "above"]
"""Least distance, or least waste of the lower or of the upper line."""

CUTS = 7
MARGIN = 0.05
"""No cut leaves less than this share of the interval."""


class Curved(Protocol):
    """A function on intervals."""

    @property
    def curve(self) -> Curve:
        """The function."""

    def parts(self, lower: Tensor, upper: Tensor, slope: Tensor, bend: int, rough: bool = False) -> Parts:
        """The parts of [l, u] with one bend."""

    def reach(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest slope on [l, u]."""


def balanced(rule: Curved, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
    """The slopes, for flat float64 bounds."""
    ends = [rule.curve.value(lower), rule.curve.value(upper)]
    middle = lower / 2 + upper / 2

    def cost(slope: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be least, and its derivative."""
        if aim != "above":
            d, t = _extreme(rule, lower, upper, ends, slope, CONVEX)
        if aim != "below":
            e, top = _extreme(rule, lower, upper, ends, slope, CONCAVE)
        if aim == "area":
            return e - d, t - top
        return (e + slope * middle, middle - top) if aim == "above" else (-d - slope * middle, t - middle)

    low, high = rule.reach(lower, upper)
    at_low, at_high = cost(low), cost(high)
    least, best = torch.minimum(at_low[0], at_high[0]), torch.where(at_low[0] < at_high[0], low, high)
    for _ in range(CUTS):
        turn = at_low[1] - at_high[1]
        meeting = (at_high[0] - at_low[0] + at_low[1] * low - at_high[1] * high) / torch.where(turn == 0, 1.0, turn)
        edge = MARGIN * (high - low)
        slope = torch.minimum(torch.maximum(meeting, low + edge), high - edge)
        value, derivative = cost(slope)
        better = value < least
        least, best = torch.where(better, value, least), torch.where(better, slope, best)
        rises = derivative < 0
        low, high = torch.where(rises, slope, low), torch.where(rises, high, slope)
        at_low = torch.where(rises, value, at_low[0]), torch.where(rises, derivative, at_low[1])
        at_high = torch.where(rises, at_high[0], value), torch.where(rises, at_high[1], derivative)
    return best


def _extreme(
    rule: Curved, lower: Tensor, upper: Tensor, ends: list[Tensor], slope: Tensor, bend: int
) -> tuple[Tensor, Tensor]:
    """About the least (CONVEX) or largest f - s x, and where."""
    first, last = (bend * (f - slope * x) for f, x in zip(ends, (lower, upper), strict=True))
    best, at = torch.minimum(first, last), torch.where(last < first, upper, lower)
    candidates: list[tuple[Tensor, Tensor, Tensor]] = []
    for a, b, t in rule.parts(lower, upper, slope, bend, rough=True):
        candidates.append((t, rule.curve.value(t), a > b))
    for point in rule.curve.breaks if STRAIGHT in rule.curve.bends else ():
        x = torch.full_like(lower, point)
        candidates.append((x, rule.curve.value(x[:1]), (x < lower) | (x > upper)))
    for x, f, missing in candidates:
        found = (bend * (f - slope * x)).masked_fill(missing, math.inf)
        at = torch.where(found < best, x, at)
        best = torch.minimum(found, best)
    return bend * best, at
