"""Specifications of many regions: all of them bounded in batches, before any is searched for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds, outward
from zonocuda.bounds.rows import Rows
from zonocuda.branch import RecordedTree
from zonocuda.prove.boxes import BoxBounder, batch_of
from zonocuda.prove.forest import ForestRecord, ForestWriter
from zonocuda.prove.region_box import box_of
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region

LEAST = 4
"""Regions from which a batch is worth it."""


@dataclass(frozen=True, eq=False)
class Refuted:
    """A region that one pass of bounds refutes.

    Attributes:
        position: of the region in the specification.
        margins: the bounds of its rows.
        forest: the proof, of one leaf, where it is to be recorded.
    """

    position: int
    margins: tuple[RowBound, ...]
    forest: ForestRecord | None = None


def refuted_regions(
    regions: Sequence[Region], arithmetics: Iterable[Arithmetic], check: Callable[[], None], record: bool = False
) -> Iterator[list[Refuted]]:
    """The regions that one pass of bounds refutes, batch after batch.

    A region is left out where its box is empty or not finite, where it has no disjunct or one without rows, and where
    values may leave the range of a type: these are for others to judge.

    Args:
        regions: of a specification.
        arithmetics: to compute in; each one bounds what those before it leave open.
        check: called before each batch and before each node of a pass; may raise.
        record: whether proofs are recorded.
    """
    left = [position for position, region in enumerate(regions) if region.disjuncts and all(region.disjuncts)]
    for arithmetic in arithmetics if left else ():
        rows = max(sum(map(len, regions[position].disjuncts)) for position in left)
        step = batch_of(arithmetic.graph, rows)
        again = []
        for first in range(0, len(left), step):
            check()
            part = left[first : first + step]
            found = _refuted(regions, part, arithmetic, check, record)
            yield found
            gone = {one.position for one in found}
            again += [position for position in part if position not in gone]
        left = again
        if not left:
            return


class _OutOfRangeError(Exception):
    """Values of some region of a batch may leave the range of a type."""


def _refuted(
    regions: Sequence[Region], part: Sequence[int], arithmetic: Arithmetic, check: Callable[[], None], record: bool
) -> list[Refuted]:
    """Those of a batch of regions, by position, that are refuted."""
    ends = zip(*(box_of(regions[position], arithmetic.rounding.execution) for position in part), strict=True)
    exact_lower, exact_upper = (torch.stack(end) for end in ends)
    lower, upper = outward(exact_lower, arithmetic.dtype, False), outward(exact_upper, arithmetic.dtype, True)
    inside = exact_lower <= exact_upper
    for end in (exact_lower, exact_upper, lower, upper):
        inside &= end.isfinite()
    chosen = inside.all(1).nonzero().squeeze(1)
    batch = _Batch(regions, [part[i] for i in chosen.tolist()], arithmetic, check, record)
    return batch.bound(lower[chosen].to(arithmetic.device), upper[chosen].to(arithmetic.device))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Regions that are bounded together, by position, and how."""

    regions: Sequence[Region]
    part: Sequence[int]
    arithmetic: Arithmetic
    check: Callable[[], None]
    record: bool

    def bound(self, lower: Tensor, upper: Tensor) -> list[Refuted]:
        """Those that are refuted, for their boxes ``[S, N]``, which are not empty."""
        if not self.part:
            return []
        graph = self.arithmetic.graph
        sizes = prod(graph.input_shape), prod(graph.output_shape)
        rows = [Rows.of(self.regions[position], *sizes, lower) for position in self.part]
        bounder = BoxBounder(
            self.arithmetic,
            Rows.stack(rows),
            on_node=lambda node: self.check(),
            notes=self.record,
            on_bounds=self._stay_in_range,
        )
        try:
            found = bounder.bound(lower, upper)
        except _OutOfRangeError:
            middle = len(self.part) // 2
            halves = (slice(middle), slice(middle, None)) if middle else ()
            return [
                one for half in halves for one in replace(self, part=self.part[half]).bound(lower[half], upper[half])
            ]
        return [
            self._one(position, own, values[: own.count], None if found.notes is None else found.notes[i : i + 1])
            for i, (position, own, values) in enumerate(zip(self.part, rows, found.lower.cpu(), strict=True))
            if all(own.refuted(values[: own.count]))
        ]

    def _stay_in_range(self, box: Bounds, intermediate: Mapping[str, Bounds]) -> None:
        if self.arithmetic.overflow(box, intermediate):
            raise _OutOfRangeError

    def _one(self, position: int, rows: Rows, bounds: Tensor, notes: Tensor | None) -> Refuted:
        dtype = str(self.arithmetic.dtype).removeprefix("torch.")
        margins = tuple(
            RowBound(position, label, None, rows.undo_unit(r, bound), None, dtype, rows.strict[r])
            for r, (label, bound) in enumerate(zip(rows.labels, bounds.tolist(), strict=True))
        )
        return Refuted(position, margins, None if notes is None else _leaf(rows, bounds, notes))


def _leaf(rows: Rows, bounds: Tensor, notes: Tensor) -> ForestRecord:
    """A tree that is a leaf: the whole box, and of each disjunct the row with the largest bound."""
    best = [int(bounds[list(members)].nan_to_num(-torch.inf).argmax()) for members in rows.disjuncts]
    nothing = np.zeros(0)
    tree = RecordedTree(
        kind=np.zeros(1, np.uint8),
        inputs=nothing.astype(np.int32),
        at=nothing,
        scope=np.zeros(1, np.int32),
        note=np.zeros(1, np.int32),
        rows=np.array([best], np.int32),
        notes=notes.cpu().numpy(),
        depth=0,
    )
    writer = ForestWriter()
    writer.boxes(tree, range(len(best)))
    return writer.finish()
