"""The bound methods of a search that splits a region's box, made when they are first asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.branch import SearchStopped, Subproblems
from zonocuda.graph import Node
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region


class BoxMethods:
    """Bounds of a region's rows on parts of its box, in one of several dtypes.

    ``end``, by :func:`time.monotonic`, and ``stopped`` end what is under way.
    """

    def __init__(
        self,
        region: Region,
        dtypes: Sequence[torch.dtype],
        arithmetic: Callable[[torch.dtype], Arithmetic],
        record: bool,
        stopped: Callable[[], bool],
    ) -> None:
        self.region, self.dtypes, self.arithmetic, self.record, self.stopped = (
            region,
            dtypes,
            arithmetic,
            record,
            stopped,
        )
        self.end = math.inf
        self._bounders: dict[int, BoxBounder] = {}

    @property
    def first(self) -> int:
        """The number of the dtype to begin in: the last one where bounds are by matrices."""
        return 0 if self._dense is None else len(self.dtypes) - 1

    def whole(self, number: int) -> Subproblems:
        """The region's box, in the floats of a dtype."""
        return Subproblems.of(*_flat(self.arithmetic(self.dtypes[number]).box(self.region)))

    def rows(self, number: int) -> Rows:
        """The region's rows."""
        return self._bounder(number).rows

    def method(self, number: int) -> BoxBounder | DenseBounder:
        """The bound method in a dtype."""
        return self._dense or self._bounder(number)

    def within(self, boxes: Subproblems, number: int) -> Subproblems:
        """Boxes in a dtype's floats, in its own box of the region: the rest is nobody's concern."""
        whole = self.whole(number)
        lower, upper = whole.lower, whole.upper
        low, high = torch.maximum(boxes.lower.to(lower), lower), torch.minimum(boxes.upper.to(upper), upper)
        inside = replace(boxes, lower=low, upper=high, bound=boxes.bound.to(lower)).plain
        return inside.at(~(low > high).any(1))

    def _on_node(self, node: Node | None = None) -> None:
        if time.monotonic() >= self.end or self.stopped():
            raise SearchStopped

    def _bounder(self, number: int) -> BoxBounder:
        if number not in self._bounders:
            arithmetic = self.arithmetic(self.dtypes[number])
            rows = arithmetic.rows(self.region, arithmetic.box(self.region))
            wide = partial(self._bounder, number + 1) if number + 1 < len(self.dtypes) else None
            self._bounders[number] = BoxBounder(arithmetic, rows, wide, self._on_node, notes=self.record)
        return self._bounders[number]

    @cached_property
    def _dense(self) -> DenseBounder | None:
        """Bounds by matrices, for networks that are small chains, where float64 may be used."""
        if self.dtypes[-1] is not torch.float64:
            return None
        arithmetic = self.arithmetic(torch.float64)
        box = arithmetic.box(self.region)
        network = DenseNetwork.of(arithmetic.rounding, box)
        if network is None:
            return None
        wide = partial(self._bounder, len(self.dtypes) - 1)
        return DenseBounder(network, arithmetic.rows(self.region, box), wide, self._on_node, notes=self.record)


def _flat(box: Bounds) -> Bounds:
    return box[0].reshape(len(box[0]), -1), box[1].reshape(len(box[1]), -1)
