"""A network about whose functions the user states how exactly a machine computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from zonocuda.graph import Assumed, Elementary, Graph, Node


def stated(graph: Graph, ulp: Mapping[str, float]) -> dict[str, float]:
    """What is stated of the functions that a network has."""
    present = {node.op.function for node in graph.nodes if isinstance(node.op, Elementary)}
    return {name: units for name, units in ulp.items() if name in present}


def assuming(graph: Graph, ulp: Mapping[str, float], dtype: torch.dtype) -> Graph:
    """The network with a node behind every function of ``ulp`` that says how far its executed value may be off.

    Raises:
        NotImplementedError: a function of which nothing is stated, or that is no operator of the network by itself.
    """
    nodes: list[Node] = []
    behind: dict[str, str] = {}
    taken = {node.name for node in graph.nodes}
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(behind.get(name, name) for name in node.inputs)))
        op = node.op
        if not isinstance(op, Elementary):
            continue
        if not op.whole or node.part is not None:
            raise NotImplementedError(
                f"node {node.name!r} (op {op.kind}) is a part of what the network computes with other operators, of "
                "which nothing can be stated"
            )
        if op.function not in ulp:
            raise NotImplementedError(
                f"nothing is known about the rounding of node {node.name!r} (op {op.kind}); state it: --ulp "
                f"{op.function}=K, ulp={{{op.function!r}: K}}"
            )
        name = f"{node.name}/executed"
        while name in taken:
            name += "_"
        taken.add(name)
        behind[node.name] = name
        stated_op = Assumed(dtype, function=op.function, parameter=op.parameter, ulp=ulp[op.function])
        nodes.append(Node(name, stated_op, (node.name,), node.shape))
    return Graph(tuple(nodes), behind.get(graph.output, graph.output), unaccounted=graph.unaccounted)
