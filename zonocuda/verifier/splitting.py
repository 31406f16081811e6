"""One region's proof by splitting its box: the search of :mod:`zonocuda.branch`, its bounds and its replays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zonocuda.branch import Outcome, Settings, Subproblems, search
from zonocuda.graph import Graph
from zonocuda.specs import Region
from zonocuda.verifier.boxes import BoxBounder, batch_of
from zonocuda.verifier.falsify import Counterexample, replay
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.model import Subject
from zonocuda.verifier.result import SplitStats
from zonocuda.verifier.rows import Rows
from zonocuda.verifier.stages import Arithmetic

Split = Literal["auto", "input", "none"]
SPLITS: tuple[Split, ...] = get_args(Split)

MAX_INPUTS = 20
"""Inputs that vary, up to which ``auto`` splits a box: with more of them halving one tells too little."""
SECONDS = 60.0
"""Of a region's search, where no timeout says otherwise."""
REPLAYS = 4
"""Points of a batch that are replayed at most."""


def wants_split(split: Split, region: Region) -> bool:
    """Whether a region's box is to be split."""
    varying = int((region.box.upper > region.box.lower).sum())
    return varying > 0 and (split == "input" or (split == "auto" and varying <= MAX_INPUTS))


@dataclass(frozen=True, eq=False)
class RegionSearch:
    """A region, and what a search in it needs.

    Attributes:
        subject: the network, for replays.
        graph: the network in float32, on the device of the search.
        region: the region; its disjuncts are not empty.
        position: of the region in the specification.
        arithmetics: the one to compute in, and perhaps a wider one for what its rounding leaves open.
        remaining: the seconds that are left.
    """

    subject: Subject
    graph: Graph
    region: Region
    position: int
    arithmetics: Sequence[Arithmetic]
    remaining: Callable[[], float]

    def run(self) -> tuple[Counterexample | None, SplitStats]:
        """Searches in the first arithmetic; in the wider one in boxes that hold no float of the first to split at."""
        begin = time.monotonic()
        end = begin + min(SECONDS if math.isinf(self.remaining()) else math.inf, self.remaining())
        bounders: list[BoxBounder] = []
        for arithmetic in reversed(self.arithmetics):
            rows = arithmetic.rows(self.region, arithmetic.box(self.region))
            bounders.insert(0, BoxBounder(arithmetic, rows, bounders[0] if bounders else None))
        root = _flat(self.arithmetics[0].box(self.region))
        boxes, outcome = Subproblems.of(*root), None
        bounded = depth = 0
        for arithmetic, bounder in zip(self.arithmetics, bounders, strict=True):
            outcome = self._search(self._within(boxes, arithmetic), bounder, end)
            bounded, depth, boxes = bounded + outcome.bounded, max(depth, outcome.depth), outcome.stuck
            if outcome.found is not None or not len(boxes) or outcome.open:
                break
        assert outcome is not None
        left = outcome.open + len(outcome.stuck)
        seconds = time.monotonic() - begin
        stats = SplitStats(self.position, bounded, depth, left, outcome.worst, outcome.is_proven, seconds)
        return outcome.found, stats

    def _within(self, boxes: Subproblems, arithmetic: Arithmetic) -> Subproblems:
        """Boxes in an arithmetic's floats, in its own box of the region: the rest is nobody's concern."""
        lower, upper = _flat(arithmetic.box(self.region))
        low, high = torch.maximum(boxes.lower.to(lower), lower), torch.minimum(boxes.upper.to(upper), upper)
        inside = Subproblems(low, high, boxes.bound.to(lower), boxes.depth)
        return inside.at(~(low > high).any(1))

    def _search(self, boxes: Subproblems, bounder: BoxBounder, end: float) -> Outcome[Counterexample]:
        rows = bounder.rows
        settings = Settings(batch=batch_of(bounder.graph))
        attack = self._attack(Rows.of(self.region, rows.input.shape[1], rows.output.shape[1], self._example()))
        return search(boxes, rows.disjuncts, bounder, attack, lambda: time.monotonic() < end, settings)

    def _example(self) -> Tensor:
        return torch.empty((), dtype=torch.float32, device=self.arithmetics[0].device)

    def _attack(self, rows: Rows) -> Callable[[Tensor], Counterexample | None]:
        box, shape = self.region.box, self.graph.input_shape
        low, high = (end.to(rows.constant.device) for end in (box.float32_lower, box.float32_upper))
        members = [list(disjunct) for disjunct in rows.disjuncts]

        def attack(points: Tensor) -> Counterexample | None:
            with torch.no_grad():
                x = torch.clamp(points.float(), low, high).reshape(-1, *shape)
                values = rows.values(x, self.graph(x))
                excess = torch.stack([values[:, rows_of].amax(1) for rows_of in members]).amin(0)
            unsafe = (excess <= 0).nonzero().squeeze(1)
            chosen = unsafe[excess[unsafe].argsort()[:REPLAYS]]
            return replay(self.subject, self.region, self.position, x[chosen].cpu()) if len(chosen) else None

        return attack


def _flat(box: Bounds) -> Bounds:
    return box[0].flatten(1), box[1].flatten(1)
