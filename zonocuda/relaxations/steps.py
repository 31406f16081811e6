"""Sign, floor, ceil and round: functions f that nowhere fall, constant between jumps, with values that no dtype rounds.

**Lines.** On [l, u] f has the values m = f(l), ..., M = f(u). From j to j + 1 it jumps at p_j = a + j, with a = 1 for
floor, 0 for ceil, 1/2 for round; the sign jumps at 0 alone. f - s x is extreme at an end or beside a jump, as it is a
line between them; and of the jumps at the first or the last, as j - s p_j is a line in j. So d and e, the least and the
largest f(x) - s x, are among

    m - s l,    M - s u,    and before and behind the jumps p_m and p_{M-1}    j - s p_j,  j + 1 - s p_j

(of the sign: m - s 0 and M - s 0), each of which f takes on [l, u], or comes as near to as one likes. A line around a
jump has no other choice: no line is nearer to f than half the jump. Of slopes from 0 to the steepest that a line
through the end of one step can have (the edges of the convex hull) each is best somewhere.

**Executed.** A machine may flush a number below the smallest normal one to zero before it looks which side of a jump it
is on: ends within NORMAL of 0 count as 0, and lines leave s NORMAL more, by which s x is another then.

**Rounding.** In float64, values, ends and jumps are exact up to LARGEST. A product s x rounds once, its difference
with j once more: 4 u (|j| + |s x|) covers both. Beyond LARGEST, and on intervals that are not finite, the slope is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.graph import Staircase
from zonocuda.graph.elementwise import StepName
from zonocuda.relaxations.recorded import recorded, records
from zonocuda.relaxations.rule import Bounds, Lines, Rule, Start
from zonocuda.roundoff import outward

NORMAL = 2.0**-126
"""The smallest normal number of float32, and more than that of float64."""
LARGEST = 2.0**50
DOUBLED = 1 / 8
"""How much more a line's distance from f counts around twice as many jumps, of which it takes more splits to be rid."""

_U = 2.0**-53
_TINY = 2.0**-1060
_JUMPS: dict[StepName, float] = {"floor": 1.0, "ceil": 0.0, "round": 0.5}


class StepRule(Rule):
    """The rule of a step function; see the module."""

    is_exact = True
    is_certified = True
    limits = (0.0, math.inf)

    def __init__(self, op: Staircase) -> None:
        self.op = op

    # ---- the rule ----------------------------------------------------------------------------------------------------

    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        """[f(l), f(u)], which are numbers of every dtype that holds l and u."""
        low, high = _ends(lower.detach(), upper.detach())
        return self.op.apply(low), self.op.apply(high)

    def settled(self, lower: Tensor, upper: Tensor) -> Tensor:
        low, high = self.range(lower, upper)
        return low == high

    def zero(self, lower: Tensor, upper: Tensor) -> Tensor:
        low, high = self.range(lower, upper)
        return (low == 0) & (high == 0)

    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        """0 around one jump, 1 around more (all slopes from 0 on waste as little around one); or those of the edge of
        the convex hull below f that is highest in the middle of [l, u]."""
        with torch.no_grad():
            if start == "minimum_area":
                first, last = (end.double() for end in self.range(lower, upper))
                several = (last - first >= 2) & (self.op.function != "sign") & ~self._loose(lower, upper)
                return several.to(lower.dtype)
            return self._hull(lower, upper, -1).to(lower.dtype)

    def above(self, lower: Tensor, upper: Tensor) -> Tensor:
        with torch.no_grad():
            return self._hull(lower, upper, 1).to(lower.dtype)

    def reach(self, lower: Tensor, upper: Tensor) -> Bounds:
        """0, and the steepest edge of either hull that may be best in the middle."""
        with torch.no_grad():
            edges = [self._hull(lower, upper, side) for side in (-1, 1)]
            most = torch.maximum(*edges).to(lower.dtype)
            return torch.zeros_like(most), torch.maximum(most, self.initial(lower, upper))

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        given = self.initial(lower, upper) if slope is None else self.project(slope)
        with torch.no_grad():
            first, last = (end.double() for end in self.range(lower, upper))
            free = (first != last) & ~self._loose(lower, upper) & given.detach().isfinite()
        held = torch.where(free, given, torch.zeros_like(given))
        with torch.no_grad():
            found = self._extremes(lower, upper, held.detach().double(), first, last)
            found = [(torch.where(free, v, end), at) for (v, at), end in zip(found, (first, last), strict=True)]
        below, above = (
            self._offset(value, at, free, held, (lower, upper), up)
            for (value, at), up in zip(found, (False, True), strict=True)
        )
        return Lines(held, below, above)

    def waste(self, lower: Tensor, upper: Tensor, under: Lines, over: Lines) -> Bounds:
        """In the mean over [l, u]. What f is in the middle, or at an end, says little where that is a jump: of a line
        that passes through the one value nothing, though it lies a step from the other. The integral of f is
        m (u - l) + (M - m) (u - p), p in the middle between the first and the last jump. See also :data:`DOUBLED`."""
        low, high = _ends(lower.detach(), upper.detach())
        first, last = self.range(lower, upper)
        begin, end = self._jumps(first, last)
        mean = first + (last - first) * ((high - begin / 2 - end / 2) / (high - low))
        slope, below, _ = self._both(under)
        middle = low / 2 + high / 2
        rounded = (first.abs() + last.abs()) * (16 * torch.finfo(low.dtype).eps)
        gaps = mean - (slope * middle + below), over.slope * middle + over.above - mean
        factor = 1.0 if self.op.function == "sign" else 1 + DOUBLED * (last - first).clamp(min=1).log2()
        under_gap, over_gap = ((gap - rounded).clamp(min=0) * factor for gap in gaps)
        return under_gap, over_gap

    def split_points(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The jumps on both sides of the middle of [l, u], and the floats beside them, at 0 the least that no machine
        takes for 0. At the jump itself both values count for the closed part that ends there, unless f has no other
        there than behind it; between it and the float beside it there is nothing but the jump."""
        middle = lower / 2 + upper / 2
        jumps = [torch.zeros_like(middle)]
        if self.op.function != "sign":
            by = _JUMPS[self.op.function]
            jumps = [(middle - by).floor() + by, (middle - by).floor() + 1 + by]
        beside = [
            torch.where(jump == 0, side * NORMAL, torch.nextafter(jump, torch.full_like(jump, side * math.inf)))
            for jump in jumps
            for side in (-1, 1)
        ]
        return torch.stack([*jumps, *beside])

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _loose(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where the slope is 0; with NaN, too."""
        return ~((lower >= -LARGEST) & (upper <= LARGEST))

    def _jumps(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the first and the last jump between the values m and M, where m < M."""
        if self.op.function == "sign":
            return torch.zeros_like(first), torch.zeros_like(last)
        by = _JUMPS[self.op.function]
        return first + by, last - 1 + by

    def _extremes(
        self, lower: Tensor, upper: Tensor, slope: Tensor, first: Tensor, last: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """d and e in float64, and where they are taken."""
        low, high = (end.double() for end in _ends(lower, upper))
        begin, end = self._jumps(first, last)
        step = last - first if self.op.function == "sign" else torch.ones_like(first)
        points = torch.stack([low, high, begin, begin, end, end])
        values = torch.stack([first, last, first, first + step, last - step, last])
        line = slope * points
        slack = (values.abs() + line.abs()) * (4 * _U) + slope * NORMAL + _TINY * (slope != 0)
        points = points.expand(line.shape)
        found = []
        for h, pick in ((values - line - slack, torch.min), (values - line + slack, torch.max)):
            best, which = pick(h, 0)
            found.append((best, points.gather(0, which.unsqueeze(0)).squeeze(0)))
        return found

    def _offset(self, value: Tensor, at: Tensor, free: Tensor, slope: Tensor, ends: Bounds, up: bool) -> Tensor:
        """An offset in the dtype, with its derivatives: -x in the slope and -s in the end, where x is taken there."""
        offset = outward(value, slope.dtype, up)
        if not records(slope, *ends):
            return offset
        lower, upper = ends
        with torch.no_grad():
            pull = -slope.detach()
            of_lower = torch.where(free & (at == lower), pull, 0.0)
            of_upper = torch.where(free & (at == upper) & (at != lower), pull, 0.0)
            of_slope = torch.where(free, -at, 0.0).to(offset.dtype)
        return recorded(offset, lower, of_lower, upper, of_upper, slope, of_slope)

    def _hull(self, lower: Tensor, upper: Tensor, side: int) -> Tensor:
        """About the slope of the edge over the middle of [l, u] of the convex hull below f (``side`` -1) or above."""
        low, high = (end.double() for end in _ends(lower.detach(), upper.detach()))
        first, last = (end.double() for end in self.range(lower, upper))
        begin, end = self._jumps(first, last)
        step = last - first if self.op.function == "sign" else torch.ones_like(first)
        middle = low / 2 + high / 2
        before, behind = step / (begin - low), step / (high - end)
        outer = (torch.zeros_like(middle), behind) if side == -1 else (before, torch.zeros_like(middle))
        found = torch.where(middle <= begin, outer[0], torch.where(middle >= end, outer[1], 1.0))
        found = torch.where((first != last) & ~self._loose(lower, upper), found, 0.0)
        return found.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1e30)


def _ends(lower: Tensor, upper: Tensor) -> Bounds:
    """l and u, or 0 where a machine may take the end for it."""
    return (
        torch.where((lower > 0) & (lower < NORMAL), 0.0, lower),
        torch.where((upper < 0) & (upper > -NORMAL), 0.0, upper),
    )
