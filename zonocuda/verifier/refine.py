"""Tighter bounds of the ReLUs' inputs: the dual pass on the unstable neurons, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.graph import Graph, Node, Relu
from zonocuda.verifier.dual import RowProblem
from zonocuda.verifier.dual_pass import DualPass, Visit, flatten_rows, proceed, standard_rows, unflatten_rows
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.neurons import PASS_BYTES, neuron_bounds, send_unit_rows
from zonocuda.verifier.optimize import Ascent, ascend
from zonocuda.verifier.slopes import crossing, initial_slopes


@dataclass(frozen=True)
class Refined:
    """Bounds of every ReLU's input, and what they took.

    Attributes:
        inputs: lower and upper ``[B, *features]``, by the ReLU's name; never looser than what was given.
        unstable: how many neurons (over the batch) crossed zero before and after.
        width: the mean of upper - lower after, over that before, of the neurons that crossed zero before.
        seconds: what it took.
    """

    inputs: dict[str, Bounds]
    unstable: tuple[int, int]
    width: float
    seconds: float


def refine(
    graph: Graph,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    ascent: Ascent,
    *,
    on_node: Visit = proceed,
) -> Refined:
    """Bounds the unstable neurons of every layer by the dual pass and intersects with what is known.

    Layers are taken in order, so that each uses the tightened bounds of those before it: first one pass with
    minimum-area slopes for both bounds of a neuron, then one row for each bound of what is still unstable, with
    adaptive slopes that ``ascent`` optimises (or leaves as they are, with 0 iterations).

    Args:
        graph: the network.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        inputs: bounds ``[B, *features]`` of the input of every ReLU that hold on the box.
        ascent: how the slopes are optimised; its seconds are those of each pass.
        on_node: called before each node of each pass; may raise to stop.
    """
    begin = time.monotonic()
    current = dict(inputs)
    before = after = 0
    widths = [0.0, 0.0]
    for node in graph.relus:
        index = crossing(current[node.name])
        before += len(index)
        if not len(index):
            continue
        old = [flatten_rows(b)[:, index] for b in current[node.name]]
        if _depends_on_relu(graph, node):
            current[node.name] = _refine_layer(graph, box, current, node, index, ascent, on_node)
        new = [flatten_rows(b)[:, index] for b in current[node.name]]
        after += len(crossing(current[node.name]))
        widths[0] += float((old[1] - old[0]).sum())
        widths[1] += float((new[1] - new[0]).sum())
    width = widths[1] / widths[0] if widths[0] > 0 else 1.0
    return Refined(current, (before, after), width, time.monotonic() - begin)


def _depends_on_relu(graph: Graph, node: Node) -> bool:
    """Whether some ReLU comes before a node; without one its bounds are exact."""
    by_name = {n.name: n for n in graph.nodes}
    pending, seen = list(node.inputs), set()
    while pending:
        name = pending.pop()
        if isinstance(by_name[name].op, Relu):
            return True
        if name not in seen:
            seen.add(name)
            pending.extend(by_name[name].inputs)
    return False


def _refine_layer(
    graph: Graph,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    node: Node,
    index: Tensor,
    ascent: Ascent,
    on_node: Visit,
) -> Bounds:
    """The tightened bounds of one ReLU's input; ``index``: its crossing neurons, in the order of the pass."""
    lower, upper = (flatten_rows(b).clone() for b in inputs[node.name])
    source = graph[node.inputs[0]]
    position = _positions(source.shape).to(index.device)  # in the flattened features

    def intersect(where: Tensor, low: Tensor, high: Tensor) -> None:
        lower[:, where] = torch.fmax(lower[:, where], low)
        upper[:, where] = torch.fmin(upper[:, where], high)

    intersect(index, *neuron_bounds(graph, source.name, position[index], box, inputs, on_node=on_node))
    index = crossing((lower, upper))
    per_pass = _neurons_per_pass(graph, source, box)
    for first in range(0, len(index), per_pass):
        part = index[first : first + per_pass]
        intersect(part, *_optimised(graph, box, inputs, source, position[part], ascent, on_node))
    return unflatten_rows(lower, source.shape), unflatten_rows(upper, source.shape)


def _positions(shape: tuple[int, ...]) -> Tensor:
    """For every position in the order of the pass, the position in the flattened features."""
    return flatten_rows(torch.arange(prod(shape)).reshape(1, *shape)).squeeze(0)


def _neurons_per_pass(graph: Graph, source: Node, box: Bounds) -> int:
    largest = max(prod(node.shape) for node in graph.nodes[: graph.nodes.index(source) + 1])
    return max(1, PASS_BYTES // (2 * box[0].shape[0] * largest * box[0].element_size()))


def _optimised(
    graph: Graph,
    box: Bounds,
    inputs: Mapping[str, Bounds],
    source: Node,
    position: Tensor,
    ascent: Ascent,
    on_node: Visit,
) -> Bounds:
    """Bounds ``[B, K]`` of neurons, by a row for each of their two bounds with slopes of its own."""
    batch, count = box[0].shape[0], len(position)
    filled = torch.cat(
        [position, position, position[-1:].expand(standard_rows(graph, box[0].device, 2 * count) - 2 * count)]
    )
    signs = torch.ones(len(filled), dtype=box[0].dtype, device=box[0].device)
    signs[count : 2 * count] = -1
    flow = DualPass(graph, batch, len(filled), box[0])
    send_unit_rows(flow, source, filled, signs)

    def finished(best: Tensor) -> Tensor:
        stable = ((best[:, :count] >= 0) | (best[:, count : 2 * count] >= 0)).all(0)
        return torch.cat([stable, stable, torch.ones_like(best[0, 2 * count :], dtype=torch.bool)])

    earlier = {name: inputs[name] for name in inputs if name in _before(graph, source)}
    start = {name: slopes.flat() for name, slopes in initial_slopes(earlier, "adaptive").items()}
    best = ascend(RowProblem(flow, box, inputs, on_node), ascent, start, finished=finished).lower
    return best[:, :count], -best[:, count : 2 * count]


def _before(graph: Graph, node: Node) -> set[str]:
    return {n.name for n in graph.nodes[: graph.nodes.index(node)]}
