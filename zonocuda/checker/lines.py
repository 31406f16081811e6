"""Lines around smooth functions and planes around products, by rule, in float64, for batches of sets.

slope x + low <= f(x) <= slope x + high; of a sum of products one plane for each of them, with r = 1/2
(:mod:`zonocuda.checker.products`). Numbers that are held are proven: those of functions in balls, those of planes with
|fl((x - b)(y - a)) - (x - b)(y - a)| <= 3 u |.| / (1 - 3 u) and one rounding each for a b and the difference.
Of what is known to be at most L (:mod:`zonocuda.checker.norms`) -L and L are taken for planes that are farther apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.floats import Floats, U, above, gamma
from zonocuda.checker.functions import each, least, most
from zonocuda.checker.products import corners, split
from zonocuda.checker.slopes import by_rule
from zonocuda.graph import Bilinear, Elementwise

Smooth = Elementwise | Bilinear
"""The activations that are not ReLUs."""
Ends = tuple[Floats, Floats]


@dataclass(frozen=True, eq=False)
class Band:
    """Parallel lines.

    Attributes:
        terms: 0 for a function of one number; else the products of a sum.
        slope: ``[S, M]``, of what is read.
        low, high: ``[S, N max(terms, 1)]``.
    """

    terms: int
    slope: Floats
    low: Floats
    high: Floats

    @staticmethod
    def of(op: Smooth, low: Floats, high: Floats) -> Band:
        """The band of the least area, for bounds ``[S, M]`` of what is read."""
        if isinstance(op, Bilinear):
            return _plane(op, low, high)
        slope = by_rule(op, low, high)[0]
        return Band(0, slope, each(least, op, slope, low, high), each(most, op, slope, low, high))

    def fold(self, x: Floats) -> Floats:
        """Sums ``[..., N]`` over what each value is a function of, ``[..., M]``."""
        if not self.terms:
            return x
        first, second = split(x, self.terms)
        return np.asarray((first + second).sum(-1))

    def total(self, offsets: Floats) -> Floats:
        """Sums ``[..., N]`` of offsets."""
        return np.asarray(offsets.reshape(*offsets.shape[:-1], -1, self.terms).sum(-1)) if self.terms else offsets

    @property
    def operations(self) -> int:
        """Roundings of either sum, at most."""
        return 2 * self.terms + 4


@dataclass(frozen=True, eq=False)
class Lines:
    """What a row v goes through: lines below f where v >= 0 and above it where v < 0; arrays as in :class:`Band`."""

    terms: int
    negative: Floats
    nonnegative: Floats
    below: Floats
    above: Floats

    @staticmethod
    def of(op: Smooth, low: Floats, high: Floats) -> Lines:
        """Lines that waste least."""
        if isinstance(op, Bilinear):
            plane = _plane(op, low, high)
            return Lines(op.terms, plane.slope, plane.slope, plane.low, plane.high)
        _, under, over = by_rule(op, low, high)
        return Lines(0, over, under, each(least, op, under, low, high), each(most, op, over, low, high))

    def image(self, v: Any, which: NDArray[np.intp]) -> tuple[Any, Any]:
        """Rows ``[R, M]`` for rows v ``[R, N]`` over the sets ``which`` ``[R]``, and summands of the offset below, for
        floats or for balls."""
        spread = v if not self.terms else np.repeat(v, self.terms, axis=1)
        is_nonnegative = np.asarray(spread >= 0, dtype=bool)
        offset = np.where(is_nonnegative, self.below[which], self.above[which])
        is_zero = np.asarray(spread == 0, dtype=bool)
        summands = np.where(is_zero, 0.0, spread * np.where(is_zero, 0.0, offset))
        wide = spread if not self.terms else np.concatenate([spread, spread], axis=1)
        return wide * np.where(wide >= 0, self.nonnegative[which], self.negative[which]), summands


def _plane(op: Bilinear, low: Floats, high: Floats) -> Band:
    (xl, yl), (xu, yu) = (tuple(side.reshape(len(low), -1) for side in split(end, op.terms)) for end in (low, high))
    a, b = yl + (yu - yl) / 2, xl + (xu - xl) / 2
    smallest, largest = corners((xl - b, xu - b), (yl - a, yu - a))
    base = a * b
    slack = above(8 * U * (np.maximum(np.abs(smallest), np.abs(largest)) + np.abs(base)), 8)
    under, over = (smallest - base) - slack, (largest - base) + slack
    under, over = np.nextafter(under, -np.inf), np.nextafter(over, np.inf)
    if op.most < np.inf:
        near = np.nextafter(over - under, np.inf) <= 2 * op.most
        under, over = np.where(near, under, -op.most), np.where(near, over, op.most)
        a, b = np.where(near, a, 0.0), np.where(near, b, 0.0)
    return Band(op.terms, np.concatenate([a, b], axis=1), under, over)


def interval(op: Smooth, low: Floats, high: Floats) -> Ends:
    """Bounds ``[S, N]`` of values from those ``[S, M]`` of what is read."""
    if isinstance(op, Elementwise):
        return each(least, op, 0.0, low, high), each(most, op, 0.0, low, high)
    (xl, yl), (xu, yu) = (split(end, op.terms) for end in (low, high))
    smallest, largest = corners((xl, xu), (yl, yu))
    error = above(gamma(op.terms + 1) * np.maximum(np.abs(smallest), np.abs(largest)).sum(-1), op.terms + 1)
    under, over = smallest.sum(-1) - 2 * error, largest.sum(-1) + 2 * error
    return (under, over) if op.most == np.inf else (np.fmax(under, -op.most), np.fmin(over, op.most))
