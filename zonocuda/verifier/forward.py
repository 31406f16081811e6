"""The forward sweep: a zonotope through every node of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.domains import Zonotope, memory
from zonocuda.graph import Graph, Node, Relu, interpret
from zonocuda.kink import KinkRule
from zonocuda.verifier.ownership import Ownership
from zonocuda.verifier.transform import transform

Bounds = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LayerStats:
    """What the sweep saw at a ReLU, summed over the batch.

    Attributes:
        name: the node.
        neurons, dead, active, unstable: how many neurons, and how they split; a neuron with NaN bounds counts as
            unstable.
        symbols: how many symbols the layer's input depends on, by kind of block.
        mean_width: mean of upper - lower over the neurons.
    """

    name: str
    neurons: int
    dead: int
    active: int
    unstable: int
    symbols: Mapping[str, int]
    mean_width: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of a forward sweep.

    Attributes:
        output: the zonotope of the network's output.
        inputs: bounds (lower, upper), ``[B, *features]``, of the input of every ReLU, by node name.
        layers: bounds of the value of every node, where they were asked for, by node name.
        stats: one entry for each ReLU, in order.
    """

    output: Zonotope
    inputs: Mapping[str, Bounds]
    layers: Mapping[str, Bounds]
    stats: tuple[LayerStats, ...]


def sweep(
    graph: Graph,
    zonotope: Zonotope,
    *,
    slopes: Mapping[str, Tensor] | None = None,
    kink: KinkRule = "envelope",
    all_layers: bool = False,
    on_node: Callable[[Node], None] = lambda node: None,
) -> Sweep:
    """Carries ``zonotope`` ``[B, *input features]`` through the network.

    Args:
        graph: the network, in the zonotope's dtype and on its device.
        zonotope: the set of inputs.
        slopes: a slope lam for some of the ReLU nodes, by name, each broadcasting to ``[B, *features]``; the
            minimum-area slope elsewhere.
        kink: the derivative where a slope sits on its kink.
        all_layers: also bound the value of every node.
        on_node: called before each node; may raise to stop the sweep.

    Raises:
        ValueError: a zonotope whose feature shape is not the network's, or a slope for a node that is no ReLU.
    """
    if zonotope.features != graph.input_shape:
        raise ValueError(
            f"sweep: the zonotope has features {list(zonotope.features)}, the network's input {list(graph.input_shape)}"
        )
    given = dict(slopes or {})
    unknown = set(given) - {node.name for node in graph.relus}
    if unknown:
        raise ValueError(f"sweep: slopes were given for {sorted(unknown)}, which are not ReLU nodes of the network")
    inputs: dict[str, Bounds] = {}
    layers: dict[str, Bounds] = {}
    stats: list[LayerStats] = []

    ownership = Ownership(graph, enabled=not torch.is_grad_enabled())

    def image(node: Node, values: tuple[Zonotope, ...]) -> Zonotope:
        on_node(node)
        in_place = ownership.may_overwrite(node)
        if isinstance(node.op, Relu):
            bounds = values[0].bounds()
            inputs[node.name] = bounds
            stats.append(_stats(node, values[0], bounds))
            return values[0].relu(given.get(node.name), bounds=bounds, kink=kink, origin=node.name, in_place=in_place)
        return transform(node, values, in_place)

    def observe(node: Node, value: Zonotope) -> None:
        if all_layers:
            layers[node.name] = value.bounds()

    with memory.recycled():
        output = interpret(graph, zonotope, image, observe)
    return Sweep(output, inputs, layers, tuple(stats))


def _stats(node: Node, value: Zonotope, bounds: Bounds) -> LayerStats:
    lower, upper = (b.detach() for b in bounds)
    dead = int((upper <= 0).sum())
    active = int(((lower >= 0) & ~(upper <= 0)).sum())
    neurons = value.center.shape[0] * prod(value.features)
    kinds: Counter[str] = Counter()
    for block in value.blocks:
        kinds[block.kind] += block.symbols.count
    width = float((upper - lower).mean()) if neurons else 0.0
    return LayerStats(node.name, neurons, dead, active, neurons - dead - active, dict(kinds), width)
