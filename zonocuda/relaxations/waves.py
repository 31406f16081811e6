"""sin and cos on any interval.

h = f - s x moves by -2 pi s over a period. For s >= 0 its least value on [l, u] is therefore taken in the last period
of [l, u], and its largest in the first one; for s < 0 the other way round. A period has at most two parts that are
convex, and two that are concave: the bends change at multiples of pi for sin, and pi / 2 before them for cos.

Beyond |x| = 2^20 all that is known is -1 <= f <= 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.functions import RoundingName
from zonocuda.ops import elementary
from zonocuda.relaxations.curve import CONCAVE, CONVEX, MIXED, Curve, Parts
from zonocuda.relaxations.rule import Bounds
from zonocuda.relaxations.smooth import SmoothRule
from zonocuda.relaxations.starts import Aim
from zonocuda.roundoff import outward

PERIOD = 6.2831854
"""More than 2 pi, by more than a sum up to 2^20 rounds."""
FAR = 2.0**20
ROUNDED: tuple[RoundingName, RoundingName] = ("down", "up")

_LIMITS = (-1.0, 1.0)


def _nowhere(slope: Tensor, piece: int) -> Tensor:
    raise NotImplementedError("waves: parts are found by the rule")


def _sin_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return elementary(x, "cos"), torch.full_like(x, 2.0**-46)


def _cos_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return -elementary(x, "sin"), torch.full_like(x, 2.0**-46)


SIN = Curve("sin", _sin_slope, _nowhere, _LIMITS)
COS = Curve("cos", _cos_slope, _nowhere, _LIMITS)


class WaveRule(SmoothRule):
    """The rule of sin, or of cos x = sin (x + pi / 2)."""

    def __init__(self, curve: Curve) -> None:
        super().__init__(curve)
        self.ahead = math.pi / 2 if curve.function == "cos" else 0.0

    def _unbounded(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower < -FAR) | (upper > FAR)

    def _range(self, lower: Tensor, upper: Tensor) -> Bounds:
        """The ends, or -1 and 1 where there may be an extremum between."""
        low, high = lower.double(), upper.double()
        known = ~self._unbounded(low, high)
        values = {way: self.curve.value(torch.stack([low, high]), way) for way in ROUNDED}
        least, most = torch.minimum(*values["down"]), torch.maximum(*values["up"])
        found = []
        for best, extreme in ((least, -1.0), (most, 1.0)):
            inside = _reaches(low + self.ahead, high + self.ahead, extreme)
            own = (known & ~inside) | low.isnan() | high.isnan()
            found.append(outward(torch.where(own, best, extreme), lower.dtype, extreme > 0))
        return found[0], found[1]

    def _reach(self, lower: Tensor, upper: Tensor) -> Bounds:
        first, last = (self.curve.derivative(x)[0] for x in (lower, upper))
        low, high = torch.minimum(first, last), torch.maximum(first, last)
        begin, end = (x + (self.ahead + math.pi / 2) for x in (lower, upper))
        return low.masked_fill(_reaches(begin, end, -1.0), -1.0), high.masked_fill(_reaches(begin, end, 1.0), 1.0)

    def _initial(self, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
        """0 where [l, u] has two maxima and two minima, or nearly: it is best, and bisection only comes near it."""
        return super()._initial(lower, upper, aim).masked_fill(upper - lower >= 1.5 * PERIOD, 0)

    def _bend(self, lower: Tensor, upper: Tensor) -> Tensor:
        first, last = (((end + self.ahead) / math.pi).floor() for end in (lower, upper))
        return torch.where(first == last, torch.where(first % 2 == 1, CONVEX, CONCAVE), MIXED)

    def _blur(self, lower: Tensor, upper: Tensor) -> float | Tensor:
        """Multiples of pi are within delta = (|x| + 8) 2^-51, and |f''| <= 2 delta about them: 2 delta^2."""
        return (torch.maximum(lower.abs(), upper.abs()) + 8).square() * 2.0**-100

    def parts(self, lower: Tensor, upper: Tensor, slope: Tensor, bend: int) -> Parts:
        first = (slope >= 0) == (bend == CONCAVE)
        a = torch.where(first, lower, torch.maximum(lower, upper - PERIOD))
        b = torch.where(first, torch.minimum(upper, lower + PERIOD), upper)
        start = ((a + self.ahead) / math.pi).floor()
        odd = start % 2
        number = start + (odd if bend == CONCAVE else 1 - odd)  # sin is convex between pi and 2 pi
        angle = (slope if bend == CONCAVE else -slope).clamp(-1, 1).acos()
        for _ in range(2):
            begin = number * math.pi - self.ahead
            low = torch.where(number == start, a, torch.maximum(a, begin))
            high = torch.minimum(b, (number + 1) * math.pi - self.ahead)
            yield low, high, torch.minimum(torch.maximum(begin + angle, low), high)
            number = number + 2


def _reaches(lower: Tensor, upper: Tensor, extreme: float) -> Tensor:
    """Whether sin may be 1 (or -1) in [l, u]; 10^-9 of a period is more than what rounding does up to 2^20."""
    first, last = (end / (2 * math.pi) - extreme / 4 for end in (lower, upper))
    return (last + 1e-9).floor() >= (first - 1e-9).ceil()
