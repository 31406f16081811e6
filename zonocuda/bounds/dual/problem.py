"""The dual pass: linear bounds of specifications, carried from the output back to the input.

For given bounds l, u of every activation's input and given slopes, a row v of the specification is pushed through the
network:

    at an affine node:  const += v . b;  v = A^T v
    at an activation:   const += sum max(v, 0) * below + min(v, 0) * above;  v = v * slope
    at the input:       lower = const + least v . x  (v . c0 - sum |v| r0 on a box; see zonocuda.bounds.dual.input_set)

No generator is stored: memory is rows times neurons. For one slope for both signs of v this equals the bound of the
forward sweep with the same l, u and slopes; the pass may also take another slope where v >= 0 (that of the lower line)
than where v < 0 (that of the upper one; design of CROWN, Zhang et al. 2018), and others for every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass, Visit, flatten_rows, proceed, unflatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.shares import centred, softmax_dim
from zonocuda.bounds.dual.slopes import Slopes, shared
from zonocuda.bounds.dual.stops import Stop
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import rule_of


@dataclass(frozen=True, eq=False)
class DualBound:
    """Linear lower bounds of the rows over the box.

    Attributes:
        lower: ``[B, R]``, a lower bound of every row.
        weight: ``[B, R, *input features]``; row >= weight . x + constant on the box.
        corner: ``[B, R, *input features]``, the point of the box where that linear bound is smallest.
    """

    lower: Tensor
    weight: Tensor
    corner: Tensor


class RowProblem:
    """Rows to be bounded from below over a set of inputs, for given bounds of the activations' inputs and any slopes.

    What comes before the first activation that the rows reach is done once.

    Attributes:
        flow: the rows ``[B, R]``, where the first activation waits.
        bounds: l and u ``[B, N]`` of every activation's input, in the order of the pass.
        stops: nodes where rows may end (:mod:`zonocuda.bounds.dual.stops`).
        slack: ``[B, R]``, what counting rounding has taken off the last bounds.
    """

    def __init__(
        self,
        flow: DualPass,
        region: Bounds | Zonotope | InputSet,
        intermediate: Mapping[str, Bounds],
        on_node: Visit = proceed,
        stops: Mapping[str, Stop] | None = None,
        softmax_sum: bool = False,
    ) -> None:
        """Takes over the rows of ``flow``, for inputs in ``region``; ``on_node`` is called before each node, and may
        raise to stop; ``stops``: where rows may end. ``softmax_sum``: shares of a softmax sum to 1
        (:mod:`zonocuda.bounds.dual.shares`).

        Raises:
            ValueError: ``softmax_sum`` where rounding is counted, which does not know of it.
        """
        if softmax_sum and flow.tally.ledger is not None:
            raise ValueError("the sum of a softmax's shares is not part of bounds that count their rounding")
        self.intermediate, self.on_node, self.stops, self.softmax_sum = intermediate, on_node, stops or {}, softmax_sum
        self.region = InputSet.of(region)
        self.bounds: dict[str, Bounds] = {}
        self.slack = torch.zeros_like(flow.constant)
        flow.run(lambda node, v: None, on_node, self.stops)
        self.flow = flow

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        self.flow.keep(index)

    def bound(self, slopes: Callable[[Node], Slopes], ends: bool = False) -> tuple[Tensor, Tensor | None]:
        """Lower bounds ``[B, R]`` of the rows, and what they weigh the input with ``[B * R, *input features]``.

        Args:
            slopes: for an activation, its slopes ``[B, 1 or R, N]`` in the order of the pass.
            ends: whether rows end at the stops.
        """
        flow = self.flow.fork()
        batch, rows = flow.batch, flow.rows

        def activation(node: Node, v: Tensor) -> Tensor:
            if node.name in self.stops:
                return self._stopped(flow, node, v) if ends else v
            given, counted = slopes(node), flow.tally.ledger is not None
            matrix = flatten_rows(self._centred(flow, node, v)).reshape(batch, rows, -1)
            found = rule_of(node).dual(
                matrix, *self.input_bounds(node), given.negative, given.nonnegative, counted=counted
            )
            flow.add(found.low)
            image = unflatten_rows(found.rows.flatten(0, 1), flow.nodes[node.inputs[0]].shape)
            flow.tally.activation(node, image, flow.measure(image), found.magnitude(both=False))
            return image

        weight = flow.run(activation, self.on_node, self.stops)
        if weight is None:
            return self._proven(flow, flow.constant), None
        matrix = flatten_rows(weight).reshape(batch, rows, -1)
        flow.tally.end(flow.graph.nodes[0].name, flow.measure(weight))
        return self._proven(flow, flow.constant + self.region.least(matrix)), weight

    def _stopped(self, flow: DualPass, node: Node, v: Tensor) -> Tensor:
        rest, ended = self.stops[node.name].split(flatten_rows(v).reshape(flow.batch, flow.rows, -1))
        flow.add(ended.sum(2))
        flow.tally.stop(node, flow.measure(v), ended.abs().sum(2))
        return unflatten_rows(rest.flatten(0, 1), node.shape)

    def _centred(self, flow: DualPass, node: Node, v: Tensor) -> Tensor:
        """Rows at an activation's output, those of shares less what costs nothing."""
        dim = softmax_dim(node) if self.softmax_sum else None
        if dim is None:
            return v
        low, high = rule_of(node).range(*self.intermediate[node.name])
        width = (high - low).repeat_interleave(flow.rows, 0).reshape(v.shape)
        v, constant = centred(v, width, dim)
        flow.add(constant.reshape(flow.batch, flow.rows))
        return v

    def _proven(self, flow: DualPass, value: Tensor) -> Tensor:
        lower = flow.tally.below(value)
        self.slack = (value - lower).detach()
        return lower

    def input_bounds(self, node: Node) -> Bounds:
        """l and u ``[B, N]`` of an activation's input."""
        if node.name not in self.bounds:
            lower, upper = self.intermediate[node.name]
            self.bounds[node.name] = flatten_rows(lower), flatten_rows(upper)
        return self.bounds[node.name]


def output_rows(graph: Graph, rows: Rows, batch: int, ledger: Ledger | None = None) -> DualPass:
    """The rows of a specification at the network's output and input, for a batch of boxes."""
    flow = DualPass(graph, batch, rows.count, rows.constant, ledger)
    flow.constant = rows.constant.expand(batch, rows.count)
    flow.send(graph.output, _for_batch(rows.output, batch, graph.output_shape))
    flow.tally.output(graph.output, flow.measure(flow.pending[graph.output]))
    if rows.has_input:
        flow.send(graph.nodes[0].name, _for_batch(rows.input, batch, graph.input_shape))
    if rows.rounded is not None:
        for name, v in flow.pending.items():
            flow.tally.specification(name, flow.measure(v), rows.rounded)
        flow.tally.constant(2 * rows.rounded * flow.constant)
    return flow


def _for_batch(weights: Tensor, batch: int, shape: tuple[int, ...]) -> Tensor:
    """Rows ``[R, N]`` that a batch shares, or ``[B, R, N]``, as ``[B * R, *shape]``."""
    return weights.expand(batch, *weights.shape[-2:]).reshape(-1, *shape)


def dual_bound(
    graph: Graph,
    rows: Rows,
    box: Bounds,
    intermediate: Mapping[str, Bounds],
    slopes: Mapping[str, Slopes | Tensor] | None = None,
    on_node: Visit = proceed,
) -> DualBound:
    """Lower bounds of ``rows`` over a box, for bounds of every activation's input that hold on it.

    Args:
        graph: the network.
        rows: the specification's rows, in the dtype and on the device of the network.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        intermediate: bounds of the input of every activation, by node name, ``[B, *features]``.
        slopes: by node name, one slope ``[B, *features]`` for both signs of v or :class:`Slopes`; the minimum-area
            slope elsewhere.
        on_node: called before each node; may raise to stop the pass.

    Returns:
        The bounds; NaN wherever a NaN entered.
    """
    batch = box[0].shape[0]
    given = dict(slopes or {})

    def of(node: Node) -> Slopes:
        return shared(given[node.name], intermediate[node.name][0]).flat() if node.name in given else Slopes()

    lower, weight = RowProblem(output_rows(graph, rows, batch), box, intermediate, on_node).bound(of)
    shape = (batch, rows.count, *graph.input_shape)
    weight = lower.new_zeros(shape) if weight is None else weight.reshape(shape)
    low, high = (b.unsqueeze(1) for b in box)
    return DualBound(lower, weight, torch.where(weight >= 0, low, high))
