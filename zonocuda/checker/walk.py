"""The leaves of a certificate's trees (:mod:`zonocuda.checker.forest`), one by one, with what lies above each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from numpy.typing import NDArray

from zonocuda.checker.certificate import CertificateError
from zonocuda.checker.forest import INPUT, LEAF, NEURON, Floats, Forest

MAX_DEPTH = 2**12
"""Of a tree."""
BLOCK = 2**12
"""Elements of an array that are Python's numbers at a time."""


@dataclass(frozen=True)
class Cut:
    """What one split of a neuron leaves: z >= point, or z <= point."""

    relu: int
    neuron: int
    above: bool
    point: float


@dataclass(frozen=True)
class Pair:
    """A row of a leaf: of which disjunct, combined of what, with which slopes and multipliers (by neuron split)."""

    disjunct: int
    rows: tuple[tuple[int, float], ...]
    slopes: int
    multipliers: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Box:
    """Ends ``[N0]``."""

    lower: Floats
    upper: Floats

    def halves(self, j: int, t: float) -> tuple[Box, Box]:
        """The part with x_j >= t and that with x_j <= t."""
        low, high = self.lower.copy(), self.upper.copy()
        low[j], high[j] = max(low[j], t), min(high[j], t)
        return Box(low, self.upper), Box(self.lower, high)


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf and what lies above it.

    Attributes:
        box: its box.
        cuts: the neuron splits above it, from the root on.
        scope: on which box bounds are derived, and how many of ``cuts`` count there; None for the region's own.
        slopes: of these bounds.
        pairs: its rows.
    """

    box: Box
    cuts: tuple[Cut, ...]
    scope: tuple[Box, int] | None
    slopes: int
    pairs: tuple[Pair, ...]

    @property
    def size(self) -> int:
        """About how many numbers it holds that no other leaf does."""
        return 64 + len(self.cuts) + 2 * len(self.box.lower) + sum(len(p.rows) + len(p.multipliers) for p in self.pairs)


def walk(forest: Forest, lower: Floats, upper: Floats) -> Iterator[Iterator[Leaf]]:
    """The leaves of every tree of a forest over a box with ends ``[N0]``, each read when it is asked for: a tree is to
    be used up before the next one.

    Raises:
        CertificateError: nodes that are no forest of so many trees, or fields that do not fit them; at the latest where
            the trees end.
    """
    walker = _Walker(forest, Box(lower, upper))
    for disjuncts in chain(repeat((0,), len(forest.lemmas)), forest.trees):
        yield walker.tree(disjuncts)
    walker.finish()


class _Feed:
    """Arrays of one length, whose elements are taken one after the other."""

    def __init__(self, what: str, *arrays: NDArray[Any]) -> None:
        self.what, self.arrays = what, arrays
        self.place = self.first = 0
        self.block: list[Any] = []

    @property
    def left(self) -> int:
        """How many are left."""
        return len(self.arrays[0]) - self.place

    def take(self) -> Any:
        """The next one: a number, or a tuple of those of all arrays."""
        if self.left <= 0:
            raise CertificateError("forest: a child is missing")
        if self.place >= self.first + len(self.block):
            self.first = self.place
            columns = [values[self.place : self.place + BLOCK].tolist() for values in self.arrays]
            self.block = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        self.place += 1
        return self.block[self.place - 1 - self.first]

    def some(self, count: int) -> tuple[Any, ...]:
        """The next ``count``."""
        if count > self.left:
            raise CertificateError(f"forest: {self.what} holds too little")
        return tuple(self.take() for _ in range(count))


class _Walker:
    """A walk under way: positions in the arrays."""

    def __init__(self, forest: Forest, box: Box) -> None:
        self.box = box
        self.kinds = _Feed("kind", forest.kind)
        self.inputs = _Feed("inputs", forest.inputs, forest.at)
        self.neurons = _Feed("neurons", forest.relus, forest.neurons, forest.points)
        self.leaves = _Feed("scope", forest.scope, forest.slopes)
        self.pairs = _Feed("counts", forest.counts, forest.row_slopes, forest.multiplied)
        self.rows = _Feed("rows", forest.rows, forest.weights)
        self.multipliers = _Feed("splits", forest.splits, forest.multipliers)

    def finish(self) -> None:
        """Raises where something is left."""
        every = self.kinds, self.inputs, self.neurons, self.leaves, self.pairs, self.rows, self.multipliers
        if any(feed.left for feed in every):
            raise CertificateError("forest: there is more than its trees take")

    def tree(self, disjuncts: tuple[int, ...]) -> Iterator[Leaf]:
        """The leaves of the next tree."""
        stack = [_Place(self.box, (), None, 0)]
        while stack:
            place = stack.pop()
            if place.depth > MAX_DEPTH:
                raise CertificateError(f"forest: a tree is deeper than {MAX_DEPTH}")
            kind = self.kinds.take()
            if kind == LEAF:
                yield self.read(place, disjuncts)
            elif kind == INPUT:
                j, t = self.inputs.take()
                stack += [_Place(box, place.cuts, place, place.depth + 1) for box in place.box.halves(j, t)]
            elif kind == NEURON:
                relu, neuron, point = self.neurons.take()
                for above in (True, False):
                    cuts = (*place.cuts, Cut(relu, neuron, above, point))
                    stack.append(_Place(place.box, cuts, place, place.depth + 1))
            else:
                raise CertificateError("forest: kind holds other numbers than 0, 1 and 2")

    def read(self, place: _Place, disjuncts: tuple[int, ...]) -> Leaf:
        """The next leaf."""
        scope, slopes = self.leaves.take()
        if not -1 <= scope <= place.depth:
            raise CertificateError("forest: scope is no number of splits above the leaf")
        on = None
        if scope >= 0:
            on = place
            while on.depth > scope:
                assert on.parent is not None, "the root's depth is 0"
                on = on.parent
        pairs = tuple(self.read_pair(disjunct, len(place.cuts)) for disjunct in disjuncts)
        return Leaf(place.box, place.cuts, None if on is None else (on.box, len(on.cuts)), slopes, pairs)

    def read_pair(self, disjunct: int, cuts: int) -> Pair:
        """The next row of a leaf."""
        count, slopes, many = self.pairs.take()
        rows, multipliers = self.rows.some(count), self.multipliers.some(many)
        if not all(0 <= split < cuts for split, _ in multipliers):
            raise CertificateError("forest: a multiplier belongs to no split above its leaf")
        return Pair(disjunct, rows, slopes, multipliers)


@dataclass(frozen=True, eq=False)
class _Place:
    """A node: its box, the neuron splits above it, its parent, and its depth."""

    box: Box
    cuts: tuple[Cut, ...]
    parent: _Place | None
    depth: int
