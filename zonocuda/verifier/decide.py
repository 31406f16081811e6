"""Verdicts: falsify, sweep forward, bound by the dual, falsify again."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from zonocuda.domains import Backend, Zonotope, current_backend, has_cuda_kernels, use_backend
from zonocuda.graph import Graph, Node
from zonocuda.importers import NetworkOverflowError
from zonocuda.kink import KinkRule
from zonocuda.precision import check_arithmetic, full_precision, summed_products
from zonocuda.specs import Region, Spec
from zonocuda.verifier.deadline import Deadline, TimeoutReached
from zonocuda.verifier.falsify import Counterexample, falsify, replay
from zonocuda.verifier.forward import LayerStats, Sweep, sweep
from zonocuda.verifier.forward_error import ForwardErrors
from zonocuda.verifier.model import Model, Subject
from zonocuda.verifier.planner import Direction, Step
from zonocuda.verifier.prove import CHEAP, LADDERS, Effort, Prover, Rung, check_effort
from zonocuda.verifier.result import Ran, RowBound, Verdict, VerifyResult
from zonocuda.verifier.rounding import Rounding
from zonocuda.verifier.rows import Rows
from zonocuda.version import __version__

Semantics = Literal["real", "float32", "float64", "float16", "bfloat16"]
"""Whose arithmetic a proof is about: real numbers, or what a machine executes."""

Progress = Callable[[str, int, int], None]
"""Called with a phase and how much of it is done: (phase, done, total)."""


def verify(
    model: Model,
    spec: Spec,
    *,
    timeout: float = math.inf,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float64,
    backend: Backend = "auto",
    input_shape: tuple[int, ...] | None = None,
    direction: Direction = "auto",
    memory_budget: int | None = None,
    kink: KinkRule = "envelope",
    seed: int = 0,
    effort: Effort = "standard",
    semantics: Semantics = "real",
    progress: Progress = lambda phase, done, total: None,
) -> VerifyResult:
    """Decides whether a property holds for a network.

    For every region of the specification: a short search for a counterexample; the forward sweep with minimum-area
    slopes; for what it leaves open, the dual pass with the same intermediate bounds (with minimum-area and with
    adaptive slopes). Effort ``standard`` then tightens the intermediate bounds by the dual pass and optimises the
    slopes of the rows that are left. For what is still open, a longer search begins at the dual's worst corners; after
    it, ``standard`` and ``max`` optimise the slopes of the intermediate bounds, too, ``max`` until that no longer pays.

    ``verified`` needs, in every region, one row with a positive lower bound in every disjunct (an empty box needs
    nothing). It holds for the network in real arithmetic, on the box that encloses the numbers of the specification,
    whatever the rounding in ``dtype`` of the bounds' own computation, which is part of every bound
    (:mod:`zonocuda.verifier.rounding`); where that costs more than there is to spare the verdict is ``unknown``, and
    the reason says so. ``falsified`` needs a float32 point of the region's float32 box whose output, as the network
    itself computes it, satisfies a disjunct exactly. NaN or infinity in a bound is ``unknown``.

    Args:
        model: a path to an ONNX file, a loaded Network, a Graph, or a module (with ``input_shape``).
        spec: the property.
        timeout: seconds; when they are used up, the verdict is ``timeout``.
        device: ``auto`` (CUDA where torch and this build have it, else the CPU), or a device.
        dtype: float32 or float64, of the bounds.
        backend: ``native`` (which ``auto`` is) or ``reference``.
        input_shape: a module's input features, without the batch.
        direction: how the bounds of the ReLUs' inputs are found: ``forward`` (a zonotope), ``dual`` (passes for those
            neurons that intervals leave open), or ``auto``, whichever is expected to cost less.
        memory_budget: bytes that generators may take; by default a share of what is free.
        kink: does not change a verdict; see :mod:`zonocuda.kink`.
        seed: of the random starts of the search.
        effort: ``fast`` (the plain passes), ``standard`` or ``max``.
        semantics: the arithmetic in which ``verified`` is to hold. ``real`` is the only one so far.
        progress: is told how far each phase is.

    Raises:
        ValueError: a network that cannot be imported or is misread, a specification of another size, semantics that are
            not supported, or arithmetic that no proof accounts for (subnormal numbers flushed to zero).
    """
    started = time.monotonic()
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"verify: dtype must be float32 or float64, got {dtype}")
    if not timeout > 0:
        raise ValueError(f"verify: timeout must be a positive number of seconds, got {timeout}")
    check_effort(effort)
    check_semantics(semantics)
    where = resolve_device(device)
    check_arithmetic(where)
    deadline = Deadline(timeout)
    subject = Subject.of(model, input_shape)
    check_sizes(subject.graph, spec)
    with torch.no_grad(), use_backend(backend), full_precision():
        run = _Run(subject, spec, deadline, where, dtype, direction, memory_budget, kink, seed, progress, effort)
        try:
            verdict, reason = run.decide()
        except TimeoutReached:
            verdict, reason = Verdict.TIMEOUT, f"not decided within {timeout:g} s"
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            verdict, reason = Verdict.UNKNOWN, f"out of memory on {where}"
        ran = Ran(
            str(dtype).removeprefix("torch."),
            describe_device(where),
            current_backend(),
            subject.runs_on,
            {"zonocuda": __version__, "torch": torch.__version__, **subject.versions},
            effort,
            semantics,
        )
    run.seconds["total"] = time.monotonic() - started
    return VerifyResult(
        verdict, reason, tuple(run.margins), run.counterexample, run.layers, dict(run.seconds), ran, run.plan
    )


def check_semantics(semantics: str) -> None:
    """Raises ValueError for semantics that are unknown or not supported, with the reason."""
    if semantics == "real":
        return
    if semantics in ("float16", "bfloat16"):
        limit = 2048 if semantics == "float16" else 256
        raise ValueError(
            f"semantics {semantics!r}: no bound holds for sums of {limit} terms and more in any order; use 'real'"
        )
    if semantics in ("float32", "float64"):
        raise ValueError(
            f"semantics {semantics!r} (the network as executed, in any order of summation) is not implemented: bounds "
            "of executed values need a sweep of their own; use 'real'"
        )
    raise ValueError(f"semantics must be one of {', '.join(get_args(Semantics))}, got {semantics!r}")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to compute on; ``auto`` is CUDA exactly where torch sees a GPU and this build has kernels for it.

    Raises:
        ValueError: CUDA where torch sees no GPU or this build has no kernels for it.
    """
    built = has_cuda_kernels()
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and built else "cpu")
    where = torch.device(device)
    if where.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device}: must be auto, cpu or cuda")
    if where.type == "cuda" and not (torch.cuda.is_available() and built):
        lacking = "this build of zonocuda has no CUDA kernels" if not built else "torch sees no CUDA device"
        raise ValueError(f"device {device}: {lacking}; use the device cpu, or see 'zonocuda info'")
    return where


def describe_device(device: torch.device) -> str:
    """The device, with the name of a GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def check_sizes(graph: Graph, spec: Spec) -> None:
    """Raises ValueError unless the specification's inputs and outputs, boxes and rows are those of the network."""
    inputs, outputs = math.prod(graph.input_shape), math.prod(graph.output_shape)
    if (inputs, outputs) != (spec.inputs, spec.outputs):
        raise ValueError(
            f"the specification has {spec.inputs} inputs and {spec.outputs} outputs, the network {inputs} and {outputs}"
        )
    for position, region in enumerate(spec.regions):
        box = region.box
        for bound in (box.lower, box.upper, box.float32_lower, box.float32_upper):
            if bound.shape != (inputs,):
                raise ValueError(f"region {position}: the box must have {inputs} bounds on each side")
        for row in (row for rows in region.disjuncts for row in rows):
            if not all(0 <= i < outputs for i in row.outputs) or not all(0 <= j < inputs for j in row.inputs):
                raise ValueError(f"region {position}: the constraint {row} names a variable that does not exist")


@dataclass
class _Run:
    """One verification under way: its settings, and what it has found so far."""

    subject: Subject
    spec: Spec
    deadline: Deadline
    device: torch.device
    dtype: torch.dtype
    direction: Direction
    memory_budget: int | None
    kink: KinkRule
    seed: int
    progress: Progress
    effort: Effort = "standard"
    margins: list[RowBound] = field(default_factory=list)
    counterexample: Counterexample | None = None
    layers: tuple[LayerStats, ...] = ()
    plan: tuple[Step, ...] = ()
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time inside to ``seconds[name]``."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - begin

    def decide(self) -> tuple[Verdict, str]:
        """The verdict and its reason, over all regions."""
        if not self.spec.regions:
            return Verdict.VERIFIED, "the specification has no unsafe region"
        self.graph = self.subject.graph.to(self.dtype, self.device)
        self.rounding = Rounding.of(self.subject.graph, self.graph, self.dtype)
        self.search_graph = self.subject.graph.to(torch.float32, self.device)
        undecided: list[str] = []
        empty = 0
        for position, region in enumerate(self.spec.regions):
            self.deadline.check()
            if region.box.is_empty and not region.box.has_nan:
                empty += 1
                continue
            reason = self.decide_region(position, region)
            if self.counterexample is not None:
                return Verdict.FALSIFIED, reason
            if reason:
                undecided.append(f"region {position}: {reason}" if len(self.spec.regions) > 1 else reason)
        if undecided:
            self.deadline.check()
            return Verdict.UNKNOWN, undecided[0]
        if empty == len(self.spec.regions):
            return Verdict.VERIFIED, "every input box is empty"
        return Verdict.VERIFIED, "every disjunct of every region has a row with a positive lower bound"

    def decide_region(self, position: int, region: Region) -> str:
        """Why the region is not proven safe; empty if it is. A counterexample is left in ``counterexample``."""
        box = region.box
        for bound in (box.lower, box.upper, box.float32_lower, box.float32_upper):
            if not bool(bound.isfinite().all()):
                return "the input box is not bounded by finite float32 numbers"
        if not region.disjuncts:
            return ""
        shape = self.graph.input_shape
        with self.phase("check"):
            try:
                self.subject.check(box.lower.reshape(shape), box.upper.reshape(shape))
            except NetworkOverflowError as error:
                return f"the network itself is not finite on the box: {error}"
        if any(not rows for rows in region.disjuncts):
            return self.find_any_point(position, region)
        example = torch.empty((), dtype=torch.float32, device=self.device)
        search_rows = Rows.of(region, self.spec.inputs, self.spec.outputs, example)
        with self.phase("falsify"):
            self.progress("falsify", position, len(self.spec.regions))
            with torch.enable_grad():
                self.counterexample = falsify(
                    self.subject,
                    self.search_graph,
                    region,
                    position,
                    search_rows,
                    self.deadline,
                    restarts=self.restarts(32),
                    seed=self.seed,
                )
        if self.counterexample is not None:
            return "counterexample found by gradient descent"
        reason, prover = self.prove(position, region)
        if prover is None:
            return reason
        try:
            return self.insist(position, region, search_rows, prover)
        finally:
            self.record(position, prover.rows, prover.forward, prover.best, prover.slack)

    def insist(self, position: int, region: Region, search_rows: Rows, prover: Prover) -> str:
        """What follows the plain passes: dearer proofs, and a longer search between them."""
        ladder = LADDERS[self.effort]
        self.climb(prover, ladder[:CHEAP])
        if prover.proven:
            return ""
        with self.phase("falsify"):
            self.counterexample = replay(self.subject, region, position, prover.corners.cpu())
            if self.counterexample is not None:
                return "counterexample found at the dual's worst corner"
            with torch.enable_grad():
                self.counterexample = falsify(
                    self.subject,
                    self.search_graph,
                    region,
                    position,
                    search_rows,
                    self.deadline,
                    starts=prover.corners,
                    restarts=self.restarts(64),
                    steps=100,
                    seed=self.seed + 1,
                )
        if self.counterexample is not None:
            return "counterexample found from the dual's worst corners"
        self.climb(prover, ladder[CHEAP:])
        return prover.reason()

    def climb(self, prover: Prover, ladder: Sequence[Rung]) -> None:
        """Rung after rung, until the region is proven or a rung was not worth it."""
        with self.phase("refine"), summed_products():
            for number, rung in enumerate(ladder):
                if prover.proven or not bool(prover.bounds.isfinite().all()):
                    return
                self.progress("refine", number, len(ladder))
                if not prover.climb(rung):
                    return

    def restarts(self, least: int) -> int:
        """Random starts of a search: more for small networks, where each costs little."""
        neurons = sum(math.prod(node.shape) for node in self.graph.nodes)
        return min(1024, max(least, 400_000 // neurons))

    def find_any_point(self, position: int, region: Region) -> str:
        """A region where every output is unsafe: any float32 point of the box is a counterexample."""
        box = region.box
        middle = (box.float32_lower + (box.float32_upper - box.float32_lower) / 2).clamp(
            box.float32_lower, box.float32_upper
        )
        point = middle.reshape(1, *self.graph.input_shape)
        with self.phase("falsify"):
            self.counterexample = replay(self.subject, region, position, point)
        if self.counterexample is None:
            return "no output constraints, and the float32 box holds no point"
        return "no output constraints: every point of the box is a counterexample"

    def prove(self, position: int, region: Region) -> tuple[str, Prover | None]:
        """Why the forward sweep and the plain dual passes do not prove the region safe; empty if they do.

        And the prover that can go on from there, if there is one; else the bounds are recorded.
        """
        shape = (1, *self.graph.input_shape)
        box = tuple(b.reshape(shape) for b in (region.box.lower, region.box.upper))
        lower, upper = (outward(b, self.dtype, up).to(self.device) for b, up in zip(box, (False, True), strict=True))
        if not bool((lower.isfinite() & upper.isfinite()).all()):
            return f"the input box exceeds the range of {self.dtype}", None
        rows = Rows.of(region, self.spec.inputs, self.spec.outputs, lower)
        zonotope = Zonotope.from_box(lower, upper)
        with self.phase("forward"), summed_products():
            result = self.forward(zonotope)
            forward = self.forward_rows(rows, zonotope, result)
        if forward is not None and all(rows.refuted(forward)):
            self.record(position, rows, forward, None)
            return "", None
        if not all(bool(b.isfinite().all()) for bounds in result.inputs.values() for b in bounds):
            self.record(position, rows, forward, None)  # the dual pass would take an overflowed bound at its word
            return "a bound is NaN or infinite", None

        def on_node(node: object) -> None:
            self.deadline.check()

        prover = Prover(self.graph, rows, (lower, upper), result.inputs, forward, self.kink, on_node, self.rounding)
        with self.phase("dual"), summed_products():
            prover.plain()
        if prover.proven:
            self.record(position, rows, forward, prover.best, prover.slack)
            return "", None
        return prover.reason(), prover

    def forward_rows(self, rows: Rows, zonotope: Zonotope, result: Sweep) -> Tensor | None:
        """Lower bounds ``[R]`` of the rows on the output's zonotope; None where the sweep has none."""
        if result.output is None or result.errors is None:
            return None
        return ForwardErrors(self.rounding).rows(rows, zonotope, result.output, result.errors).squeeze(0)

    def forward(self, zonotope: Zonotope) -> Sweep:
        """Bounds of every ReLU's input, under the deadline."""
        total = len(self.graph.nodes)
        position = {node.name: i for i, node in enumerate(self.graph.nodes)}
        done = 0

        def on_node(node: Node) -> None:
            nonlocal done
            self.deadline.check()
            if position[node.name] > done:  # a dual pass goes back to nodes that were done
                done = position[node.name]
                self.progress("forward", done, total)

        result = sweep(
            self.graph,
            zonotope,
            direction=self.direction,
            memory_budget=self.memory_budget,
            kink=self.kink,
            on_node=on_node,
            rounding=self.rounding,
        )
        self.layers, self.plan = result.stats, result.plan
        return result

    def record(
        self, position: int, rows: Rows, forward: Tensor | None, dual: Tensor | None, slack: Tensor | None = None
    ) -> None:
        """Keeps the bounds of a region's rows for the result."""
        for r, label in enumerate(rows.labels):
            first, second, cost = (
                None if b is None else rows.undo_unit(r, float(b[r])) for b in (forward, dual, slack)
            )
            self.margins.append(RowBound(position, label, first, second, cost))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch's CPU allocator says so only in the text of a RuntimeError."""
    text = str(error)
    allocating = "aten::new_empty" in text or "aten::empty" in text  # all that the stable ABI of torch 2.11 tells
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or (allocating and "API call failed" in text)
    )


def outward(bound: Tensor, dtype: torch.dtype, up: bool) -> Tensor:
    """A float64 bound in ``dtype``, rounded up or down where ``dtype`` does not hold it."""
    rounded = bound.to(dtype)
    wrong = rounded.double() < bound if up else rounded.double() > bound
    limit = torch.full_like(rounded, math.inf if up else -math.inf)
    return torch.where(wrong, torch.nextafter(rounded, limit), rounded)
