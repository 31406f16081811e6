"""Bounds of maxima and minima of two, from bounds of the two: max(a, b) lies in [max(l_a, l_b), max(u_a, u_b)].

Written b + relu(a - b), a maximum has a zonotope that may reach beyond that: it does not know that a - b is large only
where b is small. In a tree of maxima the next difference then looks larger than it is. So the sweep also carries
intervals from the values of activations, and from the box, to what maxima and minima are of, through these and what
moves them, and to differences; bounds of what an activation reads are intersected with them.

A function that is finite on a part of the line only, such as 1 / x, needs bounds on one side of its pole, which
intervals may have where a zonotope has not: a sum of squares is positive. Where there is such a function, intervals go
through every node. They also know something where numbers of a zonotope overflow: a sum of exponentials is at least
its least one then, and 1 / x of it at least 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.graph import Add, Concat, Expand, Gather, Graph, Node, Op, Reshape, Transpose
from zonocuda.relaxations import activations, has_rule, rule_of


class Extremes:
    """What is known of the nodes of one network.

    Args:
        graph: the network.
        interval: bounds of a node's value from bounds of its inputs, proven where rounding is counted.
        rounds: whether a machine whose values are bounded rounds a node's.
    """

    def __init__(
        self,
        graph: Graph,
        interval: Callable[[Node, Sequence[Bounds]], Bounds],
        rounds: Callable[[Node], bool] = lambda node: False,
    ) -> None:
        self.pairs = {name: pair for name, pair in graph.extremes.items() if not _is_rounded(graph, name, rounds)}
        self._compared = _before(graph, [name for pair in self.pairs.values() for name in pair[:2]])
        self.is_everywhere = any(rule_of(node).is_partial for node in activations(graph))
        self.is_needed = self.is_everywhere or bool(self.pairs)
        self._interval = interval
        self._known: dict[str, Bounds] = {}

    def begin(self, name: str, bounds: Bounds) -> None:
        """Bounds of the value of the input, or of an activation."""
        if self.is_needed:
            self._known[name] = bounds

    def pass_on(self, node: Node) -> None:
        """Finds bounds of the value of another node, where those of its inputs are known."""
        op = node.op
        known = [self._known[name] for name in self.pairs.get(node.name, node.inputs)[:2] if name in self._known]
        if node.name in self.pairs and len(known) == 2:
            function = torch.maximum if self.pairs[node.name][2] == 1 else torch.minimum
            (a, b), (c, d) = known
            self._known[node.name] = function(a, c), function(b, d)
        elif isinstance(op, Concat) and len(known) == len(node.inputs):
            lowers, uppers = zip(*(self._known[name] for name in node.inputs), strict=True)
            self._known[node.name] = op.apply(*lowers), op.apply(*uppers)
        elif isinstance(op, Gather | Reshape | Transpose | Expand) and known:
            self._known[node.name] = op.apply(known[0][0]), op.apply(known[0][1])
        elif known and len(known) == len(node.inputs):
            difference = isinstance(op, Add) and op.sign == -1 and node.part is not None
            if self.is_everywhere or difference or node.name in self._compared:
                self._known[node.name] = _numbers(node.op, self._interval(node, known), known)

    def tightened(self, name: str, bounds: Bounds) -> Bounds:
        """Bounds of a node's value and what is known of it, both of which hold; a NaN among the first says nothing."""
        if name not in self._known:
            return bounds
        (low, high), (lower, upper) = self._known[name], bounds
        lower = torch.where(lower.isnan(), low, torch.maximum(lower, low))
        upper = torch.where(upper.isnan(), high, torch.minimum(upper, high))
        return lower, torch.maximum(lower, upper)  # rounding that is not counted may have them cross


def _numbers(op: Op, bounds: Bounds, before: Sequence[Bounds]) -> Bounds:
    """Bounds of a value, infinite where they overflowed to NaN; not where NaN has another cause, in ``before`` or in a
    constant."""
    if not bool((bounds[0].isnan() | bounds[1].isnan()).any()):
        return bounds
    numbers = [end for pair in before for end in pair] + [t for t in vars(op).values() if isinstance(t, Tensor)]
    if any(bool(t.isnan().any()) for t in numbers):
        return bounds
    lower, upper = bounds
    return lower.masked_fill(lower.isnan(), -math.inf), upper.masked_fill(upper.isnan(), math.inf)


def _before(graph: Graph, names: Sequence[str]) -> set[str]:
    """Some nodes, and those that they depend on through no activation."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found and not has_rule(graph[name]):
            found.add(name)
            pending.extend(graph[name].inputs)
    return found


def _is_rounded(graph: Graph, name: str, rounds: Callable[[Node], bool]) -> bool:
    """Whether b + relu(a - b) is a machine's own sum and difference, which may exceed a and b by what they round."""
    difference = graph[graph[graph[name].inputs[1]].inputs[0]]
    return rounds(graph[name]) or rounds(difference)
