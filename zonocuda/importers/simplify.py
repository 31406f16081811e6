"""Rewriting of a graph into a smaller one that computes the same function."""

from __future__ import annotations

import dataclasses
from collections import Counter

from zonocuda.graph import Conv, ConvTranspose, Graph, Linear, Node, ScaleShift


def absorb_biases(graph: Graph) -> Graph:
    """Let linear layers and convolutions without a bias take over the shift that follows them.

    y = W x; z = y + b becomes z = W x + b where nothing else reads y and b is a bias of that layer: constant over
    the positions of a convolution, and over all but the last dimension of a linear layer. z keeps its name.
    """
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses[graph.output] += 1
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        source = nodes.get(node.inputs[0]) if isinstance(node.op, ScaleShift) else None
        merged = None if source is None or uses[source.name] > 1 else _merge(source, node)
        if source is not None and merged is not None:
            del nodes[source.name]
        nodes[node.name] = merged or node
    return Graph(tuple(nodes.values()), graph.output)


def _merge(layer: Node, shift: Node) -> Node | None:
    """The layer with the shift as its bias; None where it is not one."""
    if not isinstance(layer.op, Linear | Conv | ConvTranspose) or layer.op.bias is not None:
        return None
    if not isinstance(shift.op, ScaleShift) or shift.op.scale is not None or shift.op.shift is None:
        return None
    channel = len(layer.shape) - 1 if isinstance(layer.op, Linear) else 0
    extents = shift.op.shift.shape
    if len(extents) != len(layer.shape) or any(n != 1 for dim, n in enumerate(extents) if dim != channel):
        return None
    bias = shift.op.shift.reshape(-1).expand(layer.shape[channel]).contiguous()
    roundings = max(layer.op.roundings, shift.op.roundings)
    return Node(shift.name, dataclasses.replace(layer.op, bias=bias, roundings=roundings), layer.inputs, shift.shape)
