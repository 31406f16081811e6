"""Bounds of every activation's input on sets of inputs, layer by layer: intervals, then rows for what they leave
open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.arithmetic import balls
from zonocuda.checker.claims import EndClaim, OwnSlopes, RegionClaim, RowClaim
from zonocuda.checker.ends import Ended, Endings
from zonocuda.checker.exact import Sample
from zonocuda.checker.floats import Floats
from zonocuda.checker.intervals import interval, known_of
from zonocuda.checker.journal import Arrays
from zonocuda.checker.lines import Lines, Smooth
from zonocuda.checker.parallel import Work
from zonocuda.checker.region import Progress
from zonocuda.checker.rows import Begun, Row
from zonocuda.checker.sets import Carried, FloatNet, Index, Pick, Relaxed, Sets, Slopes, carry, twice
from zonocuda.checker.zonotope import zonotope_bounds
from zonocuda.graph import Node, Relu

ROWS_AT_ONCE = 2**21
"""Numbers of the rows of one part of a derivation."""

Bounded = Callable[[slice, Sample | None], tuple[Floats, Floats]]
"""Bounds some rows from below and above, and confirms a sample of them."""


def moved(pick: Pick, first: int) -> Pick:
    """The slopes of rows that are numbered from ``first`` on."""
    return lambda name, which, chosen: pick(name, which, first + chosen)


@dataclass(frozen=True, eq=False)
class Cuts:
    """What neurons split above some sets leave of them: z >= t or z <= t for the input z of a neuron of an activation.

    Attributes:
        sets: ``[M]``, which of the sets.
        relus: ``[M]``, the activation, by its number in :attr:`FloatNet.split`.
        neurons: ``[M]``, places in its flattened features.
        above: ``[M]``, whether z >= t is left.
        points: ``[M]``, t.
    """

    sets: NDArray[np.int64]
    relus: NDArray[np.int64]
    neurons: NDArray[np.int64]
    above: NDArray[np.bool_]
    points: Floats

    def clip(self, relu: int, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bounds ``[S, N]`` of an activation's inputs on what is left."""
        for ends, pick, side in ((low, np.maximum, self.above), (high, np.minimum, ~self.above)):
            mine = (self.relus == relu) & side
            if mine.any():
                pick.at(ends, (self.sets[mine], self.neurons[mine]), self.points[mine])
        return low, high


class Derivation:
    """Derives the bounds of a batch of sets."""

    def __init__(
        self,
        net: FloatNet,
        lower: Floats,
        upper: Floats,
        cuts: Cuts | None = None,
        nonnegative: Floats | None = None,
        mask: Any = None,
        root: Sets | None = None,
        sample: Sample | None = None,
    ) -> None:
        """Bounds by rule.

        Args:
            net: the network.
            lower, upper: boxes ``[S, N0]``.
            cuts: what is left of them.
            nonnegative: slopes ``[S, K]`` where v >= 0, of all ReLUs' neurons, one after the other.
            mask: where they count; the others are by rule.
            root: bounds that hold on all sets.
            sample: which rows are carried in balls, too.
        """
        self.net, self.cuts, self.root, self.sample = net, cuts, root, sample
        self.nonnegative, self.mask = nonnegative, mask
        self.passes = 0
        self.sets = Sets(net, lower, upper)
        self.ends: dict[str, tuple[Floats, Floats]] = {}
        self.empty: NDArray[np.bool_] = np.asarray((lower > upper).any(1))

    def run(self) -> Sets:
        """The sets with all bounds."""
        offset = 0
        self.prepare()
        for node in self.net.graph.nodes:
            if isinstance(node.op, Relu | Smooth):
                pre = node.inputs[0]
                low, high = self.tightened(node, *(np.array(end) for end in self.ends[pre]))
                self.empty = self.empty | (low > high).any(1)
                if isinstance(node.op, Relu):
                    columns = slice(offset, offset + low.shape[1])
                    offset = columns.stop
                    self.sets.relus[node.name] = self.relaxed(node, low, high, columns)
                else:
                    self.sets.lines[node.name] = Lines.of(node.op, low, high)
                self.ends[pre] = low, high
                self.sets.sizes[pre] = np.maximum(np.abs(low), np.abs(high))
            before = [self.ends[name] for name in node.inputs]
            low, high = interval(self.net, node, before, self.sets.lower, self.sets.upper, self.sets.sizes)
            if self.sample is not None and self.sample.is_whole and before:
                self.sample.confirm_interval(node, before, low, high, self.sets.sizes)
            low, high = known_of(self.net, node, (low, high), self.ends.__getitem__)
            self.ends[node.name] = low, high
            self.sets.keep(node, low, high, list(node.inputs))
        return self.sets

    def relaxed(self, node: Node, low: Floats, high: Floats, columns: slice) -> Relaxed:
        """The relaxation of a ReLU."""
        if self.nonnegative is None:
            return Relaxed.of(low, high)
        return Relaxed.of(low, high, self.nonnegative[:, columns], self.mask[:, columns])

    def prepare(self) -> None:
        """Bounds to begin with: of zonotopes."""
        self.first = zonotope_bounds(self.net, self.sets.lower, self.sets.upper, self.clip)

    def clip(self, node: Node, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bounds of an activation's input with those of the region, and with what splits leave."""
        if self.root is not None and node.name in self.root.relus:
            known = self.root.relus[node.name]
            low, high = np.fmax(low, known.low), np.fmin(high, known.high)
        if self.cuts is None:
            return low, high
        number = next(k for k, other in enumerate(self.net.split) if other.name == node.name)
        less, more = self.cuts.clip(number, np.array(low), np.array(high))
        if isinstance(node.op, Relu):
            return less, more
        reached = less <= more  # of an interval that is empty lines say nothing: it stays as it was
        return np.where(reached, less, low), np.where(reached, more, high)

    def tightened(self, node: Node, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bounds of an activation's input: those of zonotopes, and of rows for what these leave open, of ReLUs the
        neurons whose sign is not known.

        Better intervals, which bounds of the layers before may give, are left aside: bounds get worse by chance where
        other slopes than those of the search follow from them.
        """
        low, high = (np.array(end) for end in self.first[node.name])
        if self.net.maps.is_exact(node.inputs[0]):
            return low, high
        which, neurons = np.nonzero(~((low >= 0) | (high <= 0)) | (not isinstance(node.op, Relu)))
        if len(which):
            self.improve(node, low, high, which, neurons, self.second, both=False)
        return low, high

    def improve(
        self,
        node: Node,
        low: Floats,
        high: Floats,
        which: Index,
        neurons: Index,
        pick: Pick,
        both: bool,
        endings: Endings | None = None,
    ) -> None:
        """Bounds neurons of an activation's input by rows, which may end, and puts what is better into ``low`` and
        ``high``."""
        name, count = node.inputs[0], len(which)
        size = self.net.size[name]
        sets = np.tile(which, 1 if both else 2)
        self.passes += len(sets)

        def rows(index: Index) -> Floats:
            v = np.zeros((len(index), size))
            v[np.arange(len(index)), neurons[index % count]] = np.where(index < count, 1.0, -1.0)
            return v

        def bounded(some: slice, sample: Sample | None) -> tuple[Floats, Floats]:
            """Of some of the rows, from below, and from above if ``both``."""
            first, own = some.start, sets[some]
            found = carry(self.sets, own, [(name, lambda index: rows(first + index))], moved(pick, first), endings)
            lower, upper = self.sets.lower[own], self.sets.upper[own]
            least = found.least(lower, upper, self.net.operations)
            most = found.most(lower, upper, self.net.operations) if both else np.full(len(own), np.inf)
            if sample is not None:
                for row in sample.chosen(len(own)):
                    unit = [(name, balls(rows(np.array([first + row]))[0].tolist(), (1, -1)))]
                    ends = lower[row], upper[row], unit, moved(pick, first), row, least[row], most[row]
                    sample.confirm(self.sets, own, *ends, endings)
            return least, most

        least, most = self.spread(len(sets), bounded, lambda: name.encode() + neurons.astype(np.int64).tobytes())
        if not both:
            least, most = least[:count], -least[count:]
        low[which, neurons] = np.fmax(low[which, neurons], least)
        high[which, neurons] = np.fmin(high[which, neurons], most)

    def parts(self, count: int) -> list[slice]:
        """So many rows in parts that take about as much memory as a batch of sets."""
        widest = max(self.net.size.values())
        step = max(1, ROWS_AT_ONCE // widest)
        return [slice(first, min(first + step, count)) for first in range(0, count, step)]

    def spread(self, count: int, bounded: Bounded, topic: Callable[[], bytes]) -> tuple[Floats, Floats]:
        """Bounds of so many rows, part after part; ``topic`` tells of which."""
        least, most = zip(*(bounded(part, self.sample) for part in self.parts(count)), strict=True)
        return np.concatenate(least), np.concatenate(most)

    def second(self, name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """By the sign of v."""
        relaxed = self.sets.relus[name]
        slopes = relaxed.slopes
        return Slopes(slopes.negative[which], slopes.nonnegative[which]), relaxed.twice[which]


def restricted(
    root: Sets, lower: Floats, upper: Floats, cuts: Cuts, nonnegative: Floats | None = None, mask: Any = None
) -> tuple[Sets, NDArray[np.bool_]]:
    """Sets within that of ``root`` with its bounds, cut where neurons are split, and which of them are empty."""
    sets = Sets(root.net, lower, upper, {}, root.sizes, root.errors, root.lost)
    empty: NDArray[np.bool_] = np.asarray((lower > upper).any(1))
    offset = 0
    for number, (name, known) in enumerate(root.relus.items()):
        low, high = (np.repeat(end, len(lower), axis=0) for end in (known.low, known.high))
        low, high = cuts.clip(number, low, high)
        empty = empty | (low > high).any(1)
        columns = slice(offset, offset + low.shape[1])
        offset = columns.stop
        if nonnegative is None:
            sets.relus[name] = Relaxed.of(low, high)
        else:
            sets.relus[name] = Relaxed.of(low, high, nonnegative[:, columns], mask[:, columns])
    return sets, empty


class RootDerivation(Derivation):
    """The bounds on a region's box, with the slopes of a certificate: see :mod:`zonocuda.checker.region`."""

    def __init__(
        self,
        net: FloatNet,
        lower: Floats,
        upper: Floats,
        claim: RegionClaim,
        sample: Sample | None = None,
        progress: Progress = lambda phase, done, total: None,
        work: Work | None = None,
    ) -> None:
        """Bounds of one set, with the slopes of ``claim``; ``progress`` is told how many ReLUs are done, and ``work``
        does the rows."""
        super().__init__(net, lower, upper, sample=sample)
        self.claim, self.progress, self.work = claim, progress, work or Work()
        self.listed = {name: one.neurons for name, one in claim.activations.items()}

    def prepare(self) -> None:
        """Bounds to begin with are those of intervals."""

    def tightened(self, node: Node, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """By the first pass, by rows that end, and by the rows that the certificate has, or by a second pass."""
        self.progress("check", self.net.names.index(node.name), len(self.net.names))
        if self.net.maps.is_exact(node.inputs[0]):
            return low, high
        claim = self.claim.activations[node.name]

        def improve(pick: Pick, both: bool, endings: Endings | None = None, chosen: Index | None = None) -> None:
            neurons = np.union1d(np.flatnonzero(~((low[0] >= 0) | (high[0] <= 0))), claim.neurons)
            if chosen is not None:
                neurons = np.intersect1d(neurons, chosen)
                places = np.searchsorted(chosen, neurons)
                self.rows = np.concatenate([places, places + len(chosen)])
            if len(neurons):
                self.improve(node, low, high, np.zeros(len(neurons), dtype=np.intp), neurons, pick, both, endings)

        improve(self.first_pass, True)
        if claim.ended is not None:
            own = claim.ended.slopes
            improve(lambda *asked: self._shared_or(own, *asked), False, self._endings(claim.ended.ends))
        if claim.refined is not None:
            self.own = claim.refined.slopes
            improve(self.refined, False, None, claim.refined.neurons)
        elif self.claim.second_pass:
            improve(self.second_pass, False)
        return low, high

    def _endings(self, claims: Mapping[str, EndClaim]) -> Endings:
        """Where rows end, of nodes whose bounds are known: rows reach no others."""
        return {
            name: Ended.of(claim, *(end[0] for end in self.ends[name]))
            for name, claim in claims.items()
            if name in self.ends
        }

    def spread(self, count: int, bounded: Bounded, topic: Callable[[], bytes]) -> tuple[Floats, Floats]:
        """Bounds of so many rows, whose parts are shared out."""
        parts = self.parts(count)
        samples = [None] * len(parts) if self.sample is None else self.sample.parts(len(parts))

        def part(number: int) -> Arrays:
            sample = samples[number]
            least, most = bounded(parts[number], sample)
            return least, most, np.array([0 if sample is None else sample.confirmed])

        least, most, confirmed = zip(*self.work.each(part, len(parts), topic), strict=True)
        if self.sample is not None:
            self.sample.confirmed += sum(int(one[0]) for one in confirmed)
        return np.concatenate(least), np.concatenate(most)

    def _with(self, name: str, slopes: tuple[Floats, Floats]) -> tuple[Slopes, Floats]:
        """Slopes of the listed neurons of a ReLU, the others by rule; each ``[K]`` or ``[R, K]``."""
        relaxed, listed = self.sets.relus[name], self.listed[name]
        negative, nonnegative = (
            np.array(np.broadcast_to(relaxed.slopes.negative, (len(np.atleast_2d(given)), relaxed.low.shape[1])))
            for given in slopes
        )
        negative[:, listed], nonnegative[:, listed] = slopes
        return Slopes(negative, nonnegative), twice(negative, relaxed.low, relaxed.high)

    def first_pass(self, name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """One slope for both signs."""
        area = self.claim.activations[name].area
        return self._with(name, (area, area))

    def second_pass(self, name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """By the sign of v."""
        claim = self.claim.activations[name]
        return self._with(name, (claim.negative, claim.nonnegative))

    def _shared_or(self, own: Mapping[str, OwnSlopes], name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """Slopes ``[K]`` of some activations, of others those of the second pass."""
        claim = self.claim.activations[name]
        found = own.get(name, OwnSlopes(claim.nonnegative, None))
        return self._with(name, (claim.negative if found.negative is None else found.negative, found.nonnegative))

    def refined(self, name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
        """Each row with slopes of its own."""
        if name not in self.own:
            return self.second_pass(name, which, chosen)
        claim, own = self.claim.activations[name], self.own[name]
        chosen = self.rows[chosen]
        negative = claim.negative if own.negative is None else claim.scaled(own.negative[chosen])
        return self._with(name, (negative, claim.scaled(own.nonnegative[chosen])))

    def row_bounds(self, rows: Sequence[tuple[Row, RowClaim]]) -> list[float]:
        """Lower bounds of rows, each with slopes of its own, or by the better one of both passes."""
        best = np.full(len(rows), -np.inf)
        own = np.array([claim.slopes is not None for _, claim in rows], dtype=bool)
        ends = np.array([bool(claim.ends) for _, claim in rows], dtype=bool)

        def with_own(name: str, which: Index, chosen: Index) -> tuple[Slopes, Floats]:
            claim = self.claim.activations[name]
            shared = OwnSlopes(claim.nonnegative, claim.negative)
            given = [(rows[int(index[k])][1].slopes or {}).get(name, shared) for k in chosen]
            negative = np.stack([claim.negative if one.negative is None else one.negative for one in given])
            return self._with(name, (negative, np.stack([one.nonnegative for one in given])))

        together = [~own & ~ends, own & ~ends]
        alone = [np.arange(len(rows)) == k for k in np.flatnonzero(ends)]
        for some in (*together, *alone):
            index = np.flatnonzero(some)
            if not len(index):
                continue
            passes = (with_own,) if own[index[0]] else (self.first_pass, self.second_pass)
            endings = self._endings(rows[int(index[0])][1].ends)
            for pick in passes:
                begun = Begun(
                    self.net, self.sets, np.zeros(len(index), dtype=np.intp), [rows[int(k)][0] for k in index]
                )
                self.passes += len(index)
                found = carry(self.sets, begun.which, begun.start, pick, endings)
                least = self._least(begun, found, pick, endings)
                best[index] = np.fmax(best[index], begun.finished(least, np.arange(len(index))))
        return [float(bound) for bound in best]

    def _least(self, begun: Begun, found: Carried, pick: Pick, endings: Endings) -> Floats:
        """Lower bounds of rows without their constants; some are confirmed."""
        lower, upper = self.sets.lower[begun.which], self.sets.upper[begun.which]
        least = found.least(lower, upper, self.net.operations)
        if self.sample is not None:
            for k in self.sample.chosen(len(least)):
                start = begun.exact(k)
                self.sample.confirm(
                    self.sets, begun.which, lower[k], upper[k], start, pick, k, least[k], np.inf, endings
                )
        return least
