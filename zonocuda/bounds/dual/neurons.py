"""Bounds of chosen neurons by the dual pass: what the planner and the refinement call layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A network on boxes, with lines for its activations: what a dual pass goes through.

    Attributes:
        graph: the network, in the box's dtype and on its device.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        intermediate: bounds ``[B, *features]`` of the input of every activation that is reached, by its name.
        slopes: by activation, a slope that broadcasts to ``[B, *features]``; the minimum-area slope elsewhere.
        ledger: where given, what rounding costs is part of the bounds.
    """

    graph: Graph
    box: Bounds
    intermediate: Mapping[str, Bounds]
    slopes: Mapping[str, Tensor] | None = None
    ledger: Ledger | None = None
    _flat: dict[str, tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=dict, init=False, repr=False)
    _lines: dict[str, Lines] = field(default_factory=dict, init=False, repr=False)

    @property
    def terms(self) -> int:
        """Of how many terms a bound is the sum: one for each input."""
        return self.box[0][0].numel()

    def slope(self, node: Node) -> Tensor | None:
        """The slopes of an activation, ``[B, *features]``; None for the minimum-area ones."""
        given = (self.slopes or {}).get(node.name)
        return None if given is None else given.expand(self.intermediate[node.name][0].shape)

    def flat(self, node: Node) -> tuple[Tensor, Tensor, Tensor | None]:
        """l and u ``[B, N]`` of an activation, in the order of the rows, and :meth:`slope` as ``[B, 1, N]``."""
        if node.name not in self._flat:
            (lower, upper), slope = self.intermediate[node.name], self.slope(node)
            flat = None if slope is None else flatten_rows(slope).unsqueeze(1)
            self._flat[node.name] = (flatten_rows(lower), flatten_rows(upper), flat)
        return self._flat[node.name]

    def lines(self, node: Node) -> Lines:
        """The lines around an activation, ``[B, *features]``."""
        if node.name not in self._lines:
            self._lines[node.name] = rule_of(node).lines(*self.intermediate[node.name], self.slope(node), self.terms)
        return self._lines[node.name]


@dataclass(frozen=True, eq=False)
class EarlyEnd:
    """A pass may end before the input, for neurons whose sign is all that is asked for.

    Attributes:
        known: bounds of the value of some nodes, beside those that the box and the activations' inputs imply.
        keep_best: whether the best bounds seen are kept; else those of neurons that do not leave the pass are what it
            ends with, which are the forward zonotope's. (A better bound of one neuron can make the next layer's worse:
            the minimum-area slope depends on it.)
    """

    known: Mapping[str, Bounds] = field(default_factory=dict)
    keep_best: bool = True


def neuron_bounds(
    relaxed: Relaxed,
    name: str,
    index: Tensor,
    *,
    early: EarlyEnd | None = None,
    rows_per_pass: int | None = None,
    on_node: Visit = proceed,
) -> Bounds:
    """Bounds of chosen neurons of a node over a box, by one backward pass for both sides.

    A row v that begins as a unit vector of the node is carried to the input. One slope lam serves both signs of v, so
    the image of v at an activation is v lam for the lower and the upper bound alike: with the lines' offsets d below
    and e above,

        low += sum max(v, 0) d + min(v, 0) e,  high += sum max(v, 0) e + min(v, 0) d,  v = v lam;

    in the end low and high are added to the least and the largest v . x on the box.

    With minimum-area slopes this equals the forward zonotope's bound for the same bounds of the activations' inputs.

    With an early end the pass also bounds what is left, v . y and the constants, at every activation that it reaches
    while all rows belong to nodes y with known bounds, and keeps the best. A neuron whose sign is known in every batch
    element then leaves the pass; its bounds are what was found so far.

    Args:
        relaxed: the network and its box, with bounds of the input of every activation before the node.
        name: the node whose neurons are bounded.
        index: positions ``[K]`` (int64) in the node's flattened features.
        early: None for no early end.
        rows_per_pass: how many neurons go together; by default as many as keep a layer's rows within PASS_BYTES.
        on_node: called before each node of each pass; may raise to stop.

    Returns:
        Lower and upper bounds ``[B, K]``; NaN wherever a NaN entered.

    Raises:
        KeyError: an unknown node, or an activation on the way without bounds.
    """
    graph, like = relaxed.graph, relaxed.box[0]
    low, high = (like.new_empty(len(like), len(index)) for _ in range(2))
    if len(like) == 0 or len(index) == 0:
        return low, high
    known = _Known(relaxed, early)
    step = rows_per_pass or neurons_per_pass(graph, graph[name], like)
    for first in range(0, len(index), step):
        part = slice(first, first + step)
        low[:, part], high[:, part] = _Chunk(known, graph[name], index[part], on_node).bounds()
    return low, high


class _Known:
    """Known bounds of nodes' values, and what is done with them."""

    def __init__(self, relaxed: Relaxed, early: EarlyEnd | None) -> None:
        self.relaxed, self.ends_early = relaxed, early is not None
        self.keep_best = early is None or early.keep_best
        self.more: Mapping[str, Bounds] = {} if early is None else early.known
        self._flat: dict[str, Bounds | None] = {}
        self._activation_of = {node.inputs[0]: node.name for node in activations(relaxed.graph)}

    def flat(self, name: str) -> Bounds | None:
        """Of a node, ``[B, N]``, in the order of the rows; None where there are none."""
        if name not in self._flat:
            found = self.of(name)
            self._flat[name] = None if found is None else (flatten_rows(found[0]), flatten_rows(found[1]))
        return self._flat[name]

    def of(self, name: str) -> Bounds | None:
        """Of a node, ``[B, *features]``; None where there are none."""
        intermediate = self.relaxed.intermediate
        if name == self.relaxed.graph.nodes[0].name:
            return self.relaxed.box
        if name in self.more:
            return self.more[name]
        if name in intermediate:
            return rule_of(self.relaxed.graph[name]).range(*intermediate[name])
        return intermediate.get(self._activation_of.get(name, ""))


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

    def __init__(self, known: _Known, node: Node, index: Tensor, on_node: Visit) -> None:
        self.known, self.relaxed, self.on_node = known, known.relaxed, on_node
        graph, like, ledger = self.relaxed.graph, self.relaxed.box[0], self.relaxed.ledger
        self.batch = like.shape[0]
        self.count = len(index)
        rows = standard_rows(graph, like.device, self.count)
        filled = torch.cat([index, index[-1:].expand(rows - self.count)])
        self.flow = DualPass(graph, self.batch, rows, like, ledger)
        self.low = like.new_zeros(self.batch, len(filled))
        self.high = like.new_zeros(self.batch, len(filled))
        self.mixed: Tensor | None = None  # the magnitudes of offsets whose terms have both signs
        self.open = torch.arange(len(filled), device=like.device)  # the rows that are in the pass
        self.lower = like.new_full((self.batch, len(filled)), -torch.inf)
        self.upper = like.new_full((self.batch, len(filled)), torch.inf)
        self.windows: WindowRows | None = None
        if len(node.shape) == 3 and not isinstance(node.op, Input):
            self.windows = WindowRows(graph, node, filled, self.batch, like, ledger)
        else:
            send_unit_rows(self.flow, node, filled)

    def bounds(self) -> Bounds:
        """Carries the rows to the input."""
        left = self._run_windows()
        v = self.flow.run(self._activation, self.on_node) if left else None
        if left and len(self.open):
            total = _Total(self.flow, self.low, self.high, self.mixed)
            if v is not None:
                name = self.relaxed.graph.nodes[0].name
                ends = self._extremes(name, v)
                assert ends is not None, "the input's range is the box"
                total.add(name, ends, self.flow.measure(v))
            low, high = total.bounds()
            if self.known.keep_best:
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
        if self.known.ends_early:
            if not self._end_decided():
                return None
            assert self.windows is not None
            block = self.windows.windows()[node.name]
        lines = self.relaxed.lines(node)
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
        if self.known.ends_early:
            if not self._end_decided():
                return None
            v = self.flow.pending[node.name]
        relaxed, counted = self.relaxed, self.relaxed.ledger is not None
        lower, upper, slope = relaxed.flat(node)
        found = rule_of(node).dual(self._rows(v), lower, upper, slope, None, relaxed.terms, counted)
        self.low, self.high = self.low + found.low, self.high + found.high
        if found.size is not None:
            self.mixed = found.size if self.mixed is None else self.mixed + found.size
        image = unflatten_rows(found.rows.flatten(0, 1), relaxed.graph[node.inputs[0]].shape)
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
            self.relaxed.graph, self.low.device, wanted
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
            ends = self.known.of(name)
            return None if ends is None else window_extremes(v, ends)
        flat = self.known.flat(name)
        return None if flat is None else extremes(self._rows(v), flat)
