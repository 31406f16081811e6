"""Slopes that are free to move: those of each row's own, of the neurons that are not settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.slopes import Slopes, free_neurons
from zonocuda.bounds.interval import Bounds
from zonocuda.graph import Node
from zonocuda.relaxations import Rule, rule_of

Signs = Literal["nonnegative", "both"]
"""Which slopes are free: those where v >= 0 alone (the others stay minimum-area ones), or all."""

_NEGATIVE_PACE = 0.1  # of steps where v < 0, which begin at the best slope of each neuron alone, on a kink


class FreeSlopes:
    """The free slopes of one activation on its unsettled neurons, ``[B, R, K]``, with their moments."""

    def __init__(
        self,
        rule: Rule,
        start: Tensor,
        index: Tensor,
        rows: int,
        width: int,
        pace: float = 1.0,
        reach: Bounds | None = None,
    ) -> None:
        """``reach``: slopes ``[B, 1, N]`` to stay within, and in whose distance steps are measured."""
        self.rule, self.index, self.width, self.pace, self.start = rule, index, width, pace, start
        self.reach = None
        if reach is not None:
            low, high = (rule.project(end.nan_to_num(0.0)).index_select(2, index) for end in reach)
            self.reach = low, high, torch.maximum(high - low, torch.zeros_like(low))
        self.value = rule.project(start.index_select(2, index).expand(-1, rows, -1)).detach().clone().requires_grad_()
        self.first, self.second = (torch.zeros_like(self.value, requires_grad=False) for _ in range(2))
        self.best: Tensor | None = None
        self._whole = start

    def full(self) -> Tensor:
        """``[B, R, N]``; what stable neurons hold is never read."""
        value = self.value
        return value.new_zeros(*value.shape[:2], self.width).index_copy(2, self.index, value)

    def note(self, rows: Tensor, better: Tensor) -> None:
        """Takes those of the rows ``rows`` ``[R']`` for the best ones where ``better`` ``[B, R']``."""
        value = self.value.detach()
        if self.best is None:  # all rows
            self.best = value.clone()
        elif len(rows) == self.best.shape[1]:
            self.best = torch.where(better.unsqueeze(2), value, self.best)
        else:
            self.best[:, rows] = torch.where(better.unsqueeze(2), value, self.best[:, rows])

    def shown(self) -> Tensor:
        """The best ones of all rows, ``[B, R, N]``, stable neurons with the slopes to begin with: a neighbouring input
        may find them crossing."""
        assert self.best is not None, "slopes were noted"
        start = self.rule.project(self._whole).nan_to_num(0.0)
        return start.expand(-1, self.best.shape[1], -1).index_copy(2, self.index, self.best)

    def step(self, gradient: Tensor, number: int, rate: float) -> None:
        """One step upwards, and the projection."""
        gait = self.rule.gait
        with torch.no_grad():
            gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
            self.first.lerp_(gradient, 1 - gait.first)
            self.second.mul_(gait.second).addcmul_(gradient, gradient, value=1 - gait.second)
            scale = (self.second / (1 - gait.second**number)).sqrt_().clamp_(min=torch.finfo(gradient.dtype).tiny)
            pace = self.pace * gait.pace * rate / (1 - gait.first**number)
            if self.reach is None:
                self.value.addcdiv_(self.first, scale, value=pace).clamp_(*self.rule.limits)
            else:
                low, high, width = self.reach
                moved = self.value.addcmul_(self.first / scale, width, value=pace)
                torch.minimum(torch.maximum(moved, low), high, out=moved)

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        self.value = self.value.detach().index_select(1, index).requires_grad_()
        if self.start.shape[1] > 1:
            self.start = self.start.index_select(1, index)
        self.first, self.second = (t.index_select(1, index) for t in (self.first, self.second))


class RowSlopes:
    """The slopes of all activations: made when one is first reached."""

    def __init__(self, problem: RowProblem, start: Mapping[str, Slopes], signs: Signs, frozen: bool) -> None:
        """``frozen``: nothing will be moved."""
        self.problem, self.start, self.signs, self.frozen = problem, start, signs, frozen
        self.rows = self.count = problem.flow.rows
        self.free: dict[tuple[str, str], FreeSlopes] = {}
        self.fixed: dict[str, Slopes] = {}

    def of(self, node: Node) -> Slopes:
        """What the pass asks for."""
        if node.name not in self.fixed:
            self._make(node)
        return self._with_free(node.name, self.fixed[node.name], FreeSlopes.full)

    def _with_free(self, name: str, fixed: Slopes, form: Callable[[FreeSlopes], Tensor]) -> Slopes:
        negative, nonnegative = (self.free.get((name, side)) for side in ("negative", "nonnegative"))
        return Slopes(
            fixed.negative if negative is None else form(negative),
            fixed.nonnegative if nonnegative is None else form(nonnegative),
        )

    def _make(self, node: Node) -> None:
        start = self.start.get(node.name, Slopes())
        self.fixed[node.name] = start
        if self.frozen:
            return
        lower, upper = self.problem.input_bounds(node)
        index = free_neurons(node, self.problem.intermediate[node.name])
        if not len(index):
            return
        rule, width = rule_of(node), lower.shape[1]
        own = None if start.nonnegative is None else rule.above(lower, upper)
        tied = (rule.initial(lower, upper) if own is None else own).nan_to_num(0.0).unsqueeze(1)
        below = tied if start.negative is None else start.negative
        above = below if start.nonnegative is None else start.nonnegative
        ends = rule.reach(lower, upper)
        reach = None if ends is None else (ends[0].unsqueeze(1), ends[1].unsqueeze(1))
        self.free[node.name, "nonnegative"] = FreeSlopes(rule, above, index, self.rows, width, reach=reach)
        if self.signs == "both" or not rule.has_best_above:
            pace = _NEGATIVE_PACE if rule.has_best_above else 1.0
            self.free[node.name, "negative"] = FreeSlopes(rule, below, index, self.rows, width, pace, reach)

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        self.rows = len(index)
        for free in self.free.values():
            free.keep(index)
        for name, slopes in self.fixed.items():
            self.fixed[name] = Slopes(_rows(slopes.negative, index), _rows(slopes.nonnegative, index))

    def note(self, rows: Tensor, better: Tensor) -> None:
        """Takes the slopes now for the best ones of the rows ``rows`` ``[R']`` where ``better`` ``[B, R']``."""
        for free in self.free.values():
            free.note(rows, better)

    def best(self) -> dict[str, Slopes]:
        """The best slopes of all rows, ``[B, R, N]``."""

        def every(t: Tensor | None) -> Tensor | None:
            return t if t is None else t.expand(-1, self.count, -1)

        found = {}
        for name in self.fixed:
            given = self.start.get(name, Slopes())
            given = Slopes(every(given.negative), every(given.nonnegative))
            found[name] = self._with_free(name, given, FreeSlopes.shown)
        return found


def _rows(t: Tensor | None, index: Tensor) -> Tensor | None:
    return t if t is None or t.shape[1] == 1 else t.index_select(1, index)
