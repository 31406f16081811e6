"""A network as a list of nodes, and the one traversal that every pass over it uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from zonocuda.graph.ops import Add, Input, Op, Relu, Shape
from zonocuda.graph.whole import Extreme, Extremes

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Part:
    """A node's part in an operator of the network that is written with several nodes.

    They compute the same function of real numbers as that operator. When it is executed, it rounds ``products`` numbers
    in a row at this node, and nothing else: 0 for maxima, limits and absolute values, 1 for the product of a leaky
    ReLU. At the last of its nodes ``whole`` is the operator itself (:mod:`zonocuda.graph.whole`), which reads
    ``inputs``.
    """

    products: int = 0
    whole: Op | None = None
    inputs: tuple[str, ...] = ()


SHOWN = 8
"""Operators in the representation of a graph."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operator at its place in the network.

    ``shape`` is its output's feature shape, without the batch; ``dtype`` the type in which the network itself computes
    it, where that is known; ``part`` is None for a node that is an operator of the network by itself.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Shape
    dtype: torch.dtype | None = None
    part: Part | None = None


class Origin(Protocol):
    """Where a graph comes from, if that may change behind it."""

    def current(self) -> Graph:
        """The graph of what is there now, without an origin."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which every node follows its inputs, the first one the ``Input``.

    ``output`` names the node whose value is the network's output. Every node is used by the output.

    The constants are those of the network in real arithmetic, up to the ``roundings`` of each operator. ``executed``
    holds, by node name, the operators that are others where the network computes constants from constants in its own
    precision: with those of one execution, and ``roundings`` that say how far another order of summation may be from
    it. It is empty where nothing is computed, or all of it exactly. ``unaccounted`` says what the original network
    computes whose rounding, when it is executed, no node stands for, a line for each.

    A graph with an ``origin`` follows it: ``nodes`` are those of the time when it was made, and whatever is computed
    with it is computed with :meth:`current`. Copies and pickles do not follow.
    """

    nodes: tuple[Node, ...]
    output: str
    executed: Mapping[str, Op] = field(default_factory=dict)
    unaccounted: tuple[str, ...] = ()
    origin: Origin | None = field(default=None, init=False, repr=False)  # so that a graph with other nodes has none

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for position, node in enumerate(self.nodes):
            if isinstance(node.op, Input) != (position == 0):
                raise ValueError(f"graph: node {node.name!r}: the first node, and no other, must be the Input")
            missing = [name for name in node.inputs if name not in seen]
            if missing or node.name in seen:
                raise ValueError(f"graph: node {node.name!r}: duplicate name or inputs {missing} not before it")
            seen.add(node.name)
        if self.output not in seen:
            raise ValueError(f"graph: output {self.output!r} is not a node")

    def __repr__(self) -> str:
        kinds = " -> ".join(node.op.kind for node in self.nodes[1 : 1 + SHOWN])
        more = f" -> ... {len(self.nodes) - 1 - SHOWN} more" if len(self.nodes) > 1 + SHOWN else ""
        return f"Graph({self.input_shape} -> {kinds}{more} -> {self.output_shape})"

    def __getstate__(self) -> dict[str, object]:
        with torch.no_grad():  # what is derived from parameters is copied, not how
            now = self.current()
            return {**{entry.name: getattr(now, entry.name) for entry in dataclasses.fields(now)}, "origin": None}

    def current(self) -> Graph:
        """The graph as it is to be used now: this one, or what its origin has become."""
        return self if self.origin is None else self.origin.current()

    @property
    def input_shape(self) -> Shape:
        """Feature shape of the input."""
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        """Feature shape of the output."""
        return self[self.output].shape

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    # ---- facts that passes ask for, found once ----------------------------------------------------------------------

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Where each node stands."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """By node, those that read it, one as often as it does."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def uses(self) -> Mapping[str, int]:
        """How often each node is read; being the output is one use more."""
        return {name: len(readers) + (name == self.output) for name, readers in self.readers.items()}

    @cached_property
    def last_use(self) -> Mapping[str, str]:
        """By node that is read, the last one that reads it; none, an empty name, for the output."""
        return {**{name: readers[-1].name for name, readers in self.readers.items() if readers}, self.output: ""}

    @cached_property
    def passes(self) -> frozenset[str]:
        """The nodes that all later ones depend on alone: no later one reads what stands before them."""
        found, last = set(), 0
        reach = {name: self.position[reader] for name, reader in self.last_use.items() if reader}
        for i, node in enumerate(self.nodes):
            if last <= i:
                found.add(node.name)
            last = max(last, reach.get(node.name, i))
        return frozenset(found)

    @property
    def relus(self) -> tuple[Node, ...]:
        """The ReLU nodes, in order."""
        return tuple(node for node in self.nodes if isinstance(node.op, Relu))

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Graph:
        """The same network with every floating-point tensor converted (differentiably); it follows the same origin.

        Tensors of inference mode become others that autograd can record.

        Raises:
            ValueError: no floating-point type, or a device that is not there.
        """
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"Graph.to: dtype must be a floating-point type of torch, got {dtype!r}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:  # of torch builds without that device
            raise ValueError(f"Graph.to: there is no device {device!r}") from error

        def convert(value: object) -> object:
            if isinstance(value, Tensor) and value.is_floating_point():
                converted = value.to(device=device, dtype=dtype)
                return converted.clone() if converted.is_inference() else converted
            if isinstance(value, Mapping):
                return {name: error.to(device=device) for name, error in value.items()}  # no dtype: it might underflow
            return value

        def convert_op(op: Op) -> Op:
            fields = {f.name: convert(getattr(op, f.name)) for f in dataclasses.fields(op)}
            return dataclasses.replace(op, **fields)

        def convert_node(node: Node) -> Node:
            part = node.part
            if part is not None and part.whole is not None:
                part = dataclasses.replace(part, whole=convert_op(part.whole))
            return dataclasses.replace(node, op=convert_op(node.op), part=part)

        now = self.current()
        nodes = tuple(map(convert_node, now.nodes))
        executed = {name: convert_op(op) for name, op in now.executed.items()}
        converted = Graph(nodes, now.output, executed, now.unaccounted)
        return converted if self.origin is None else converted.following(_Converted(self, dtype, device))

    def following(self, origin: Origin) -> Graph:
        """The same graph, which follows ``origin`` from now on."""
        graph = dataclasses.replace(self)
        object.__setattr__(graph, "origin", origin)
        return graph

    def wider(self, dtype: torch.dtype) -> str:
        """The first node that computes in a wider type than ``dtype``, or selects numbers that it does not hold; empty
        if there is none: else an execution in ``dtype`` is one of another network."""
        for node in self.nodes:
            whole = None if node.part is None else node.part.whole
            constants = [value for value in vars(whole).values() if isinstance(value, Tensor)] if whole else []
            is_wider = node.dtype is not None and torch.finfo(node.dtype).bits > torch.finfo(dtype).bits
            floats = [value.detach() for value in constants if value.is_floating_point()]
            if is_wider or not all(bool((value.to(dtype) == value).all()) for value in floats):
                return node.name
        return ""

    def as_executed(self) -> Graph:
        """The network with the constants that its own execution has."""
        now = self.current()
        nodes = tuple(dataclasses.replace(n, op=now.executed.get(n.name, n.op)) for n in now.nodes)
        return Graph(nodes, now.output, unaccounted=now.unaccounted)

    def __call__(self, x: Tensor) -> Tensor:
        """The network's output ``[B, *output_shape]`` for ``x`` ``[B, *input_shape]``.

        Raises:
            TypeError, ValueError: no tensor, or another shape.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"Graph: the input must be a tensor, got {type(x).__name__}")
        if not x.dim() or tuple(x.shape[1:]) != self.input_shape:
            wanted = ", ".join(["B", *map(str, self.input_shape)])
            raise ValueError(f"Graph: the input must have shape [{wanted}], got {list(x.shape)}")
        try:
            return interpret(self.current().whole, x, lambda node, inputs: node.op.execute(*inputs))
        except RuntimeError as error:
            tensors = (t for node in self.nodes for t in vars(node.op).values() if isinstance(t, Tensor))
            held = {(t.dtype, t.device) for t in tensors if t.is_floating_point()}
            if held <= {(x.dtype, x.device)}:
                raise
            kinds = " and ".join(sorted(f"{dtype} on {device}" for dtype, device in held))
            raise ValueError(
                f"Graph: the input is {x.dtype} on {x.device} and the constants are {kinds}; Graph.to converts them"
            ) from error

    def ancestors(self, name: str) -> set[str]:
        """The nodes that a node's value depends on, without itself."""
        found: set[str] = set()
        pending = list(self[name].inputs)
        while pending:
            one = pending.pop()
            if one not in found:
                found.add(one)
                pending.extend(self[one].inputs)
        return found

    @cached_property
    def extremes(self) -> Mapping[str, tuple[str, str, int]]:
        """The nodes that are max(a, b) = b + relu(a - b) or min(a, b) = a - relu(a - b), by name: a, b, and 1 or -1."""
        found = {}
        for node in self.nodes:
            if isinstance(node.op, Add) and isinstance(self[node.inputs[1]].op, Relu):
                difference = self[self[node.inputs[1]].inputs[0]]
                if isinstance(difference.op, Add) and difference.op.sign == -1:
                    a, b = difference.inputs
                    if node.inputs[0] == (b if node.op.sign == 1 else a):
                        found[node.name] = a, b, node.op.sign
        return found

    @cached_property
    def maxima(self) -> Mapping[str, int]:
        """By name the nodes that end an operator of the network: a largest (1) or least (-1) value of others."""
        wholes = {node.name: node.part.whole for node in self.nodes if node.part is not None}
        return {name: whole.sign for name, whole in wholes.items() if isinstance(whole, Extreme | Extremes)}

    @cached_property
    def whole(self) -> Graph:
        """The network with the operators that are written with several nodes in one node each: to be executed."""
        if all(node.part is None for node in self.nodes):
            return self
        nodes = (
            node
            if node.part is None or node.part.whole is None
            else Node(node.name, node.part.whole, node.part.inputs, node.shape, node.dtype)
            for node in self.nodes
        )
        return Graph(prune(tuple(nodes), self.output), self.output)


@dataclass(frozen=True, eq=False)
class _Converted:
    """A graph that follows another one, in its own dtype and on its own device."""

    source: Graph
    dtype: torch.dtype | None
    device: torch.device | str | None

    def current(self) -> Graph:
        return self.source.current().to(self.dtype, self.device)


def interpret(
    graph: Graph,
    value: Value,
    transform: Callable[[Node, tuple[Value, ...]], Value],
    observe: Callable[[Node, Value], None] | None = None,
    values: MutableMapping[str, Value] | None = None,
) -> Value:
    """Carry ``value`` from the input to the output: ``transform(node, values of its inputs)`` at every node.

    A value is forgotten after its last use. ``observe`` sees every node's value, the input's included. In ``values``
    they are kept, by node name, until then; ``transform`` may put others in their place there.
    """
    graph = graph.current()
    uses = dict(graph.uses)
    values = {} if values is None else values
    for node in graph.nodes:
        if isinstance(node.op, Input):
            result = value
        else:
            result = transform(node, tuple(values[name] for name in node.inputs))
            for name in node.inputs:
                uses[name] -= 1
                if not uses[name]:
                    del values[name]
        if observe is not None:
            observe(node, result)
        values[node.name] = result
        del result
    return values[graph.output]


def prune(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """The nodes that the output depends on, and the input."""
    by_name: Mapping[str, Node] = {node.name: node for node in nodes}
    needed: set[str] = set()
    pending = [output]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(by_name[name].inputs)
    return tuple(node for node in nodes if node.name in needed or isinstance(node.op, Input))
