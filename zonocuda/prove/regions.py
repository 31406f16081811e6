"""Specifications of many regions: all of them bounded in batches, before any is searched for itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.prove.boxes import BoxBounder, batch_of
from zonocuda.prove.region_box import box_of
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region

LEAST = 4
"""Regions from which a batch is worth it."""


def refuted_regions(
    regions: Sequence[Region], arithmetic: Arithmetic, deadline: Deadline
) -> tuple[set[int], list[RowBound]]:
    """The regions that one pass of bounds refutes, by position, and the bounds of their rows.

    A region is left out where its box is empty or not finite, or where it has no disjunct or one without rows: these
    are for others to judge.

    Args:
        regions: of a specification.
        arithmetic: to compute in.
        deadline: looked at before each batch.
    """
    wanted = [position for position, region in enumerate(regions) if _is_ordinary(region, arithmetic)]
    found: set[int] = set()
    margins: list[RowBound] = []
    step = batch_of(arithmetic.graph, max((sum(map(len, regions[p].disjuncts)) for p in wanted), default=0))
    for first in range(0, len(wanted), step):
        deadline.check()
        part = wanted[first : first + step]
        boxes = [arithmetic.box(regions[position]) for position in part]
        lower, upper = (torch.cat(ends).reshape(len(part), -1) for ends in zip(*boxes, strict=True))
        rows = [arithmetic.rows(regions[position], box) for position, box in zip(part, boxes, strict=True)]
        bounder = BoxBounder(arithmetic, Rows.stack(rows))
        bounds = bounder.bound(lower, upper).lower
        for position, own, values in zip(part, rows, bounds, strict=True):
            if all(own.refuted(values[: own.count])):
                found.add(position)
                margins += _margins(position, own, values, arithmetic)
    return found, margins


def _is_ordinary(region: Region, arithmetic: Arithmetic) -> bool:
    exact, held = box_of(region, arithmetic.rounding.execution), arithmetic.box(region)
    inside = bool((exact[0] <= exact[1]).all()) and all(bool(end.isfinite().all()) for end in (*exact, *held))
    return inside and bool(region.disjuncts) and all(region.disjuncts)


def _margins(position: int, rows: Rows, bounds: Tensor, arithmetic: Arithmetic) -> list[RowBound]:
    dtype = str(arithmetic.dtype).removeprefix("torch.")
    return [
        RowBound(position, label, None, rows.undo_unit(r, float(bounds[r])), None, dtype, rows.strict[r])
        for r, label in enumerate(rows.labels)
    ]
