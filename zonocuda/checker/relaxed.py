"""Activations between lines, in balls: what becomes of rows v of their outputs, whose numbers are balls.

For lines s x + d <= f(x) <= s x + e, v f(x) >= v s x + max(v, 0) d + min(v, 0) e, and <= the same with d and e
exchanged. Slopes are floats; where they depend on the sign of v that of its middle decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np
from flint import arb

from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, zeros
from zonocuda.checker.functions import least, most
from zonocuda.checker.maps import Ends, floats_above, floats_below
from zonocuda.checker.products import corners
from zonocuda.checker.slopes import by_rule
from zonocuda.graph import Bilinear, Elementwise, Relu

Image = tuple[Array, Array, Array]
"""Rows ``[R, N]`` of what an activation reads, and offsets ``[R]`` below and above."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Slopes ``[K]`` or ``[R, K]`` where v < 0 and where v >= 0, of the neurons that are listed; ``is_one``: they are
    the same, and what is above is wanted, too."""

    negative: Any
    nonnegative: Any
    is_one: bool = False

    def of(self, row: int, place: int, is_nonnegative: bool) -> float:
        """A number of them."""
        chosen = self.nonnegative if is_nonnegative else self.negative
        return float(chosen[place] if chosen.ndim == 1 else chosen[row, place])


class Relaxed(Protocol):
    """An activation whose input has known bounds."""

    def image(self, v: Array, chosen: Chosen) -> Image:
        """What becomes of rows."""


@dataclass(frozen=True, eq=False)
class RelaxedRelu:
    """A ReLU's bounds; its neurons that are zero; those that take a slope: where the certificate has it, or a default.

    A neuron for which the certificate has a slope takes it even where its sign is known here: so bounds never get
    worse by what this check knows better.
    """

    ends: Ends
    zero: Any
    relaxed: Any
    listed: Any
    default: Mapping[int, float]

    @staticmethod
    def of(ends: Ends, listed: Any) -> RelaxedRelu:
        """``listed``: for every neuron its place among those with slopes, or -1."""
        low, high = ends
        dead = np.array([bool(value <= 0) for value in high], dtype=bool)
        active = np.array([bool(value >= 0) for value in low], dtype=bool)
        relaxed = np.flatnonzero((listed >= 0) | ~(dead | active))
        default = {int(j): _slope(float((high[j] / (high[j] - low[j])).mid())) for j in relaxed if listed[j] < 0}
        return RelaxedRelu(ends, np.flatnonzero(dead & (listed < 0)), relaxed, listed, default)

    def image(self, v: Array, chosen: Chosen) -> Image:
        """0 <= relu(x) - s x <= max(-s l, (1 - s) u)."""
        image, below, above = v.copy(), zeros(len(v)), zeros(len(v))
        image[:, self.zero] = ZERO
        for r, row in enumerate(v):
            for j in self.relaxed:
                value, place = row[j], self.listed[j]
                if value.is_zero():
                    continue
                slope = self.default[int(j)] if place < 0 else chosen.of(r, place, bool(value.mid() >= 0))
                twice = (-slope * self.ends[0][j]).max((ONE - slope) * self.ends[1][j])
                image[r, j] = value * slope
                below[r] += value.min(ZERO) * twice
                above[r] += value.max(ZERO) * twice
        return image, below, above


def _slope(value: float) -> float:
    """A slope: any number in [0, 1] is one, and everything else, NaN among it, is replaced by one."""
    return value if 0 <= value <= 1 else 0.0


@dataclass(frozen=True, eq=False)
class RelaxedFunction:
    """A function of every neuron, on float bounds."""

    op: Elementwise
    low: list[float]
    high: list[float]
    listed: Any
    default: list[float]
    known: dict[tuple[int, float, bool], arb] = field(default_factory=dict)

    @staticmethod
    def of(op: Elementwise, ends: Ends, listed: Any) -> RelaxedFunction:
        """``listed`` as for ReLUs."""
        low, high = floats_below(ends[0]), floats_above(ends[1])
        default = np.zeros(len(low))
        free = np.flatnonzero(listed < 0)
        default[free] = by_rule(op, low[free], high[free])[0]
        return RelaxedFunction(op, low.tolist(), high.tolist(), listed, default.tolist())

    def offset(self, j: int, slope: float, upper: bool) -> arb:
        """e (for ``upper``) or d."""
        key = j, slope, upper
        if key not in self.known:
            self.known[key] = arb((most if upper else least)(self.op, slope, self.low[j], self.high[j]))
        return self.known[key]

    def image(self, v: Array, chosen: Chosen) -> Image:
        """See the module."""
        image, below, above = v.copy(), zeros(len(v)), zeros(len(v))
        for r, row in enumerate(v):
            for j, value in enumerate(row):
                if value.is_zero():
                    continue
                place = self.listed[j]
                slope = self.default[j] if place < 0 else chosen.of(r, place, bool(value.mid() >= 0))
                image[r, j] = value * slope
                for part, upper in ((value.max(ZERO), False), (value.min(ZERO), True)):
                    if not part.is_zero():
                        below[r] += part * self.offset(j, slope, upper)
                        if chosen.is_one:
                            above[r] += part * self.offset(j, slope, not upper)
        return image, below, above if chosen.is_one else balls([arb("inf")] * len(v))


@dataclass(frozen=True, eq=False)
class RelaxedProducts:
    """Sums of products, between planes (:mod:`zonocuda.checker.products`): of every pair x, y of factors, with the mean
    of the two numbers r that they have, a = yl + r (yu - yl) and b = xl + r (xu - xl), or for planes above, where the
    two signs have slopes of their own, b = xu - r (xu - xl). Of what is at most ``limit`` -limit and limit are taken
    for planes that are farther apart."""

    terms: int
    limit: float
    ends: Ends
    listed: Any
    known: dict[tuple[int, float, bool], tuple[arb, arb, arb, arb]] = field(default_factory=dict)

    @staticmethod
    def of(op: Bilinear, ends: Ends, listed: Any) -> RelaxedProducts:
        """``listed`` as for ReLUs; r is 1/2 for others."""
        return RelaxedProducts(op.terms, op.most, ends, listed)

    def plane(self, p: int, r: float, turned: bool) -> tuple[arb, arb, arb, arb]:
        """a, b, and the least and the largest x y - a x - b y, of pair number p."""
        key = p, r, turned
        if key not in self.known:
            count = len(self.ends[0]) // 2
            (xl, yl), (xu, yu) = ((end[p], end[count + p]) for end in self.ends)
            near = [float(t.mid()) for t in (xl, xu, yl, yu)]
            a = arb(near[2] + r * (near[3] - near[2]))
            b = arb(near[0] + (1 - r if turned else r) * (near[1] - near[0]))
            low, high = corners((balls([xl - b]), balls([xu - b])), (balls([yl - a]), balls([yu - a])))
            below, above = low[0] - a * b, high[0] - a * b
            is_near = self.limit == inf or bool(above - below <= 2 * self.limit)
            self.known[key] = (a, b, below, above) if is_near else (ZERO, ZERO, -arb(self.limit), arb(self.limit))
        return self.known[key]

    def image(self, v: Array, chosen: Chosen) -> Image:
        """See the module."""
        count = len(self.ends[0]) // 2
        image, below, above = zeros(len(v), 2 * count), zeros(len(v)), zeros(len(v))
        for r, row in enumerate(v):
            for i, value in enumerate(row):
                if value.is_zero():
                    continue
                is_nonnegative = bool(value.mid() >= 0)
                positive, negative = value.max(ZERO), value.min(ZERO)
                for p in range(i * self.terms, (i + 1) * self.terms):
                    places = [self.listed[p], self.listed[count + p]]
                    share = sum(chosen.of(r, k, is_nonnegative) if k >= 0 else 0.5 for k in places) / 2
                    a, b, low, high = self.plane(p, share, not (is_nonnegative or chosen.is_one))
                    image[r, p], image[r, count + p] = value * a, value * b
                    below[r] += positive * low + negative * high
                    above[r] += positive * high + negative * low
        return image, below, above if chosen.is_one else balls([arb("inf")] * len(v))


def relaxed(op: Any, ends: Ends, listed: Any) -> Relaxed:
    """An activation with bounds ``ends`` of what it reads.

    Raises:
        NotImplementedError: an operator that has no lines here.
    """
    if isinstance(op, Elementwise):
        return RelaxedFunction.of(op, ends, listed)
    if isinstance(op, Bilinear):
        return RelaxedProducts.of(op, ends, listed)
    if isinstance(op, Relu):
        return RelaxedRelu.of(ends, listed)
    raise NotImplementedError(f"zonocuda check: op {op.kind} is not supported")
