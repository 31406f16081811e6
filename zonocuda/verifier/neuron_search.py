"""One region's proof by splitting neurons: a search, better bounds of neurons where it does not end, another search.

A first search is short: most problems that splitting decides at all need few parts. What it leaves open lacks tight
bounds of the ReLUs' inputs, of which no number of parts makes up: lemmas (:mod:`zonocuda.prove.lemmas`) are found,
each time with more effort, as long as they bring the row's bound nearer to zero and leave time for the last search.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import get_args

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.dual_pass import PASS_BYTES, DualPass
from zonocuda.bounds.dual.problem import output_rows
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.interval import Bounds, all_finite
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.branch import SearchStopped, SignOutcome, SignParts, SignSearch, SignSettings, SignState, refuted
from zonocuda.checkpoint import CheckpointError, moved
from zonocuda.graph import Graph, Node
from zonocuda.prove.lemmas import LemmaEffort, Lemmas, find_lemmas, in_dtype
from zonocuda.prove.sign_bounds import CHILD, ROOT, Pace, SignBounds
from zonocuda.prove.stages import Arithmetic
from zonocuda.prove.timeline import Watch, unwatched
from zonocuda.specs import Region
from zonocuda.verifier.course_state import CourseState, Stage, checked_parts
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.leaf import Leaf, with_mixed
from zonocuda.verifier.lemma_packets import LemmaHelpers, helping
from zonocuda.verifier.neuron_kept import KeptSearch
from zonocuda.verifier.result import SplitStats
from zonocuda.verifier.sharing import SharedSearch

BATCH = 256
"""Parts that are bounded together, at most."""
MEMORY = 2**30
"""Bytes of open parts, where nobody says otherwise."""
FIRST = 640
"""Parts of the search before lemmas."""
NEAR = 0.3
"""What may be left of a row's lacking bound for that search to go on,"""
LATER = 8192
"""up to so many parts."""
TRIED = 3
"""Neurons of which both parts are bounded before one is split."""
EFFORTS = (LemmaEffort(128, 8), LemmaEffort(256, 16), LemmaEffort(512, 32), LemmaEffort(1024, 64))
"""Of lemmas, one after the other."""
SHARE = 0.75
"""Of the time that is left, what lemmas may take."""
WORTH = 0.1
"""How much of a row's lacking bound lemmas should bring, to be continued."""
WITHIN = 2.0
"""How many times what a short search brings a row's bound may lack, for one to begin after lemmas."""
MEASURE = Pace(0, 0.0, 0.0)
"""Of roots that tell no more than what rounding takes, and how large rows are."""
COSTS = Pace(10, 0.1, 0.1)
"""Of the rows that say which neurons matter."""


@dataclass(frozen=True, eq=False)
class NeuronSearch:
    """A region, and what a search by signs of neurons in it needs.

    Attributes:
        region: the region, and its ``position`` in the specification.
        arithmetics: the one to compute in, and perhaps a wider one for what its rounding leaves open.
        intermediate: bounds of the input of every ReLU, in the first dtype.
        open: the disjuncts that are not refuted.
        attack: is given points ``[n, N]``; returns a counterexample, or None.
        end: when to stop, by :func:`time.monotonic`.
        memory: bytes that open parts may take.
        state: to go on with; None to begin.
        keep: may write states down; is handed what makes them, until a counterexample is found.
        stopped: asked before every batch; True ends the search with what is open.
        share: shares the last search out; None goes on here.
        helpers: share the lemmas of a search that lasts; None finds them here.
        watch: is told how far the search is.
        leaf: ``lp``: small parts may have a linear program; ``milp``: and a mixed one looks for a counterexample.
        kept: keeps the proof, where it is to be written down.
    """

    region: Region
    position: int
    arithmetics: Sequence[Arithmetic]
    intermediate: Mapping[str, Bounds]
    open: Sequence[int]
    attack: Callable[[Tensor], Counterexample | None]
    end: float
    memory: int = MEMORY
    state: CourseState | None = None
    keep: Callable[[Callable[[], CourseState]], None] = lambda make: None
    stopped: Callable[[], bool] = lambda: False
    share: NeuronShare | None = None
    helpers: LemmaHelpers | None = None
    watch: Watch = unwatched
    leaf: Leaf = "lp"
    kept: KeptSearch = field(default_factory=KeptSearch)

    def run(self) -> tuple[Counterexample | None, SplitStats]:
        """Until it is decided, or the time is up."""
        return NeuronCourse(self).run()


NeuronShare = Callable[["NeuronCourse", SignSearch[Counterexample]], SharedSearch]
"""Shares the tree of a course out."""


class NeuronCourse:
    """A search under way."""

    written = False
    """Whether bounds are those of what a certificate can hold."""

    def __init__(self, search: NeuronSearch) -> None:
        self.search, self.intermediate = search, dict(search.intermediate)
        self.begin = time.monotonic()
        self.bounded = self.depth = self.lemmas = 0
        self.lemma_parts = 0  # of those bounded
        self.counted = 0  # of the tree's parts, those that ``bounded`` has
        self.rounds = 0  # of lemmas
        self.spent = 0.0  # seconds of the last one, without its searches, whose time is cut to what there is
        self.stage: Stage = "look"
        self.layer = ""
        self.tree: SignSearch[Counterexample] | None = None
        self.shared: SharedSearch | None = None  # in the stead of ``tree``
        self.margin = -math.inf  # the worst bound of an open disjunct on the whole box
        self.brought = 0.0  # how much nearer to zero short searches brought it
        self.settings = SignSettings(batch_of(search.arithmetics[0].graph), TRIED, search.memory)
        self.box = search.arithmetics[0].box(search.region)
        disjuncts = search.arithmetics[0].rows(search.region, self.box).disjuncts
        self.members = [disjuncts[group] for group in search.open]
        self.begun: SignState | None = None
        if search.state is not None:
            self.resume(search.state)

    def run(self) -> tuple[Counterexample | None, SplitStats]:
        """Short searches and lemmas in turn, then one search to the end."""
        nothing = None, self.stats(len(self.members), self.margin, False)
        if not all_finite(b for bounds in self.intermediate.values() for b in bounds):
            return nothing
        try:
            outcome = self.look_and_learn()
            if self.goes_on(outcome):
                self.stage = "last"
                assert self.tree is not None
                outcome = self.go_on(self.tree, math.inf) if self.search.share is None else self.share_out(self.tree)
            if outcome.found is None:  # else what is left of a batch is nowhere
                self.search.keep(self.state)
        except SearchStopped:
            self.search.keep(self.state)
            return None, self.stats(len(self.members), self.margin, False)
        return outcome.found, self.stats(outcome.open + outcome.stuck, outcome.worst, outcome.is_proven)

    def look_and_learn(self) -> SignOutcome[Counterexample]:
        """Short searches and lemmas in turn; ``tree`` is the last search."""
        outcome = None if self.stage == "find" else with_mixed(self, self.look())
        while self.rounds < len(EFFORTS) and self.stage != "last":
            effort = EFFORTS[self.rounds]
            dear = 2 * self.spent > SHARE * self.left
            if outcome is not None and (dear or not self.goes_on(outcome)):  # else the lemmas were begun before
                break
            before, started = self.margin, time.monotonic()
            self.stage = "find"
            searching = self.find(effort)
            self.rounds += 1
            self.spent = (1 - searching) * (time.monotonic() - started)
            self.stage, self.layer, self.tree = "look", "", None
            outcome = self.look()
            if not self.margin - before > WORTH * abs(before):
                break
        assert outcome is not None
        return outcome

    # ---- states ------------------------------------------------------------------------------------------------------

    def state(self) -> CourseState:
        """Between two batches, where no counterexample was found."""
        own = self.shared or self.tree
        tree = None if own is None or self.stage == "find" else own.state()
        bounded = self.bounded if tree is None else self.bounded + tree.bounded - self.counted
        counts = self.rounds, self.spent, bounded, self.depth, self.lemmas, self.margin, self.brought
        return CourseState(dict(self.intermediate), self.stage, self.layer, *counts, tree)

    def resume(self, state: CourseState) -> None:
        """Goes on with a state that was read.

        Raises:
            CheckpointError: it is none of this search.
        """
        state = moved(state, self.box[0].device)
        if state.intermediate.keys() != self.intermediate.keys() or state.stage not in get_args(Stage):
            raise CheckpointError("is damaged: the search is of another kind")
        for name, ends in state.intermediate.items():
            if any(
                a.shape != b.shape or a.dtype != b.dtype for a, b in zip(ends, self.intermediate[name], strict=True)
            ):
                raise CheckpointError(f"is damaged: the bounds of {name!r} are of another shape")
        self.intermediate, self.layer, self.begun = dict(state.intermediate), state.layer, state.tree
        self.search.kept.give_up()  # what was closed before is not known
        self.stage = next(stage for stage in get_args(Stage) if stage == state.stage)
        self.rounds, self.spent, self.bounded = max(0, state.rounds), state.spent, state.bounded
        self.depth, self.lemmas = state.depth, state.lemmas
        self.margin, self.brought = state.margin, state.brought

    def checked(self, parts: SignParts, like: SignParts) -> SignParts:
        """Open parts that were read; ``like`` are some of this search. Raises CheckpointError: see there."""
        return checked_parts(parts, like, self.members)

    def stats(self, still: int, worst: float, is_proven: bool) -> SplitStats:
        """What it took."""
        seconds, position = time.monotonic() - self.begin, self.search.position
        sharing = None if self.shared is None else self.shared.sharing
        shared = (0, 0.0) if sharing is None else (sharing.packets, sharing.work_seconds)
        counts = self.bounded, self.depth, still, worst, is_proven, seconds
        return SplitStats(position, *counts, "neuron", self.lemmas, *shared)

    @property
    def left(self) -> float:
        """Seconds; none once somebody wants the search to stop."""
        return 0.0 if self.search.stopped() else self.search.end - time.monotonic()

    def goes_on(self, outcome: SignOutcome[Counterexample]) -> bool:
        """Whether something is left to do, and time to do it. Parts with all signs known are beyond lemmas."""
        return outcome.found is None and outcome.open > 0 and self.left > 0

    def on_node(self, node: Node) -> None:
        """Ends a pass when the time is up."""
        if self.left <= 0:
            raise SearchStopped

    # ---- rows --------------------------------------------------------------------------------------------------------

    def rows_on(self, intermediate: Mapping[str, Bounds]) -> SignBounds:
        """The bound method of the region's rows, for bounds of the ReLUs' inputs in the first dtype."""

        @cache
        def bounds(number: int) -> SignBounds:
            arithmetic = self.search.arithmetics[number]
            box = arithmetic.box(self.search.region)
            rows = arithmetic.rows(self.search.region, box)
            left = compact(arithmetic.graph, in_dtype(intermediate, arithmetic.dtype))
            ledger = Ledger(arithmetic.rounding.on(left.graph), box, left.intermediate)

            def flow(counted: Ledger | None) -> DualPass:
                return output_rows(left.graph, rows, 1, counted)

            problem = SignProblem(left.graph, flow, box, left.intermediate, ledger, self.on_node)
            wide = (lambda: bounds(number + 1)) if number + 1 < len(self.search.arithmetics) else None
            return SignBounds(problem, CHILD, wide, written=self.written, programs=self.search.leaf != "none")

        return bounds(0)

    def roots(self, bounder: SignBounds, pace: Pace) -> SignParts:
        """The whole box for every row of the open disjuncts."""
        pairs = [(row, number) for number, members in enumerate(self.members) for row in members]
        rows, groups = torch.tensor(pairs, device=bounder.problem.like.device).T
        runs = [slice(first, first + BATCH) for first in range(0, len(rows), BATCH)]
        return SignParts.cat([bounder.roots(rows[run], groups[run], pace) for run in runs])

    def look(self) -> SignOutcome[Counterexample]:
        """A short search with the bounds of the ReLUs' inputs as they are, if it has a chance to be the last."""
        begun = self.begun
        search = self.tree = self.plant() if begun is None else self.replant(begun)
        if begun is None and self.rounds and -self.margin > WITHIN * self.brought:
            return self.go_on(search, 0)
        outcome = self.go_on(search, FIRST)
        self.brought = max(outcome.worst - self.margin, self.brought / 2)
        while self.goes_on(outcome) and outcome.bounded < LATER and outcome.worst > NEAR * self.margin:
            outcome = self.go_on(search, outcome.bounded + FIRST)
        return outcome

    def plant(self) -> SignSearch[Counterexample]:
        """A search that begins with the best row of every open disjunct."""
        bounder = self.rows_on(self.intermediate)
        every = self.roots(bounder, ROOT)
        best = [(every.group == number).nonzero().squeeze(1) for number in range(len(self.members))]
        chosen = torch.stack([index[every.bound[index].argmax()] for index in best])
        roots = every.at(chosen)
        done = refuted(roots.bound)
        self.begins(bounder, roots.at(done))
        roots = roots.at(~done)
        self.margin, self.counted = roots.worst, 0
        return SignSearch(roots, self.members, bounder, self.search.attack, self.settings, self.closed)

    def replant(self, state: SignState) -> SignSearch[Counterexample]:
        """A search that goes on with a state that was read."""
        bounder = self.rows_on(self.intermediate)
        like = self.roots(bounder, MEASURE)
        parts, self.begun, self.counted = self.checked(state.parts, like).unpacked(), None, state.bounded
        search = SignSearch(parts, self.members, bounder, self.search.attack, self.settings, self.closed)
        search.resume(state)
        return search

    def begins(self, bounder: SignBounds, done: SignParts) -> None:
        """A search begins, of whose roots some are refuted."""
        self.search.kept.begin(self.search.arithmetics[0].graph, self.intermediate, bounder.problem)
        self.closed(done)

    def closed(self, parts: SignParts) -> None:
        """Parts of the search were refuted."""
        self.search.kept.closed(parts)

    def go_on(self, search: SignSearch[Counterexample], most: float) -> SignOutcome[Counterexample]:
        """A search goes on until so many parts were bounded."""
        self.counted = search.bounded
        outcome = search.run(self.proceed, most)
        self.bounded += outcome.bounded - self.counted
        self.counted, self.depth = outcome.bounded, max(self.depth, outcome.depth)
        return outcome

    def share_out(self, search: SignSearch[Counterexample]) -> SignOutcome[Counterexample]:
        """Others go on with a search."""
        assert self.search.share is not None
        if not self.written:  # what others close is not known
            self.search.kept.give_up()
        self.counted = search.bounded
        self.shared = self.search.share(self, search)
        outcome = self.shared.run()
        self.bounded += outcome.bounded - self.counted
        self.counted, self.depth = outcome.bounded, max(self.depth, outcome.depth)
        return outcome

    def proceed(self) -> bool:
        """Between two batches: whether to go on."""
        self.search.keep(self.state)
        if self.tree is not None:
            self.search.watch(self.tree.open, lambda: math.inf if self.tree is None else self.tree.worst_open)
        return self.left > 0

    # ---- lemmas ------------------------------------------------------------------------------------------------------

    def find(self, effort: LemmaEffort) -> float:
        """Lemmas, for as long as their share of the time lasts; returns the share of it that their searches took."""
        begin, budget = time.monotonic(), SHARE * self.left
        arithmetics = self.search.arithmetics
        boxes = [arithmetic.box(self.search.region) for arithmetic in arithmetics]
        bounded, lemmas = self.bounded, self.lemmas

        def note(found: Lemmas, layer: str) -> None:
            self.intermediate, self.layer = found.intermediate, layer
            self.bounded, self.lemmas = bounded + found.bounded, lemmas + found.improved
            self.search.keep(self.state)

        found = find_lemmas(
            arithmetics,
            boxes,
            self.intermediate,
            effort,
            self.costs,
            self.on_node,
            lambda share: time.monotonic() - begin < share * budget and not self.search.stopped(),
            self.search.kept.lemma if self.search.kept.is_whole else None,
            note,
            self.layer,
            self.written,
            helping(self.search.helpers, self.begin, lambda share: begin + share * budget),
        )
        note(found, self.layer)
        self.lemma_parts += found.bounded
        if not found.finished and self.left <= 0:
            raise SearchStopped
        return found.searching

    def costs(self, intermediate: Mapping[str, Bounds], name: str) -> Tensor | None:
        """What the relaxation of each neuron of a ReLU costs the open rows, at most; None where none is open."""
        bounder = self.rows_on(intermediate)
        roots = self.roots(bounder, COSTS)
        still = roots.at(~refuted(roots.bound))
        if not len(still):
            return None
        found = bounder.costs(still, name)
        kept = compact(self.search.arithmetics[0].graph, intermediate).kept.get(name)
        if kept is None:
            return found
        return found.new_zeros(intermediate[name][0].shape[1]).index_copy(0, kept, found)


def batch_of(graph: Graph) -> int:
    """How many parts are bounded together."""
    widest = max(math.prod(node.shape) for node in graph.nodes)
    return max(2, min(BATCH, PASS_BYTES // (4 * widest)))
