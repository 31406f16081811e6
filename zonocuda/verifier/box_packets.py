"""A search that splits a region's box, shared out: what a worker does with some boxes, and how answers are joined."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from zonocuda.branch import Keep, Outcome, Recorder, RecorderState, SearchState, Subproblems
from zonocuda.checkpoint import moved
from zonocuda.executors import Executor
from zonocuda.verifier.falsify import Counterexample, replay
from zonocuda.verifier.ground import CPU, Ground, Suspects
from zonocuda.verifier.sharing import HEAD, Answer, Packet, Sharing
from zonocuda.verifier.splitting import RegionSearch, Share, SharedOutcome


@dataclass(frozen=True, eq=False)
class BoxProblem:
    """What all packets of a search are about: the region, the number of the dtype, and whether a proof is written."""

    ground: Ground
    number: int
    record: bool


@dataclass(frozen=True, eq=False)
class BoxesLeft:
    """Open boxes that hold no float to split at, and what is written down, of whose tree the packet's boxes are the
    first nodes."""

    stuck: Subproblems
    record: RecorderState | None


_last: tuple[str, RegionSearch] | None = None
"""The search of the last packet of this process, by the ground's key."""


def _search_of(problem: BoxProblem) -> RegionSearch:
    global _last
    ground = problem.ground
    if _last is None or _last[0] != ground.key:
        search = RegionSearch(
            ground.subject,
            ground.search_graph,
            ground.region,
            ground.position,
            ground.dtypes,
            ground.arithmetic,
            lambda: 0.0,
            record=problem.record,
            memory=ground.memory,
        )
        _last = ground.key, search
    return _last[1]


def search_boxes(problem: BoxProblem, packet: Packet[Subproblems]) -> Answer[Subproblems]:
    """In a worker: refutes boxes until the packet's seconds are up."""
    with problem.ground.settled():
        search = _search_of(problem)
        methods, ground = search.methods, problem.ground
        methods.method(problem.number)  # makes it, which is none of the packet's seconds
        begin = time.monotonic()
        methods.end = begin + packet.seconds
        boxes = moved(packet.parts, torch.device(ground.device))
        boxes = replace(boxes, node=torch.arange(len(boxes), device=boxes.node.device))
        recorder = Recorder(methods.rows(problem.number).disjuncts, len(boxes)) if problem.record else None
        attack = search.attack(problem.number, packet.seen, packet.number << 8)
        suspects = Suspects(attack, packet)
        state = SearchState.of(boxes)
        current: Callable[[], SearchState] = lambda: state  # noqa: E731

        def keep(make: Callable[[], SearchState]) -> None:
            nonlocal current
            current = make

        outcome = search.search_in(state, problem.number, methods.end, recorder, keep, suspects)
        left = moved(current(), CPU)
        more = BoxesLeft(left.stuck, None if recorder is None else recorder.state())
        tried, seconds = attack.seen - packet.seen, time.monotonic() - begin
    return Answer(
        packet.name,
        left.open,
        outcome.bounded,
        outcome.depth,
        suspects.points(ground.graph.input_shape),
        tried,
        seconds,
        more,
    )


def sharer(executor: Executor, ground: Callable[[RegionSearch], Ground]) -> Share:
    """What shares searches of boxes out over an executor, after a short one here."""

    def share(
        search: RegionSearch, state: SearchState, number: int, record: Recorder | None, keep: Keep
    ) -> SharedOutcome:
        current: Callable[[], SearchState] = lambda: state  # noqa: E731

        def hold(make: Callable[[], SearchState]) -> None:
            nonlocal current
            current = make
            keep(make)

        end = search.methods.end
        outcome = search.search_in(state, number, min(end, time.monotonic() + HEAD), record, hold)
        if outcome.found is not None or not outcome.open or search.stopped() or time.monotonic() >= end:
            return SharedOutcome(outcome)
        return _BoxSharing(executor, ground(search), search, current(), number, record, keep).run()

    return share


class _BoxSharing:
    """One search that is shared out."""

    def __init__(
        self,
        executor: Executor,
        ground: Ground,
        search: RegionSearch,
        state: SearchState,
        number: int,
        record: Recorder | None,
        keep: Keep,
    ) -> None:
        self.search, self.begun, self.record, self.keep = search, moved(state, CPU), record, keep
        self.stuck = [self.begun.stuck]
        self.sharing = Sharing(
            executor,
            search_boxes,
            BoxProblem(ground, number, record is not None),
            Subproblems.cat,
            self.replay,
            self.take,
            search.methods.end,
            search.stopped,
            lambda: keep(self.state),
            search.memory,
            search.watch,
        )

    def run(self) -> SharedOutcome:
        """Until it is decided, or the time is up."""
        sharing = self.sharing
        found = sharing.run(self.begun.open)
        if found is None:
            self.keep(self.state)
        state = self.state()
        worst = min(state.open.worst, state.stuck.worst)
        outcome = Outcome(found, state.bounded, state.depth, state.stuck, len(state.open), worst)
        return SharedOutcome(outcome, sharing.packets, sharing.work_seconds)

    def state(self) -> SearchState:
        """Of what came back so far."""
        bounded, depth = self.begun.bounded + self.sharing.bounded, max(self.begun.depth, self.sharing.depth)
        return SearchState(self.sharing.open, Subproblems.cat(self.stuck), bounded, depth)

    def replay(self, points: torch.Tensor) -> Counterexample | None:
        """By the network itself."""
        return replay(self.search.subject, self.search.region, self.search.position, points)

    def take(self, boxes: Subproblems, answer: Answer[Subproblems]) -> Subproblems:
        """Joins an answer: its tree grows where the packet's boxes were leaves."""
        more: BoxesLeft = answer.more
        left, stuck = answer.open, more.stuck
        if self.record is not None:
            assert more.record is not None, "a proof is written down by all, or by none"
            shift = self.record.graft(boxes.node.tolist(), more.record)
            left, stuck = (_renumbered(some, boxes.node, shift) for some in (left, stuck))
        self.stuck.append(stuck)
        return left


def _renumbered(boxes: Subproblems, roots: torch.Tensor, shift: int) -> Subproblems:
    """Boxes with the numbers of the whole search for those of a packet, whose own boxes are ``roots`` there."""
    is_root = boxes.node < len(roots)
    node = torch.where(is_root, roots[boxes.node.clamp(max=len(roots) - 1)], boxes.node + shift)
    return replace(boxes, node=node)
