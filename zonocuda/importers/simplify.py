"""Rewriting of graphs: into a smaller one that computes the same function, and two foldings of one network into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from zonocuda.graph import Affine, Conv, ConvTranspose, Graph, Linear, Node, Op, ScaleShift, constants
from zonocuda.importers.errors import refuse


def absorb_biases(graph: Graph) -> Graph:
    """Let linear layers and convolutions without a bias take over the shift that follows them.

    y = W x; z = y + b becomes z = W x + b where nothing else reads y and b is a bias of that layer: constant over
    the positions of a convolution, and over all but the last dimension of a linear layer, and the network computes both
    in one type. z keeps its name. (A shift that is part of another operator stays there.)
    """
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[0]) if isinstance(node.op, ScaleShift) and node.part is None else None
        merged = None if source is None or graph.uses[source.name] > 1 else _merge(source, node)
        if source is not None and merged is not None:
            del nodes[source.name]
        nodes[node.name] = merged or node
    return Graph(tuple(nodes.values()), graph.output, unaccounted=graph.unaccounted)


def _merge(layer: Node, shift: Node) -> Node | None:
    """The layer with the shift as its bias; None where it is not one."""
    if not isinstance(layer.op, Linear | Conv | ConvTranspose) or layer.op.bias is not None:
        return None
    if not isinstance(shift.op, ScaleShift) or shift.op.scale is not None or shift.op.shift is None:
        return None
    if layer.dtype != shift.dtype:
        return None
    channel = len(layer.shape) - 1 if isinstance(layer.op, Linear) else 0
    extents = shift.op.shift.shape
    if len(extents) != len(layer.shape) or any(n != 1 for dim, n in enumerate(extents) if dim != channel):
        return None

    def spread(t: Tensor) -> Tensor:
        return t.reshape(-1).expand(layer.shape[channel]).contiguous()

    doubt = {"bias" if name == "shift" else name: spread(error) for name, error in shift.op.doubt.items()}
    op = dataclasses.replace(
        layer.op,
        bias=spread(shift.op.shift),
        roundings=max(layer.op.roundings, shift.op.roundings),
        doubt={**layer.op.doubt, **doubt},
    )
    return replace(shift, op=op, inputs=layer.inputs)


def with_executed(graph: Graph, executed: Graph) -> Graph:
    """``graph`` with the operators of ``executed``, the same network as it executes itself, that hold other constants.

    Raises:
        UnsupportedNetworkError: they are different networks otherwise.
    """

    check_same_structure(graph, executed)
    pairs = zip(graph.nodes, executed.nodes, strict=True)
    return dataclasses.replace(
        graph, executed={own.name: other.op for own, other in pairs if _differ(own.op, other.op)}
    )


def check_same_structure(graph: Graph, other: Graph) -> None:
    """Raises UnsupportedNetworkError where two foldings of one network differ in more than numbers."""

    def structure(one: Graph) -> list[tuple[object, ...]]:
        return [(node.name, node.op.kind, node.inputs, node.shape, _structure(node.op)) for node in one.nodes]

    if structure(graph) != structure(other):
        refuse("constants that it computes decide its structure, and rounding decides them")


def _structure(op: Op) -> dict[str, object]:
    """What an operator holds beside the numbers of the network."""
    numbers = {*constants(op), "roundings", "doubt"} if isinstance(op, Affine) else set()
    fields = {entry.name: getattr(op, entry.name) for entry in dataclasses.fields(op)}
    return {name: value for name, value in fields.items() if name not in numbers}


def _differ(op: Op, other: Op) -> bool:
    """Whether two operators of one kind hold different numbers, or may be off by different amounts."""
    for entry in dataclasses.fields(op):
        one, two = getattr(op, entry.name), getattr(other, entry.name)
        if isinstance(one, Tensor) and isinstance(two, Tensor):
            if one is not two and not bool((one.detach().double() == two.detach().double()).all()):
                return True
        elif isinstance(one, Mapping):
            if one or two:
                return True
        elif one != two:
            return True
    return False
