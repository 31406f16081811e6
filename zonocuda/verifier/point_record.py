"""A proof by splitting neurons at points, written down: found once more, with bounds that a reader finds again.

What a reader has are the splits: on every leaf it bounds what activations read from the region's box and the splits
alone, with lines by rule, and then a row with the multipliers that are written. So a search begins anew with bounds of
that kind, and is told by them when a part is refuted, with something to spare for other roundings and other lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from zonocuda.bounds.dual.dual_pass import flatten_positions
from zonocuda.bounds.dual.points import Constraints, Reads
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.branch import PointParts, SearchStopped, SignParts
from zonocuda.precision import summed_products
from zonocuda.prove.certificate import RegionRecord
from zonocuda.prove.forest import ForestRecord, ForestWriter, LeafRow
from zonocuda.prove.recording import NoCertificateError
from zonocuda.prove.stages import Arithmetic
from zonocuda.prove.timeline import unwatched
from zonocuda.relaxations import rule_of
from zonocuda.verifier.point_search import PointCourse

SPARE = 2.0**-8
"""Of the bounds of the whole box, what a leaf's has to exceed zero by."""
MAX_BYTES = 2**29
"""Of the leaves that are kept."""


def record_points(course: PointCourse, arithmetic: Arithmetic, end: float) -> RegionRecord:
    """The proof that a search found, as it is written down.

    Args:
        course: one that ended with a proof.
        arithmetic: in float64.
        end: when to stop, by :func:`time.monotonic`.

    Raises:
        NoCertificateError: the proof was not found again, or takes too much memory.
    """
    box = arithmetic.box(course.region)
    with torch.no_grad(), summed_products():
        known = reduced_bounds(arithmetic.graph, box, arithmetic.rounding)
    kept: list[PointParts] = []

    def closed(parts: SignParts) -> None:
        assert isinstance(parts, PointParts), "parts of this kind of search"
        nothing = parts.lower[:, :0]
        kept.append(replace(parts, lower=nothing, upper=nothing))
        if sum(part.bytes for part in kept) > MAX_BYTES:
            raise NoCertificateError(f"the leaves of a proof by splitting neurons take more than {MAX_BYTES >> 20} MiB")

    again = replace(
        course,
        arithmetic=arithmetic,
        intermediate=known,
        open=tuple(range(len(course.region.disjuncts))),
        attack=lambda points: None,
        end=end,
        watch=unwatched,
        written=True,
        closed=closed,
    )
    try:
        every = again.bounder.roots(again.pairs)
        spare = SPARE * float(every.bound.abs().max())
        again = replace(again, spare=spare)
        _, stats = again.run()
    except SearchStopped:
        stats = None
    if stats is None or not stats.is_proven:
        raise NoCertificateError(
            f"region {course.position}: the proof by splitting neurons at points was not found again in time, "
            "with lines as they are written; more time may help, or split 'input'"
        )
    return RegionRecord(course.position, False, (), (), forest=_Trees(again, kept).finish())


class _Trees:
    """The trees of a search, from its leaves."""

    def __init__(self, course: PointCourse, kept: list[PointParts]) -> None:
        self.course, self.reads = course, course.bounder.reads
        every = SignParts.cat(kept)
        assert isinstance(every, PointParts), "parts of this kind of search"
        self.leaves = every
        self.last = Constraints(every.neuron, every.side, every.point).last.tolist()
        columns = every.depth, every.neuron, every.side, every.point, every.multipliers.clamp(min=0)
        self.depth, self.neuron, self.side, self.point, self.multipliers = (t.tolist() for t in columns)
        self.numbers = split_numbers(self.reads)
        self.positions = {
            node.name: flatten_positions(self.reads.shape[node.name]).tolist() for node in self.reads.nodes
        }
        self.writer = ForestWriter(torch.zeros(0, dtype=torch.int64).numpy())

    def finish(self) -> ForestRecord:
        """One tree for every disjunct."""
        rows, groups = self.course.bounder.rows, self.leaves.group.tolist()
        for group, members in enumerate(rows.disjuncts):
            self.writer.tree([group])
            places = {row: (place, rows.undo_unit(row, 1.0)) for place, row in enumerate(members)}
            self._write([k for k, other in enumerate(groups) if other == group], places)
        return self.writer.finish()

    def _write(self, leaves: list[int], places: Mapping[int, tuple[int, float]]) -> None:
        """In preorder, the part below a point before that above it."""
        stack = [(leaves, 0)]
        while stack:
            some, depth = stack.pop()
            first = some[0]
            if self.depth[first] == depth:
                assert len(some) == 1, "the leaves are not those of a tree"
                self._leaf(first, places)
                continue
            number, place = self._named(self.neuron[first][depth])
            self.writer.neuron_split(number, place, self.point[first][depth])
            above = [k for k in some if self.side[k][depth] > 0]
            below = [k for k in some if self.side[k][depth] < 0]
            assert above, "the leaves are not those of a tree"
            assert below, "the leaves are not those of a tree"
            stack += [(above, depth + 1), (below, depth + 1)]

    def _leaf(self, k: int, places: Mapping[int, tuple[int, float]]) -> None:
        place, unit = places[int(self.leaves.row[k])]
        splits = range(self.depth[k])
        multipliers = [(d, unit * self.multipliers[k][d]) for d in splits if self.last[k][d]]
        row = LeafRow(((place, 1.0),), -1, [(d, beta) for d, beta in multipliers if beta > 0])
        self.writer.leaf([row], scope=self.depth[k])

    def _named(self, column: int) -> tuple[int, int]:
        """The number of an activation, and the place in the features that it reads."""
        name = next(node.name for node in reversed(self.reads.nodes) if self.reads.first[node.name] <= column)
        return self.numbers[name], self.positions[name][column - self.reads.first[name]]


def split_numbers(reads: Reads) -> dict[str, int]:
    """Activations as a certificate numbers them: those that are split by signs first, then the others."""
    signed = [node.name for node in reads.nodes if rule_of(node).has_signs]
    others = [node.name for node in reads.nodes if not rule_of(node).has_signs]
    return {name: number for number, name in enumerate([*signed, *others])}
