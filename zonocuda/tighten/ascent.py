"""Slopes that learn: projected ascent of the rows' lower bounds in the slopes of the dual pass.

Every row has its own slopes, so that the sum of the bounds is maximised row by row. A step moves each slope by about
``rate`` whatever the size of its gradient (moments as in Adam, Kingma and Ba 2015), then projects to what the rule
takes. There is no chance in it: the same problem gives the same bounds. What counts is the best bound ever seen of each
row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import standard_rows
from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.kink import KinkRule
from zonocuda.relaxations import use_kink
from zonocuda.tighten.free_slopes import RowSlopes, Signs
from zonocuda.tighten.history import History, Step, sum_and_smallest

SPARE = 2.0
"""How many times its slack a bound that counts no rounding should exceed zero by, to be taken for one that a proof will
confirm."""


@dataclass(frozen=True)
class Ascent:
    """How to optimise slopes.

    Attributes:
        iterations: steps at most.
        rate: how far a slope of a ReLU moves in the first step, at most (where v < 0, a tenth of it); others move as
            their :class:`zonocuda.relaxations.Gait` says, as a share of what their function has.
        decay: what the rate is multiplied by after each step.
        patience: ends after so many steps in a row that improved no row by more than ``tolerance``.
        tolerance: relative to the size of the row's bound.
        signs: which slopes are free. Where v < 0 the minimum-area slope of a ReLU dominates on [l, u] itself: moving it
            can help only with bounds l, u that the earlier layers' relaxations do not imply. Those of activations whose
            does not (:attr:`zonocuda.relaxations.Rule.has_best_above`) are always free.
        kink: the derivative where a slope sits on a kink (:mod:`zonocuda.kink`); None for the rule in use.
        seconds: budget.

    Examples:
        >>> Ascent(iterations=5, rate=0.1).iterations
        5
    """

    iterations: int = 20
    rate: float = 0.25
    decay: float = 0.95
    patience: int = 8
    tolerance: float = 1e-4
    signs: Signs = "nonnegative"
    kink: KinkRule | None = None
    seconds: float = math.inf


@dataclass(eq=False)
class Ascended:
    """What an optimisation found.

    Attributes:
        lower: ``[B, R]``, the best bound of each row.
        slack: ``[B, R]``, what counting rounding has taken off it.
        slopes: by activation, the slopes ``[B, R, N]`` of those bounds, where they were asked for.
        weight: the input's weights ``[B * R', *input features]`` of the last bounds of the rows that stayed to the end.
        history: one entry a step.
    """

    lower: Tensor
    slack: Tensor
    slopes: dict[str, Slopes]
    weight: Tensor | None
    history: History = field(default_factory=History)


Finished = Callable[[Tensor], Tensor]
"""Given the best bounds ``[B, R]`` of all rows: a mask ``[R]`` of those that need no better one."""


class _Best:
    """The best bound of each row."""

    def __init__(self, lower: Tensor) -> None:
        self.lower, self.slack = torch.full_like(lower, -math.inf), torch.zeros_like(lower)

    def update(self, open_: Tensor, lower: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
        """Takes what is better, for the rows ``open_``; returns where that is, and by how much each row improved, both
        ``[B, R']``."""
        old = self.lower[:, open_]
        better = (lower > old) | (lower.isnan() & old.isinf())
        self.lower[:, open_] = torch.where(better, lower, old)
        self.slack[:, open_] = torch.where(better, slack, self.slack[:, open_])
        return better, torch.where(better, torch.where(old.isinf(), torch.inf, lower - old), 0.0)


class Search(Protocol):
    """Slopes on their way to better bounds; what :func:`climb` drives."""

    @property
    def rows(self) -> int:
        """How many rows still need better bounds."""

    @property
    def total(self) -> float:
        """The sum of the best bounds."""

    @property
    def worst(self) -> float:
        """The smallest of the best bounds."""

    def look(self, last: bool) -> bool:
        """Finds the bounds for the slopes as they are, and keeps the best; ``last``: no step will follow.

        Returns:
            Whether a bound improved by more than the tolerance.
        """

    def clock(self, seconds: float) -> float:
        """The seconds since the beginning as all who search together count them."""

    def move(self, rate: float) -> bool:
        """One step; False, and none, where nothing is left to do."""

    def retreat(self) -> float:
        """Goes back to the best slopes, where patience has ended; what to multiply the rate by, 0 for the end."""


def climb(search: Search, settings: Ascent) -> History:
    """Moves slopes until the iterations, the seconds or the patience end, or nothing is left to do."""
    with use_kink(settings.kink):
        return History(_climb(search, settings))


def _climb(search: Search, settings: Ascent) -> list[Step]:
    begin = time.monotonic()
    history: list[Step] = []
    rate, idle = settings.rate, 0
    for number in range(settings.iterations + 1):
        last = number == settings.iterations
        idle = 0 if search.look(last) else idle + 1
        history.append(Step(search.clock(time.monotonic() - begin), search.rows, search.total, search.worst))
        if last or history[-1].seconds > settings.seconds:
            break
        if idle >= settings.patience:
            idle, rate = 0, rate * search.retreat()
            if not rate:
                break
        if not search.move(rate):
            break
        rate *= settings.decay
    return history


class _RowSearch:
    """The search of rows that each have their own slopes."""

    def __init__(
        self,
        problem: RowProblem,
        settings: Ascent,
        start: Mapping[str, Slopes],
        finished: Finished | None,
        wants_slopes: bool,
    ) -> None:
        self.problem, self.settings, self.finished = problem, settings, finished
        frozen = settings.iterations == 0 and not wants_slopes
        self.slopes = RowSlopes(problem, start, settings.signs, frozen)
        flow = problem.flow
        self.open = torch.arange(flow.rows, device=flow.constant.device)
        self.best, self.wants_slopes = _Best(flow.constant), wants_slopes
        self.lower, self.weight = flow.constant, None
        self.number, self.wanted = 0, flow.rows
        self.total = self.worst = -math.inf
        self.wants = torch.ones_like(self.open, dtype=torch.bool)

    lower: Tensor
    weight: Tensor | None
    total: float
    worst: float
    wanted: int  # how many of the open rows need better bounds: those of ``wants``

    @property
    def rows(self) -> int:
        return len(self.open)

    def look(self, last: bool) -> bool:
        with torch.set_grad_enabled(not last):
            self.lower, self.weight = self.problem.bound(self.slopes.of)
        lower = self.lower.detach()
        improved, gain = self.best.update(self.open, lower, self.problem.slack)
        if self.wants_slopes:
            self.slopes.note(self.open, improved)
        self.wants = torch.ones_like(self.open, dtype=torch.bool)
        if self.finished is not None and not last:
            self.wants = ~self.finished(self.best.lower)[self.open]
        better = (gain > self.settings.tolerance * (1e-2 + lower.abs())).any()
        # A device is waited for once a step: for all that decides on the next one.
        asked = [better.double(), *sum_and_smallest(self.best.lower), self.wants.sum().double()]
        moved, self.total, self.worst, wanted = torch.stack(asked).tolist()
        self.wanted = int(wanted)
        return bool(moved)

    def clock(self, seconds: float) -> float:
        return seconds

    def move(self, rate: float) -> bool:
        free = self.slopes.free
        if not free or not self.wanted:
            return False
        self.number += 1
        with torch.enable_grad():
            total = self.lower.sum()  # for gradients of a number torch loads no sympy
        gradients = torch.autograd.grad(total, [f.value for f in free.values()])
        for one, gradient in zip(free.values(), gradients, strict=True):
            one.step(gradient, self.number, rate)
        rest = standard_rows(self.problem.flow.graph, self.open.device, self.wanted)
        if rest < len(self.open):  # some rows that need no better bound stay, to keep to a usual number
            index = (~self.wants).to(torch.uint8).argsort(stable=True)[:rest]
            self.open = self.open[index]
            self.problem.keep(index)
            self.slopes.keep(index)
        return True

    def retreat(self) -> float:
        return 0.0  # every row has its best slopes from another step


def ascend(
    problem: RowProblem,
    settings: Ascent,
    start: Mapping[str, Slopes] | None = None,
    *,
    finished: Finished | None = None,
    wants_slopes: bool = False,
) -> Ascended:
    """Optimises the slopes of every row of a problem, which it uses up.

    Args:
        problem: the rows.
        settings: how.
        start: by activation, slopes ``[B, 1 or R, N]`` to begin with, in the order of the pass; minimum-area ones
        elsewhere.
        finished: which rows need no better bound, given the best ones; they leave. By default none.
        wants_slopes: whether the best slopes are kept.

    Returns:
        The best bounds, never worse than those of ``start``.
    """
    search = _RowSearch(problem, settings, start or {}, finished, wants_slopes)
    history = climb(search, settings)
    weight = None if search.weight is None else search.weight.detach()
    slopes = search.slopes.best() if wants_slopes else {}
    return Ascended(search.best.lower, search.best.slack, slopes, weight, history)
