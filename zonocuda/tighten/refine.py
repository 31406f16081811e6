"""Tighter bounds of the activations' inputs: the dual pass on the unstable neurons, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.dual_pass import (
    DualPass,
    Visit,
    flatten_positions,
    flatten_rows,
    neurons_per_pass,
    proceed,
    standard_rows,
    unflatten_rows,
)
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.neurons import send_unit_rows
from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.slopes import Slopes, free_neurons, initial_slopes
from zonocuda.bounds.dual.stops import Maxima, Stop
from zonocuda.bounds.interval import Bounds, unsettled
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import activations, has_rule, rule_of
from zonocuda.tighten.ascent import SPARE, Ascent, Finished, ascend


@dataclass(frozen=True)
class Refined:
    """Bounds of every activation's input, and what they took.

    Attributes:
        intermediate: lower and upper ``[B, *features]``, by the activation's name; never looser than what was given.
        unstable: how many neurons (over the batch) were not settled before and after.
        width: the mean of upper - lower after, over that before, of the neurons that were not settled before.
        seconds: what it took.
    """

    intermediate: dict[str, Bounds]
    unstable: tuple[int, int]
    width: float
    seconds: float


def refine(
    graph: Graph,
    region: Bounds | Zonotope,
    intermediate: Mapping[str, Bounds],
    ascent: Ascent,
    *,
    on_node: Visit = proceed,
    rounding: Rounding | None = None,
    first: bool = False,
    make: Callable[[Compact, InputSet, Ascent, Visit], Layers] | None = None,
    softmax_sum: bool = False,
    ends: bool = True,
) -> Refined:
    """Bounds the unstable neurons of every layer by the dual pass and intersects with what is known.

    Layers are taken in order, so that each uses the tightened bounds of those before it. Each bound of a neuron is a
    row with slopes of its own, adaptive ones to begin with, that ``ascent`` optimises (or leaves as they are, with 0
    iterations). A neuron that has become stable leaves; its bounds are what was found so far. Where rounding is
    counted, slopes climb by bounds that do not count it, and the best ones are proven by one pass that does. Behind
    maxima rows also go the usual way once, where they may end (:mod:`zonocuda.bounds.dual.stops`).

    Args:
        graph: the network.
        region: the inputs, a box (lower, upper ``[B, *input features]``) or a zonotope.
        intermediate: bounds ``[B, *features]`` of the input of every activation that hold on it.
        ascent: how the slopes are optimised; its seconds are those of each pass.
        on_node: called before each node of each pass; may raise to stop.
        rounding: where given, what rounding costs is part of the bounds; ``region`` is then a box.
        first: also the neurons that no activation comes before, whose bounds a sweep finds exactly.
        make: makes the refinement; by default :class:`Layers`.
        softmax_sum: see :class:`zonocuda.bounds.dual.problem.RowProblem`.
        ends: whether rows may end at maxima.

    Raises:
        ValueError: ``rounding`` for a zonotope.
    """
    with torch.no_grad():
        left = compact(graph, dict(intermediate))
        layers = (make or Layers)(left, InputSet.of(region), ascent, on_node)
        layers.softmax_sum = softmax_sum
        if ends and left.graph.maxima:
            layers.box = region.bounds() if isinstance(region, Zonotope) else region
        return _refine(layers, region, rounding, first)


def refine_by_rule(
    graph: Graph, box: Bounds, intermediate: Mapping[str, Bounds], on_node: Visit, rounding: Rounding
) -> dict[str, Bounds]:
    """Bounds of every activation's input by one pass with adaptive slopes and no ends: those that the checker of a
    certificate derives for each part of a search."""
    once = Ascent(iterations=0)
    return refine(graph, box, intermediate, once, on_node=on_node, rounding=rounding, ends=False).intermediate


def _refine(layers: Layers, region: Bounds | Zonotope, rounding: Rounding | None, first: bool) -> Refined:
    begin = time.monotonic()
    left = layers.left
    if rounding is not None:
        if isinstance(region, Zonotope):
            raise ValueError("refine: rounding is counted for boxes alone, and the region is a zonotope")
        layers.rounding = rounding.on(left.graph)
        layers.ledger = Ledger(layers.rounding, region, layers.intermediate)
        if layers.ascent.iterations and layers.region.like.dtype is torch.float64:
            box = region[0].to(torch.float32), region[1].to(torch.float32)
            layers.guides.insert(0, (left.graph.to(torch.float32), InputSet.of(box)))
    before = 0
    seen: list[Tensor] = []  # of every activation, on the device: width before and after, and neurons open after
    for node in activations(left.graph):
        maxima = layers.begin(node)
        index = free_neurons(node, layers.intermediate[node.name])
        before += len(index)
        if len(index):
            width = layers.width(node, index)
            if first or depends_on_activation(left.graph, node):
                layers.refine(node, index, maxima)
            still = unsettled(node, *layers.intermediate[node.name]).sum()
            seen.append(torch.stack([width, layers.width(node, index), still.double()]))
        layers.finish(node)
    numbers = torch.stack(seen).tolist() if seen else []
    old, new, after = (sum(column) for column in zip(*numbers, strict=True)) if numbers else (0.0, 0.0, 0.0)
    share = new / old if old > 0 else 1.0
    return Refined(left.widen(layers.intermediate), (before, int(after)), share, time.monotonic() - begin)


def depends_on_activation(graph: Graph, node: Node) -> bool:
    """Whether some activation comes before a node; without one its bounds are exact."""
    return any(has_rule(graph[name]) for name in graph.ancestors(node.name))


class Layers:
    """A refinement under way: the bounds so far, and what all passes take from the layers that are done.

    Attributes:
        left: the network without its dead neurons.
        intermediate: bounds ``[B, *features]`` of the input of every activation of it.
        start: slopes to begin with of the activations that are done, in the order of the pass.
        rounding, ledger: of what rounding costs, where that is counted.
        slack: what it took off the last bounds, at most.
        guides: networks and inputs that slopes climb on where rounding is counted, best first.
        softmax_sum: whether rows know that the shares of a softmax sum to 1.
        box: bounds of the network's input, where rows may end at maxima.
    """

    rounding: Rounding | None = None
    ledger: Ledger | None = None
    softmax_sum: bool = False
    box: Bounds | None = None

    def __init__(self, left: Compact, region: InputSet, ascent: Ascent, on_node: Visit) -> None:
        self.left, self.graph = left, left.graph
        self.region, self.ascent, self.on_node = region, ascent, on_node
        self.intermediate = dict(left.intermediate)
        self.start: dict[str, Slopes] = {}
        self.slack = region.like.new_zeros(())
        self.guides = [(self.graph, region)]

    def begin(self, node: Node) -> Maxima | None:
        """Bounds an activation's input by intervals through maxima, and says where rows from it may end."""
        if self.box is None:
            return None
        maxima = Maxima(self.graph, self.intermediate, self.box, self.rounding, node.name)
        (low, high), (lower, upper) = maxima.bounds(node.inputs[0]), self.intermediate[node.name]
        lower, upper = torch.fmax(lower, low), torch.fmin(upper, high)
        self.intermediate[node.name] = lower, torch.maximum(lower, upper)  # uncounted rounding may have them cross
        return maxima

    def finish(self, node: Node) -> None:
        """No better bounds of this activation's input will come."""
        slopes = initial_slopes(self.graph, {node.name: self.intermediate[node.name]}, "adaptive")[node.name]
        self.start[node.name] = slopes.flat()

    def width(self, node: Node, index: Tensor) -> Tensor:
        """The sum of upper - lower of neurons ``index``, in the order of the pass: one float64 number."""
        lower, upper = (flatten_rows(b)[:, index] for b in self.intermediate[node.name])
        return (upper - lower).sum().double()

    def refine(self, node: Node, index: Tensor, maxima: Maxima | None = None) -> None:
        """Tightens the bounds of one activation's input; ``index``: its unsettled neurons, in the order of the pass;
        ``maxima``: where rows may end."""
        lower, upper = (flatten_rows(b).clone() for b in self.intermediate[node.name])
        source = self.graph[node.inputs[0]]
        position = flatten_positions(source.shape).to(index.device)
        step = neurons_per_pass(self.graph, source, self.region.like, 2)
        for first in range(0, len(index), step):
            part = index[first : first + step]
            if maxima is not None and maxima.stops:
                low, high = self.ended(node, position[part], maxima)
                low, high = torch.fmax(lower[:, part], low), torch.fmin(upper[:, part], high)
                lower[:, part], upper[:, part] = low, high
                part = part[~rule_of(node).settled(low, high).all(0)]
                if not len(part):
                    continue
            low, high = self.optimised(node, position[part])
            lower[:, part], upper[:, part] = torch.fmax(lower[:, part], low), torch.fmin(upper[:, part], high)
        self.intermediate[node.name] = unflatten_rows(lower, source.shape), unflatten_rows(upper, source.shape)

    def ended(self, node: Node, position: Tensor, maxima: Maxima) -> Bounds:
        """Bounds ``[B, K]`` of neurons of an activation's input, by rows that go the usual way and end at maxima."""
        count, usual = len(position), maxima.usual(self.start)
        rows = self.rows(self.graph, self.region, node, position, self.ledger)
        problem = self.problem(rows, self.region, self.intermediate, maxima.stops)
        found = problem.bound(lambda other: usual[other.name], ends=True)[0]
        return found[:, :count], -found[:, count : 2 * count]

    def optimised(self, node: Node, position: Tensor) -> Bounds:
        """Bounds ``[B, K]`` of neurons of an activation's input, by a row with its own slopes for each of the two."""
        if self.ledger is not None and self.ascent.iterations:
            return self.proven(node, position, self.climb(node, position))
        rows, count = self.rows(self.graph, self.region, node, position, self.ledger), len(position)
        problem = self.problem(rows, self.region, self.intermediate)
        best = ascend(problem, self.ascent, self.start, finished=self.finished(node, count)).lower
        return best[:, :count], -best[:, count : 2 * count]

    def climb(self, node: Node, position: Tensor) -> dict[str, Slopes]:
        """Slopes ``[B, R, N]`` of :meth:`rows`, found without counting what rounding costs: in float32 unless that is
        too narrow for a bound, by whichever convolutions are fastest."""
        finished, own = self.finished(node, len(position)), self.region.like.dtype
        for graph, region in self.guides:
            dtype = region.like.dtype
            rows = self.rows(graph, region, node, position, None)
            bounds = {name: (low.to(dtype), high.to(dtype)) for name, (low, high) in self.intermediate.items()}
            start = {name: slopes.to(dtype) for name, slopes in self.start.items()}
            problem = self.problem(rows, region, bounds)
            found = ascend(problem, self.ascent, start, finished=finished, wants_slopes=True)
            if dtype is own or bool(found.lower.isfinite().all()):
                break
        return {name: slopes.to(own) for name, slopes in found.slopes.items()}

    def proven(self, node: Node, position: Tensor, slopes: Mapping[str, Slopes]) -> Bounds:
        """Bounds ``[B, K]`` of neurons, rounding counted, with slopes that were found, or those to begin with."""
        rows, count = self.rows(self.graph, self.region, node, position, self.ledger), len(position)
        problem = self.problem(rows, self.region, self.intermediate)
        best, _ = problem.bound(lambda other: slopes.get(other.name, self.start[other.name]))
        self.slack = problem.slack.amax()
        return best[:, :count], -best[:, count : 2 * count]

    def finished(self, node: Node, count: int) -> Finished:
        """Of the rows of ``count`` neurons: those of stable ones, and those that nobody asked for."""

        def settled(best: Tensor) -> Tensor:
            best = best - SPARE * self.slack
            stable = rule_of(node).settled(best[:, :count], -best[:, count : 2 * count]).all(0)
            return torch.cat([stable, stable, torch.ones_like(best[0, 2 * count :], dtype=torch.bool)])

        return settled

    def rows(self, graph: Graph, region: InputSet, node: Node, position: Tensor, ledger: Ledger | None) -> DualPass:
        """Rows for the lower bounds of K neurons of an activation's input, then for their negated upper bounds, then
        some more, to make up a usual number; with a ledger, rounding is counted."""
        source, like, count = graph[node.inputs[0]], region.like, len(position)
        rows = standard_rows(graph, like.device, 2 * count)
        filled = torch.cat([position, position, position[-1:].expand(rows - 2 * count)])
        signs = torch.ones(rows, dtype=like.dtype, device=like.device)
        signs[count : 2 * count] = -1
        flow = DualPass(graph, like.shape[0], rows, like, ledger)
        send_unit_rows(flow, source, filled, signs)
        return flow

    def problem(
        self,
        rows: DualPass,
        region: InputSet,
        intermediate: Mapping[str, Bounds],
        stops: Mapping[str, Stop] | None = None,
    ) -> RowProblem:
        """How the rows are bounded; ``stops``: where they may end."""
        return RowProblem(rows, region, intermediate, self.on_node, stops, softmax_sum=self.softmax_sum)
