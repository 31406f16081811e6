"""Sign, floor, ceil and round as pieces: constant before the first jump in [l, u] and behind the last; between the two,
whose jumps lie 1 apart, f lies between two lines x + c, c + 1 of c, each a piece.

Pieces are closed, and a piece's value at a jump is the limit from its side: so both limits are there, and the value at
the jump is one of them (the sign's 0 has a piece of its own). A machine may flush a number below the smallest normal
one to zero before it looks: where a jump is at 0, the pieces beside it are there with the values of both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from zonocuda.checker.pieces import STRAIGHT, Function, Piece

NORMAL = 2.0**-126
"""The smallest normal number of float32, and more than that of float64."""
LARGEST = 2.0**50
"""Beyond, jumps may be no floats."""


def _line(first: float, last: float, slope: int, offset: float) -> Piece:
    return Piece(first, last, STRAIGHT, lambda x: x * slope + offset, lambda x: float(slope))


def _constants(first: float, last: float, *values: float) -> Iterator[Piece]:
    """One over the other: f takes values between the least and the largest."""
    return (_line(first, last, 0, value) for value in values)


def _lines(first: float, last: float, *offsets: float) -> Iterator[Piece]:
    return (_line(first, last, 1, offset) for offset in offsets)


def _signs(lower: float, upper: float) -> Iterator[Piece]:
    yield from _constants(-math.inf, -NORMAL, -1.0)
    if lower < 0:
        yield from _constants(-NORMAL, 0.0, -1.0, 0.0)
    yield from _constants(0.0, 0.0, 0.0)
    if upper > 0:
        yield from _constants(0.0, NORMAL, 0.0, 1.0)
    yield from _constants(NORMAL, math.inf, 1.0)


def _integers(
    value: Callable[[float], int], jump: Callable[[int], float], least: float, flushed: tuple[float, float] | None
) -> Function:
    """Of f, which jumps from k to k + 1 at ``jump(k)``, and lies between x + ``least`` and that plus 1; on the interval
    ``flushed`` it may have the value of either end."""

    def plain(lower: float, upper: float) -> Iterator[Piece]:
        first, last = value(lower), value(upper)
        if first == last:
            yield from _constants(lower, upper, first)
            return
        begin, end = jump(first), jump(last - 1)
        yield from _constants(lower, begin, first)
        if begin < end:
            yield from _lines(begin, end, least, least + 1)
        yield from _constants(end, upper, last)

    def pieces(lower: float, upper: float) -> Iterator[Piece]:
        is_wide = max(-lower, upper) > LARGEST
        own = list(_lines(lower, upper, least, least + 1) if is_wide else plain(lower, upper))
        if flushed is None or lower >= flushed[1] or upper <= flushed[0]:
            yield from own
            return
        first, last = flushed
        yield from (replace(piece, last=min(piece.last, first)) for piece in own if piece.first < first)
        yield from _constants(first, last, value(first), value(last))
        yield from (replace(piece, first=max(piece.first, last)) for piece in own if piece.last > last)

    def ends(lower: float, upper: float) -> tuple[float, float]:
        if flushed is not None:
            lower = flushed[0] if flushed[0] < lower < flushed[1] else lower
            upper = flushed[1] if flushed[0] < upper < flushed[1] else upper
        return float(value(lower)), float(value(upper))

    return Function(pieces, ends=ends)


STEPS: dict[str, Function] = {
    "sign": Function(_signs, (-1.0, 1.0)),
    "floor": _integers(math.floor, lambda k: k + 1.0, -1.0, (-NORMAL, 0.0)),
    "ceil": _integers(math.ceil, float, 0.0, (0.0, NORMAL)),
    "round": _integers(round, lambda k: k + 0.5, -0.5, None),
}
"""By the name of a function."""
