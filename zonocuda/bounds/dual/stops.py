"""Rows that end where a maximum is computed.

A maximum of a window is b + relu(a - b), pair by pair (:mod:`zonocuda.importers.lowering_piecewise`). The lines of
these ReLUs know how the inputs go together. What they do not know is that the maximum m is at most u, the largest upper
bound of its inputs. So a row v may end at m where v < 0, as v m >= v u; at a minimum where v > 0, as v m >= v l.

The usual relaxation of a maximum takes below the input with the largest lower bound, above u, or an input that is never
less than the others (DeepPoly, Singh et al. 2019). It is one way to go through the pairs, ending where v < 0 and no
input is the largest one: :meth:`Maxima.usual`. Bounds that are the better ones of this way and of another are never
worse than the usual relaxation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import flatten_rows
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.interval import Bounds, interval
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.graph import Concat, Expand, Gather, Graph, Node, Reshape, Transpose
from zonocuda.relaxations import has_rule, rule_of


@dataclass(frozen=True, eq=False)
class Stop:
    """Where rows may end at one node.

    Attributes:
        sign: 1 for rows that are negative there, -1 for positive ones.
        bound: ``[B, *features]``, u for the former, l for the latter.
        ends: ``[B, *features]``, 1 where they do and 0 elsewhere.
    """

    sign: int
    bound: Tensor
    ends: Tensor

    def split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """What goes on of rows ``[B, R, N]`` in the order of the pass, and v times the bound of what ends; both are
        exact but for that product."""
        ended = (v * self.sign).clamp(max=0) * self.sign * flatten_rows(self.ends).unsqueeze(1)
        bound = flatten_rows(self.bound).unsqueeze(1)
        return v - ended, torch.where(ended == 0, 0.0, ended * bound)


class Maxima:
    """The maxima and minima of a network, with what bounds of the activations' inputs say of them.

    Attributes:
        stops: by name; proven where rounding is counted.
    """

    def __init__(
        self,
        graph: Graph,
        intermediate: Mapping[str, Bounds],
        box: Bounds,
        rounding: Rounding | None = None,
        before: str | None = None,
    ) -> None:
        """Bounds by intervals, from those of the box and of activations.

        Args:
            graph: the network.
            intermediate: bounds ``[B, *features]`` of the input of every activation.
            box: lower and upper bounds of the input, ``[B, *input features]``.
            rounding: where it is counted.
            before: an activation: of maxima those alone that it depends on, and bounds of its input. By default all
                maxima.
        """
        self.graph, self.intermediate = graph, intermediate
        self._image = interval if rounding is None else ForwardErrors(rounding).interval
        self._known: dict[str, Bounds] = {graph.nodes[0].name: box}
        self._exact: dict[str, Tensor] = {}
        reached = None if before is None else graph.ancestors(before)
        ends = [
            graph[name] for name in graph.maxima if not has_rule(graph[name]) and (reached is None or name in reached)
        ]
        needed = self._before(ends if before is None else [*ends, graph[graph[before].inputs[0]]])
        with torch.no_grad():
            for node in graph.nodes:
                if node.name in needed:
                    self._look(node)
        self.stops = {node.name: self._stop(node.name) for node in ends}

    def bounds(self, name: str) -> Bounds:
        """Of a node's value."""
        return self._known[name]

    def usual(self, start: Mapping[str, Slopes]) -> dict[str, Slopes]:
        """Slopes ``[B, 1, N]`` of the usual relaxation, in the order of the pass: where v >= 0 at the ReLUs of pairs;
        elsewhere those of ``start``."""
        found = dict(start)
        for name, (a, b, sign) in self.graph.extremes.items():
            if name in self._exact:
                (low, high), (other_low, other_high) = self._known[a], self._known[b]
                chosen = low >= other_low if sign == 1 else other_high <= high
                positive = self.graph[name].inputs[1]
                flat = Slopes(None, chosen.to(low.dtype).unsqueeze(1)).flat()
                found[positive] = replace(start[positive], nonnegative=flat.nonnegative)
        return found

    def _stop(self, name: str) -> Stop:
        sign, exact = self.graph.maxima[name], self._exact.get(name)  # none of a maximum of values of unlike shapes
        bound = self._known[name][1 if sign == 1 else 0]
        return Stop(sign, bound, torch.ones_like(bound) if exact is None else 1 - exact)

    # ---- what is known -----------------------------------------------------------------------------------------------

    def _sources(self, node: Node) -> Sequence[str]:
        """What bounds of a node are found from."""
        if has_rule(node):
            return ()
        return self._pair(node)[:2] or node.inputs

    def _pair(self, node: Node) -> tuple[str, str, int] | tuple[()]:
        """a, b and 1 for max(a, b), -1 for min(a, b), where an operator of the network is made of it: a machine rounds
        other sums."""
        return self.graph.extremes.get(node.name, ()) if node.part is not None else ()

    def _before(self, ends: Sequence[Node]) -> set[str]:
        needed: set[str] = set()
        pending = [node.name for node in ends]
        while pending:
            name = pending.pop()
            if name not in needed and name not in self._known:
                needed.add(name)
                pending.extend(self._sources(self.graph[name]))
        return needed

    def _look(self, node: Node) -> None:
        """Finds bounds of a node's value, and where it is one of the numbers that its maxima read (1, else 0)."""
        if has_rule(node):
            self._known[node.name] = rule_of(node).range(*self.intermediate[node.name])
            return
        pair, before = self._pair(node), [self._known[name] for name in self._sources(node)]
        if pair:
            self._look_at_pair(node, pair)
            return
        self._known[node.name] = self._image(node, before)
        if isinstance(node.op, Gather | Reshape | Transpose | Expand | Concat):
            flags = [self._flags(name) for name in node.inputs]
            self._exact[node.name] = node.op.apply(*flags)

    def _look_at_pair(self, node: Node, pair: tuple[str, str, int]) -> None:
        a, b, sign = pair
        (low, high), (other_low, other_high) = self._known[a], self._known[b]
        pick = torch.maximum if sign == 1 else torch.minimum
        self._known[node.name] = pick(low, other_low), pick(high, other_high)
        less, more = self.intermediate[self.graph[node.name].inputs[1]]  # of a - b
        a_is_larger, b_is_larger = (less >= 0) | (low >= other_high), (more <= 0) | (other_low >= high)
        is_a, is_b = (a_is_larger, b_is_larger) if sign == 1 else (b_is_larger, a_is_larger)
        none = torch.zeros_like(low)
        self._exact[node.name] = torch.where(is_a, self._flags(a), torch.where(is_b, self._flags(b), none))

    def _flags(self, name: str) -> Tensor:
        return self._exact[name] if name in self._exact else torch.ones_like(self._known[name][0])
