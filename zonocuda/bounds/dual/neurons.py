"""Bounds of chosen neurons by the dual pass: what the planner and the refinement call layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import (
    DualPass,
    Visit,
    flatten_rows,
    neurons_per_pass,
    proceed,
    standard_rows,
    unflatten_rows,
)
from zonocuda.bounds.dual.input_set import extremes
from zonocuda.bounds.dual.window_rows import WindowRows, window_extremes, window_measure
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rounding.tally import Measure
from zonocuda.domains import Windowed
from zonocuda.graph import Graph, Input, Linear, Node
from zonocuda.relaxations import Lines, activations, rule_of


def neuron_bounds(
    graph: Graph,
    name: str,
    index: Tensor,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    slopes: Mapping[str, Tensor] | None = None,
    *,
    known: Mapping[str, Bounds] | None = None,
    keep_best: bool = True,
    rows_per_pass: int | None = None,
    on_node: Visit = proceed,
    ledger: Ledger | None = None,
) -> Bounds:
    """Bounds of chosen neurons of a node over a box, by one backward pass for both sides.

    A row v that begins as a unit vector of the node is carried to the input. One slope lam serves both signs of v, so
    the image of v at an activation is v lam for the lower and the upper bound alike: with the lines' offsets d below
    and e above,

        low += sum max(v, 0) d + min(v, 0) e,  high += sum max(v, 0) e + min(v, 0) d,  v = v lam;

    in the end low and high are added to the least and the largest v . x on the box.

    With minimum-area slopes this equals the forward zonotope's bound for the same bounds of the activations' inputs.

    With ``known`` the pass also bounds what is left, v . y and the constants, at every activation that it reaches while
    all
    rows belong to nodes y with known bounds, and keeps the best. A neuron whose sign is known in every batch element
    then leaves the pass; its bounds are what was found so far.

    Args:
        graph: the network, in the box's dtype and on its device.
        name: the node whose neurons are bounded.
        index: positions ``[K]`` (int64) in the node's flattened features.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        inputs: bounds ``[B, *features]`` of the input of every activation before the node, by the activation's name.
        slopes: by activation, a slope that broadcasts to ``[B, *features]``; the minimum-area slope elsewhere.
        known: None for no early end; else bounds of the value of some nodes, beside those that ``inputs`` and ``box``
            imply (for activations, their inputs, and the network's input).
        keep_best: with ``known``, the best bounds seen; else, for neurons that did not leave the pass, those that it
            ends with, which are the forward zonotope's. (A better bound of one neuron can make the next layer's worse:
            the minimum-area slope depends on it.)
        rows_per_pass: how many neurons go together; by default as many as keep a layer's rows within PASS_BYTES.
        on_node: called before each node of each pass; may raise to stop.
        ledger: where given, what rounding costs is part of the bounds.

    Returns:
        Lower and upper bounds ``[B, K]``; NaN wherever a NaN entered.

    Raises:
        KeyError: an unknown node, or an activation on the way without bounds.
    """
    batch, count = box[0].shape[0], len(index)
    low, high = (box[0].new_empty(batch, count) for _ in range(2))
    if batch == 0 or count == 0:
        return low, high
    shared = _Shared(graph, box, inputs, dict(slopes or {}), None if known is None else dict(known), ledger)
    step = rows_per_pass or neurons_per_pass(graph, graph[name], box[0])
    for first in range(0, count, step):
        part = slice(first, first + step)
        low[:, part], high[:, part] = _Chunk(shared, graph[name], index[part], on_node).bounds(keep_best)
    return low, high


class _Shared:
    """What all passes of one call have in common: bounds and slopes, flat, in the order of the rows."""

    def __init__(
        self,
        graph: Graph,
        box: Bounds,
        inputs: Mapping[str, Bounds],
        slopes: Mapping[str, Tensor],
        known: dict[str, Bounds] | None,
        ledger: Ledger | None,
    ) -> None:
        self.graph, self.box, self.inputs, self.slopes, self.known = graph, box, inputs, slopes, known
        self.ledger = ledger
        self.terms = box[0][0].numel()  # a bound is a sum over the inputs
        self._flat: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
        self._lines: dict[str, Lines] = {}
        self._ranges: dict[str, Bounds | None] = {}
        self._activation_of = {node.inputs[0]: node.name for node in activations(graph)}

    def flat(self, node: Node) -> tuple[Tensor, Tensor, Tensor | None]:
        """l and u ``[B, N]`` of an activation, and its slopes ``[B, 1, N]``; None for the minimum-area ones."""
        if node.name not in self._flat:
            lower, upper = self.inputs[node.name]
            slope = self.slopes.get(node.name)
            flat = None if slope is None else flatten_rows(slope.expand(lower.shape)).unsqueeze(1)
            self._flat[node.name] = (flatten_rows(lower), flatten_rows(upper), flat)
        return self._flat[node.name]

    def lines(self, node: Node) -> Lines:
        """The lines around an activation, ``[B, *features]``."""
        if node.name not in self._lines:
            bounds, slope = self.inputs[node.name], self.slopes.get(node.name)
            given = None if slope is None else slope.expand(bounds[0].shape)
            self._lines[node.name] = rule_of(node).lines(*bounds, given, self.terms)
        return self._lines[node.name]

    def range(self, name: str) -> Bounds | None:
        """Known bounds of the value of a node, ``[B, N]``; None where there are none."""
        if name not in self._ranges:
            found = self.find_range(name)
            self._ranges[name] = None if found is None else (flatten_rows(found[0]), flatten_rows(found[1]))
        return self._ranges[name]

    def find_range(self, name: str) -> Bounds | None:
        """Known bounds of the value of a node, ``[B, *features]``; None where there are none."""
        if name == self.graph.nodes[0].name:
            return self.box
        if self.known is not None and name in self.known:
            return self.known[name]
        if name in self.inputs:
            return rule_of(self.graph[name]).range(*self.inputs[name])
        return self.inputs.get(self._activation_of.get(name, ""))


def send_unit_rows(flow: DualPass, node: Node, index: Tensor, signs: Tensor | None = None) -> None:
    """Sends the unit vectors of chosen neurons of a node into a pass, times ``signs`` ``[R]``."""
    op, like = node.op, flow.constant
    if isinstance(op, Linear) and len(node.shape) == 1:  # their first step, without a product
        v = op.weight[index]
        bias = None if op.bias is None else op.bias[index]
        target = node.inputs[0]
        flow.tally.units(node, index)
    else:
        v, bias = like.new_zeros(len(index), prod(node.shape)), None
        v[torch.arange(len(index), device=like.device), index] = 1
        target = node.name
    if signs is not None:
        v = v * signs.unsqueeze(1)
        bias = None if bias is None else bias * signs
    if bias is not None:
        flow.add(bias)
    flow.send(target, v.repeat(flow.batch, 1).reshape(-1, *flow.nodes[target].shape))


class _Total:
    """Bounds of rows as sums: of the constant, of the offsets, and of the ends of the rows that are left.

    Adding up these terms, and the offsets of the activations before, rounds no oftener than there are nodes, by u times
    the sum of all magnitudes each time: offsets of one sign are part of low and high with their magnitudes, the others
    add up to at most ``mixed`` for either, and may have cancelled as much in both.
    """

    def __init__(self, carried: DualPass | WindowRows, low: Tensor, high: Tensor, mixed: Tensor | None) -> None:
        self.tally = carried.tally.fork()
        self.low, self.high = carried.constant + low, carried.constant + high
        self.size = carried.constant.abs() - low + high
        if mixed is not None:
            self.size = self.size + 4 * mixed

    def add(self, name: str, ends: Bounds, measure: Measure) -> None:
        """Adds the ends of the rows of a node; by middle and radius they round twice as much as one sum."""
        self.low, self.high = self.low + ends[0], self.high + ends[1]
        self.size = self.size + ends[0].abs() + ends[1].abs()
        self.tally.end(name, measure, 2)

    def bounds(self) -> Bounds:
        """The bounds, less what rounding may have cost where that is counted."""
        return self.tally.bounds(self.low, self.high, self.size)


class _Chunk:
    """One pass of some rows."""

    def __init__(self, shared: _Shared, node: Node, index: Tensor, on_node: Visit) -> None:
        self.shared, self.on_node = shared, on_node
        self.batch = shared.box[0].shape[0]
        like = shared.box[0]
        self.count = len(index)
        rows = standard_rows(shared.graph, like.device, self.count)
        filled = torch.cat([index, index[-1:].expand(rows - self.count)])
        self.flow = DualPass(shared.graph, self.batch, rows, like, shared.ledger)
        self.low = like.new_zeros(self.batch, len(filled))
        self.high = like.new_zeros(self.batch, len(filled))
        self.mixed: Tensor | None = None  # the magnitudes of offsets whose terms have both signs
        self.open = torch.arange(len(filled), device=like.device)  # the rows that are in the pass
        self.lower = like.new_full((self.batch, len(filled)), -torch.inf)
        self.upper = like.new_full((self.batch, len(filled)), torch.inf)
        self.windows: WindowRows | None = None
        if len(node.shape) == 3 and not isinstance(node.op, Input):
            self.windows = WindowRows(shared.graph, node, filled, self.batch, like, shared.ledger)
        else:
            send_unit_rows(self.flow, node, filled)

    def bounds(self, keep_best: bool) -> Bounds:
        """Carries the rows to the input."""
        left = self._run_windows()
        v = self.flow.run(self._activation, self.on_node) if left else None
        if left and len(self.open):
            total = _Total(self.flow, self.low, self.high, self.mixed)
            if v is not None:
                ends = self._extremes(self.shared.graph.nodes[0].name, v)
                assert ends is not None, "the input's range is the box"
                total.add(self.shared.graph.nodes[0].name, ends, self.flow.measure(v))
            low, high = total.bounds()
            if keep_best:
                self._improve(low, high)
            else:
                self.lower[:, self.open], self.upper[:, self.open] = low, high
        return self.lower[:, : self.count], self.upper[:, : self.count]

    def _rows(self, v: Tensor) -> Tensor:
        """``[B * R, *features]`` as ``[B, R, N]``."""
        return flatten_rows(v).reshape(self.batch, self.flow.rows, -1)

    def _improve(self, low: Tensor, high: Tensor) -> None:
        """Keeps the best bounds; a NaN says nothing, unless it is all there is."""
        for best, new, pick in ((self.lower, low, torch.fmax), (self.upper, high, torch.fmin)):
            old = best[:, self.open]
            best[:, self.open] = torch.where(old.isinf() & new.isnan(), new, pick(old, new))

    def _run_windows(self) -> bool:
        """The part of the way on which rows are windows; False if no row is left then."""
        windows = self.windows
        if windows is None:
            return True
        left = windows.run(self._window_activation, self.on_node)
        self.flow.rows, self.flow.constant, self.flow.tally = windows.rows, windows.constant, windows.tally
        for name in windows.pending if left else ():
            self.flow.send(name, windows.dense(name))
        self.windows = None
        return left

    def _window_activation(self, node: Node, block: Windowed) -> Windowed | None:
        """One activation on windows; None when no row is left."""
        if self.shared.known is not None:
            if not self._end_decided():
                return None
            assert self.windows is not None
            block = self.windows.windows()[node.name]
        lines = self.shared.lines(node)
        above = block.scale(lines.above).patches
        if lines.below is None:  # above >= 0: its terms have the sign of v
            low, high, size = above.clamp(max=0), above.clamp(min=0), above.abs()
        else:
            below, positive = block.scale(lines.below).patches, block.patches >= 0
            low, high = torch.where(positive, below, above), torch.where(positive, above, below)
            size = torch.maximum(above.abs(), below.abs())
        self.low, self.high = self.low + low.sum((2, 3, 4)), self.high + high.sum((2, 3, 4))
        offsets = size.sum((2, 3, 4))
        if lines.below is not None:
            self.mixed = offsets if self.mixed is None else self.mixed + offsets
        image = block.scale(lines.slope)
        assert self.windows is not None
        self.windows.tally.activation(node, image, window_measure(image), offsets)
        return image

    def _activation(self, node: Node, v: Tensor) -> Tensor | None:
        """One activation; None when no row is left."""
        if self.shared.known is not None:
            if not self._end_decided():
                return None
            v = self.flow.pending[node.name]
        shared, counted = self.shared, self.shared.ledger is not None
        lower, upper, slope = shared.flat(node)
        found = rule_of(node).dual(self._rows(v), lower, upper, slope, None, shared.terms, counted)
        self.low, self.high = self.low + found.low, self.high + found.high
        if found.size is not None:
            self.mixed = found.size if self.mixed is None else self.mixed + found.size
        image = unflatten_rows(found.rows.flatten(0, 1), shared.graph[node.inputs[0]].shape)
        self.flow.tally.activation(node, image, self.flow.measure(image), found.magnitude(both=True))
        return image

    def _end_decided(self) -> bool:
        """Bounds the rows from what is known here, and drops those whose sign is known; False when none is left."""
        carried = self.flow if self.windows is None else self.windows
        total = _Total(carried, self.low, self.high, self.mixed)
        pending: Mapping[str, Tensor | Windowed] = self.flow.pending if self.windows is None else self.windows.windows()
        for name, v in pending.items():
            ends = self._extremes(name, v)
            if ends is None:
                return True
            measure = window_measure(v) if isinstance(v, Windowed) else self.flow.measure(v)
            total.add(name, ends, measure)
        self._improve(*total.bounds())
        decided = ((self.lower >= 0) | (self.upper <= 0)).all(0)[self.open]
        wanted = int((~decided).sum())
        rest = standard_rows(
            self.shared.graph, self.low.device, wanted
        )  # some decided rows stay, to keep to a usual number
        if rest < len(self.open):
            index = decided.to(torch.uint8).argsort(stable=True)[:rest]
            self.open = self.open[index]
            self.low, self.high = self.low[:, index], self.high[:, index]
            self.mixed = None if self.mixed is None else self.mixed[:, index]
            carried.keep(index)
        return wanted > 0

    def _extremes(self, name: str, v: Tensor | Windowed) -> Bounds | None:
        """The range of the rows of a node, for known bounds of its value; None where there are none."""
        if isinstance(v, Windowed):
            ends = self.shared.find_range(name)
            return None if ends is None else window_extremes(v, ends)
        flat = self.shared.range(name)
        return None if flat is None else extremes(self._rows(v), flat)
