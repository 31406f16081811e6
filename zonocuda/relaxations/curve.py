"""What the lines of a smooth function need to know of it: where it bends, its derivative, and where a line touches it.

Only three facts must hold for lines to be sound: the values' own error (:func:`zonocuda.ops.elementary`), that of the
derivative (``derivative``), and where f is convex and where concave (``breaks``, ``bends``). ``touching`` may be any
number; it decides how tight lines are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.functions import FunctionName, RoundingName
from zonocuda.ops import elementary

CONVEX, STRAIGHT, CONCAVE = 1, 0, -1
MIXED = 2
"""More than one bend."""

Parts = Iterator[tuple[Tensor, Tensor, Tensor]]
"""a, b and t of parts [a, b] of intervals, none where a > b; t is about where f' is a slope."""

RELATIVE = 2.0**-46
"""More than the relative error of products and quotients of a few elementary functions: at most 64 units of 2^-53."""
ABSOLUTE = 2.0**-1000
"""More than they lose to underflow, and to arguments that are cut off where their function is constant by then."""


@dataclass(frozen=True)
class Turn:
    """f falls before its only minimum, which lies in [first, last], and rises behind it; f >= ``value``."""

    first: float
    last: float
    value: float


@dataclass(frozen=True)
class Curve:
    """A function f.

    Attributes:
        function, parameter: see :func:`zonocuda.ops.elementary`.
        derivative: f'(x) in float64, and more than its error. At a break it may be that of either side's piece that is
            not straight.
        touching: for slopes and the number of a piece, about where f' is the slope there; an infinity or any number
            where it is so nowhere.
        limits: the least and the largest derivative, about.
        breaks: where f may bend another way, ascending: inflection points, kinks, poles. Between them f has one bend.
        bends: of each piece, CONVEX, STRAIGHT or CONCAVE; one more than breaks.
        blur: more than M delta and M delta^2, where breaks are within delta of inflection points, and |f''| <= M within
            delta of them.
        turn: where f turns from falling to rising, if it does; else f is monotone on each side of a pole.
        rises: whether it rises, where it does not turn.
        pole: where |f| is infinite, at a break.
        ends: the limits of f at the infinities, where the op has NaN.
        zero_to, same_from: f is 0 up to the first, and x from the second on.
    """

    function: FunctionName
    derivative: Callable[[Tensor], tuple[Tensor, Tensor]]
    touching: Callable[[Tensor, int], Tensor]
    limits: tuple[float, float]
    breaks: tuple[float, ...] = ()
    bends: tuple[int, ...] = (CONVEX,)
    parameter: float = 1.0
    blur: float = 0.0
    turn: Turn | None = None
    rises: bool = True
    pole: float | None = None
    ends: tuple[float | None, float | None] = (None, None)
    zero_to: float = -math.inf
    same_from: float = math.inf

    def value(self, x: Tensor, rounding: RoundingName = "nearest") -> Tensor:
        """f(x), or a bound of it."""
        y = elementary(x, self.function, self.parameter, rounding)
        for infinity, limit in zip((-math.inf, math.inf), self.ends, strict=True):
            if limit is not None:
                y = torch.where(x == infinity, limit, y)
        return y

    def slope(self, x: Tensor) -> Tensor:
        """About f'(x), of one side at a kink."""
        found = self.derivative(x)[0]
        if self.zero_to > -math.inf:
            found = torch.where(x <= self.zero_to, 0.0, found)
        return found if self.same_from == math.inf else torch.where(x >= self.same_from, 1.0, found)

    def piece(self, number: int) -> tuple[float, float]:
        """The ends of a piece."""
        ends = (-math.inf, *self.breaks, math.inf)
        return ends[number], ends[number + 1]


def relative(value: Tensor, size: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A derivative whose error is at most RELATIVE times ``size``, by default its own."""
    return value, (value.abs() if size is None else size) * RELATIVE + ABSOLUTE
