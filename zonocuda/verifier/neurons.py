"""Bounds of chosen neurons by the dual pass: what the planner and the refinement call layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from zonocuda.domains import ReluRelaxation
from zonocuda.graph import Graph, Linear, Node
from zonocuda.verifier.dual_pass import Bounds, DualPass, Visit, flatten_rows, unflatten_rows

PASS_BYTES = 2**24  # of a layer's rows in one pass: large enough for fast products, small enough for the cache


def neuron_bounds(
    graph: Graph,
    name: str,
    index: Tensor,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    slopes: Mapping[str, Tensor] | None = None,
    *,
    known: Mapping[str, Bounds] | None = None,
    rows_per_pass: int | None = None,
    on_node: Visit = lambda node: None,
) -> Bounds:
    """Bounds of chosen neurons of a node over a box, by one backward pass for both sides.

    A row v that begins as a unit vector of the node is carried to the input. One slope lam serves both signs of v, so
    the image of v at a ReLU is v lam for the lower and the upper bound alike: with the offset mu,

        const += v . mu,  radius += |v| . mu,  v = v lam;     bounds = const -+ radius + the range of v . x on the box.

    With minimum-area slopes this equals the forward zonotope's bound for the same bounds of the ReLUs' inputs.

    With ``known`` the pass also bounds what is left, v . y + const -+ radius, at every ReLU that it reaches while all
    rows belong to nodes y with known bounds, and keeps the best. A neuron whose sign is known in every batch element
    then leaves the pass; its bounds are what was found so far.

    Args:
        graph: the network, in the box's dtype and on its device.
        name: the node whose neurons are bounded.
        index: positions ``[K]`` (int64) in the node's flattened features.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        inputs: bounds ``[B, *features]`` of the input of every ReLU before the node, by the ReLU's name.
        slopes: by ReLU, a slope that broadcasts to ``[B, *features]``; the minimum-area slope elsewhere.
        known: None for no early end; else bounds of the value of some nodes, beside those that ``inputs`` and ``box``
            imply (for ReLUs, their inputs, and the network's input).
        rows_per_pass: how many neurons go together; by default as many as keep a layer's rows within PASS_BYTES.
        on_node: called before each node of each pass; may raise to stop.

    Returns:
        Lower and upper bounds ``[B, K]``; NaN wherever a NaN entered.

    Raises:
        KeyError: an unknown node, or a ReLU on the way without bounds.
    """
    batch, count = box[0].shape[0], len(index)
    low, high = (box[0].new_empty(batch, count) for _ in range(2))
    if batch == 0 or count == 0:
        return low, high
    shared = _Shared(graph, box, inputs, dict(slopes or {}), None if known is None else dict(known))
    step = rows_per_pass or shared.rows_per_pass(name, batch)
    for first in range(0, count, step):
        part = slice(first, first + step)
        low[:, part], high[:, part] = _Chunk(shared, graph[name], index[part], on_node).bounds()
    return low, high


class _Shared:
    """What all passes of one call have in common: relaxations, and known bounds, in the order of the rows' memory."""

    def __init__(
        self,
        graph: Graph,
        box: Bounds,
        inputs: Mapping[str, Bounds],
        slopes: Mapping[str, Tensor],
        known: dict[str, Bounds] | None,
    ) -> None:
        self.graph, self.box, self.inputs, self.slopes, self.known = graph, box, inputs, slopes, known
        self._relaxations: dict[tuple[str, bool], tuple[Tensor, Tensor]] = {}
        self._ranges: dict[tuple[str, bool], Bounds | None] = {}
        self._input_of = {node.inputs[0]: node.name for node in graph.relus}

    def rows_per_pass(self, name: str, batch: int) -> int:
        """As many rows as keep the largest node before ``name`` within PASS_BYTES."""
        largest = 1
        for node in self.graph.nodes:
            largest = max(largest, prod(node.shape))
            if node.name == name:
                break
        return max(1, PASS_BYTES // (batch * largest * self.box[0].element_size()))

    def relaxation(self, node: Node, channels_last: bool) -> tuple[Tensor, Tensor]:
        """lam and mu of a ReLU, ``[B, N]``."""
        key = node.name, channels_last
        if key not in self._relaxations:
            lower, upper = self.inputs[node.name]
            slope = self.slopes.get(node.name)
            lam, mu = ReluRelaxation.linearize(lower, upper, slope)
            self._relaxations[key] = (_order(lam, channels_last), _order(mu, channels_last))
        return self._relaxations[key]

    def range(self, name: str, channels_last: bool) -> Bounds | None:
        """Known bounds of the value of a node, ``[B, N]``; None where there are none."""
        key = name, channels_last
        if key not in self._ranges:
            found = self._find_range(name)
            ordered = None if found is None else (_order(found[0], channels_last), _order(found[1], channels_last))
            self._ranges[key] = ordered
        return self._ranges[key]

    def _find_range(self, name: str) -> Bounds | None:
        if name == self.graph.nodes[0].name:
            return self.box
        if self.known is not None and name in self.known:
            return self.known[name]
        if name in self.inputs:
            lower, upper = self.inputs[name]
            return lower.clamp(min=0), upper.clamp(min=0)
        return self.inputs.get(self._input_of.get(name, ""))


def _order(t: Tensor, channels_last: bool) -> Tensor:
    """``[B, *features]`` as ``[B, N]`` in the order of :func:`flatten_rows`."""
    return (t.permute(0, 2, 3, 1) if channels_last else t).reshape(t.shape[0], -1).contiguous()


def _extremes(rows: Tensor, ends: Bounds) -> Bounds:
    """The least and the largest rows . y, ``[B, R]``, for ``rows`` ``[B, R, N]`` and bounds ``[B, N]`` of y."""
    positive = rows.clamp(min=0)
    negative = rows - positive
    low, high = (end.unsqueeze(2) for end in ends)
    lower = (positive @ low + negative @ high).squeeze(2)
    upper = (positive @ high + negative @ low).squeeze(2)
    return lower, upper


class _Chunk:
    """One pass of some rows."""

    def __init__(self, shared: _Shared, node: Node, index: Tensor, on_node: Visit) -> None:
        self.shared, self.on_node = shared, on_node
        self.batch = shared.box[0].shape[0]
        like = shared.box[0]
        self.flow = DualPass(shared.graph, self.batch, len(index), like, in_place=True)
        self.radius = like.new_zeros(self.batch, len(index))
        self.open = torch.arange(len(index), device=like.device)  # the rows that are still in the pass
        self.lower = like.new_full((self.batch, len(index)), -torch.inf)
        self.upper = like.new_full((self.batch, len(index)), torch.inf)
        self._begin(node, index)

    def _begin(self, node: Node, index: Tensor) -> None:
        """Sends the unit vectors of the chosen neurons."""
        op, like, batch = node.op, self.shared.box[0], self.batch
        if isinstance(op, Linear) and len(node.shape) == 1:  # their first step, without a product
            v = op.weight[index]
            if op.bias is not None:
                self.flow.constant = self.flow.constant + op.bias[index]
            target = node.inputs[0]
        else:
            v = like.new_zeros(len(index), prod(node.shape))
            v[torch.arange(len(index), device=like.device), index] = 1
            target = node.name
        v = v.repeat(batch, 1) if batch > 1 else v
        self.flow.send(target, v.reshape(-1, *self.shared.graph[target].shape), owned=True)

    def bounds(self) -> Bounds:
        """Carries the rows to the input."""
        v = self.flow.run(self._relu, self.on_node)
        if len(self.open):
            low, high = self.flow.constant - self.radius, self.flow.constant + self.radius
            if v is not None:
                matrix, last = flatten_rows(v)
                ends = _extremes(
                    self._rows(matrix), (_order(self.shared.box[0], last), _order(self.shared.box[1], last))
                )
                low, high = low + ends[0], high + ends[1]
            self._improve(low, high)
        return self.lower, self.upper

    def _improve(self, low: Tensor, high: Tensor) -> None:
        """Keeps the best bounds; a NaN says nothing, unless it is all there is."""
        for best, new, pick in ((self.lower, low, torch.fmax), (self.upper, high, torch.fmin)):
            old = best[:, self.open]
            best[:, self.open] = torch.where(old.isinf() & new.isnan(), new, pick(old, new))

    def _concretize(self, name: str, v: Tensor) -> Bounds | None:
        """The range of v . y ``[B, R]`` for the known bounds of y; None where there are none."""
        matrix, last = flatten_rows(v)
        ends = self.shared.range(name, last)
        return None if ends is None else _extremes(self._rows(matrix), ends)

    def _rows(self, matrix: Tensor) -> Tensor:
        """``[B * R, N]`` as ``[B, R, N]``."""
        return matrix.reshape(self.batch, -1, matrix.shape[1])

    def _relu(self, node: Node, v: Tensor, owned: bool) -> Tensor | None:
        """One ReLU; None when no row is left."""
        if self.shared.known is not None:
            if not self._end_decided():
                return None
            v, owned = self.flow.pending[node.name], self.flow.owns(node.name)
        matrix, last = flatten_rows(v)
        owned = owned or matrix.untyped_storage().data_ptr() != v.untyped_storage().data_ptr()
        rows = self._rows(matrix)
        lam, mu = self.shared.relaxation(node, last)
        column = mu.unsqueeze(2)
        self.flow.constant = self.flow.constant + (rows @ column).squeeze(2)
        self.radius = self.radius + (rows.abs() @ column).squeeze(2)
        rows = rows.mul_(lam.unsqueeze(1)) if owned else rows * lam.unsqueeze(1)
        return unflatten_rows(rows.flatten(0, 1), node.shape, last)

    def _end_decided(self) -> bool:
        """Bounds the rows from what is known here, and drops those whose sign is known; False when none is left."""
        low, high = self.flow.constant - self.radius, self.flow.constant + self.radius
        for name, v in self.flow.pending.items():
            ends = self._concretize(name, v)
            if ends is None:
                return True
            low, high = low + ends[0], high + ends[1]
        self._improve(low, high)
        decided = ((self.lower >= 0) | (self.upper <= 0))[:, self.open].all(0)
        if bool(decided.any()):
            index = (~decided).nonzero().squeeze(1)
            self.open = self.open[index]
            self.radius = self.radius[:, index]
            self.flow.keep(index)
        return len(self.open) > 0
