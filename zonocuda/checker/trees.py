"""Proofs by splitting: every leaf of every tree, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.certificate import CertificateError
from zonocuda.checker.claims import SLOPE_UNIT
from zonocuda.checker.derive import Cuts, Derivation, restricted
from zonocuda.checker.exact import ExactRows, Sample
from zonocuda.checker.floats import Floats
from zonocuda.checker.forest import Forest, Lemma
from zonocuda.checker.journal import Arrays
from zonocuda.checker.maps import ratio
from zonocuda.checker.parallel import Work
from zonocuda.checker.region import Progress
from zonocuda.checker.rows import Begun, Row
from zonocuda.checker.sets import FloatNet, Index, Relaxed, Sets, Slopes, carry, twice
from zonocuda.checker.walk import Box, Cut, Leaf, Pair, walk
from zonocuda.specs import LinearConstraint

SETS_AT_ONCE = 512
NUMBERS_AT_ONCE = 2**20
"""Of one kind of bound, for all sets of a batch."""
LEAVES_AT_ONCE = 2**22
"""Numbers of the leaves that are read at a time."""
MOST_HALVED = 4
"""How often a leaf's box is halved here, one half after the other."""
SPARE = 256
"""Halvings that are tried for all leaves, and four for every leaf."""
CLOSE = 2.0**-24
"""Bounds that lack no more than this part of what they are the sum of are tried in balls."""


@dataclass(frozen=True)
class _Job:
    """A pair of a leaf: the number of its leaf, of its set in the batch, and what is carried."""

    leaf: int
    set: int
    box: Box
    pair: Pair
    row: Row


Found = tuple[int, Pair, float, bool]
"""The number of a leaf, a pair of it, a bound of its row, and whether it is positive."""


def pieces(leaves: Iterable[Leaf]) -> Iterator[list[Leaf]]:
    """The leaves of a tree, some at a time."""
    some: list[Leaf] = []
    room = LEAVES_AT_ONCE
    for leaf in leaves:
        some.append(leaf)
        room -= leaf.size
        if room < 0:
            yield some
            some, room = [], LEAVES_AT_ONCE
    if some:
        yield some


class ForestCheck:
    """A forest over one region's box.

    Attributes:
        leaves: how many leaves there are.
        closed: how many rows float64 proved, and how many balls.
        worst: the least bound of a leaf's row.
    """

    def __init__(
        self,
        net: FloatNet,
        box: tuple[Floats, Floats],
        disjuncts: Sequence[Sequence[LinearConstraint]],
        forest: Forest,
        root: Sets | None,
        sample: Sample,
        progress: Progress = lambda phase, done, total: None,
        work: Work | None = None,
    ) -> None:
        """``work``: who does the batches."""
        self.work = work or Work()
        self.net, self.forest, self.root, self.sample, self.progress = net, forest, root, sample, progress
        self.disjuncts, self.box = disjuncts, box
        self.names = net.names
        self.leaves, self.done = len(forest.scope), 0
        self.closed = [0, 0]
        self.spare = SPARE + 4 * self.leaves
        self.worst = np.inf
        self._rows: dict[Any, Row] = {}

    def run(self) -> str:
        """Why the disjuncts are not refuted; empty if they are."""
        trees, lemmas = walk(self.forest, *self.box), self.forest.lemmas
        for some in lemmas.of_relu():
            self.prove_lemmas(lemmas[some], trees)
        for number, tree in enumerate(trees):
            first = 0
            for leaves in pieces(tree):
                for leaf, pair, bound, proven in self.bounds(leaves, self.row_of):
                    if not proven and not self.rescued(leaves[leaf], pair):
                        where = f"leaf {first + leaf} of tree {number}"
                        return f"{where}: disjunct {pair.disjunct} is not refuted (bound {bound:.6g})"
                    self.worst = min(self.worst, bound) if proven else self.worst
                first += len(leaves)
        return ""

    def rescued(self, leaf: Leaf, pair: Pair) -> bool:
        """Whether bounds of a leaf's own box refute a disjunct there, or further splits of it: slopes by rule of smooth
        functions are other ones than those that the search had. Of all sides that one is halved whose halves have the
        best bounds."""
        own = Leaf(leaf.box, leaf.cuts, (leaf.box, len(leaf.cuts)), leaf.slopes, (pair,))
        if leaf.scope != own.scope and all(proven for _, _, _, proven in self.bounds([own], self.row_of)):
            return True
        if self.net.maps.is_piecewise:
            return False
        pending = [(leaf.box, 0)]
        while pending:
            box, depth = pending.pop()
            sides = np.flatnonzero(box.lower < box.upper).tolist()
            self.spare -= len(sides)
            if depth == MOST_HALVED or self.spare < 0:
                return False
            found: dict[int, tuple[float, list[tuple[Box, int]]]] = {}
            for j in sides:
                boxes = box.halves(j, box.lower[j] / 2 + box.upper[j] / 2)
                leaves = [Leaf(part, leaf.cuts, (part, len(leaf.cuts)), leaf.slopes, (pair,)) for part in boxes]
                bounds = list(self.bounds(leaves, self.row_of))
                still = [(boxes[n], depth + 1) for n, _, _, proven in bounds if not proven]
                found[j] = min((b for _, _, b, proven in bounds if not proven), default=np.inf), still
            if not found:
                return False
            _, still = max(found.values(), key=lambda one: (one[0], -len(one[1])))
            pending += still
        return True

    # ---- lemmas -----------------------------------------------------------------------------------------------------

    def prove_lemmas(self, lemmas: Sequence[Lemma], trees: Iterator[Iterator[Leaf]]) -> None:
        """Bounds neurons of one ReLU, by the next trees, and puts what is better into the region's own bounds."""
        if self.root is None:
            raise CertificateError("forest: lemmas need the region's own bounds (activations)")
        rows: list[tuple[Lemma, Row]] = []  # of the leaves that were read, and not used up

        def read() -> Iterator[Leaf]:
            for lemma in lemmas:
                row = self.lemma_row(lemma)
                for leaf in next(trees):
                    rows.append((lemma, row))
                    yield leaf

        least: dict[Lemma, float] = {}
        for leaves in pieces(read()):
            for leaf, pair, bound, proven in self.bounds(leaves, lambda n, pair: rows[n][1] if pair.rows else _ZERO):
                if pair.rows or not proven:
                    found, lemma = bound if pair.rows else -np.inf, rows[leaf][0]
                    least[lemma] = min(least.get(lemma, np.inf), found) if found == found else -np.inf
            rows.clear()
        name = self.names[lemmas[0].relu]
        known = self.root.relus[name]
        low, high = known.low.copy(), known.high.copy()
        for lemma, bound in least.items():
            if lemma.upper:
                high[0, lemma.neuron] = min(high[0, lemma.neuron], -bound)
            else:
                low[0, lemma.neuron] = max(low[0, lemma.neuron], bound)
        self.root.relus[name] = Relaxed.of(low, high)

    def lemma_row(self, lemma: Lemma) -> Row:
        """z, or -z, for the input z of a neuron."""
        pre = self.net.relus[self.names[lemma.relu]].inputs[0]
        return Row(((pre, {lemma.neuron: Fraction(-1 if lemma.upper else 1)}),), Fraction(0), is_claim=False)

    # ---- rows of the specification ----------------------------------------------------------------------------------

    def row_of(self, leaf: int, pair: Pair) -> Row:
        """The combination of the rows of a disjunct that a pair names."""
        key = pair.disjunct, pair.rows
        if key not in self._rows:
            members = self.disjuncts[pair.disjunct]
            outputs: dict[int, Fraction] = {}
            inputs: dict[int, Fraction] = {}
            constant, strict = Fraction(0), False
            for number, weight in pair.rows:
                if number >= len(members):
                    raise CertificateError(f"forest: disjunct {pair.disjunct} has no row {number}")
                row, w = members[number], Fraction(weight)
                constant += w * row.constant
                strict |= row.strict and w > 0
                for total, coefficients in ((outputs, row.outputs), (inputs, row.inputs)):
                    for i, c in coefficients.items():
                        total[i] = total.get(i, Fraction(0)) + w * c
            at = ((self.net.graph.output, outputs), (self.net.source, inputs))
            self._rows[key] = Row(at, constant, strict)
        return self._rows[key]

    # ---- batches ----------------------------------------------------------------------------------------------------

    def bounds(self, leaves: Sequence[Leaf], row_of: Callable[[int, Pair], Row]) -> Iterator[Found]:
        """What is found of every pair of every leaf."""
        keys: dict[Any, list[int]] = {}
        for number, leaf in enumerate(leaves):
            if leaf.scope is None:
                key: Any = None, leaf.cuts, leaf.slopes
            else:
                key = leaf.scope[0], leaf.cuts[: leaf.scope[1]], leaf.slopes
            keys.setdefault(key, []).append(number)
        wide = sum(self.net.size.values())
        widest = max(self.net.size.values()) * (self.net.size[self.net.source] + 8)
        parts = []
        for own in (True, False):
            step = max(1, min(SETS_AT_ONCE, NUMBERS_AT_ONCE // wide, *([4 * NUMBERS_AT_ONCE // widest] if own else [])))
            chosen = [key for key in keys if (key[0] is not None) is own]
            parts += [(own, chosen[first : first + step]) for first in range(0, len(chosen), step)]
        samples = self.sample.parts(len(parts))
        whole = Box(*self.box)

        def places(part: Sequence[Any]) -> list[tuple[int, int, Pair]]:
            return [(n, place, pair) for place, key in enumerate(part) for n in keys[key] for pair in leaves[n].pairs]

        def batch(number: int) -> Arrays:
            (own, part), sample = parts[number], samples[number]
            jobs = [_Job(n, place, leaves[n].box, pair, row_of(n, pair)) for n, place, pair in places(part)]
            sets, empty = self.sets([(key[0] or whole, key[1], key[2]) for key in part], own, sample)
            return self.close(sets, empty, jobs, leaves, sample)

        def topic() -> bytes:
            told = (
                leaf.box.lower.tobytes() + leaf.box.upper.tobytes() + repr((leaf.cuts, leaf.pairs)).encode()
                for leaf in leaves
            )
            return b"".join(told)

        found = self.work.each(batch, len(parts), topic)
        for (_, part), (bounds, proven, counts) in zip(parts, found, strict=True):
            self.closed = [self.closed[0] + int(counts[0]), self.closed[1] + int(counts[1])]
            self.sample.confirmed += int(counts[2])
            told = zip(places(part), bounds.tolist(), proven.tolist(), strict=True)
            yield from ((n, pair, bound, bool(ok)) for (n, _, pair), bound, ok in told)
            self.done += sum(len(keys[key]) for key in part)
            self.progress("check", self.done, self.leaves)

    def sets(
        self, keys: Sequence[tuple[Box, tuple[Cut, ...], int]], own: bool, sample: Sample
    ) -> tuple[Sets, NDArray[np.bool_]]:
        """Sets with bounds: derived on their own boxes, or those of the region."""
        lower, upper = np.array([key[0].lower for key in keys]), np.array([key[0].upper for key in keys])
        flat = [(s, cut) for s, key in enumerate(keys) for cut in key[1]]
        cuts = Cuts(
            np.array([s for s, _ in flat], dtype=np.int64),
            np.array([cut.relu for _, cut in flat], dtype=np.int64),
            np.array([cut.neuron for _, cut in flat], dtype=np.int64),
            np.array([cut.above for _, cut in flat], dtype=bool),
            np.array([cut.point for _, cut in flat], dtype=np.float64),
        )
        nonnegative, mask = self.table(np.array([key[2] for key in keys]))
        if own:
            derivation = Derivation(self.net, lower, upper, cuts, nonnegative, mask, self.root, sample)
            with np.errstate(all="ignore"):
                return derivation.run(), derivation.empty
        if self.root is None:
            raise CertificateError("forest: scope is -1 where the region has no bounds (activations)")
        with np.errstate(all="ignore"):
            return restricted(self.root, lower, upper, cuts, nonnegative, mask)

    def table(self, which: Index) -> tuple[Floats, NDArray[np.bool_]] | tuple[None, None]:
        """Rows of the table of slopes ``[S, neurons]``, and where they say something."""
        if not (which >= 0).any():
            return None, None
        neurons = sum(self.net.size[name] for name in self.names)
        values, mask = np.zeros((len(which), neurons)), np.zeros((len(which), neurons), dtype=bool)
        some = np.flatnonzero(which >= 0)
        values[np.ix_(some, self.forest.columns)] = self.forest.nonnegative[which[some]] * SLOPE_UNIT
        mask[np.ix_(some, self.forest.columns)] = True
        return values, mask

    def close(
        self, sets: Sets, empty: NDArray[np.bool_], jobs: Sequence[_Job], leaves: Sequence[Leaf], sample: Sample
    ) -> Arrays:
        """Of all rows of a batch their bounds, and whether these are positive; then how many rows float64 proved, how
        many balls did, and how many balls confirmed."""
        number: dict[Any, int] = {}
        unique: list[_Job] = []
        carried = np.zeros(len(jobs), dtype=np.intp)
        for k, job in enumerate(jobs):
            key = job.set, id(job.row), job.pair.slopes, _multipliers(job.pair, leaves[job.leaf])
            if key not in number:
                number[key] = len(unique)
                unique.append(job)
            carried[k] = number[key]
        rows = Rows(self, sets, unique, [_multipliers(job.pair, leaves[job.leaf]) for job in unique])
        lower, upper = np.array([job.box.lower for job in jobs]), np.array([job.box.upper for job in jobs])
        with np.errstate(all="ignore"):
            found = carry(sets, rows.which, rows.start, rows.pick).at(carried)
            least = found.least(lower, upper, self.net.operations)
            bounds = rows.finished(least, carried)
            close = bounds > -CLOSE * found.scale
        gone = empty[rows.which[carried]] | (lower > upper).any(1)
        for k in sample.chosen(len(jobs)):
            if not gone[k]:
                row, start = int(carried[k]), rows.exact(int(carried[k]))
                sample.confirm(sets, rows.which, lower[k], upper[k], start, rows.pick, row, least[k], np.inf)
        every = np.zeros(len(jobs), dtype=bool)
        closed = [0, 0]
        for k, job in enumerate(jobs):
            bound, row = float(bounds[k]), int(carried[k])
            proven = bool(gone[k]) or job.row.never_holds(bound)
            closed[0] += proven and job.row.is_claim
            if job.row.is_claim and not proven and close[k]:
                exact = ExactRows(self.net.maps, sets, job.set, lower[k], upper[k])
                total = exact.row(rows.exact(row), rows.pick, row)[0][0] + ratio(rows.constants[row])
                proven = job.row.never_holds(total.lower())
                closed[1] += proven
            every[k] = proven
        return np.where(gone, np.inf, bounds), every.astype(np.uint8), np.array([*closed, sample.confirmed])


def _multipliers(pair: Pair, leaf: Leaf) -> tuple[tuple[Cut, float], ...]:
    """The splits above a leaf that have a multiplier."""
    return tuple((leaf.cuts[split], beta) for split, beta in pair.multipliers if beta)


class Rows(Begun):
    """Rows of one batch, with their multipliers, and slopes.

    For z >= t on the set and beta >= 0, a row is at least itself less beta (z - t); for z <= t, less beta (t - z).
    """

    def __init__(
        self, check: ForestCheck, sets: Sets, jobs: Sequence[_Job], multipliers: Sequence[tuple[tuple[Cut, float], ...]]
    ) -> None:
        """One row for each job."""
        self.check = check
        self.slopes = np.array([job.pair.slopes for job in jobs], dtype=np.intp)
        which = np.array([job.set for job in jobs], dtype=np.intp)
        rows = [self._multiplied(job.row, some) for job, some in zip(jobs, multipliers, strict=True)]
        super().__init__(check.net, sets, which, rows)

    def _multiplied(self, row: Row, multipliers: Sequence[tuple[Cut, float]]) -> Row:
        at, constant = [*row.at], row.constant
        for cut, beta in multipliers:
            signed = Fraction(beta) if cut.above else -Fraction(beta)
            at.append((self.check.net.split[cut.relu].inputs[0], {cut.neuron: -signed}))
            constant += signed * Fraction(cut.point)
        return replace(row, at=tuple(at), constant=constant)

    def pick(self, name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """Slopes of the bounds, or of the table where a row has its own."""
        check, relaxed = self.check, self.sets.relus[name]
        negative, nonnegative = relaxed.slopes.negative[which], relaxed.slopes.nonnegative[which]
        offset = relaxed.twice[which]
        own = self.slopes[chosen]
        some = np.flatnonzero(own >= 0)
        if not len(some):
            return Slopes(negative, nonnegative), offset
        first = sum(check.net.size[before] for before in check.names[: check.names.index(name)])
        begin, end = np.searchsorted(check.forest.columns, [first, first + check.net.size[name]])
        places = check.forest.columns[begin:end] - first
        low, high = relaxed.low[which], relaxed.high[which]
        grid = np.ix_(some, places)
        crossing = ~((low[grid] >= 0) | (high[grid] <= 0))
        nonnegative[grid] = np.where(
            crossing, check.forest.nonnegative[own[some], begin:end] * SLOPE_UNIT, nonnegative[grid]
        )
        if check.forest.negative is not None:
            below = check.forest.negative[own[some], begin:end] * SLOPE_UNIT
            negative[grid] = np.where(crossing, below, negative[grid])
            offset = twice(negative, low, high)
        return Slopes(negative, nonnegative), offset


_ZERO = Row((), Fraction(0))
"""The row of a leaf that no input reaches."""
