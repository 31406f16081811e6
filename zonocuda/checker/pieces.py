"""Functions f of one input in balls, piece by piece, and bounds of f(x) - s x on an interval for any slope s.

On a piece [a, b] where f is convex, every t in it tells

    f(x) - s x >= f(t) - s t + (f'(t) - s)(x - t) >= f(t) - s t - max((f'(t) - s)+ (t - a), (s - f'(t))+ (b - t)),

and where f is concave or a line the least value is at a or b; the largest value is minus the least one of -f + s x. So
the t where a line of slope s touches f is searched for in floats: it may be any. Values and derivatives are those of
the library Arb (truncated power series), in balls. Where it is not known how a piece bends, the mean value theorem
bounds f, with a ball around f'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flint import arb, arb_series

from zonocuda.checker.arithmetic import ONE

CONVEX, STRAIGHT, CONCAVE = 1, 0, -1
STEPS = 100
"""Of the search for where a line touches, at most."""

Formula = Callable[[Any], Any]
"""f of a ball, or of a power series."""


@dataclass(frozen=True)
class Piece:
    """f on [first, last], with one bend, or None where that is not known; ``slope`` is about f'."""

    first: float
    last: float
    bend: int | None
    value: Formula
    slope: Callable[[float], float]


@dataclass(frozen=True)
class Function:
    """A function: its pieces on [l, u], from left to right, side by side or one over the other (f is between those),
    which cover [l, u] where f is defined on all of it; bounds of f everywhere; and of an f that nowhere falls, where
    they are floats, its least and its largest value on [l, u]."""

    pieces: Callable[[float, float], Iterator[Piece]]
    image: tuple[float, float] = (-math.inf, math.inf)
    ends: Callable[[float, float], tuple[float, float]] | None = None


def extreme(function: Function, slope: float, lower: float, upper: float, sign: int) -> float:
    """At most sign (f(x) - slope x)."""
    everywhere = function.image[0] if sign == 1 else -function.image[1]
    if not (math.isfinite(slope) and -math.inf < lower <= upper < math.inf):
        return everywhere if slope == 0 and lower <= upper else -math.inf
    if slope == 0 and function.ends is not None:
        least, most = function.ends(lower, upper)
        return least if sign == 1 else -most
    s, best, reached = arb(slope), None, lower
    for piece in function.pieces(lower, upper):
        a, b = max(lower, piece.first), min(upper, piece.last)
        if a > b:
            continue
        if a > reached:
            return -math.inf
        reached = b
        for value in _candidates(piece, s, slope, a, b, sign):
            best = value if best is None else best.min(value)
    if best is None or reached < upper or not best.is_finite():
        return everywhere if slope == 0 and best is not None and reached >= upper else -math.inf
    found = _down(best)
    return max(found, everywhere) if slope == 0 else found


def _candidates(piece: Piece, s: arb, slope: float, a: float, b: float, sign: int) -> Iterator[arb]:
    """Numbers of which one is at most sign (f(x) - s x) on [a, b]."""

    def at(x: float) -> arb:
        value: arb = (piece.value(arb(x)) - s * x) * sign
        return value

    if piece.bend is None and a < b:
        middle = a / 2 + b / 2
        around = arb(a).union(arb(b))
        yield at(middle) + (_expansion(piece, around)[1] - s) * sign * (around - middle)
    elif piece.bend is None or piece.bend * sign <= 0 or a == b:
        yield at(a)
        if b > a:
            yield at(b)
    else:
        t = _touching(piece, slope, a, b, sign)
        value, derivative = _expansion(piece, arb(t))
        rise, off = (derivative - s) * sign, arb(0)
        if t > a:
            off = off.max(rise * (arb(t) - a))
        if t < b:
            off = off.max(-rise * (arb(b) - t))
        yield (value - s * t) * sign - off


def _expansion(piece: Piece, x: arb) -> tuple[arb, arb]:
    """f and f' at every point of a ball; no numbers where a divisor may be 0, as one that has overflowed."""
    try:
        found = piece.value(arb_series([x, ONE], 2))
    except ValueError:
        return arb("nan"), arb("nan")
    return (found[0], found[1]) if isinstance(found, arb_series) else (arb(found), arb(0))


def _touching(piece: Piece, slope: float, a: float, b: float, sign: int) -> float:
    """About where f' is the slope, on a piece where sign f' rises: by false position (Illinois)."""
    low, high = ((piece.slope(x) - slope) * sign for x in (a, b))
    if not low < 0:
        return a
    if not high > 0:
        return b
    side = 0
    for step in range(STEPS):
        t = b - high * (b - a) / (high - low) if math.isfinite(high - low) and step % 8 < 7 else a / 2 + b / 2
        if not a < t < b:
            return min(max(t, a), b)
        rise = (piece.slope(t) - slope) * sign
        if rise < 0:
            a, low = t, rise
            high = high / 2 if side == -1 else high
            side = -1
        elif rise > 0:
            b, high = t, rise
            low = low / 2 if side == 1 else low
            side = 1
        else:
            return t
        if b - a <= 1e-14 * max(abs(a), abs(b)):
            break
    return a if -low < high else b


def _down(value: arb) -> float:
    """A float below."""
    end = value.lower()
    near = float(end.mid())
    return near if arb(near) <= end else math.nextafter(near, -math.inf)
