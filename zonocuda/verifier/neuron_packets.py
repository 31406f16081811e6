"""The last search by signs of neurons, shared out: what a worker does with some parts, and how answers are joined."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from zonocuda.bounds.interval import Bounds
from zonocuda.branch import SignOutcome, SignParts, SignSearch, SignState
from zonocuda.checkpoint import moved
from zonocuda.executors import Executor
from zonocuda.prove.sign_bounds import SignBounds
from zonocuda.verifier.attack import Attack
from zonocuda.verifier.falsify import Counterexample, replay
from zonocuda.verifier.ground import CPU, Ground, Suspects
from zonocuda.verifier.leaf import Leaf
from zonocuda.verifier.model import Subject
from zonocuda.verifier.neuron_search import MEASURE, NeuronCourse, NeuronSearch, NeuronShare
from zonocuda.verifier.sharing import Answer, Packet, SharedSearch, Sharing


@dataclass(frozen=True, eq=False)
class NeuronProblem:
    """What all packets of a search are about.

    Attributes:
        ground: the region and its network.
        intermediate: bounds of the input of every ReLU on the whole box, lemmas included.
        open: the disjuncts that are not refuted.
        written: whether a proof is written down; no counterexample is sought then.
        leaf: see :class:`NeuronSearch`.
    """

    ground: Ground
    intermediate: Mapping[str, Bounds]
    open: tuple[int, ...]
    written: bool
    leaf: Leaf


@dataclass(frozen=True, eq=False)
class SignsLeft:
    """Parts with all signs known that are open, their worst bound, and what was refuted, where that is written down."""

    stuck: int
    worst: float
    closed: SignParts | None


class _PacketCourse(NeuronCourse):
    """A course of packets, each a search of its own with the same bounds."""

    def __init__(self, problem: NeuronProblem) -> None:
        ground = problem.ground
        self.written = problem.written
        arithmetics = [ground.arithmetic(dtype) for dtype in ground.dtypes]
        box = arithmetics[0].box(ground.region)
        rows = arithmetics[0].rows(ground.region, box)
        attack = Attack(ground.subject, ground.search_graph, ground.region, ground.position, rows)
        intermediate = moved(dict(problem.intermediate), torch.device(ground.device))
        super().__init__(
            NeuronSearch(
                ground.region,
                ground.position,
                arithmetics,
                intermediate,
                problem.open,
                (lambda points: None) if problem.written else attack,
                math.inf,
                ground.memory,
                leaf=problem.leaf,
            )
        )
        self.bounder: SignBounds = self.rows_on(self.intermediate)
        self.like = self.roots(self.bounder, MEASURE)
        self.kept: list[SignParts] = []

    def closed(self, parts: SignParts) -> None:
        """Keeps what is refuted, where it is written down."""
        if self.written:
            self.kept.append(moved(parts, CPU))

    def search_packet(self, packet: Packet[SignParts]) -> Answer[SignParts]:
        """Refutes parts until the packet's seconds are up."""
        begin = time.monotonic()
        self.search = replace(self.search, end=begin + packet.seconds)
        self.kept = []
        parts = self.checked(moved(packet.parts, self.like.row.device), self.like).unpacked()
        suspects = Suspects(self.search.attack, packet)
        search = SignSearch(parts, self.members, self.bounder, suspects, self.settings, self.closed)
        outcome = search.run(lambda: self.left > 0)
        state = moved(search.state(), CPU)
        more = SignsLeft(state.stuck, state.worst, SignParts.cat(self.kept) if self.kept else None)
        points = suspects.points(self.search.arithmetics[0].graph.input_shape)
        return Answer(
            packet.name, state.parts, outcome.bounded, outcome.depth, points, 0, time.monotonic() - begin, more
        )


_last: tuple[str, _PacketCourse] | None = None
"""The course of the last packet of this process, by the ground's key."""


def search_signs(problem: NeuronProblem, packet: Packet[SignParts]) -> Answer[SignParts]:
    """In a worker: refutes parts until the packet's seconds are up."""
    global _last
    with problem.ground.settled():
        if _last is None or _last[0] != problem.ground.key:
            _last = problem.ground.key, _PacketCourse(problem)
        return _last[1].search_packet(packet)


def neuron_sharer(executor: Executor, subject: Subject, ground: Callable[[NeuronSearch], Ground]) -> NeuronShare:
    """What shares the last searches by signs out over an executor."""

    def share(course: NeuronCourse, tree: SignSearch[Counterexample]) -> SharedSearch:
        return _NeuronSharing(executor, subject, ground(course.search), course, tree)

    return share


class _NeuronSharing:
    """One search that is shared out."""

    def __init__(
        self,
        executor: Executor,
        subject: Subject,
        ground: Ground,
        course: NeuronCourse,
        tree: SignSearch[Counterexample],
    ) -> None:
        self.course, self.begun = course, tree.state()
        self.stuck, self.worst = self.begun.stuck, self.begun.worst
        search = course.search
        problem = NeuronProblem(
            ground, moved(dict(course.intermediate), CPU), tuple(search.open), course.written, search.leaf
        )
        self.sharing = Sharing(
            executor,
            search_signs,
            problem,
            SignParts.cat,
            lambda points: replay(subject, search.region, search.position, points),
            self.take,
            search.end,
            search.stopped,
            lambda: search.keep(course.state),
            search.memory,
            search.watch,
        )

    @property
    def bounded(self) -> int:
        """Parts of the whole tree, those before it was shared out included."""
        return self.begun.bounded + self.sharing.bounded

    def run(self) -> SignOutcome[Counterexample]:
        """Until it is decided, or the time is up."""
        found = self.sharing.run(moved(self.begun.parts, CPU))
        state = self.state()
        worst = min(state.worst, state.parts.worst)
        return SignOutcome(found, state.bounded, state.depth, state.stuck, len(state.parts), worst, False)

    def state(self) -> SignState:
        """Of what came back so far."""
        depth = max(self.begun.depth, self.sharing.depth)
        return SignState(self.sharing.open, self.bounded, depth, self.stuck, self.worst)

    def take(self, parts: SignParts, answer: Answer[SignParts]) -> SignParts:
        """Joins an answer."""
        more: SignsLeft = answer.more
        self.stuck, self.worst = self.stuck + more.stuck, min(self.worst, more.worst)
        if more.closed is not None:
            self.course.closed(moved(more.closed, self.course.box[0].device))
        return answer.open
