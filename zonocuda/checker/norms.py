"""Products that are a norm's values, d_i / sqrt(mean d^2 + eps), and how large these can be.

With n numbers and eps > 0: d_i^2 <= sum d^2 = n mean d^2, so that |d_i| / sqrt(mean d^2 + eps) <= sqrt n. Where d sums
to 0, d_i is minus the sum of the n - 1 others, and so d_i^2 <= (n - 1)(sum d^2 - d_i^2): at most sqrt(n - 1). Found in
the graph by what is computed, whatever a reader says of it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from zonocuda.graph import Add, Bilinear, Concat, Elementary, Expand, Graph, Node, Op, Reduce, Reshape, ScaleShift


def confined(graph: Graph) -> Graph:
    """The graph whose products have the limits that are found here, and no others."""
    nodes = {node.name: node for node in graph.nodes}
    own = tuple(
        replace(node, op=_confined(nodes, node, node.op.terms)) if isinstance(node.op, Bilinear) else node
        for node in graph.nodes
    )
    return graph if all(a is b for a, b in zip(own, graph.nodes, strict=True)) else replace(graph, nodes=own)


def _confined(nodes: dict[str, Node], product: Node, terms: int) -> Bilinear:
    limit = _limit(nodes, product, terms)
    return Bilinear(terms, limit if limit < math.inf else None)


def _limit(nodes: dict[str, Node], product: Node, terms: int) -> float:
    """At least |z|; infinity where it is no norm."""
    factors = nodes[product.inputs[0]]
    if terms != 1 or not isinstance(factors.op, Concat) or len(factors.inputs) != 2:
        return math.inf
    d, spread = (_before_reshapes(nodes, nodes[name]) for name in factors.inputs)
    if not isinstance(spread.op, Expand) or spread.op.shape != d.shape:
        return math.inf
    root = nodes[spread.inputs[0]]
    if not isinstance(root.op, Elementary) or root.op.function != "rsqrt":
        return math.inf
    shifted = nodes[root.inputs[0]]
    mean = nodes[shifted.inputs[0]]
    if not _adds_positive(shifted.op) or not isinstance(mean.op, Reduce) or not _keeps(mean.op):
        return math.inf
    square = nodes[mean.inputs[0]]
    is_square = isinstance(square.op, Elementary) and (square.op.function, square.op.parameter) == ("power", 2)
    if not is_square or square.inputs[0] != d.name:
        return math.inf
    count = math.prod(d.shape[i] for i in mean.op.dims)
    return math.nextafter(math.sqrt(count - _is_centered(nodes, d, mean.op)), math.inf)


def _before_reshapes(nodes: dict[str, Node], node: Node) -> Node:
    while isinstance(node.op, Reshape):
        node = nodes[node.inputs[0]]
    return node


def _keeps(op: Reduce) -> bool:
    """Whether it is a mean that keeps its dimensions."""
    return op.mean and op.keepdim


def _adds_positive(op: Op) -> bool:
    """Whether it only adds numbers above 0, for all constants that it may stand for; with 0, d = 0 has no value."""
    if not isinstance(op, ScaleShift) or op.scale is not None or op.shift is None or op.roundings > 2**40:
        return False
    shift, doubt = op.shift.double(), op.doubt.get("shift", torch.zeros(()).double())
    return bool((shift * (1 - 2.0**-10) > doubt).all())  # gamma_k is at most 2^-12


def _is_centered(nodes: dict[str, Node], d: Node, over: Reduce) -> bool:
    """Whether d is x - mean x, over the same dimensions."""
    if not isinstance(d.op, Add) or d.op.sign != -1:
        return False
    spread = nodes[d.inputs[1]]
    mean = nodes[spread.inputs[0]] if isinstance(spread.op, Expand) else spread
    if not isinstance(mean.op, Reduce) or not _keeps(mean.op):
        return False
    return mean.op.dims == over.dims and mean.inputs[0] == d.inputs[0]
