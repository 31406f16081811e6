"""One region's proof by splitting neurons at points, where not all activations can be split by signs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds, all_finite
from zonocuda.branch import SearchStopped, SignParts, SignSearch, SignSettings, refuted
from zonocuda.graph import Node
from zonocuda.prove.point_bounds import PointBounds
from zonocuda.prove.stages import Arithmetic
from zonocuda.prove.timeline import Watch, unwatched
from zonocuda.specs import Region
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.result import SplitStats

MEMORY = 2**30
"""Bytes of open parts, where nobody says otherwise."""
TRIED = 1
"""Splits whose parts are both bounded before one is taken: what points gain is known well enough."""


@dataclass(frozen=True, eq=False)
class PointCourse:
    """A region, and what a search that splits neurons at points in it needs.

    Attributes:
        region: the region, and its ``position`` in the specification.
        arithmetic: to compute in.
        intermediate: bounds ``[1, *features]`` of every activation's input, in its dtype.
        open: the disjuncts that are not refuted.
        attack: is given points ``[n, N]``; returns a counterexample, or None.
        end: when to stop, by :func:`time.monotonic`.
        memory: bytes that open parts may take.
        stopped: asked before every batch; True ends the search with what is open.
        watch: is told how far the search is.
        written: whether a proof is to be written down; see :class:`PointBounds`.
        spare: see there.
        closed: is given the parts that were refuted.
    """

    region: Region
    position: int
    arithmetic: Arithmetic
    intermediate: Mapping[str, Bounds]
    open: tuple[int, ...]
    attack: Callable[[Tensor], Counterexample | None]
    end: float
    memory: int = MEMORY
    stopped: Callable[[], bool] = lambda: False
    watch: Watch = unwatched
    written: bool = False
    spare: float = 0.0
    closed: Callable[[SignParts], None] = lambda parts: None

    @cached_property
    def bounder(self) -> PointBounds:
        """The bound method."""
        box = self.arithmetic.box(self.region)
        rows = self.arithmetic.rows(self.region, box)
        return PointBounds(self.arithmetic, rows, box, self.intermediate, self.on_node, self.written, self.spare)

    def on_node(self, node: Node) -> None:
        """Ends a pass when the time is up."""
        if not self.goes_on():
            raise SearchStopped

    def goes_on(self) -> bool:
        """Whether there is time, and nobody wants it to stop."""
        return time.monotonic() < self.end and not self.stopped()

    def run(self) -> tuple[Counterexample | None, SplitStats]:
        """Until it is decided, or the time is up."""
        begin = time.monotonic()

        def stats(bounded: int, depth: int, still: int, worst: float, is_proven: bool) -> SplitStats:
            seconds = time.monotonic() - begin
            return SplitStats(self.position, bounded, depth, still, worst, is_proven, seconds, "neuron")

        nothing = None, stats(0, 0, len(self.open), -math.inf, False)
        if not all_finite(b for bounds in self.intermediate.values() for b in bounds):
            return nothing
        try:
            search = self.plant()
            outcome = search.run(self.proceed(search))
        except SearchStopped:
            return nothing
        still = outcome.open + outcome.stuck
        return outcome.found, stats(outcome.bounded, outcome.depth, still, outcome.worst, outcome.is_proven)

    def proceed(self, search: SignSearch[Counterexample]) -> Callable[[], bool]:
        """Asked between two batches."""

        def goes_on() -> bool:
            self.watch(search.open, lambda: search.worst_open)
            return self.goes_on()

        return goes_on

    @property
    def members(self) -> list[tuple[int, ...]]:
        """The rows of the open disjuncts."""
        disjuncts = self.bounder.rows.disjuncts
        return [disjuncts[group] for group in self.open]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All of them, each with the number of its disjunct among the open ones."""
        return [(row, number) for number, rows in enumerate(self.members) for row in rows]

    def plant(self) -> SignSearch[Counterexample]:
        """A search that begins with the best row of every open disjunct."""
        members, every = self.members, self.bounder.roots(self.pairs)
        best = [(every.group == number).nonzero().squeeze(1) for number in range(len(members))]
        roots = every.at(torch.stack([index[every.bound[index].argmax()] for index in best]))
        done = refuted(roots.bound)
        if bool(done.any()):
            self.closed(roots.at(done))
        settings = SignSettings(self.bounder.batch, TRIED, self.memory)
        return SignSearch(roots.at(~done), members, self.bounder, self.attack, settings, self.closed)
