"""Dual rows on parts of a box where the inputs z of some neurons are known to lie on one side of a point.

A part has bounds of its own of every activation's input, and constraints side (z - t) >= 0, where side is 1 or -1. For
any beta >= 0 a row is at least itself less beta side (z - t) on the part: so a row may begin at z with -beta side, and
with beta side t in its constant. It is carried with the others, and what rounding costs there is what it costs wherever
rows meet (:mod:`zonocuda.bounds.rounding.tally`); of the constant, its products and their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass, Visit, flatten_rows, proceed, unflatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.problem import output_rows
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import activations, rule_of


@dataclass(frozen=True, eq=False)
class Constraints:
    """Of S parts at most D constraints each.

    Attributes:
        neuron: ``[S, D]`` (int64), places among the numbers that all activations read (:class:`Reads`).
        side: ``[S, D]``, 1 for z >= t, -1 for z <= t, and 0 for none.
        point: ``[S, D]``, t.
    """

    neuron: Tensor
    side: Tensor
    point: Tensor

    @property
    def last(self) -> Tensor:
        """``[S, D]``, whether no later constraint is about the same side of the same neuron."""
        same = (self.neuron.unsqueeze(2) == self.neuron.unsqueeze(1)) & (
            self.side.unsqueeze(2) == self.side.unsqueeze(1)
        )
        later = torch.ones_like(same).triu(1)
        last: Tensor = (self.side != 0) & ~(same & later).any(2)
        return last


class Reads:
    """The numbers that all activations of a network read, one activation after the other, each in the order of the
    pass.

    Attributes:
        nodes: the activations.
        first: by name, where its numbers begin.
        count: M, of all of them.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, activations(graph)
        self.first: dict[str, int] = {}
        self.shape = {node.name: graph[node.inputs[0]].shape for node in self.nodes}
        self.count = 0
        for node in self.nodes:
            self.first[node.name] = self.count
            self.count += prod(self.shape[node.name])

    def of(self, name: str) -> slice:
        """The numbers of one activation."""
        return slice(self.first[name], self.first[name] + prod(self.shape[name]))

    def joined(self, intermediate: Mapping[str, Bounds]) -> Bounds:
        """Bounds ``[S, *features]`` of every activation's input as bounds ``[S, M]``."""
        ends = ([flatten_rows(intermediate[node.name][side]) for node in self.nodes] for side in (0, 1))
        lower, upper = (torch.cat(end, 1) for end in ends)
        return lower, upper

    def parted(self, bounds: Bounds) -> dict[str, Bounds]:
        """The inverse of :meth:`joined`."""
        found: dict[str, Bounds] = {}
        for node in self.nodes:
            lower, upper = (unflatten_rows(end[:, self.of(node.name)], self.shape[node.name]) for end in bounds)
            found[node.name] = lower, upper
        return found


@dataclass(frozen=True, eq=False)
class PartRows:
    """What a pass found of one row on each of S parts.

    Attributes:
        lower: ``[S]``, bounds of the rows, proven where rounding is counted.
        weight: ``[S, N]``, what the rows weigh the input with; None where they do not.
        crossing: by activation, the rows ``[S, N]`` at its output, in the order of the pass; empty where they do not
            reach it.
    """

    lower: Tensor
    weight: Tensor | None
    crossing: Mapping[str, Tensor]


class PointProblem:
    """One row to be bounded from below on each of S parts."""

    def __init__(
        self,
        reads: Reads,
        rows: Rows,
        box: Bounds,
        intermediate: Mapping[str, Bounds],
        constraints: Constraints,
        rounding: Rounding,
        on_node: Visit = proceed,
    ) -> None:
        """Args:
        reads: of the network.
        rows: one for each part, ``[S, 1, ...]``.
        box: its ends ``[S, *input features]``.
        intermediate: bounds ``[S, *features]`` of the input of every activation, that hold on the parts.
        constraints: of the parts.
        rounding: the arithmetic.
        on_node: called before each node of a pass; may raise.
        """
        self.reads, self.graph, self.on_node, self.constraints = reads, reads.graph, on_node, constraints
        self.region = InputSet.of(box)
        self.bounds = {
            name: (flatten_rows(lower), flatten_rows(upper)) for name, (lower, upper) in intermediate.items()
        }
        self.sides = [(constraints.last & (constraints.side == side)).to(box[0]) for side in (1, -1)]
        ledger = Ledger(rounding, box, intermediate)
        self._flows = {
            counts: output_rows(self.graph, rows, len(box[0]), ledger if counts else None) for counts in (True, False)
        }

    def run(self, slopes: Callable[[Node], Slopes], multipliers: Tensor, is_proof: bool) -> PartRows:
        """Bounds of the rows.

        Args:
            slopes: for an activation, its slopes ``[S, 1, N]`` in the order of the pass.
            multipliers: ``[S, D]``, clamped to 0 from below.
            is_proof: whether rounding is counted.
        """
        flow = self._flows[is_proof].fork()
        self._constrain(flow, multipliers)
        crossing: dict[str, Tensor] = {}

        def activation(node: Node, v: Tensor) -> Tensor:
            given, matrix = slopes(node), flatten_rows(v)
            crossing[node.name] = matrix.detach()
            found = rule_of(node).dual(
                matrix.unsqueeze(1), *self.bounds[node.name], given.negative, given.nonnegative, counted=is_proof
            )
            flow.add(found.low)
            image = unflatten_rows(found.rows.flatten(0, 1), self.reads.shape[node.name])
            flow.tally.activation(node, image, flow.measure(image), found.magnitude(both=False))
            return image

        last, weight, value = flow.run(activation, self.on_node), None, flow.constant
        if last is not None:
            flow.tally.end(self.graph.nodes[0].name, flow.measure(last))
            value = value + self.region.least(flatten_rows(last).unsqueeze(1))
            weight = last.reshape(len(last), -1)
        return PartRows(flow.tally.below(value).squeeze(1), weight, crossing)

    def _constrain(self, flow: DualPass, multipliers: Tensor) -> None:
        """Begins what multipliers say: of each side one constraint a neuron, so that nothing is added up before rows
        meet."""
        beta = multipliers.clamp(min=0)
        if not beta.shape[1]:
            return
        for sign, active in zip((1, -1), self.sides, strict=True):
            own = beta * active
            rows = beta.new_zeros(len(beta), self.reads.count).scatter_add(1, self.constraints.neuron, own * -sign)
            for name in self._constrained(active):
                source = self.graph[self.graph[name].inputs[0]]
                flow.send(source.name, unflatten_rows(rows[:, self.reads.of(name)], source.shape))
            offsets = own * self.constraints.point
            flow.add(sign * offsets.sum(1, keepdim=True))
            flow.tally.constraints(offsets.shape[1], offsets.abs().sum(1, keepdim=True))

    def _constrained(self, active: Tensor) -> list[str]:
        """The activations of which some neuron has a constraint in some part."""
        places = self.constraints.neuron[active != 0]
        return [
            node.name
            for node in self.reads.nodes
            if bool(((places >= self.reads.first[node.name]) & (places < self.reads.of(node.name).stop)).any())
        ]
