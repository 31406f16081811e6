"""The stages of one region's proof, in one dtype after the other.

Every bound counts the rounding of the dtype that it was computed in, so that bounds of different dtypes are bounds of
the same network, real or executed, and may be mixed: a disjunct stays refuted, and a neuron's bounds stay proven. What
float32 leaves open goes on in float64 with all that float32 has found:

* the last dual passes alone, where they lack less than their own slack;
* the stage itself, where float64 may gain enough elsewhere: the bounds of the layers before have given up something for
  rounding, too, and every layer's bounds widen the next. How much that is in the end is measured: the first rung that
  leaves the region open is climbed in both dtypes (it is cheap), and from then on it is float64's turn where the bound
  lacks less than REACH times what float64 gained the last time;
* everything, where float32 has no finite bounds.
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

from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.interval import Bounds, all_finite, outward
from zonocuda.bounds.plan.planner import Direction
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Cast, Graph, Node
from zonocuda.precision import summed_products
from zonocuda.prove.prover import Prover, Rung
from zonocuda.prove.region_box import box_of
from zonocuda.prove.row_bound import RowBound
from zonocuda.prove.timeline import Timeline
from zonocuda.specs import Region

Progress = Callable[[str, int, int], None]
"""Called with a phase and how much of it is done: (phase, done, total)."""

REACH = 2.0
"""What float64 may gain in a stage, over what it gained the last time."""


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
    def of(network: Graph, dtype: torch.dtype, device: torch.device, execution: Execution | None = None) -> Arithmetic:
        """For a network as it was imported, or, with ``execution``, as a machine executes it."""
        graph = network.to(dtype, device)
        return Arithmetic(graph, Rounding.of(network, graph, dtype, execution), device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the bounds."""
        return self.rounding.dtype

    def box(self, region: Region) -> Bounds:
        """The region's box, that of its semantics, rounded outward, ``[1, *input features]``."""
        ends = box_of(region, self.rounding.execution)
        lower, upper = (b.reshape(1, *self.graph.input_shape) for b in ends)
        return outward(lower, self.dtype, False).to(self.device), outward(upper, self.dtype, True).to(self.device)

    def overflow(self, box: Bounds, intermediate: Mapping[str, Bounds]) -> str:
        """Why a value may leave the range of a type, that of a cast or of an execution, for bounds of every
        activation's input; empty if none can."""
        node = Ledger(self.rounding, box, intermediate).too_narrow()
        if node is not None:
            assert isinstance(node.op, Cast)
            return f"values may exceed the range of {node.op.target} at the cast {node.name!r}"
        execution = self.rounding.execution
        if execution is None:
            return ""
        if not all_finite(b for bounds in intermediate.values() for b in bounds):
            return "a bound is NaN or infinite"
        node = Ledger(self.rounding, box, intermediate).overflow()
        return (
            "" if node is None else f"executed values may exceed the range of {execution.dtype} at node {node.name!r}"
        )

    def rows(self, region: Region, box: Bounds) -> Rows:
        """The region's constraints."""
        return Rows.of(region, math.prod(self.graph.input_shape), math.prod(self.graph.output_shape), box[0])


@dataclass(frozen=True)
class Course:
    """How proofs go about it, and what time they took.

    Attributes:
        direction, memory_budget: see :func:`zonocuda.verify`.
        deadline: when to stop.
        progress: is told how far each phase is.
        seconds: time by phase.
        timeline: what was reached when.
    """

    direction: Direction
    memory_budget: int | None
    deadline: Deadline
    progress: Progress
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    timeline: Timeline = field(default_factory=Timeline)

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
        dtypes: one to compute in, or two: the narrow one first, the wide one where the narrow one's rounding is, or may
            be, in the way.
        prover: all that was found so far, in the dtype of the last stage; None before the first.
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
        self.region, self.dtypes, self.arithmetic, self.course = region, tuple(dtypes), arithmetic, course
        self.prover: Prover | None = None
        self.obstacle = ""
        self.sweep: Sweep | None = None
        self._provers: dict[torch.dtype, Prover] = {}
        self._gap: Tensor | None = None  # [R], by how much the wide dtype's bounds exceeded the narrow one's
        self._settled: dict[int, torch.dtype] = {}  # by row that is refuted
        self._unswept: frozenset[int] = frozenset()  # rows that no forward sweep has bounded

    @property
    def proven(self) -> bool:
        """Whether every disjunct is refuted."""
        return self.prover is not None and self.prover.proven

    @property
    def corners(self) -> Tensor:
        """Float32 points ``[n, *input features]`` on the CPU where the last linear bounds are smallest."""
        assert self.prover is not None
        return self.prover.corners.cpu()

    def reason(self) -> str:
        """Why the region is not proven safe; empty if it is."""
        if self.proven or self.prover is None:
            return self.obstacle
        return self.obstacle or self.prover.reason()

    def margins(self, position: int) -> list[RowBound]:
        """The bounds of the rows of this region, the one at ``position`` in the specification."""
        prover = self.prover
        if prover is None:
            return []

        def of(bounds: Tensor | None, r: int) -> float | None:
            return None if bounds is None else prover.rows.undo_unit(r, float(bounds[r]))

        dual, slack = (prover.best, prover.slack) if prover.passed else (None, None)
        return [
            RowBound(
                position,
                label,
                None if r in self._unswept else of(prover.forward, r),
                of(dual, r),
                of(slack, r),
                str(self._settled.get(r, prover.dtype)).removeprefix("torch."),
                prover.rows.strict[r],
            )
            for r, label in enumerate(prover.rows.labels)
        ]

    def prover_in(self, dtype: torch.dtype) -> Prover:
        """All that was found so far, in a dtype."""
        return self._in(dtype)

    def extend(self, region: Region) -> None:
        """Goes on with a region of the same box that has further rows, and bounds them by plain dual passes."""
        prover = self.prover
        assert prover is not None
        before, after = Rows.places(self.region), Rows.places(region)
        places = [before.get(row) for row in after]
        arithmetic = self.arithmetic(prover.dtype)
        self.region, self._provers, self._gap = region, {}, None
        again = self._prover(arithmetic, arithmetic.box(region), prover.intermediate, None)
        again.extend(prover, places)
        unswept = self._unswept
        self._unswept = frozenset(r for r, p in enumerate(places) if p is None or p in unswept)
        self._settled = {r: self._settled[p] for r, p in enumerate(places) if p is not None and p in self._settled}
        with self.course.phase("dual"), summed_products():
            again.plain()
        self._note(again)

    # ---- stages ------------------------------------------------------------------------------------------------------

    def begin(self, is_last: bool) -> None:
        """The forward sweep and the plain dual passes; ``is_last``: no rung will follow."""
        self._begin(self.dtypes[0])
        if self.proven or len(self.dtypes) == 1:
            return
        if self._is_broken() or (is_last and not self._repeat()):
            self.dtypes = self.dtypes[1:]
            self._begin(self.dtypes[0])

    def climb(self, ladder: Sequence[Rung]) -> None:
        """Rung after rung, until the region is proven, no stage can follow, or a rung was not worth it."""
        for number, rung in enumerate(ladder):
            if self.proven or self._is_broken():
                return
            self.course.progress("refine", number, len(ladder))
            if self._may_gain():
                worth = self._climb(self.dtypes[1], rung)
            else:
                worth = self._climb(self.dtypes[0], rung)
                if not self.proven and len(self.dtypes) > 1:
                    worth = self._widen(rung) or worth
            if not worth:
                return

    def _is_broken(self) -> bool:
        return bool(self.obstacle) or self.prover is None or not self.prover.is_finite

    def _climb(self, dtype: torch.dtype, rung: Rung) -> bool:
        prover = self._in(dtype)
        with self.course.phase("refine"):
            worth = prover.climb(rung)
        self._note(prover)
        return worth

    def _widen(self, rung: Rung) -> bool:
        """A rung that left the region open in the narrow dtype, in the wide one if that may change it.

        Returns:
            Whether it was worth it.
        """
        if self._is_broken():
            self.dtypes = self.dtypes[1:]
            self._begin(self.dtypes[0])
            return True
        if self._repeat():
            return True
        assert self.prover is not None
        if self._gap is not None and not self._may_gain():
            return False
        narrow = self.prover.bounds
        worth = self._climb(self.dtypes[1], rung)
        self._gap = (self.prover.bounds - narrow).clamp(min=0)
        return worth

    def _may_gain(self) -> bool:
        """Whether what the wide dtype gained, where it had its turn, may be what is lacking."""
        return self._gap is not None and self.prover is not None and self.prover.is_within(REACH * self._gap)

    def _repeat(self) -> bool:
        """The last dual passes again, in the wide dtype, where the narrow one's rounding alone is in the way.

        Returns:
            Whether that proves the region.
        """
        assert self.prover is not None
        if self.prover.is_within(self.prover.slack):
            prover = self._in(self.dtypes[1])
            with self.course.phase("dual"), summed_products():
                prover.repeat()
            self._note(prover)
        return self.proven

    def _begin(self, dtype: torch.dtype) -> None:
        """The first stages in a dtype, with what was found in another."""
        arithmetic = self.arithmetic(dtype)
        box = arithmetic.box(self.region)
        self.obstacle, before = "", None if self.obstacle else self.prover
        if not all_finite(box):
            self.obstacle = f"the input box exceeds the range of {arithmetic.dtype}"
            return
        with self.course.phase("forward"), summed_products():
            zonotope = Zonotope.from_box(*box)
            swept = self.sweep = self._sweep(arithmetic, zonotope)
            self.obstacle = arithmetic.overflow(box, swept.intermediate)
            if self.obstacle:
                return
            forward = None
            if swept.output is not None and swept.errors is not None:
                rows, errors = arithmetic.rows(self.region, box), ForwardErrors(arithmetic.rounding)
                forward = errors.rows(rows, zonotope, swept.output, swept.errors).squeeze(0)
                self._unswept = frozenset()
        prover = self._prover(arithmetic, box, swept.intermediate, forward)
        if before is not None:
            prover.resume(before)
        self._note(prover)
        if prover.proven:
            return
        if not all_finite(b for bounds in prover.intermediate.values() for b in bounds):
            self.obstacle = "a bound is NaN or infinite"  # the dual pass would take an overflowed bound at its word
            return
        with self.course.phase("dual"), summed_products():
            prover.plain()
        self._note(prover)

    def _note(self, prover: Prover) -> None:
        """Goes on with a prover that has found something."""
        self.prover = self._provers[prover.dtype] = prover
        for r, never in enumerate(prover.rows.never(prover.bounds)):
            if never:
                self._settled.setdefault(r, prover.dtype)
        bounds, refuted = prover.bounds.nan_to_num(-math.inf).tolist(), prover.rows.refuted(prover.bounds)
        still = [rows for rows, ok in zip(prover.rows.disjuncts, refuted, strict=True) if not ok]
        margin = min((max((bounds[r] for r in rows), default=-math.inf) for rows in still), default=math.inf)
        self.course.timeline.note("bounds", len(still), margin)

    def _in(self, dtype: torch.dtype) -> Prover:
        """A prover in a dtype that goes on with what was found."""
        assert self.prover is not None
        if self.prover.dtype is dtype:
            return self.prover
        prover = self._provers.get(dtype)
        if prover is None:
            arithmetic = self.arithmetic(dtype)
            prover = self._prover(arithmetic, arithmetic.box(self.region), {}, None)
            prover.is_coarse = True
        prover.resume(self.prover)
        return prover

    def _prover(
        self, arithmetic: Arithmetic, box: Bounds, intermediate: Mapping[str, Bounds], forward: Tensor | None
    ) -> Prover:
        def on_node(node: object) -> None:
            self.course.deadline.check()

        rows = arithmetic.rows(self.region, box)
        graph, rounding = arithmetic.graph, arithmetic.rounding
        return Prover(graph, rows, box, intermediate, forward, on_node, rounding)

    def _sweep(self, arithmetic: Arithmetic, zonotope: Zonotope) -> Sweep:
        """Bounds of every activation's input, under the deadline."""
        course, graph = self.course, arithmetic.graph
        position = graph.position
        done = 0

        def on_node(node: Node) -> None:
            nonlocal done
            course.deadline.check()
            if position[node.name] > done:  # a dual pass goes back to nodes that were done
                done = position[node.name]
                course.progress("forward", done, len(graph.nodes))

        means = Means(course.direction, course.memory_budget, on_node)
        return sweep(graph, zonotope, means, rounding=arithmetic.rounding)
