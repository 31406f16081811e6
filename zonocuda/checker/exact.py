"""Rows of :mod:`zonocuda.checker.sets` once more, in balls: those that float64 leaves open, and others at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

import numpy as np
from flint import arb

from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls
from zonocuda.checker.ends import Ended, Endings
from zonocuda.checker.floats import Floats
from zonocuda.checker.lines import Lines
from zonocuda.checker.maps import Ends, Maps, cast_error, interval
from zonocuda.checker.passes import Passes
from zonocuda.checker.sets import Index, Pick, Sets
from zonocuda.graph import Cast, Node

Start = Sequence[tuple[str, Array]]
"""Nodes, and rows ``[1, N]`` that begin there; one row is the sum."""


class ExactRows(Passes):
    """Passes of one row each, with bounds of ReLUs' inputs and slopes that are floats."""

    def __init__(self, maps: Maps, sets: Sets, number: int, lower: Floats, upper: Floats) -> None:
        """Over the set of that ``number``, within a box ``[N0]``."""
        super().__init__(maps, (balls(lower.tolist()), balls(upper.tolist())))
        self.sets, self.number = sets, number
        for node in maps.graph.nodes:
            if isinstance(node.op, Cast) and node.inputs[0] in sets.sizes:
                ends = _sizes(sets.sizes, node.inputs[0], number)
                self.departures[node.name] = cast_error(node.op, -ends, ends)
            elif maps.rounds(node) and node.name in sets.sizes:
                own = _sizes(sets.sizes, node.name, number)
                error = maps.departure(node, lambda name: _sizes(sets.sizes, name, number), (-own, own))
                assert error is not None, "it rounds"
                self.departures[node.name] = error

    def size(self, name: str) -> Array:
        return _sizes(self.sets.sizes, name, self.number)

    def row(self, start: Start, pick: Pick, chosen: int) -> Ends:
        """Exact lower and upper bounds of one row, which begins at several nodes (``[1, N]`` at each) and takes the
        slopes of the row ``chosen``."""
        self._pick, self._chosen = pick, chosen
        (name, v), *more = start
        return self.carry(name, v, more)

    def through(self, name: str, v: Array, first: int) -> tuple[Array, Array, Array]:
        """One row before an activation, and the offsets below and above."""
        if name in self.sets.lines:
            size = self.sets.sizes[name]
            return self.between(self.sets.lines[name], v, size[self.number if len(size) > 1 else 0])
        slopes, _ = self._pick(name, np.array([self.number]), np.array([self._chosen]))
        relaxed = self.sets.relus[name]
        place = self.number if len(relaxed.low) > 1 else 0
        image, below, above = v.copy(), ZERO, ZERO
        for j, value in enumerate(v[0]):
            if value.is_zero():
                continue
            slope = (slopes.nonnegative if value.mid() >= 0 else slopes.negative)[0, j].item()
            low, high = balls([relaxed.low[place, j].item(), relaxed.high[place, j].item()])
            image[0, j] = value * slope
            if low >= 0 and slope == 1:
                continue
            twice = (-slope * low).max((ONE - slope) * high).max(ZERO)
            below += value.min(ZERO) * twice
            above += value.max(ZERO) * twice
        return image, balls([below]), balls([above])

    def between(self, lines: Lines, v: Array, size: Floats) -> tuple[Array, Array, Array]:
        """The same between lines, whose numbers are proven; ``size`` bounds the values, for the sake of numbers v whose
        sign is not known."""
        unknown = np.array([value.contains(0) and not value.is_zero() for value in v[0]], dtype=bool)
        lost = sum((abs(value) * m for value, m in zip(v[0, unknown], size[unknown].tolist(), strict=True)), ZERO)
        known = v.copy()
        known[0, unknown] = ZERO
        image, summands = lines.image(known, np.array([self.number]))
        return image, balls([summands.sum() - lost]), balls([arb("inf")])


def _sizes(sizes: Mapping[str, Floats], name: str, number: int) -> Array:
    """Of the values of a node, in one of the sets."""
    size = sizes[name]
    return balls(size[number if len(size) > 1 else 0].tolist())


class Disagreement(Exception):  # noqa: N818 - it is about the machine
    """Balls do not confirm a bound of float64: the machine's arithmetic is not what is assumed of it."""


class Sample:
    """Carries some of the rows again, and compares.

    Attributes:
        share: which part of the rows; 1 for all.
        confirmed: how many were.
    """

    def __init__(self, maps: Maps, share: float, most: float, seed: int = 0) -> None:
        """At most so many rows."""
        self.maps, self.share, self.most = maps, share, most
        self.random = Random(seed)
        self.confirmed = 0

    def parts(self, count: int) -> list[Sample]:
        """Samples of so many parts of the rows: together they carry as many as this one may still."""
        left = self.most - self.confirmed
        numbers = [left] * count
        if left < np.inf:
            many, rest = divmod(int(left), max(1, count))
            lucky = set(self.random.sample(range(count), rest if count else 0))
            numbers = [many + (k in lucky) for k in range(count)]
        return [Sample(self.maps, self.share, most, self.random.getrandbits(32)) for most in numbers]

    @property
    def is_whole(self) -> bool:
        """Whether every row is carried again."""
        return self.share >= 1 and self.most == np.inf

    def confirm_interval(
        self,
        node: Node,
        before: Sequence[tuple[Floats, Floats]],
        low: Floats,
        high: Floats,
        sizes: Mapping[str, Floats],
    ) -> None:
        """Compares the intervals ``[S, N]`` of a node with those of balls; ``sizes`` are of the nodes before.

        Raises:
            Disagreement: they do not enclose them.
        """
        for number in range(len(low)):
            ends = [(balls(a[number].tolist()), balls(b[number].tolist())) for a, b in before]
            if any(not all(a.is_finite() and b.is_finite() and a <= b for a, b in zip(*e, strict=True)) for e in ends):
                continue  # an empty set, or one of which nothing is known
            exact = interval(self.maps, node, ends)
            error = self.maps.departure(node, partial(_sizes, sizes, number=number), exact)
            if error is not None:
                exact = exact[0] - error, exact[1] + error
            for a, b, x, y in zip(*exact, low[number].tolist(), high[number].tolist(), strict=True):
                if not (x != x or y != y or (a >= x and b <= y)):
                    raise Disagreement(
                        f"float64 bounds [{x!r}, {y!r}] at {node.name!r}, which balls bound by [{a}, {b}]"
                    )

    def chosen(self, count: int) -> list[int]:
        """Some of so many rows."""
        if self.confirmed >= self.most:
            return []
        some = [i for i in range(count) if self.share >= 1 or self.random.random() < self.share]
        return some[: int(min(len(some), self.most - self.confirmed))]

    def confirm(
        self,
        sets: Sets,
        which: Index,
        lower: Floats,
        upper: Floats,
        start: Start,
        pick: Pick,
        row: int,
        least: float,
        most: float,
        endings: Endings | None = None,
    ) -> None:
        """Compares the bounds of one row with what balls say.

        Raises:
            Disagreement: they are not below and above it.
        """
        exact = ExactRows(self.maps, sets, int(which[row]), lower, upper)
        exact.endings = {name: Ended(one.claim, balls(one.bound.tolist())) for name, one in (endings or {}).items()}
        low, high = exact.row(start, pick, row)
        self.confirmed += 1
        below = not least > -np.inf or low[0] >= least
        over = not most < np.inf or high[0] <= most
        if not (below and over):
            raise Disagreement(
                f"float64 bounds [{least!r}, {most!r}] of a row that balls bound by [{low[0]}, {high[0]}]"
            )
