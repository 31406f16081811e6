"""One region's proof by splitting its box: the search of :mod:`zonocuda.branch`, its bounds and its replays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, get_args

import torch
from torch import Tensor

from zonocuda.bounds.deadline import Deadline
from zonocuda.branch import (
    MEMORY,
    Choice,
    Keep,
    Outcome,
    Recorder,
    RecorderState,
    SearchState,
    SearchStopped,
    Settings,
    Subproblems,
    search,
)
from zonocuda.checkpoint import CheckpointError, alike, moved
from zonocuda.graph import Graph, Node
from zonocuda.prove.box_merge import merged_boxes, refute_by
from zonocuda.prove.forest import ForestRecord, ForestWriter
from zonocuda.prove.stages import Arithmetic
from zonocuda.prove.timeline import Watch, unwatched
from zonocuda.relaxations import activations, rule_of
from zonocuda.specs import Region
from zonocuda.verifier.attack import Attack
from zonocuda.verifier.box_methods import BoxMethods
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.model import Subject
from zonocuda.verifier.result import SplitStats

Split = Literal["auto", "input", "neuron", "none"]
SPLITS: tuple[Split, ...] = get_args(Split)

MAX_INPUTS = 20
"""Inputs that vary, up to which ``auto`` splits a box: with more of them halving one tells too little, and neurons are
split instead."""
FEW_INPUTS = 8
"""Up to which it splits nothing else; with more, where neurons are split by signs, boxes have a share of the time, and
neurons the rest of it."""
BOX_SHARE = 0.4
"""Of the time, what boxes have where neurons have their turn after them."""
SECONDS = 60.0
"""Of a region's search, where no timeout says otherwise."""
BOX_MEMORY = 2 * MEMORY
"""Bytes of a search that splits a box, where no budget says less."""
RECORD_MEMORY = 2**29
"""Bytes of a search that is written down: some 400 for a box where there are 300 neurons."""
BATCH_MEMORY = 2**28
"""Bytes for boxes that are bounded together, at most."""


def wants_split(split: Split, region: Region) -> bool:
    """Whether a region's box is to be split."""
    varying = _varying(region)
    return varying > 0 and (split == "input" or (split == "auto" and varying <= MAX_INPUTS))


def wants_neurons(split: Split, region: Region, graph: Graph) -> bool:
    """Whether neurons are to be split for a region."""
    varying = _varying(region)
    few = FEW_INPUTS if without_signs(graph) is None else MAX_INPUTS
    return varying > 0 and (split == "neuron" or (split == "auto" and varying > few))


def box_seconds(split: Split, region: Region, graph: Graph, remaining: float) -> float:
    """Of the seconds that remain (infinity for a search's own budget), those for boxes."""
    share = BOX_SHARE if wants_neurons(split, region, graph) else 1.0
    return share * (SECONDS if math.isinf(remaining) else remaining)


def without_signs(graph: Graph) -> Node | None:
    """An activation that is not split by signs, if there is one."""
    return next((node for node in activations(graph) if not rule_of(node).has_signs), None)


def end_of(remaining: float) -> float:
    """When a search ends, by :func:`time.monotonic`, with so many seconds left."""
    return time.monotonic() + (SECONDS if math.isinf(remaining) else remaining)


@dataclass(frozen=True, eq=False)
class BoxState:
    """A region's search between two batches.

    Attributes:
        number: of the dtype that it is in.
        search: what is open, and what was bounded in this dtype.
        bounded, depth: of the dtypes before.
        record: what is written down, where a certificate is wanted, and it takes no more than RECORD_MEMORY.
    """

    number: int
    search: SearchState
    bounded: int
    depth: int
    record: RecorderState | None


@dataclass(frozen=True, eq=False)
class SharedOutcome:
    """What came of a search that was shared out: in so many packets, and seconds of all workers together."""

    outcome: Outcome[Counterexample]
    packets: int = 0
    work_seconds: float = 0.0


Share = Callable[["RegionSearch", SearchState, int, Recorder | None, Keep], SharedOutcome]
"""Goes on with a state in the dtype of a number."""


@dataclass(frozen=True, eq=False)
class RegionSearch:
    """A region, and what a search in it needs.

    Attributes:
        subject: the network, for replays.
        graph: the network in float32, on the device of the search.
        region: the region; its disjuncts are not empty.
        position: of the region in the specification.
        dtypes: the one to compute in, and perhaps a wider one for what its rounding leaves open.
        arithmetic: gives the network in one of them.
        remaining: the seconds that are left.
        record: whether a proof is written down.
        memory: bytes for open boxes, which go to files beyond half of it, and for those that are bounded together.
        state: to go on with; None to begin.
        keep: may write states down; is handed what makes them, until a counterexample is found.
        stopped: asked before every batch; True ends the search with what is open.
        share: shares a search in one dtype out; None searches here.
        watch: is told how far it is.
    """

    subject: Subject
    graph: Graph
    region: Region
    position: int
    dtypes: Sequence[torch.dtype]
    arithmetic: Callable[[torch.dtype], Arithmetic]
    remaining: Callable[[], float]
    record: bool = False
    memory: int = BOX_MEMORY
    state: BoxState | None = None
    keep: Callable[[Callable[[], BoxState]], None] = lambda make: None
    stopped: Callable[[], bool] = lambda: False
    share: Share | None = None
    watch: Watch = unwatched

    def run(self) -> tuple[Counterexample | None, SplitStats, ForestRecord | None]:
        """Searches in the first dtype; in the wider one in boxes that hold no float of the first to split at.

        Returns:
            The counterexample, if there is one; statistics; the proof, where there is one and it is to be recorded, and
            takes no more than RECORD_MEMORY.
        """
        begin = time.monotonic()
        methods = self.methods
        methods.end = end_of(self.remaining())
        first, bounded, depth, packets, work = methods.first, 0, 0, 0, 0.0
        disjuncts = methods.rows(first).disjuncts
        boxes, outcome = methods.whole(first), None
        recorder = Recorder(disjuncts, most=RECORD_MEMORY) if self.record else None
        begun = None if self.state is None else self._checked(self.state, first)
        if begun is not None:
            first, bounded, depth = begun.number, begun.bounded, begun.depth
            recorder = Recorder.of(begun.record, disjuncts, RECORD_MEMORY) if self.record else None
        for number in range(first, len(self.dtypes)):
            if begun is not None and number == first:
                state = begun.search
            else:
                state = SearchState.of(methods.within(boxes, number))
            keep = partial(self._keep, number, bounded, depth, recorder)
            if self.share is None:
                outcome = self.search_in(state, number, methods.end, recorder, keep)
            else:
                shared = self.share(self, state, number, recorder, keep)
                outcome, packets, work = shared.outcome, packets + shared.packets, work + shared.work_seconds
            bounded, depth, boxes = bounded + outcome.bounded, max(depth, outcome.depth), outcome.stuck
            if outcome.found is not None or not len(boxes) or outcome.open:
                break
        assert outcome is not None
        still = outcome.open + len(outcome.stuck)
        seconds = time.monotonic() - begin
        stats = SplitStats(
            self.position,
            bounded,
            depth,
            still,
            outcome.worst,
            outcome.is_proven,
            seconds,
            packets=packets,
            work_seconds=work,
        )
        if recorder is None or not recorder.is_whole or not outcome.is_proven:
            return outcome.found, stats, None
        return None, stats, self._forest(recorder, number)

    def _forest(self, recorder: Recorder, number: int) -> ForestRecord:
        """The proof as it is written down, by bounds in the dtype of a number."""
        method, whole, tree = self.methods.method(number), self.methods.whole(self.methods.first), recorder.tree()
        lower, upper = (end[0].double().cpu().numpy() for end in (whole.lower, whole.upper))
        with suppress(SearchStopped):
            tree = merged_boxes(tree, lower, upper, partial(refute_by, method))
        writer = ForestWriter()
        writer.boxes(tree, range(len(recorder.disjuncts)))
        return writer.finish()

    @cached_property
    def methods(self) -> BoxMethods:
        """Its bound methods."""
        return BoxMethods(self.region, self.dtypes, self.arithmetic, self.record, self.stopped)

    def _keep(
        self, number: int, bounded: int, depth: int, record: Recorder | None, make: Callable[[], SearchState]
    ) -> None:
        self.keep(lambda: BoxState(number, make(), bounded, depth, None if record is None else record.state()))

    def _checked(self, state: BoxState, first: int) -> BoxState:
        """A state that was read, on the device of the search.

        Raises:
            CheckpointError: it is none of this search.
        """
        if not first <= state.number < len(self.dtypes) or (state.record is not None and not self.record):
            raise CheckpointError("is damaged: the search is of another kind")
        state = moved(state, self.arithmetic(self.dtypes[state.number]).device)
        whole = self.methods.whole(state.number)
        nodes = 2**62 if state.record is None else len(state.record.child)
        for boxes in (state.search.open, state.search.stuck):
            if not alike(boxes, whole) or not _are_inside(boxes, whole, nodes):
                raise CheckpointError("is damaged: the boxes are not those of the region")
        return state

    def search_in(
        self,
        state: SearchState,
        number: int,
        end: float,
        record: Recorder | None,
        keep: Keep,
        attack: Callable[[Tensor], Counterexample | None] | None = None,
    ) -> Outcome[Counterexample]:
        """Goes on with a state in one dtype."""
        bounder = self.methods.method(number)
        memory = self.memory // 2
        batch = bounder.batch(min(BATCH_MEMORY, memory))
        choice: Choice = "alternate" if _varying(self.region) <= MAX_INPUTS else "gradient"
        settings = Settings(batch=batch, choice=choice, memory=memory)
        if attack is None:
            attack = self.attack(number)

        def proceed() -> bool:
            return time.monotonic() < end and not self.stopped()

        return search(state, bounder.rows.disjuncts, bounder, attack, proceed, settings, record, keep, self.watch)

    def attack(self, number: int, seen: int = 0, seed: int = 0) -> Attack:
        """What looks for counterexamples, until the methods' end."""
        deadline, rows = Deadline(self.methods.end - time.monotonic()), self.methods.rows(number)
        return Attack(self.subject, self.graph, self.region, self.position, rows, deadline, seen, seed)


def _are_inside(boxes: Subproblems, whole: Subproblems, nodes: int) -> bool:
    """Whether boxes lie in a box, and have nodes of so many; never true of a NaN."""
    inside = (whole.lower <= boxes.lower) & (boxes.lower <= boxes.upper) & (boxes.upper <= whole.upper)
    return bool(inside.all()) and bool(((boxes.node >= 0) & (boxes.node < nodes)).all())


def _varying(region: Region) -> int:
    return int((region.box.upper > region.box.lower).sum())
