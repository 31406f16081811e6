"""The search: bound a batch of boxes, drop what is refuted, cut and split what is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from zonocuda.branch.choice import Choice, Estimate, dimension_to_split, in_parts, without_refuting, worst_bound
from zonocuda.branch.cut import cut
from zonocuda.branch.queue import MEMORY, Queue
from zonocuda.branch.record import Recorder
from zonocuda.branch.subproblems import Subproblems, middles, splittable

Found = TypeVar("Found")

AGAIN = 0.5
"""Of a box: a cut that leaves no more has done what a split does, with one box in the stead of two."""


@dataclass(frozen=True, eq=False)
class Bounded:
    """Proven linear bounds of the rows on boxes.

    Attributes:
        lower: ``[S, R]``; a bound that is not finite says nothing.
        weight: ``[S, R, N]``, v: row(x) >= lower + v . (x - corner) on the box, the corner being where v . x is least.
        notes: ``[S, K]`` (uint8), what is to be written down of how they were found.
        known: ``[S, K']``, what may help with parts of the boxes.
    """

    lower: Tensor
    weight: Tensor
    notes: Tensor | None = None
    known: Tensor | None = None


class SearchStopped(Exception):  # noqa: N818 - it is an outcome, not an error
    """What a bound method may raise in the middle of a batch, whose boxes are then open."""


class Bounder(Protocol):
    """A bound method, for batches of boxes ``[S, N]``, of which it ``knows`` what it said of boxes that hold them."""

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        """Proven bounds."""

    @property
    def estimate(self) -> Estimate:
        """Cheap bounds of the rows, which choose what is split and need not be proven."""


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        batch: boxes that are bounded together, by bounds and by estimates.
        choice: of the coordinate to split.
        cuts: whether open boxes are cut.
        again: where a cut leaves no more than this part of a box, that is bounded before it is split.
        memory: bytes of open boxes that are held in memory; the rest goes to files.
    """

    batch: int = 512
    choice: Choice = "alternate"
    cuts: bool = True
    again: float = AGAIN
    memory: int = MEMORY


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Found]):
    """What a search found.

    Attributes:
        found: the counterexample, if there is one.
        bounded: boxes that were bounded.
        depth: the most splits above one of them.
        stuck: open boxes that hold no float to split at.
        open: how many boxes were left when it ended.
        worst: the smallest bound of a box that is stuck or open, inf where there is none.
    """

    found: Found | None
    bounded: int
    depth: int
    stuck: Subproblems
    open: int
    worst: float

    @property
    def is_proven(self) -> bool:
        """Whether every box was refuted."""
        return self.found is None and not len(self.stuck) and not self.open


@dataclass(frozen=True, eq=False)
class SearchState:
    """A search between two batches.

    Attributes:
        open: boxes that are neither refuted nor split, in the order of the queue.
        stuck: open boxes that hold no float to split at.
        bounded, depth: as in :class:`Outcome`.
    """

    open: Subproblems
    stuck: Subproblems
    bounded: int
    depth: int

    @staticmethod
    def of(roots: Subproblems) -> SearchState:
        """One that begins."""
        return SearchState(roots, roots.at(slice(0)), 0, 0)


Keep = Callable[[Callable[[], SearchState]], None]
"""Is handed, before every batch and at an end with nothing found, what gives the state of a search at that moment."""


def search(
    roots: Subproblems | SearchState,
    disjuncts: Sequence[Sequence[int]],
    bounder: Bounder,
    attack: Callable[[Tensor], Found | None],
    proceed: Callable[[], bool],
    settings: Settings | None = None,
    record: Recorder | None = None,
    keep: Keep = lambda state: None,
    watch: Callable[[int, Callable[[], float]], None] = lambda count, worst: None,
) -> Outcome[Found]:
    """Refutes every disjunct on every part of the boxes, or finds a point where one holds.

    The leaves cover the boxes: a split makes two halves that share one float, and a cut leaves out only what a proven
    bound refutes. There is no chance in it: the same arguments give the same tree, as far as time allows.

    Args:
        roots: the boxes, or the state of a search to go on with.
        disjuncts: for each the rows that it needs to be at most zero; none is empty, and there is one at least.
        bounder: the bound method.
        attack: is given points ``[n, N]`` of the boxes where the network may be unsafe; returns what it found, or None.
        proceed: asked before every batch; False ends the search with what is open.
        settings: how.
        record: is told of every box; the roots have its nodes.
        keep: may write states down.
        watch: is told before every batch how many boxes are open, and what gives the smallest bound above one.

    Raises:
        ValueError: no disjunct, or one without rows: it would hold everywhere.
    """
    if not disjuncts or not all(len(rows) for rows in disjuncts):
        raise ValueError("search: every disjunct needs a row")
    state = roots if isinstance(roots, SearchState) else SearchState.of(roots)
    return _Run(state, disjuncts, bounder, attack, settings or Settings(), record).run(proceed, keep, watch)


class _Run(Generic[Found]):
    """A search under way."""

    def __init__(
        self,
        state: SearchState,
        disjuncts: Sequence[Sequence[int]],
        bounder: Bounder,
        attack: Callable[[Tensor], Found | None],
        settings: Settings,
        record: Recorder | None,
    ) -> None:
        self.disjuncts, self.bounder, self.attack, self.settings = disjuncts, bounder, attack, settings
        self.record = record
        self.queue = Queue(settings.memory)
        self.queue.put_back(state.open)
        self.stuck = [state.stuck]
        self.bounded, self.depth = state.bounded, state.depth

    def state(self) -> SearchState:
        """Between two batches."""
        nothing = self.stuck[0].at(slice(0))
        open_ = Subproblems.cat([nothing, *self.queue.boxes])
        return SearchState(open_, Subproblems.cat(self.stuck), self.bounded, self.depth)

    def run(
        self, proceed: Callable[[], bool], keep: Keep, watch: Callable[[int, Callable[[], float]], None]
    ) -> Outcome[Found]:
        """Batch after batch."""
        found: Found | None = None
        while len(self.queue) and found is None:
            keep(self.state)
            watch(len(self.queue), lambda: self.queue.worst)
            if not proceed():
                break
            batch = self.queue.pop(self.settings.batch)
            try:
                found = self.step(batch)
            except SearchStopped:
                self.queue.push(batch)
                break
        if found is None:  # else what is left of the batch is nowhere
            keep(self.state)
        stuck = Subproblems.cat(self.stuck)
        worst = min(self.queue.worst, stuck.worst)
        return Outcome(found, self.bounded, self.depth, stuck, len(self.queue), worst)

    def step(self, batch: Subproblems) -> Found | None:
        """Bounds one batch; returns a counterexample if one is found there."""
        result = self.bounder.bound(batch.lower, batch.upper, batch.known)
        self.bounded += len(batch)
        self.depth = max(self.depth, int(batch.depth.max()))
        worst = worst_bound(result.lower, self.disjuncts)
        is_open = ~(worst > 0)
        notes = result.notes
        if self.record is not None and not bool(is_open.all()):
            own = None if notes is None else notes[~is_open]
            self.record.refuted(batch.node[~is_open], result.lower[~is_open], own)
        if not bool(is_open.any()):
            return None
        lower, weight = result.lower[is_open], result.weight[is_open]
        known = batch.known if result.known is None else result.known
        batch = replace(batch.at(is_open), bound=worst[is_open], known=known[is_open])
        found = self.attack(_suspects(batch, weight))
        if found is not None:
            return found
        again = batch.at(slice(0))
        if self.settings.cuts:
            recorded = self.record is not None
            low, high = cut(batch.lower, batch.upper, lower, weight, self.disjuncts, singly=recorded)
            if self.record is not None:
                own = None if notes is None else notes[is_open]
                batch = replace(batch, node=self.record.cut(batch, low, high, lower, weight, own))
            left = _left(batch, low, high)
            batch = replace(batch, lower=low, upper=high)
            again = batch.at((left > 0) & (left <= self.settings.again))
            batch = batch.at(~(left <= self.settings.again))  # a NaN stays
        self.split(batch)
        self.queue.push(again)  # behind a split, which may stop the search with the whole batch
        return None

    def split(self, batch: Subproblems) -> None:
        """Puts the halves of open boxes into the queue."""
        free = splittable(batch.lower, batch.upper)
        can = free.any(1)
        left, free, settings = batch.at(can), free[can], self.settings
        if len(left):
            estimate = in_parts(self.bounder.estimate, settings.batch)
            told = left if self.record is None else without_refuting(left, self.disjuncts, estimate)
            chosen = dimension_to_split(told, free, self.disjuncts, estimate, settings.choice)
            parts = left.split(chosen)
            if self.record is not None:
                at = parts.lower[len(left) :].gather(1, chosen.unsqueeze(1)).squeeze(1)
                parts = replace(parts, node=self.record.split(left.node, chosen, at))
            self.queue.push(parts)
        self.stuck.append(batch.plain.at(~can))


def _left(boxes: Subproblems, low: Tensor, high: Tensor) -> Tensor:
    """Which part of each box ``[S]`` the ends ``[S, N]`` leave, about; 0 for nothing, and no other number is."""
    width = boxes.upper.double() - boxes.lower.double()
    share = torch.where(width > 0, (high.double() - low.double()) / width, 1.0)
    return share.prod(1).clamp(min=2.0**-1000).masked_fill((low > high).any(1), 0.0)


def _suspects(batch: Subproblems, weight: Tensor) -> Tensor:
    """The middle of every box, and for every row the corner where its linear bound is least: ``[S (1 + R), N]``."""
    corners = torch.where(weight >= 0, batch.lower.unsqueeze(1), batch.upper.unsqueeze(1))
    return torch.cat([middles(batch.lower, batch.upper).unsqueeze(1), corners], 1).flatten(0, 1)
