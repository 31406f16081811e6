"""An activation that the project does not have, its rule, and networks with it: all that a new one needs.

f(x) = 0 where x <= -1, (x + 1)^2 / 4 where -1 < x < 1, and x where x >= 1: convex, with slopes in [0, 1], and rational
at rational points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from zonocuda.graph import Graph, Op
from zonocuda.relaxations import RULES, Bounds, Lines, Rule, Start


class Toy(Op):
    """f, elementwise."""

    def apply(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return torch.where(x >= 1, x, (x.clamp(min=-1) + 1).square() / 4)


def exact(x: Fraction) -> Fraction:
    """f in rationals."""
    return x if x >= 1 else (max(x, Fraction(-1)) + 1) ** 2 / 4


class ToyRule(Rule):
    """Lines of any slope s: f - s x is largest at an end of [l, u], and least where f' = s, at x = 2 s - 1.

    f is computed with at most four roundings, each of a number of at most 2 (1 + |x|), and f - s x with two more of at
    most (2 + |s|) (1 + |x|); at a t that is off by d, f - s t is too large by at most d^2 / 4. ``_slack`` covers all.
    """

    is_nonnegative = True
    limits = (0.0, 1.0)

    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        low, high = (Toy().apply(x) for x in (lower, upper))
        return (low - _slack(lower, lower)).clamp(min=0), high + _slack(upper, upper)

    def settled(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (upper <= -1) | (lower >= 1)

    def zero(self, lower: Tensor, upper: Tensor) -> Tensor:
        return upper <= -1

    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        middle = (lower + upper) / 2
        if start == "adaptive":
            return ((middle + 1) / 2).clamp(0, 1)
        width = upper - lower
        chord = (Toy().apply(upper) - Toy().apply(lower)) / torch.where(width > 0, width, 1.0)
        return torch.where(width > 0, chord.clamp(0, 1), ((middle + 1) / 2).clamp(0, 1))

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        s = self.initial(lower, upper) if slope is None else self.project(slope).expand(lower.shape)
        settled = self.settled(lower, upper)
        s = torch.where(settled, (lower >= 1).to(s.dtype), s)
        touching = torch.minimum(torch.maximum(2 * s - 1, lower), upper)
        below = Toy().apply(touching) - s * touching
        above = torch.maximum(*(Toy().apply(x) - s * x for x in (lower, upper)))
        slack = _slack(lower, upper)
        return Lines(s, *(t.masked_fill(settled, 0) for t in (below - slack, above + slack)))


def _slack(lower: Tensor, upper: Tensor) -> Tensor:
    return 32 * torch.finfo(lower.dtype).eps * (1 + torch.maximum(lower.abs(), upper.abs()))


@contextmanager
def known() -> Iterator[None]:
    """Inside, the table has the toy."""
    RULES[Toy] = lambda op: ToyRule()
    try:
        yield
    finally:
        RULES.pop(Toy, None)


def toyed(graph: Graph, every: int = 1) -> Graph:
    """The graph with toys in place of its ReLUs, or of every second one and so on."""
    chosen = {node.name for node in graph.relus[::every]}
    return Graph(tuple(replace(n, op=Toy()) if n.name in chosen else n for n in graph.nodes), graph.output)
