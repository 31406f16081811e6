"""Proofs by the dual pass, from cheap to dear, for the rows of one region."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.dual_pass import Visit
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import STARTS, Slopes, initial_slopes
from zonocuda.bounds.dual.stops import Maxima, Stop
from zonocuda.bounds.interval import Bounds, outward
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph, Node
from zonocuda.precision import summed_products
from zonocuda.relaxations import Start
from zonocuda.tighten.ascent import SPARE, Ascent, ascend
from zonocuda.tighten.refine import refine

Effort = Literal["fast", "standard", "max"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


@dataclass(frozen=True)
class Rung:
    """One attempt: how often the slopes of the intermediate bounds and those of the rows are optimised."""

    intermediate: int
    rows: int


LADDERS: Mapping[Effort, Sequence[Rung]] = {
    "fast": (),
    "standard": (Rung(0, 10), Rung(8, 20)),
    "max": (Rung(0, 10), Rung(8, 20), Rung(16, 30), Rung(40, 60), Rung(120, 120)),
}
"""What follows the plain passes; each rung uses the bounds and the slopes of the one before."""

CHEAP = 1
"""How many rungs are worth climbing before a long search for a counterexample."""


def check_effort(effort: str) -> Effort:
    """The effort.

    Raises:
        ValueError: an unknown one.
    """
    for known in EFFORTS:
        if effort == known:
            return known
    raise ValueError(f"effort must be one of {', '.join(EFFORTS)}, got {effort!r}")


class Prover:
    """Lower bounds of a region's rows that only improve.

    Attributes:
        intermediate: bounds of every activation's input, ``[1, *features]``.
        forward: ``[R]``, bounds of the rows that came with them, if any did.
        best: ``[R]``, the best bound of each row that a dual pass found so far; NaN where there is none.
        slack: ``[R]``, what rounding took off that bound; NaN where there is none.
        passed: whether there was a dual pass.
        is_coarse: whether the bounds that a sweep finds exactly were found in a narrower dtype.
        corners: float32 points ``[n, *input features]`` where the last linear bounds are smallest.
        climbed: the last rung that was climbed, if one was.
    """

    climbed: Rung | None = None

    def __init__(
        self,
        graph: Graph,
        rows: Rows,
        box: Bounds,
        intermediate: Mapping[str, Bounds],
        forward: Tensor | None,
        on_node: Visit,
        rounding: Rounding | None = None,
    ) -> None:
        self.graph, self.rows, self.box, self.on_node = graph, rows, box, on_node
        self.intermediate, self.rounding = dict(intermediate), rounding
        self.forward = None if forward is None else forward.double()
        self.best, self.slack = (torch.full_like(rows.constant, math.nan, dtype=torch.float64) for _ in range(2))
        self.corners = box[0].new_zeros((0, *graph.input_shape), dtype=torch.float32)
        self.passed = self.is_coarse = False
        self._slopes: dict[str, Slopes] = {}
        self._ended = torch.zeros_like(rows.constant, dtype=torch.bool)

    @property
    def dtype(self) -> torch.dtype:
        """In which passes are computed; bounds are kept in float64, which holds them exactly."""
        return self.box[0].dtype

    def resume(self, other: Prover) -> None:
        """Goes on with what a prover of the same region has found in another dtype: its bounds are proven, too."""

        def finite(t: Tensor) -> Tensor:
            return torch.where(t.isfinite(), t, math.nan)

        self.best, self.slack, self.passed = finite(other.best), other.slack.clone(), other.passed
        self._ended = other._ended.clone()
        if other.forward is not None:
            found = finite(other.forward)
            self.forward = found if self.forward is None else torch.fmax(self.forward, found)
        for name, (low, high) in other.intermediate.items():
            lower, upper = (outward(finite(b), self.dtype, up) for b, up in ((low, False), (high, True)))
            if name in self.intermediate:
                lower, upper = (
                    torch.fmax(self.intermediate[name][0], lower),
                    torch.fmin(self.intermediate[name][1], upper),
                )
            self.intermediate[name] = lower, upper
        self.corners, self.climbed = other.corners, other.climbed
        for name, kept in other._slopes.items():
            assert kept.nonnegative is not None
            self._slopes[name] = Slopes(None, kept.nonnegative.to(self.dtype))

    def extend(self, other: Prover, places: Sequence[int | None]) -> None:
        """Goes on with what a prover in the same dtype has found for some of the rows.

        Args:
            other: a prover of the same box.
            places: for each row its place there; None where it is none of that prover's, and begins with nothing but
                the slopes of the first one.
        """
        index = torch.tensor([0 if p is None else p for p in places], device=self.best.device)
        there = torch.tensor([p is not None for p in places], device=self.best.device)

        def taken(t: Tensor) -> Tensor:
            return torch.where(there, t[index], math.nan)

        self.best, self.slack, self.passed = taken(other.best), taken(other.slack), other.passed
        self._ended = there & other._ended[index]
        self.forward = None if other.forward is None else taken(other.forward)
        self.intermediate, self.corners, self.climbed = dict(other.intermediate), other.corners, other.climbed
        self.is_coarse = other.is_coarse
        for name, kept in other._slopes.items():
            assert kept.nonnegative is not None
            self._slopes[name] = Slopes(None, kept.nonnegative[:, index])

    @property
    def bounds(self) -> Tensor:
        """``[R]``, the best bounds of all; a NaN says nothing, and two of them leave one, which refutes nothing."""
        return self.best if self.forward is None else torch.fmax(self.forward, self.best)

    @property
    def ended(self) -> Tensor:
        """``[R]``, whether the best bound is that of a row that ended at maxima."""
        return self._ended if self.forward is None else self._ended & ~(self.forward >= self.best)

    @property
    def proven(self) -> bool:
        """Whether every disjunct is refuted."""
        return all(self.rows.refuted(self.bounds))

    @property
    def is_finite(self) -> bool:
        """Whether every bound is."""
        return bool(self.bounds.isfinite().all())

    def is_within(self, reach: Tensor) -> bool:
        """Whether every open disjunct has a row whose bound lacks less than its ``reach`` ``[R]``."""
        near = (self.bounds + reach > 0).tolist()
        refuted = self.rows.refuted(self.bounds)
        return all(ok or any(near[r] for r in rows) for rows, ok in zip(self.rows.disjuncts, refuted, strict=True))

    def plain(self) -> None:
        """The passes with minimum-area and with adaptive slopes."""
        self._pass(self._all(), [_flat_start(self.graph, self.intermediate, start) for start in STARTS])

    def repeat(self) -> None:
        """The last passes again, for the rows that are still needed."""
        index = self._open()
        starts = [_flat_start(self.graph, self.intermediate, start) for start in STARTS]
        self._pass(index, [*starts, self.start(index)] if self._slopes else starts)

    def _pass(self, index: Tensor, starts: Sequence[Mapping[str, Slopes]]) -> None:
        """Bounds of the rows ``index`` for each of some slopes."""
        self.corners, self.passed = self.corners[:0], True
        with torch.no_grad(), summed_products():
            left = compact(self.graph, self.intermediate)
            narrow = [left.narrow_slopes(slopes) for slopes in starts]
            maxima = Maxima(left.graph, left.intermediate, self.box, self._rounding(left))
            problem = self._problem(left, self._ledger(left), index, maxima.stops)
            tried = [(slopes, False) for slopes in narrow]
            if maxima.stops:
                tried.append((maxima.usual(narrow[STARTS.index("adaptive")]), True))
            for slopes, ends in tried:
                lower, weight = problem.bound(_lookup(slopes), ends)
                self._improve(index, lower.squeeze(0), problem.slack.squeeze(0), ends)
                if weight is not None:
                    self._add_corners(weight)

    def climb(self, rung: Rung) -> bool:
        """Refines the intermediate bounds, then optimises the slopes of the rows that are still needed.

        Returns:
            Whether it was worth it: a neuron became stable, or a bound rose by a hundredth of its size.
        """
        self.climbed = rung
        before = self.best.clone()
        ascent = Ascent(iterations=rung.intermediate)
        refined = refine(
            self.graph,
            self.box,
            self.intermediate,
            ascent,
            on_node=self.on_node,
            rounding=self.rounding,
            first=self.is_coarse,
        )
        self.intermediate, self.is_coarse = refined.intermediate, False
        self.plain()
        open_ = self._open()
        if len(open_):
            self._ascend(open_, replace(ascent, iterations=rung.rows))
        gain = self.best - before
        return refined.unstable[1] < refined.unstable[0] or bool((gain > 0.01 * (1e-3 + before.abs())).any())

    def _ascend(self, index: Tensor, ascent: Ascent) -> None:
        """Slopes of the rows ``index`` climb by bounds that count no rounding; the best ones are proven once."""
        left, whole = compact(self.graph, self.intermediate), self.start(index)
        start, spare = left.narrow_slopes(whole), SPARE * self.slack[index].nan_to_num(0.0)
        found = ascend(
            self._problem(left, None, index),
            ascent,
            start,
            finished=lambda best: self._finished(index, best.double() - spare),
            wants_slopes=True,
        ).slopes
        with torch.no_grad():
            problem = self._problem(left, self._ledger(left), index)
            lower, weight = problem.bound(_lookup({**start, **found}))
        self._improve(index, lower.squeeze(0), problem.slack.squeeze(0))
        self._keep(index, left.widen_slopes(found, whole))
        if weight is not None:
            self._add_corners(weight)

    def reason(self) -> str:
        """Why the region is not proven safe; empty if it is."""
        refuted, bounds = self.rows.refuted(self.bounds), self.bounds
        if all(refuted):
            return ""
        if not self.is_finite:
            return "a bound is NaN or infinite"
        still_open = [list(members) for members, ok in zip(self.rows.disjuncts, refuted, strict=True) if not ok]
        worst = min(float(bounds[members].max()) for members in still_open)
        text = f"{refuted.count(False)} of {len(refuted)} disjuncts not refuted; the worst bound is {worst:.6g}"
        if self.is_within(self.slack):
            cost = max(float(self.slack[members].max()) for members in still_open)
            dtype = str(self.dtype).removeprefix("torch.")
            executed = self.rounding is not None and self.rounding.execution is not None
            whose = "the executed network and of the bound's" if executed else "its"
            text += f", within the rounding of {whose} own computation in {dtype}, {cost:.3g}"
        return text

    # ---- rows --------------------------------------------------------------------------------------------------------

    def _all(self) -> Tensor:
        return torch.arange(self.rows.count, device=self.best.device)

    def _open(self) -> Tensor:
        """The rows of disjuncts that are not refuted."""
        return self._members(self.rows.refuted(self.bounds)).nonzero().squeeze(1)

    def _members(self, refuted: Sequence[bool]) -> Tensor:
        open_ = [r for members, ok in zip(self.rows.disjuncts, refuted, strict=True) if not ok for r in members]
        mask = torch.zeros(self.rows.count, dtype=torch.bool, device=self.best.device)
        mask[torch.tensor(open_, dtype=torch.int64, device=mask.device)] = True
        return mask

    def _finished(self, index: Tensor, best: Tensor) -> Tensor:
        """Which of the rows ``index``, with the bounds ``best`` ``[1, R']``, no open disjunct needs any more."""
        now = self.bounds.clone()
        now[index] = torch.fmax(now[index], best.squeeze(0).double())
        return ~self._members(self.rows.refuted(now))[index]

    def _improve(self, index: Tensor, lower: Tensor, slack: Tensor, ended: bool = False) -> None:
        """A NaN bound says nothing; where there is nothing else it stays, and refutes nothing."""
        old, lower = self.best[index], lower.double()
        better = (lower > old) | old.isnan()
        self.best[index] = torch.where(better, lower, old)
        self.slack[index] = torch.where(better, slack.double(), self.slack[index])
        self._ended[index] = torch.where(better, ended, self._ended[index])

    def _ledger(self, left: Compact) -> Ledger | None:
        rounding = self._rounding(left)
        return None if rounding is None else Ledger(rounding, self.box, left.intermediate)

    def _rounding(self, left: Compact) -> Rounding | None:
        return None if self.rounding is None else self.rounding.on(left.graph)

    def _problem(
        self, left: Compact, ledger: Ledger | None, index: Tensor, stops: Mapping[str, Stop] | None = None
    ) -> RowProblem:
        flow = output_rows(left.graph, self.rows, 1, ledger)
        if len(index) < self.rows.count:
            flow.keep(index)
        return RowProblem(flow, self.box, left.intermediate, self.on_node, stops)

    def _add_corners(self, weight: Tensor) -> None:
        corner = torch.where(weight >= 0, *self.box).float()
        self.corners = torch.cat([self.corners, corner])

    # ---- slopes ------------------------------------------------------------------------------------------------------

    def start(self, index: Tensor) -> dict[str, Slopes]:
        """The slopes of the last optimisation, adaptive ones at first."""
        start = _flat_start(self.graph, self.intermediate, "adaptive")
        for name, kept in self._slopes.items():
            start[name] = Slopes(kept.negative, None if kept.nonnegative is None else kept.nonnegative[:, index])
        return start

    def _keep(self, index: Tensor, slopes: Mapping[str, Slopes]) -> None:
        for name, found in slopes.items():
            if found.nonnegative is None:
                continue
            kept = self._slopes.get(name, Slopes()).nonnegative
            if kept is None:
                kept = found.nonnegative.new_zeros(1, self.rows.count, found.nonnegative.shape[2])
                kept[:] = found.nonnegative[:, :1]
            kept[:, index] = found.nonnegative
            self._slopes[name] = Slopes(None, kept)


def _flat_start(graph: Graph, intermediate: Mapping[str, Bounds], start: Start) -> dict[str, Slopes]:
    return {name: slopes.flat() for name, slopes in initial_slopes(graph, intermediate, start).items()}


def _lookup(slopes: Mapping[str, Slopes]) -> Callable[[Node], Slopes]:
    return lambda node: slopes[node.name]
