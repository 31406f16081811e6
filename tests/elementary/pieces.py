"""Pieces of an interval as balls, and the worst of what was found on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from flint import arb

from tests.elementary.rounding import power, span


def pieces(lower: float, upper: float, count: int) -> Iterator[arb]:
    """``count`` balls that cover [lower, upper]."""
    step = (arb(upper) - lower) / count
    for i in range(count):
        yield span(lower + step * i, lower + step * (i + 1))


def binades(upper: float, first: int = 16, lowest: int = -1076) -> Iterator[arb]:
    """Balls that cover [2^lowest, upper]: ``first`` in each of the topmost twelve binades, and two in each below.

    The topmost part of a binade is cut off: what rounds up across its end has a unit in the last place twice as large.
    """
    top, e = arb(upper), 0
    while not power(e - 1) < upper:
        e -= 1
    for i in range(e, lowest, -1):
        fine = [arb(j) / (2 * first) for j in range(first, 2 * first + 1)]
        for a, b in pairwise(fine if i > e - 12 else [arb(0.5), arb(31) / 32, arb(1)]):
            low, high = a * power(i), b * power(i)
            if low < top:
                yield span(low, high.min(top))


def signed(balls: Iterator[arb]) -> Iterator[arb]:
    """Each ball and its opposite."""
    for ball in balls:
        yield ball
        yield -ball


def worst(values: Iterator[arb]) -> arb:
    """The largest; NaN where one is not finite, so that no comparison holds."""
    result = arb(0)
    for value in values:
        if not value.is_finite():
            return arb.nan()
        result = result.max(value)
    return arb(result.upper())
