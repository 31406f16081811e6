"""The stages of one region's proof, in one dtype after the other.

Every bound counts the rounding of the dtype that it was computed in, so that bounds of different dtypes are bounds of
the same real network and may be mixed: a disjunct stays refuted, and a neuron's bounds stay proven. What float32 leaves
open for want of precision goes on in float64 with all that float32 has found: first the dual passes alone, then, if
they do not suffice, a forward sweep, and from there on the rest of the stages.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node
from zonocuda.kink import KinkRule
from zonocuda.precision import summed_products
from zonocuda.specs import Region
from zonocuda.verifier.deadline import Deadline
from zonocuda.verifier.forward import Sweep, sweep
from zonocuda.verifier.forward_error import ForwardErrors
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.planner import Direction
from zonocuda.verifier.prove import Prover, Rung
from zonocuda.verifier.result import RowBound
from zonocuda.verifier.rounding import Rounding
from zonocuda.verifier.rows import Rows

Progress = Callable[[str, int, int], None]
"""Called with a phase and how much of it is done: (phase, done, total)."""

REACH = 4.0
"""What float32 leaves open goes on in float64 where the bound lacks less than so many times its own slack: the bounds
of the layers before have given up something for rounding, too."""


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """A network with its constants in the dtype and on the device where bounds are computed; what rounding costs there.

    Attributes:
        graph: the network.
        rounding: of ``graph``'s dtype.
        device: where its constants lie.
    """

    graph: Graph
    rounding: Rounding
    device: torch.device

    @staticmethod
    def of(network: Graph, dtype: torch.dtype, device: torch.device) -> Arithmetic:
        """For a network as it was imported."""
        graph = network.to(dtype, device)
        return Arithmetic(graph, Rounding.of(network, graph, dtype), device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the bounds."""
        return self.rounding.dtype

    def box(self, region: Region) -> Bounds:
        """The region's box, rounded outward, ``[1, *input features]``."""
        lower, upper = (b.reshape(1, *self.graph.input_shape) for b in (region.box.lower, region.box.upper))
        return outward(lower, self.dtype, False).to(self.device), outward(upper, self.dtype, True).to(self.device)

    def rows(self, region: Region, box: Bounds) -> Rows:
        """The region's constraints."""
        return Rows.of(region, math.prod(self.graph.input_shape), math.prod(self.graph.output_shape), box[0])


@dataclass(frozen=True)
class Course:
    """How proofs go about it, and what time they took.

    Attributes:
        direction, memory_budget, kink: see :func:`zonocuda.verify`.
        deadline: when to stop.
        progress: is told how far each phase is.
        seconds: time by phase.
    """

    direction: Direction
    memory_budget: int | None
    kink: KinkRule
    deadline: Deadline
    progress: Progress
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time inside to ``seconds[name]``."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - begin


class RegionProof:
    """Bounds of one region's rows that only improve, stage by stage.

    Attributes:
        region: the region; its box and its disjuncts are not empty.
        dtypes: that of the next stage, and wider ones to go on in where rounding is in the way.
        provers: one for each dtype that bounds were computed in, and all that was found in it and before.
        obstacle: why no stage can follow, where that is so.
        sweep: the last forward sweep, if there was one.
    """

    def __init__(
        self,
        region: Region,
        dtypes: Sequence[torch.dtype],
        arithmetic: Callable[[torch.dtype], Arithmetic],
        course: Course,
    ) -> None:
        """``arithmetic``: gives the network in a dtype."""
        self.region, self.dtypes, self.arithmetic, self.course = region, list(dtypes), arithmetic, course
        self.provers: list[Prover] = []
        self.obstacle = ""
        self.sweep: Sweep | None = None

    @property
    def proven(self) -> bool:
        """Whether every disjunct is refuted."""
        return bool(self.provers) and self.provers[-1].proven

    @property
    def corners(self) -> Tensor:
        """Float32 points ``[n, *input features]`` on the CPU where the last linear bounds are smallest."""
        return self.provers[-1].corners.cpu()

    def reason(self) -> str:
        """Why the region is not proven safe; empty if it is."""
        if self.proven:
            return ""
        return self.obstacle or self.provers[-1].reason()

    def margins(self, position: int) -> list[RowBound]:
        """The bounds of the rows of this region, the one at ``position`` in the specification."""
        return [_margin(position, r, self.provers) for r in range(self.provers[0].rows.count if self.provers else 0)]

    # ---- stages ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The forward sweep and the plain dual passes."""
        self._begin(None)
        self._widen()

    def climb(self, ladder: Sequence[Rung]) -> None:
        """Rung after rung, until the region is proven, no stage can follow, or a rung was not worth it."""
        for number, rung in enumerate(ladder):
            if self.proven or self.obstacle or not self.provers[-1].is_finite:
                return
            self.course.progress("refine", number, len(ladder))
            with self.course.phase("refine"), summed_products():
                worth = self.provers[-1].climb(rung)
            if not self._widen() and not worth:
                return

    def _widen(self) -> bool:
        """Goes on in a wider dtype where this one's rounding is in the way; returns whether it did."""
        before = len(self.dtypes)
        while len(self.dtypes) > 1 and not self.proven and self._is_too_narrow():
            del self.dtypes[0]
            narrow = None if self.obstacle else self.provers[-1]
            if narrow is None or not self._repeat(narrow):
                self._begin(narrow)
        return len(self.dtypes) < before

    def _is_too_narrow(self) -> bool:
        return bool(self.obstacle) or not self.provers[-1].is_finite or self.provers[-1].is_within(REACH)

    def _repeat(self, narrow: Prover) -> bool:
        """The last dual passes again, in the dtype at hand, on the bounds that a narrower one has proven."""
        arithmetic = self.arithmetic(self.dtypes[0])
        box = arithmetic.box(self.region)
        prover = self._prover(arithmetic, box, {}, None, narrow)
        with self.course.phase("dual"), summed_products():
            prover.repeat()
        self.provers.append(prover)
        return prover.proven

    def _begin(self, narrow: Prover | None) -> None:
        """The first stages in the dtype at hand, with what a narrower one has found."""
        arithmetic = self.arithmetic(self.dtypes[0])
        self.obstacle = ""
        box = arithmetic.box(self.region)
        if not all(bool(b.isfinite().all()) for b in box):
            self.obstacle = f"the input box exceeds the range of {arithmetic.dtype}"
            return
        with self.course.phase("forward"), summed_products():
            zonotope = Zonotope.from_box(*box)
            swept = self.sweep = self._sweep(arithmetic, zonotope)
            forward = None
            if swept.output is not None and swept.errors is not None:
                rows, errors = arithmetic.rows(self.region, box), ForwardErrors(arithmetic.rounding)
                forward = errors.rows(rows, zonotope, swept.output, swept.errors).squeeze(0)
        prover = self._prover(arithmetic, box, swept.inputs, forward, narrow)
        self.provers.append(prover)
        if prover.proven:
            return
        if not all(bool(b.isfinite().all()) for bounds in prover.inputs.values() for b in bounds):
            self.obstacle = "a bound is NaN or infinite"  # the dual pass would take an overflowed bound at its word
            return
        with self.course.phase("dual"), summed_products():
            prover.plain()

    def _prover(
        self,
        arithmetic: Arithmetic,
        box: Bounds,
        inputs: Mapping[str, Bounds],
        forward: Tensor | None,
        narrow: Prover | None,
    ) -> Prover:
        def on_node(node: object) -> None:
            self.course.deadline.check()

        rows = arithmetic.rows(self.region, box)
        graph, rounding = arithmetic.graph, arithmetic.rounding
        prover = Prover(graph, rows, box, inputs, forward, self.course.kink, on_node, rounding)
        if narrow is not None:
            prover.resume(narrow)
        return prover

    def _sweep(self, arithmetic: Arithmetic, zonotope: Zonotope) -> Sweep:
        """Bounds of every ReLU's input, under the deadline."""
        course, graph = self.course, arithmetic.graph
        position = {node.name: i for i, node in enumerate(graph.nodes)}
        done = 0

        def on_node(node: Node) -> None:
            nonlocal done
            course.deadline.check()
            if position[node.name] > done:  # a dual pass goes back to nodes that were done
                done = position[node.name]
                course.progress("forward", done, len(graph.nodes))

        return sweep(
            graph,
            zonotope,
            direction=course.direction,
            memory_budget=course.memory_budget,
            kink=course.kink,
            on_node=on_node,
            rounding=arithmetic.rounding,
        )


def _margin(position: int, r: int, provers: Sequence[Prover]) -> RowBound:
    """The bounds of row r; its dtype is the first in which it was refuted."""
    last = provers[-1]
    settled = next((p for p in provers if bool((p.bounds[r] > 0) & p.bounds[r].isfinite())), last)

    def best(bounds: Sequence[Tensor | None]) -> float | None:
        values = [float(b[r]) for b in bounds if b is not None]
        known = [v for v in values if not math.isnan(v)] or values[:1]
        return last.rows.undo_unit(r, max(known)) if known else None

    return RowBound(
        position,
        last.rows.labels[r],
        best([p.forward for p in provers]),
        best([p.best for p in provers if p.passed]),
        best([last.slack]) if last.passed else None,
        str(settled.best.dtype).removeprefix("torch."),
    )


def outward(bound: Tensor, dtype: torch.dtype, up: bool) -> Tensor:
    """A float64 bound in ``dtype``, rounded up or down where ``dtype`` does not hold it."""
    rounded = bound.to(dtype)
    wrong = rounded.double() < bound if up else rounded.double() > bound
    limit = torch.full_like(rounded, math.inf if up else -math.inf)
    return torch.where(wrong, torch.nextafter(rounded, limit), rounded)
