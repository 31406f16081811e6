"""One verification under way: regions one after the other, each by searches and proofs from cheap to dear."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.bounds.deadline import TimeoutReached
from zonocuda.bounds.forward.seen import LayerStats
from zonocuda.bounds.plan.planner import Step
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rows import Rows
from zonocuda.executors import Executor
from zonocuda.graph import Cast
from zonocuda.importers import NetworkOverflowError
from zonocuda.precision import summed_products
from zonocuda.prove.certificate import Certificate, RegionRecord
from zonocuda.prove.certify import add_region, leaf_record, region_record
from zonocuda.prove.combine import Combination, contradictions, left_open, mixtures
from zonocuda.prove.ends import Ends, known_ends
from zonocuda.prove.prover import CHEAP, LADDERS, Effort, Rung
from zonocuda.prove.recording import MAX_BYTES
from zonocuda.prove.region_box import box_of
from zonocuda.prove.regions import LEAST, Refuted, refuted_regions
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.stages import Arithmetic, Course, RegionProof
from zonocuda.prove.weights import optimised
from zonocuda.relaxations import activations
from zonocuda.specs import Region, Spec
from zonocuda.verifier.checkpoint import Checkpoints, NeuronState, RegionState
from zonocuda.verifier.contrast import contrast
from zonocuda.verifier.falsify import SHARE, Counterexample, falsify, replay, sample
from zonocuda.verifier.leaf import Leaf
from zonocuda.verifier.model import Subject
from zonocuda.verifier.result import SplitStats, Verdict
from zonocuda.verifier.splits import read_mixtures, split_box, split_neurons
from zonocuda.verifier.splitting import Split, wants_neurons, wants_split, without_signs


@dataclass
class Verification:
    """One verification under way: its settings, and what it has found so far."""

    subject: Subject
    spec: Spec
    course: Course
    device: torch.device
    dtypes: Sequence[torch.dtype]
    seed: int
    effort: Effort = "standard"
    split: Split = "auto"
    execution: Execution | None = None
    certificate: Certificate | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    leaf: Leaf = "lp"
    executor: Executor | None = None
    split_record: Callable[[], RegionRecord] | None = None
    margins: list[RowBound] = field(default_factory=list)
    counterexample: Counterexample | None = None
    layers: tuple[LayerStats, ...] = ()
    plan: tuple[Step, ...] = ()
    splits: list[SplitStats] = field(default_factory=list)
    contradictory: bool = False
    combinations: tuple[Combination, ...] = ()
    ends: Ends | None = None

    def decide(self) -> tuple[Verdict, str]:
        """The verdict and its reason, over all regions."""
        if not self.spec.regions:
            return Verdict.VERIFIED, "the specification has no unsafe region"
        self.search_graph = self.subject.graph.to(torch.float32, self.device)
        undecided: list[str] = []
        empty = 0
        refuted = self.refuted_regions()
        for position, region in enumerate(self.spec.regions):
            if position in refuted:
                continue
            self.course.deadline.check()
            lower, upper = box_of(region, self.execution)
            if bool((lower > upper).any()) and not region.box.has_nan:
                empty += 1
                continue
            known = self.checkpoints.of(position)
            if known is not None and known.decided:
                self.take(known)
                continue
            reason = self.checkpointed(position, region)
            if self.counterexample is not None:
                return Verdict.FALSIFIED, reason
            if reason:
                undecided.append(f"region {position}: {reason}" if len(self.spec.regions) > 1 else reason)
        if undecided:
            self.course.deadline.check()
            return Verdict.UNKNOWN, undecided[0]
        if empty == len(self.spec.regions):
            return Verdict.VERIFIED, "every input box is empty"
        counts = Counter[str]()
        for stats in self.splits:
            counts[stats.noun] += stats.boxes
        reason = "every disjunct of every region has a row with a positive lower bound"
        if self.splits:
            bounded = " and ".join(f"{count} {noun}" for noun, count in counts.items())
            reason += f", or has one on every part of its box, for which {bounded} were bounded"
        if self.contradictory:
            reason += ", or contradicts itself or the box"
        return Verdict.VERIFIED, reason

    def checkpointed(self, position: int, region: Region) -> str:
        """Decides a region, and writes down that it is proven safe, if it is; why it is not, else."""
        margins, splits, before = len(self.margins), len(self.splits), self.contradictory
        self.contradictory = False
        reason = self.decide_region(position, region)
        if not reason and self.counterexample is None and not (self.certificate and self.certificate.reason):
            regions = self.certificate.regions if self.certificate else ()  # with a reason: another run may have time
            record = regions[-1] if regions and regions[-1].region == position else None
            found = tuple(self.margins[margins:]), tuple(self.splits[splits:])
            self.checkpoints.decide(position, RegionState(True, (), self.contradictory, None, None, *found, record))
        self.contradictory |= before
        return reason

    def take(self, known: RegionState) -> None:
        """A region was proven safe before."""
        self.margins += known.margins
        self.splits += known.splits
        self.contradictory |= known.contradictory
        if self.certificate is not None and known.record is not None and not self.certificate.reason:
            self.certificate = replace(self.certificate, regions=(*self.certificate.regions, known.record))

    def refuted_regions(self) -> set[int]:
        """Of many regions, those that one pass of bounds refutes."""
        regions, deadline = self.spec.regions, self.course.deadline
        refuted = set[int]()
        if len(regions) < LEAST:
            return refuted
        record = self.certificate is not None and not self.certificate.reason
        neurons = sum(math.prod(node.shape) for node in activations(self.subject.graph))
        if record and len(regions) * neurons > MAX_BYTES:
            return refuted  # slopes of settled neurons would be written down, too
        batches = refuted_regions(regions, map(self.arithmetic, self.dtypes), deadline.check, record)
        while True:
            with self.course.phase("dual"):
                found = next(batches, None)
            if found is None:
                return refuted
            for one in self.read_rightly(found):
                refuted.add(one.position)
                self.margins += one.margins
                self.certify(partial(leaf_record, one), ())
            self.course.progress("regions", len(refuted), len(regions))

    def read_rightly(self, found: Sequence[Refuted]) -> list[Refuted]:
        """Of some regions, those where the network is finite; raises where the graph is another than the network."""
        if not found:
            return []
        boxes = [self.spec.regions[one.position].box for one in found]
        with self.course.phase("check"):
            lower, upper = torch.stack([box.lower for box in boxes]), torch.stack([box.upper for box in boxes])
            finite = self.subject.finite(lower, upper).tolist()
        return [one for one, is_finite in zip(found, finite, strict=True) if is_finite]  # others: by themselves

    @property
    def dtype(self) -> torch.dtype:
        """The widest dtype that bounds were computed in, so far."""
        return [dtype for dtype in self.dtypes if dtype in self._arithmetics or dtype is self.dtypes[0]][-1]

    def arithmetic(self, dtype: torch.dtype) -> Arithmetic:
        """The network in a dtype, made when it is first asked for."""
        if dtype not in self._arithmetics:
            self._arithmetics[dtype] = Arithmetic.of(self.subject.graph, dtype, self.device, self.execution)
        return self._arithmetics[dtype]

    _arithmetics: dict[torch.dtype, Arithmetic] = field(default_factory=dict)

    def decide_region(self, position: int, region: Region) -> str:
        """Why the region is not proven safe; empty if it is. A counterexample is left in ``counterexample``."""
        box, self.course.timeline.region = region.box, position
        for bound in (box.lower, box.upper, box.float32_lower, box.float32_upper):
            if not bool(bound.isfinite().all()):
                return "the input box is not bounded by finite float32 numbers"
        if not region.disjuncts:
            return ""
        shape = self.subject.graph.input_shape
        with self.course.phase("check"):
            try:
                self.subject.check(box.lower.reshape(shape), box.upper.reshape(shape))
            except NetworkOverflowError as error:
                return f"the network itself is not finite on the box: {error}"
        if any(not rows for rows in region.disjuncts):
            return self.find_any_point(position, region)
        with self.course.phase("combine"):
            refuting = self.contradictions(region)
        self.course.progress("falsify", position, len(self.spec.regions))
        known = self.checkpoints.of(position)
        if known is None and self.search(position, region, **self.first_search(region), seed=self.seed):
            return "counterexample found by gradient descent" + contrast(self, position, region)
        if len(refuting) == len(region.disjuncts):
            obstacle = self.obstacle(region) if any(one.outputs for one in refuting) else ""
            if obstacle:
                return obstacle
            self.contradictory = True
            self.certify(lambda: RegionRecord(position, False, (), ()), refuting)
            return ""
        with self.course.phase("combine"):
            added = (
                self.mixtures(region, refuting)
                if known is None
                else read_mixtures(known.combinations, region, refuting)
            )
            self.combinations = (*refuting, *added)
        proof = RegionProof(left_open(region, self.combinations), self.dtypes, self.arithmetic, self.course)
        try:
            reason = self.prove(position, region, proof)
            if proof.proven:
                self.contradictory |= bool(refuting)
                self.certify(lambda: region_record(position, proof), self.combinations)
            elif not reason and self.counterexample is None and self.split_record is not None:
                self.certify(self.split_record, self.combinations)
                self.split_record = None
            return reason
        finally:
            self.margins += proof.margins(position)
            if proof.sweep is not None:
                self.layers, self.plan = proof.sweep.stats, proof.sweep.plan

    def certify(self, make: Callable[[], RegionRecord], combinations: tuple[Combination, ...]) -> None:
        """Adds a region's proof, which ``make`` writes down, to the certificate, where one is wanted."""
        if self.certificate is not None:
            with self.course.phase("certificate"), summed_products():
                self.certificate = add_region(self.certificate, make, combinations)

    def obstacle(self, region: Region) -> str:
        """Why outputs may not be numbers: an execution, or a cast, that may overflow; else empty."""
        if self.execution is None and not any(isinstance(node.op, Cast) for node in self.subject.graph.nodes):
            return ""
        proof = RegionProof(region, self.dtypes, self.arithmetic, self.course)
        proof.begin(is_last=True)
        return proof.obstacle

    def contradictions(self, region: Region) -> tuple[Combination, ...]:
        """Disjuncts that no outputs satisfy, or none at a point of the box, in exact arithmetic."""
        lower, upper = (b.tolist() for b in box_of(region, self.execution))
        attained = any(row.strict for rows in region.disjuncts for row in rows)  # else bounds tell, and by how much
        dtype = None if self.execution is None else self.execution.dtype
        if attained and (self.execution is None or self.certificate is None):  # whose check counts all that may round
            ends = known_ends(self.subject.graph, (lower, upper), dtype)
        else:
            ends = self.ends = known_ends(self.subject.graph, None, dtype) if self.ends is None else self.ends
        return contradictions(region, (lower, upper), ends, self.course.deadline.check)

    def mixtures(self, region: Region, refuted: tuple[Combination, ...]) -> tuple[Combination, ...]:
        """Rows that combine those of a disjunct, where no single one can refute it, for sampled points."""
        done = {one.disjunct for one in refuted}
        if all(len(rows) < 2 or d in done for d, rows in enumerate(region.disjuncts)):
            return ()
        points = sample(region, self.subject.graph.input_shape, self.seed)
        places = Rows.places(region)
        disjuncts = [[places[row] for row in rows] for rows in region.disjuncts]
        return mixtures(self.values(region, points), disjuncts, done, self.course.deadline.check)

    def values(self, region: Region, points: Tensor) -> NDArray[np.float64]:
        """A region's rows at points, ``[n, R]``."""
        example = torch.empty((), dtype=torch.float32, device=self.device)
        rows = Rows.of(region, self.spec.inputs, self.spec.outputs, example)
        points = points.to(self.device)
        with torch.no_grad():
            return rows.values(points, self.search_graph(points)).double().cpu().numpy()

    def mix(self, region: Region, proof: RegionProof, ladder: Sequence[Rung]) -> None:
        """Adds combinations of rows whose weights the dual pass has found, and tries them."""
        gone = {one.disjunct for one in self.combinations if one.refutes}
        kept = [(d, rows) for d, rows in enumerate(region.disjuncts) if d not in gone]
        if proof.prover is None or proof.obstacle or all(len(rows) < 2 for _, rows in kept):
            return
        with self.course.phase("combine"):
            points = torch.cat([sample(region, self.subject.graph.input_shape, self.seed), proof.corners])
            found = optimised(proof.prover, self.values(proof.region, points), kept)
        if found:
            changed = {one.disjunct for one in found}
            self.combinations = (*(one for one in self.combinations if one.disjunct not in changed), *found)
            proof.extend(left_open(region, self.combinations))
            proof.climb(ladder)

    def prove(self, position: int, region: Region, proof: RegionProof) -> str:
        """Proofs from cheap to dear, and a longer search between them."""
        ladder = LADDERS[self.effort]
        proof.begin(is_last=not ladder)
        if proof.proven or proof.obstacle:
            return proof.reason()
        known = self.checkpoints.of(position)
        if known is not None and known.neurons is not None:
            return self.split_neurons(position, proof, known.neurons)
        splits = bool(ladder) and wants_split(self.split, region)
        open_boxes = ""
        if splits:
            open_boxes = self.split_box(position, proof)
            if not open_boxes or self.counterexample is not None:
                return open_boxes
        proof.climb(ladder[:CHEAP])
        if not proof.proven and ladder:
            self.mix(region, proof, ladder[:CHEAP])
        if proof.proven:
            return ""
        with self.course.phase("falsify"):
            self.counterexample = replay(self.subject, region, position, proof.corners)
        if self.counterexample is not None:
            return "counterexample found at the dual's worst corner"
        by_neurons = bool(ladder) and wants_neurons(self.split, region, self.subject.graph)
        unsigned = None if self.execution is None else without_signs(self.subject.graph)
        few = by_neurons and unsigned is None  # that search tries points, too
        starts, restarts = proof.corners, 64 if few else self.restarts(64)
        if self.search(position, region, starts=starts, restarts=restarts, steps=100, seed=self.seed + 1):
            return "counterexample found from the dual's worst corners"
        proof.climb(ladder[CHEAP:])
        if by_neurons and not proof.proven and not proof.obstacle:
            if unsigned is not None:
                what = f"node {unsigned.name!r} (op {unsigned.op.kind})"
                return f"{proof.reason()}; {what} is not split as executed: use split 'input'"
            return self.split_neurons(position, proof)
        return open_boxes if open_boxes and not proof.proven else proof.reason()

    def split_box(self, position: int, proof: RegionProof) -> str:
        """Splits the box until every part is refuted; why that did not end, or a counterexample."""
        with self.course.phase("split"):
            found, stats, self.split_record = split_box(self, position, proof)
        return self.after_split(found, stats)

    def split_neurons(self, position: int, proof: RegionProof, known: NeuronState | None = None) -> str:
        """Splits neurons until every part is refuted; why that did not end, or a counterexample."""
        with self.course.phase("split"):
            found, stats, self.split_record = split_neurons(self, position, proof, known)
        return self.after_split(found, stats)

    def after_split(self, found: Counterexample | None, stats: SplitStats) -> str:
        """Takes note of a search, and says why it did not end, or how."""
        self.counterexample = found
        self.splits.append(stats)
        self.course.timeline.note("input" if stats.split == "input" else "neuron", stats.open, stats.worst)
        if found is not None:
            return f"counterexample found after {stats.boxes} {stats.noun}"
        if stats.is_proven:
            return ""
        if self.course.deadline.remaining() <= 0:
            raise TimeoutReached(stats.reason)
        return stats.reason

    def search(self, position: int, region: Region, **how: Any) -> bool:
        """Whether a search finds a counterexample in a region."""
        example = torch.empty((), dtype=torch.float32, device=self.device)
        rows = Rows.of(region, self.spec.inputs, self.spec.outputs, example)
        with self.course.phase("falsify"), torch.enable_grad():
            self.counterexample = falsify(
                self.subject, self.search_graph, region, position, rows, self.course.deadline.part(SHARE), **how
            )
        return self.counterexample is not None

    def first_search(self, region: Region) -> dict[str, int]:
        """How the search before all bounds goes about it: briefly where a box will be split, which searches, too."""
        if LADDERS[self.effort] and wants_split(self.split, region):
            most = self.restarts(32)
            return {"restarts": min(most, 256), "steps": 15, "candidates": 4 * most}
        return {"restarts": self.restarts(32), "steps": 20}

    def restarts(self, least: int) -> int:
        """Random starts of a search: more for small networks, where each costs little."""
        neurons = sum(math.prod(node.shape) for node in self.subject.graph.nodes)
        return min(1024, max(least, 400_000 // neurons))

    def find_any_point(self, position: int, region: Region) -> str:
        """A region where every output is unsafe: any float32 point of the box is a counterexample."""
        box = region.box
        middle = (box.float32_lower + (box.float32_upper - box.float32_lower) / 2).clamp(
            box.float32_lower, box.float32_upper
        )
        point = middle.reshape(1, *self.subject.graph.input_shape)
        with self.course.phase("falsify"):
            self.counterexample = replay(self.subject, region, position, point)
        if self.counterexample is None:
            return "no output constraints, and the float32 box holds no point"
        return "no output constraints: every point of the box is a counterexample"
