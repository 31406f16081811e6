"""A network without its dead neurons: what a box never activates costs a dual pass nothing.

Where an activation is 0 on the whole box, as max(x, 0) is where x <= 0, the neuron's row of weights before it, and its
columns behind it, may be left out of the linear layers around it. The function on the box stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.interval import Bounds, positions
from zonocuda.graph import Graph, Linear, Node
from zonocuda.relaxations import activations, has_rule, rule_of


@dataclass(frozen=True, eq=False)
class Compact:
    """A network whose linear layers have lost the dead neurons of a box.

    Attributes:
        graph: the network that is left; its nodes keep their names.
        intermediate: bounds of the input of every activation, those of the neurons that are left.
        whole: the bounds ``[B, *features]`` that were given.
        kept: by activation that has lost neurons, the positions ``[K]`` of the others.
    """

    graph: Graph
    intermediate: dict[str, Bounds]
    whole: Mapping[str, Bounds]
    kept: Mapping[str, Tensor]

    def widen(self, intermediate: Mapping[str, Bounds]) -> dict[str, Bounds]:
        """New bounds of the neurons that are left, with those that were given of the dead ones."""
        result = dict(self.whole)
        for name, new in intermediate.items():
            index = self.kept.get(name)
            if new is self.intermediate[name]:
                continue
            if index is None:
                result[name] = new
            else:
                low, high = (old.index_copy(1, index, b) for old, b in zip(self.whole[name], new, strict=True))
                result[name] = low, high
        return result

    def narrow_slopes(self, slopes: Mapping[str, Slopes]) -> dict[str, Slopes]:
        """Slopes ``[B, 1 or R, N]`` of the neurons that are left."""
        return {
            name: Slopes(_take(s.negative, self.kept[name]), _take(s.nonnegative, self.kept[name]))
            if name in self.kept
            else s
            for name, s in slopes.items()
        }

    def widen_slopes(self, slopes: Mapping[str, Slopes], start: Mapping[str, Slopes]) -> dict[str, Slopes]:
        """Slopes ``[B, R, N]`` of the neurons that are left, with those of ``start`` (or 0) for the dead ones."""
        result = dict(slopes)
        for name, index in self.kept.items():
            if name in result:
                found, given = slopes[name], start.get(name, Slopes())
                size = self.whole[name][0].shape[1]
                result[name] = Slopes(
                    _put(found.negative, index, size, given.negative),
                    _put(found.nonnegative, index, size, given.nonnegative),
                )
        return result


def compact(graph: Graph, intermediate: Mapping[str, Bounds]) -> Compact:
    """Leaves out the neurons that are 0 in every batch element, where an activation lies between linear layers.

    Args:
        graph: the network.
        intermediate: bounds ``[B, *features]`` of the input of every activation; a NaN is not dead.
    """
    kept: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}  # by linear node
    between = _between_linear_layers(graph)
    masks = [(~rule_of(node).zero(*intermediate[node.name])).any(0) for node, _ in between]
    for alive in masks:
        alive[0] |= ~alive.any()  # one stays
    for (node, before), alive, index in zip(between, masks, positions(masks), strict=True):
        if len(index) < len(alive):
            kept[node.name] = rows[before] = index
    left = dict(intermediate)
    for name, index in kept.items():
        low, high = intermediate[name]
        left[name] = low[:, index], high[:, index]
    if kept:
        graph = Graph(tuple(_shorten(node, rows.get(node.name), kept) for node in graph.nodes), graph.output)
    return Compact(graph, left, intermediate, kept)


def _between_linear_layers(graph: Graph) -> list[tuple[Node, str]]:
    """Activations that alone read a linear layer of one dimension, and that linear layers alone read; with it."""
    readers = graph.readers
    return [
        (node, node.inputs[0])
        for node in activations(graph)
        if len(node.shape) == 1
        and rule_of(node).terms == 1
        and isinstance(graph[node.inputs[0]].op, Linear)
        and len(readers[node.inputs[0]]) == 1
        and graph.output not in (node.name, node.inputs[0])
        and all(isinstance(reader.op, Linear) for reader in readers[node.name])
    ]


def _shorten(node: Node, rows: Tensor | None, kept: Mapping[str, Tensor]) -> Node:
    """A node without the dead neurons among its inputs and outputs."""
    if has_rule(node):
        return replace(node, shape=(len(kept[node.name]),)) if node.name in kept else node
    columns = kept.get(node.inputs[0]) if node.inputs else None
    if not isinstance(node.op, Linear) or (rows is None and columns is None):
        return node

    def left(name: str, t: Tensor) -> Tensor:
        t = t if rows is None else t[rows]
        return t[:, columns] if name == "weight" and columns is not None else t

    weight, bias = left("weight", node.op.weight), node.op.bias
    doubt = {name: left(name, error) for name, error in node.op.doubt.items()}
    op = replace(node.op, weight=weight, bias=None if bias is None else left("bias", bias), doubt=doubt)
    return replace(node, op=op, shape=(weight.shape[0],))


def _take(t: Tensor | None, index: Tensor) -> Tensor | None:
    return None if t is None else t.index_select(2, index)


def _put(t: Tensor | None, index: Tensor, size: int, around: Tensor | None) -> Tensor | None:
    if t is None:
        return None
    shape = (*t.shape[:2], size)
    return (t.new_zeros(shape) if around is None else around.expand(shape)).index_copy(2, index, t)
