"""Splitting by signs of neurons: bound both parts of the worst ones, drop what is refuted, split what is open.

A part is split by the neuron that it wishes for, or by the best of several wishes after both of its parts were bounded
cheaply. Both parts keep the neuron's zero, so that they cover what they came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from zonocuda.branch.pool import Pool
from zonocuda.branch.search import SearchStopped
from zonocuda.branch.signs import PartBounder, SignBounded, SignBounder, SignParts

Found = TypeVar("Found")


@dataclass(frozen=True)
class SignSettings:
    """How to search.

    Attributes:
        batch: parts that are bounded together.
        tried: wishes of which both parts are bounded cheaply before one is taken; 1 takes the first.
        memory: bytes that the open parts may take.
    """

    batch: int = 256
    tried: int = 3
    memory: int = 2**30


@dataclass(frozen=True, eq=False)
class SignOutcome(Generic[Found]):
    """What a search found.

    Attributes:
        found: the counterexample, if there is one.
        bounded: parts that were bounded.
        depth: the most splits above one of them.
        stuck: open parts with no neuron left to split.
        open: other parts that were left when it ended.
        worst: the smallest bound of a part that is stuck or open, inf where there is none.
        is_full: whether it ended for want of memory.
    """

    found: Found | None
    bounded: int
    depth: int
    stuck: int
    open: int
    worst: float
    is_full: bool

    @property
    def is_proven(self) -> bool:
        """Whether every part was refuted."""
        return self.found is None and not self.stuck and not self.open


@dataclass(frozen=True, eq=False)
class SignState:
    """A search between two batches.

    Attributes:
        parts: those that are open and can be split, packed.
        bounded, depth, stuck, worst: as in :class:`SignOutcome`; worst of those that are stuck.
    """

    parts: SignParts
    bounded: int
    depth: int
    stuck: int
    worst: float


def refuted(bound: Tensor) -> Tensor:
    """Where a bound refutes a part: a positive number. NaN and infinity come of an overflow and prove nothing."""
    return (bound > 0) & bound.isfinite()


class SignSearch(Generic[Found]):
    """A search: refutes every group on every part, or finds a point where one holds.

    There is no chance in it: the same arguments give the same tree, as far as time allows.
    """

    def __init__(
        self,
        roots: SignParts,
        members: Sequence[Sequence[int]],
        bounder: PartBounder,
        attack: Callable[[Tensor], Found | None],
        settings: SignSettings,
        closed: Callable[[SignParts], None] = lambda parts: None,
    ) -> None:
        """A search that has not begun.

        Args:
            roots: parts that were bounded, one for every group that is open.
            members: the rows of each group.
            bounder: the bound method.
            attack: is given points ``[n, N]`` where the network may be unsafe; returns what it found, or None.
            settings: how.
            closed: is given the parts that were refuted, with what they were refuted by.
        """
        self.members, self.bounder, self.attack = members, bounder, attack
        self.settings, self.closed = settings, closed
        self.pool = Pool(roots, settings.memory)
        self.pool.push(roots)
        self.bounded = self.depth = self.stuck = 0
        self.worst = math.inf

    def state(self) -> SignState:
        """Between two batches, where nothing was found."""
        return SignState(self.pool.parts, self.bounded, self.depth, self.stuck, self.worst)

    @property
    def open(self) -> int:
        """How many parts are to be gone on with."""
        return len(self.pool)

    @property
    def worst_open(self) -> float:
        """The smallest bound of one of them, or of one that is stuck; inf where there is none."""
        return min(self.pool.worst, self.worst)

    def resume(self, state: SignState) -> None:
        """Goes on with a state, whose parts this search began with."""
        self.bounded, self.depth, self.stuck, self.worst = state.bounded, state.depth, state.stuck, state.worst

    def run(self, proceed: Callable[[], bool], most: float = math.inf) -> SignOutcome[Found]:
        """Batch after batch; what is left open can go on by another call.

        Args:
            proceed: asked before every batch; False ends it with what is open.
            most: parts that are bounded at most, about, those of calls before included.
        """
        found: Found | None = None
        is_full = False
        while len(self.pool) and found is None and self.bounded < most and proceed():
            half = max(1, self.settings.batch // 2)
            is_full = not self.pool.has_room(min(half, len(self.pool)))
            if is_full:
                break
            batch = self.pool.pop(half)
            try:
                found = self.step(batch)
            except SearchStopped:
                self.pool.push(batch)
                break
        worst = self.worst_open
        return SignOutcome(found, self.bounded, self.depth, self.stuck, len(self.pool), worst, is_full)

    def step(self, batch: SignParts) -> Found | None:
        """Goes on with some parts; returns a counterexample if one is found there."""
        can = batch.wishes[:, 0] >= 0
        whole, batch = batch.at(~can), batch.at(can)
        results = []
        if len(batch):
            parts = batch.split(self.choose(batch))
            results.append(self.bounder.bound(self.best_rows(parts)))
        if len(whole):
            results.append(self.settle(whole))
        parts = SignParts.cat([result.parts for result in results])
        self.bounded += len(parts)
        self.depth = max(self.depth, int(parts.depth.max()))
        is_closed = refuted(parts.bound)
        if bool(is_closed.any()):
            self.closed(parts.at(is_closed))
        left = parts.at(~is_closed)
        if not len(left):
            return None
        points = torch.cat([result.points for result in results])
        found = self.attack(points[~is_closed])
        if found is None:
            is_stuck = torch.zeros_like(is_closed)
            if len(whole):
                is_stuck[-len(whole) :] = True
            is_stuck = is_stuck[~is_closed]
            self.stuck += int(is_stuck.sum())
            self.worst = min(self.worst, left.at(is_stuck).worst)
            self.pool.push(left.at(~is_stuck))
        return found

    def settle(self, whole: SignParts) -> SignBounded:
        """Bounds of parts with no neuron left to split, with all might, by the best of all rows of their groups."""
        results = [
            self.bounder.bound(replace(whole, row=rows), thorough=True) for rows in self.choices(whole.group).unbind(1)
        ]
        if len(results) == 1:
            return results[0]
        bounds = torch.stack([result.parts.bound for result in results])
        best = bounds.argmax(0) * len(whole) + torch.arange(len(whole), device=bounds.device)
        parts = SignParts.cat([result.parts for result in results]).at(best)
        return SignBounded(parts, torch.cat([result.points for result in results])[best])

    def choose(self, batch: SignParts) -> Tensor:
        """The neuron ``[S]`` to split: of the first wishes the one whose parts are least open."""
        tried = min(self.settings.tried, batch.wishes.shape[1])
        if tried == 1:
            return batch.wishes[:, 0]
        left_open = []
        for number in range(tried):
            wish = batch.wishes[:, number]
            value = self.bounder.estimate(batch.split(wish.clamp(min=0))).clamp(max=0).reshape(2, -1).sum(0)
            left_open.append(torch.where((wish >= 0) & ~value.isnan(), value, -math.inf))
        best = torch.stack(left_open, 1).argmax(1, keepdim=True)
        return batch.wishes.gather(1, best).squeeze(1)

    def best_rows(self, parts: SignParts) -> SignParts:
        """The parts, each with the row of its group that seems nearest to a proof."""
        choices = self.choices(parts.group)
        if choices.shape[1] == 1:
            return parts
        found = [self.bounder.estimate(replace(parts, row=rows)) for rows in choices.unbind(1)]
        best = torch.stack(found, 1).nan_to_num(-math.inf).argmax(1, keepdim=True)
        return replace(parts, row=choices.gather(1, best).squeeze(1))

    def choices(self, group: Tensor) -> Tensor:
        """The rows of groups ``[S]``, the last one repeated where a group has fewer than another: ``[S, M]``."""
        most = max(map(len, self.members))
        padded = [[*rows, *[rows[-1]] * (most - len(rows))] for rows in self.members]
        return torch.tensor(padded, device=group.device)[group]


@dataclass(frozen=True, eq=False)
class Deepened:
    """Small trees of R rows.

    Attributes:
        bounded: parts that were bounded.
        leaves: places for leaves, packed, equally many for each row, one row after the other.
        leaf_bounds: ``[R, W]``, their bounds; inf where a place is not taken.
    """

    bounded: int
    leaves: SignParts
    leaf_bounds: Tensor

    @property
    def bound(self) -> Tensor:
        """``[R]``, the least over the leaves of each row."""
        return self.leaf_bounds.amin(1)


def deepen(roots: SignParts, bounder: SignBounder, rounds: int, batch: int, proceed: Callable[[], bool]) -> Deepened:
    """Better bounds of rows, each by a small tree of its own: in every round the worst leaf of each row is split.

    What is split is told by bounds that are not proven; those of the leaves are proven in the end. A row is done once
    its bound seems positive.

    Args:
        roots: one part for every row, bounded.
        bounder: the bound method.
        rounds: splits of each row.
        batch: parts that are bounded together.
        proceed: asked before every batch; False ends the splitting.
    """
    count, width = len(roots), rounds + 1
    place = torch.arange(count, device=roots.row.device) * width
    leaves = roots.packed().at(torch.arange(count, device=place.device).repeat_interleave(width))
    guesses = roots.bound.new_full((count, width), math.inf)
    taken = torch.zeros_like(guesses, dtype=torch.bool)
    guesses[:, 0], taken[:, 0] = roots.bound, True
    bounded = 0
    try:
        for number in range(1, width):
            low, worst = guesses.min(1)
            at = place + worst
            going = (~(low > 0) & (leaves.wishes[at, 0] >= 0)).nonzero().squeeze(1)
            if not len(going):
                break
            for rows in torch.split(going, max(1, batch // 2)):
                if not proceed():
                    return Deepened(bounded, leaves, _proven(roots, bounder, leaves, taken, batch))
                parents = leaves.at(at[rows]).unpacked()
                found = bounder.sketch(parents.split(parents.wishes[:, 0]))
                bounded += len(found)
                kept, slots = found.packed(), torch.cat([at[rows], place[rows] + number])
                for name in ("signs", "slopes", "multipliers", "depth", "wishes"):
                    getattr(leaves, name)[slots] = getattr(kept, name)
                guesses.view(-1)[slots] = torch.where(found.bound.isfinite(), found.bound, -math.inf)
                taken.view(-1)[slots] = True
        return Deepened(bounded, leaves, _proven(roots, bounder, leaves, taken, batch))
    except SearchStopped:
        return Deepened(bounded, leaves, _nothing(roots, taken))


def _nothing(roots: SignParts, taken: Tensor) -> Tensor:
    """Bounds ``[R, W]`` of leaves before anything is proven, and inf where there is none."""
    return torch.where(taken, -math.inf, math.inf).to(roots.bound)


def _proven(roots: SignParts, bounder: SignBounder, leaves: SignParts, taken: Tensor, batch: int) -> Tensor:
    """Proven bounds ``[R, W]`` of the leaves, inf where there is none; its root's for a row that was not split."""
    bounds = _nothing(roots, taken)
    whole = taken.sum(1) == 1
    bounds[whole, 0] = roots.bound[whole]
    places = (taken & ~whole.unsqueeze(1)).view(-1).nonzero().squeeze(1)
    for some in torch.split(places, batch) if len(places) else ():
        bounds.view(-1)[some] = bounder.as_it_is(leaves.at(some).unpacked()).parts.bound
    return bounds
