"""Verdicts: falsify, sweep forward, bound by the dual, falsify again."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from zonocuda.bounds.deadline import Deadline, TimeoutReached
from zonocuda.bounds.forward.sweep import LayerStats
from zonocuda.bounds.plan.planner import Direction, Step
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Backend, current_backend, use_backend
from zonocuda.graph import Cast
from zonocuda.host_memory import is_out_of_memory
from zonocuda.importers import NetworkOverflowError
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.precision import (
    ArithmeticChangedError,
    check_arithmetic,
    confirm_arithmetic,
    full_precision,
    plain_torch,
    summed_products,
)
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.certify import add_region
from zonocuda.prove.combine import Combination, contradictions, left_open, mixtures
from zonocuda.prove.forest import ForestRecord
from zonocuda.prove.prover import CHEAP, LADDERS, Effort, check_effort
from zonocuda.prove.region_box import box_of
from zonocuda.prove.regions import LEAST, refuted_regions
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.signs import nonnegative_outputs
from zonocuda.prove.stages import Arithmetic, Course, Progress, RegionProof
from zonocuda.relaxations import use_kink
from zonocuda.specs import Region, Spec
from zonocuda.verifier.arguments import (
    Precision,
    Semantics,
    check_budget,
    check_choice,
    check_count,
    check_semantics,
    check_sizes,
    describe_device,
    resolve_device,
    resolve_dtypes,
    resolve_spec,
    resolve_timeout,
)
from zonocuda.verifier.falsify import Counterexample, falsify, replay, sample
from zonocuda.verifier.model import Model, Subject
from zonocuda.verifier.neuron_search import MEMORY, NeuronSearch
from zonocuda.verifier.result import Ran, SplitStats, Verdict, VerifyResult
from zonocuda.verifier.semantics import executed
from zonocuda.verifier.splitting import (
    SPLITS,
    RegionSearch,
    Split,
    attack_of,
    check_split,
    end_of,
    wants_neurons,
    wants_split,
)
from zonocuda.version import __version__


@plain_torch()
def verify(
    model: Model,
    spec: Spec | str | Path,
    *,
    timeout: float | None = None,
    device: str | torch.device = "auto",
    dtype: Precision = "auto",
    backend: Backend = "auto",
    input_shape: tuple[int, ...] | None = None,
    direction: Direction = "auto",
    memory_budget: int | None = None,
    kink: KinkRule = "envelope",
    seed: int = 0,
    effort: Effort = "standard",
    semantics: Semantics = "real",
    split: Split = "auto",
    certificate: bool = False,
    progress: Progress = lambda phase, done, total: None,
) -> VerifyResult:
    """Decides whether a property holds for a network.

    For every region of the specification: a short search for a counterexample; the forward sweep with minimum-area
    slopes; for what it leaves open, the dual pass with the same intermediate bounds (with minimum-area and with
    adaptive slopes). Effort ``standard`` then tightens the intermediate bounds by the dual pass and optimises the
    slopes of the rows that are left. For what is still open, a longer search begins at the dual's worst corners; after
    it, ``standard`` and ``max`` optimise the slopes of the intermediate bounds, too, ``max`` until that no longer pays.

    Where few inputs vary, what the first dual passes leave open is split instead: the box into boxes, until every one
    is refuted, a counterexample is found, or time is up (:mod:`zonocuda.branch`). Elsewhere, what all of this leaves
    open is split by the signs of neurons.

    ``verified`` needs, in every region, one row with a positive lower bound in every disjunct (an empty box needs
    nothing), or that in every part of a split box. It holds for the network in real arithmetic, on the box that
    encloses the numbers of the specification, or, with other ``semantics``, for what a machine computes, whatever the
    rounding of the bounds' own computation, which is part of every bound (:mod:`zonocuda.bounds.rounding.arithmetic`);
    where that costs more than there is to spare, in the widest dtype allowed, the verdict is ``unknown``, and the
    reason says so. ``falsified`` needs a float32 point of the region's float32 box whose output, as the network itself
    computes it, satisfies a disjunct exactly. NaN or infinity in a bound is ``unknown``.

    Args:
        model: a path to an ONNX file, an ONNX model, a loaded Network, a Graph, a module, or what ``torch.export`` made
            of one. A final Softmax, or another strictly increasing function, of a file, an ONNX model or a Sequential
            is left out where the property compares pairs of outputs alone; the result says so.
        spec: the property, or a path to a VNN-LIB file.
        timeout: seconds; when they are used up, the verdict is ``timeout``. None for no limit.
        device: ``auto`` (CUDA where torch and this build have it, else the CPU), or a device.
        dtype: float32 or float64, of the bounds; ``auto`` begins in float32, and goes on in float64 with what that
            leaves open for want of precision (:mod:`zonocuda.prove.stages`).
        backend: ``native`` (which ``auto`` is) or ``reference``.
        input_shape: a module's input features, without the batch; by default the specification's, where it knows them.
        direction: how the bounds of the ReLUs' inputs are found: ``forward`` (a zonotope), ``dual`` (passes for those
            neurons that intervals leave open), or ``auto``, whichever is expected to cost less; about an executed
            network ``dual``, whose errors do not grow by the norms of the layers behind them.
        memory_budget: bytes that generators may take; by default a share of what is free.
        kink: does not change a verdict; see :mod:`zonocuda.kink`.
        seed: of the random starts of the search.
        effort: ``fast`` (the plain passes), ``standard`` or ``max``.
        semantics: the arithmetic in which ``verified`` is to hold: ``real`` numbers; or ``float32`` or ``float64``, for
            the network as executed in it, sums in any order (:mod:`zonocuda.bounds.rounding.executed`), in float32 on
            the box rounded to it. In ``float64`` counterexamples are float32 points of the box itself, replayed in
            float64.
        split: ``input`` splits the box, ``neuron`` the inputs by the signs of neurons, for 60 s a region where there is
            no timeout; ``auto`` the box where at most 20 inputs vary, else neurons; ``none`` nothing; effort ``fast``
            never does.
        certificate: whether a proof's result holds what is needed to check it again
            (:mod:`zonocuda.prove.certify`).
        progress: is told how far each phase is.

    Raises:
        ValueError: a network that cannot be imported or is misread, a specification of another size, semantics that are
            not supported, or arithmetic that no proof accounts for (subnormal numbers flushed to zero).
        TypeError: an argument that is something else.
    """
    started = time.monotonic()
    seconds_left = resolve_timeout(timeout)
    files = {kind: str(given) for kind, given in (("net", model), ("spec", spec)) if isinstance(given, str | Path)}
    spec = resolve_spec(spec)
    check_choice("verify", "direction", direction, get_args(Direction))
    check_choice("verify", "kink", kink, KINK_RULES)
    check_choice("verify", "backend", backend, get_args(Backend))
    check_budget("verify", memory_budget)
    check_count("verify", "seed", seed, 0)
    if not isinstance(certificate, bool):
        raise TypeError(f"verify: certificate must be True or False, got {certificate!r}"[:200])
    if not callable(progress):
        raise TypeError(f"verify: progress must be callable, got {type(progress).__name__}")
    check_effort(effort)
    check_semantics(semantics)
    check_choice("verify", "split", split, SPLITS)
    where = resolve_device(device)
    check_arithmetic(where)
    deadline = Deadline(seconds_left)
    subject, execution = executed(Subject.of(model, input_shape or spec.input_shape, spec), semantics)
    if execution is not None and direction == "auto":
        direction = "dual"
    course = Course(direction, memory_budget, deadline, progress)
    dtypes = resolve_dtypes(dtype, subject.graph)
    check_sizes(subject.graph, spec)
    check_split(split, subject.graph)
    with torch.no_grad(), use_backend(backend), use_kink(kink), full_precision():
        wanted = Certificate("" if execution is None else "certificates are of proofs in real arithmetic alone")
        if subject.final is not None:
            wanted = Certificate(f"proofs that leave out a final {subject.final.kind} have no certificate")
        run = _Run(
            subject, spec, course, where, dtypes, seed, effort, split, execution, wanted if certificate else None
        )
        try:
            verdict, reason = run.decide()
            if verdict is Verdict.VERIFIED:
                confirm_arithmetic(where)
        except ArithmeticChangedError as error:
            verdict, reason = Verdict.UNKNOWN, str(error)
        except TimeoutReached as late:
            verdict, reason = (
                Verdict.TIMEOUT,
                f"not decided within {seconds_left:g} s{f': {late}' if str(late) else ''}",
            )
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            verdict, reason = Verdict.UNKNOWN, f"out of memory on {where}"
        ran = Ran(
            str(run.dtype).removeprefix("torch."),
            describe_device(where),
            current_backend(),
            subject.runs_on,
            {"zonocuda": __version__, "torch": torch.__version__, **subject.versions},
            effort,
            semantics,
            str(subject.dtype).removeprefix("torch."),
            Counter(row.dtype for row in run.margins if row.is_positive),
        )
    seconds = {**course.seconds, "total": time.monotonic() - started}
    proof = run.certificate if verdict is Verdict.VERIFIED else None
    margins = tuple(run.margins)
    return VerifyResult(
        verdict,
        reason,
        margins,
        run.counterexample,
        run.layers,
        seconds,
        ran,
        run.plan,
        proof,
        tuple(run.splits),
        seconds_left,
        files,
        "" if subject.final is None else subject.final.kind,
    )


@dataclass
class _Run:
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
    forest: ForestRecord | None = None
    margins: list[RowBound] = field(default_factory=list)
    counterexample: Counterexample | None = None
    layers: tuple[LayerStats, ...] = ()
    plan: tuple[Step, ...] = ()
    splits: list[SplitStats] = field(default_factory=list)
    contradictory: bool = False
    nonnegative: dict[bool, frozenset[int]] = field(default_factory=dict)

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
            reason = self.decide_region(position, region)
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

    def refuted_regions(self) -> set[int]:
        """Of many regions, those that one pass of bounds refutes."""
        regions = self.spec.regions
        may_overflow = self.execution is not None or any(isinstance(n.op, Cast) for n in self.subject.graph.nodes)
        if len(regions) < LEAST or self.certificate is not None or may_overflow:
            return set()  # what may overflow is looked at region by region
        with self.course.phase("dual"):
            found, margins = refuted_regions(regions, self.arithmetic(self.dtypes[0]), self.course.deadline)
        refuted = {position for position in found if self.is_read_rightly(regions[position])}
        self.margins += [margin for margin in margins if margin.region in refuted]
        return refuted

    def is_read_rightly(self, region: Region) -> bool:
        """Whether the network is finite where the graph is compared with it; raises where they disagree."""
        self.course.deadline.check()
        shape = self.subject.graph.input_shape
        with self.course.phase("check"):
            try:
                self.subject.check(region.box.lower.reshape(shape), region.box.upper.reshape(shape))
            except NetworkOverflowError:
                return False  # judged by itself
        return True

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
        box = region.box
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
        if self.search(position, region, restarts=self.restarts(32), seed=self.seed):
            return "counterexample found by gradient descent" + self.contrast(position, region)
        if len(refuting) == len(region.disjuncts):
            obstacle = self.obstacle(region) if any(one.outputs for one in refuting) else ""
            if obstacle:
                return obstacle
            self.contradictory = True
            self.certify(position, None, refuting)
            return ""
        with self.course.phase("combine"):
            added = self.mixtures(region, refuting)
        proof = RegionProof(left_open(region, (*refuting, *added)), self.dtypes, self.arithmetic, self.course)
        try:
            reason = self.prove(position, region, proof)
            if proof.proven:
                self.contradictory |= bool(refuting)
                self.certify(position, proof, (*refuting, *added))
            elif not reason and self.counterexample is None:
                self.certify_split(position, (*refuting, *added))
            return reason
        finally:
            self.margins += proof.margins(position)
            if proof.sweep is not None:
                self.layers, self.plan = proof.sweep.stats, proof.sweep.plan

    def certify(
        self,
        position: int,
        proof: RegionProof | None,
        combinations: tuple[Combination, ...],
        forest: ForestRecord | None = None,
    ) -> None:
        """Adds a region's proof to the certificate, where one is wanted."""
        if self.certificate is not None:
            with self.course.phase("certificate"), summed_products():
                network = self.subject.graph.to(torch.float64, self.device)
                self.certificate = add_region(self.certificate, network, position, proof, combinations, forest)

    def certify_split(self, position: int, combinations: tuple[Combination, ...]) -> None:
        """Adds a region's proof by splitting to the certificate, where one is wanted."""
        if self.certificate is not None and not self.certificate.reason and self.forest is None:
            self.certificate = Certificate("a proof that splits neurons is not written down")
        self.certify(position, None, combinations, self.forest)
        self.forest = None

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
        sums = attained and self.certificate is None
        if sums not in self.nonnegative:
            self.nonnegative[sums] = nonnegative_outputs(self.subject.graph, sums)
        return contradictions(region, (lower, upper), self.nonnegative[sums], self.course.deadline.check)

    def mixtures(self, region: Region, refuted: tuple[Combination, ...]) -> tuple[Combination, ...]:
        """Rows that combine those of a disjunct, where no single one can refute it, for sampled points."""
        done = {one.disjunct for one in refuted}
        if all(len(rows) < 2 or d in done for d, rows in enumerate(region.disjuncts)):
            return ()
        example = torch.empty((), dtype=torch.float32, device=self.device)
        rows = Rows.of(region, self.spec.inputs, self.spec.outputs, example)
        with torch.no_grad():
            points = sample(region, self.subject.graph.input_shape, self.seed).to(self.device)
            values = rows.values(points, self.search_graph(points)).double().cpu().numpy()
        return mixtures(values, rows.disjuncts, done, self.course.deadline.check)

    def contrast(self, position: int, region: Region) -> str:
        """What real arithmetic has against a counterexample of executed arithmetic: a proof, where there is one.

        Only a point that float64 does not call unsafe, or outside the exact box, can owe to rounding alone; for others
        none is tried.
        """
        found = self.counterexample
        assert found is not None
        if self.execution is not None:
            return ""
        graph, x = self.subject.graph.to(torch.float64, "cpu"), found.x.double()
        flat = x.flatten()
        inside = bool(((flat >= region.box.lower) & (flat <= region.box.upper)).all())
        if inside and region.is_unsafe(flat.tolist(), graph(x.unsqueeze(0)).flatten().tolist()):
            return ""
        proof = RegionProof(region, self.dtypes, self.arithmetic, self.course)
        try:
            proof.begin(is_last=True)
        except (TimeoutReached, MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, TimeoutReached) and not is_out_of_memory(error):
                raise
            return ""  # the counterexample stands
        self.margins += proof.margins(position)
        if not proof.proven:
            return ""
        return "; of rounding alone: over the reals, on the enclosing box, the property is proven"

    def prove(self, position: int, region: Region, proof: RegionProof) -> str:
        """Proofs from cheap to dear, and a longer search between them."""
        ladder = LADDERS[self.effort]
        proof.begin(is_last=not ladder)
        if proof.proven or proof.obstacle:
            return proof.reason()
        splits = bool(ladder) and wants_split(self.split, region)
        open_boxes = ""
        if splits:
            open_boxes = self.split_box(position, proof)
            if not open_boxes or self.counterexample is not None:
                return open_boxes
        proof.climb(ladder[:CHEAP])
        if proof.proven:
            return ""
        with self.course.phase("falsify"):
            self.counterexample = replay(self.subject, region, position, proof.corners)
        if self.counterexample is not None:
            return "counterexample found at the dual's worst corner"
        starts, restarts = proof.corners, self.restarts(64)
        if self.search(position, region, starts=starts, restarts=restarts, steps=100, seed=self.seed + 1):
            return "counterexample found from the dual's worst corners"
        proof.climb(ladder[CHEAP:])
        if ladder and wants_neurons(self.split, region, self.subject.graph) and not proof.proven and not proof.obstacle:
            return self.split_neurons(position, proof)
        return open_boxes if open_boxes and not proof.proven else proof.reason()

    def split_box(self, position: int, proof: RegionProof) -> str:
        """Splits the box until every part is refuted; why that did not end, or a counterexample."""
        with self.course.phase("split"):
            found, stats, self.forest = RegionSearch(
                self.subject,
                self.search_graph,
                proof.region,
                position,
                proof.dtypes,
                self.arithmetic,
                self.course.deadline.remaining,
                record=self.certificate is not None and not self.certificate.reason,
            ).run()
        return self.after_split(found, stats)

    def split_neurons(self, position: int, proof: RegionProof) -> str:
        """Splits neurons until every part is refuted; why that did not end, or a counterexample."""
        with self.course.phase("split"):
            prover = proof.prover_in(proof.dtypes[0])
            refuted = prover.rows.refuted(prover.bounds)
            budget = self.course.memory_budget
            found, stats = NeuronSearch(
                proof.region,
                position,
                [self.arithmetic(dtype) for dtype in proof.dtypes],
                prover.inputs,
                [number for number, ok in enumerate(refuted) if not ok],
                attack_of(self.subject, self.search_graph, proof.region, position, prover.rows),
                end_of(self.course.deadline.remaining()),
                MEMORY if budget is None else min(MEMORY, budget // 2),
            ).run()
        return self.after_split(found, stats)

    def after_split(self, found: Counterexample | None, stats: SplitStats) -> str:
        """Takes note of a search, and says why it did not end, or how."""
        self.counterexample = found
        self.splits.append(stats)
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
                self.subject, self.search_graph, region, position, rows, self.course.deadline, **how
            )
        return self.counterexample is not None

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
