"""A graph under construction: nodes with inferred shapes, unique names and checked tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    Affine,
    Concat,
    Expand,
    Gather,
    Graph,
    Input,
    Node,
    Op,
    Pad,
    Part,
    Rearrangement,
    Relu,
    ScaleShift,
    prune,
)
from zonocuda.graph.ops import Shape
from zonocuda.graph.shapes import output_shape
from zonocuda.importers.constants.enclosure import Enclosure, Numbers, holds
from zonocuda.importers.constants.sizes import check_features
from zonocuda.importers.errors import one_line, refuse

_FEW = 16
"""Roundings of a constant that cost nothing to speak of: more are charged for each element by itself."""


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input.

    Attributes:
        node: the node that computes it.
        shape: its feature shape.
        dtype: its type in the original network.
        held: the narrowest type known to hold its values: the one that they were last computed in, or rounded to.
    """

    node: str
    shape: Shape
    dtype: torch.dtype
    held: torch.dtype


class GraphBuilder:
    """Collects the nodes of a graph.

    Args:
        input_name: name of the input node.
        input_shape: feature shape of the input.
        dtype: type of the input.
        batched: whether dimension 0 of the original network's tensors is a batch, which features do not have.
        reserved: names that are kept for the nodes they are promised to; see ``begin``.
        known: feature shapes by node, of the same network with other numbers: what is in it is not inferred and checked
            again, and what is not is added.
        batch: the extent of the batch in the original network's tensors, where it has one.
        executed: whether the graph's constants are those of an execution, see :class:`zonocuda.graph.Graph`.
    """

    def __init__(
        self,
        input_name: str,
        input_shape: Shape,
        dtype: torch.dtype,
        batched: bool,
        reserved: Iterable[str] = (),
        known: dict[str, Shape] | None = None,
        batch: int = 1,
        executed: bool = False,
    ) -> None:
        self.batched = batched
        self.batch = batch
        self.executed = executed
        self.depends_on_batch = False
        """Whether constants were read that have an extent of the batch: they may be others in another batch."""
        self.differs_as_executed = False
        """Whether operators hold other constants in ``executed`` graphs, which no constant of the network says."""
        self._known = {} if known is None else known
        self.input = Value(input_name, input_shape, dtype, dtype)
        self._dtype: torch.dtype | None = None
        self._reserved = set(reserved)
        self._owned: frozenset[str] = frozenset()
        self._taken = {input_name}
        self._nodes = [Node(input_name, Input(), (), input_shape, dtype)]
        self.charged = 0
        """Roundings of the constants that the node under conversion has read: see :meth:`charge`."""
        self._unaccounted: list[str] = []
        self._features = check_features(input_shape, 0)
        self.folded = 0
        """Elements of the constants that the network computes from others."""

    def full_rank(self, value: Value) -> int:
        """Number of dimensions that ``value`` has in the original network."""
        return len(value.shape) + self.batched

    def begin(self, names: Iterable[str], dtype: torch.dtype | None = None) -> None:
        """Start on a node of the original network, for which the reserved ``names`` are kept; ``dtype``: the type that
        it computes in, where it need not be that of its operands."""
        self._owned = frozenset(names)
        self._dtype = dtype
        self.charged = 0

    def charge(self, constant: Enclosure) -> Tensor:
        """The numbers of a constant that the network computes. Operators emitted from here on, up to the next node of
        the original network, are products and quotients of what it has read, and count the roundings of all of it.
        """
        self.charged += constant.roundings
        return constant.held()

    def constants(self, roundings: int = 0, **given: Numbers | None) -> dict[str, Any]:
        """The fields of an operator for constants by name: numbers, and how far they may be off."""
        doubt = {}
        for name, constant in given.items():
            if isinstance(constant, Enclosure):
                if constant.roundings > _FEW and bool(constant.error.isfinite().all()):
                    doubt[name] = constant.error
                else:
                    roundings += constant.roundings
                given[name] = constant.held()
        return {**given, "roundings": roundings, "doubt": doubt}

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    def emit(
        self, name: str, op: Op, *inputs: Value, dtype: torch.dtype | None = None, part: Part | None = None
    ) -> Value:
        """Append a node that applies ``op``, in ``dtype`` where that is given, else as :meth:`begin` says.

        ``part``: see :class:`zonocuda.graph.Part`.

        Raises:
            UnsupportedNetworkError: the shapes do not fit, the result is empty or too large, or a tensor is not a
                finite float32 or float64 tensor.
        """
        if isinstance(op, Affine) and op.has_constants:
            op = dataclasses.replace(op, roundings=op.roundings + self.charged)
        unique = self._unique(name)
        if unique not in self._known:
            self._known[unique] = self._checked(op, [value.shape for value in inputs])
        shape = self._known[unique]
        dtype = dtype or self._dtype or inputs[0].dtype
        held = dtype
        moves = isinstance(op, Rearrangement | Gather | Expand | Concat | Relu) and not (
            isinstance(op, Pad) and op.value
        )
        if moves and all(holds(dtype, value.held) for value in inputs):
            held = next((v.held for v in inputs if all(holds(v.held, other.held) for other in inputs)), dtype)
        self._nodes.append(Node(unique, op, tuple(value.node for value in inputs), shape, dtype, part))
        return Value(unique, shape, dtype, held)

    def _checked(self, op: Op, shapes: list[Shape]) -> Shape:
        _check_tensors(op)
        try:
            shape = output_shape(op, shapes)
        except ValueError as error:
            refuse(one_line(error))
        if isinstance(op, ScaleShift | Add) and any(other != shape for other in shapes):
            refuse(f"{op.kind} would change the shape {shapes[0]} to {shape}")
        if any(extent <= 0 for extent in shape):
            refuse(f"its result would be empty, of shape {shape}")
        self._features = check_features(shape, self._features)
        return shape

    def written(self, since: int, whole: Op, *inputs: Value) -> None:
        """Makes the nodes from number ``since`` on parts of one operator ``whole`` of ``inputs``, whose value is that
        of the last one; what they round stays."""
        for position in range(since, len(self._nodes)):
            node = self._nodes[position]
            products = 0 if node.part is None else node.part.products
            last = position == len(self._nodes) - 1
            part = Part(products, whole, tuple(value.node for value in inputs)) if last else Part(products)
            self._nodes[position] = dataclasses.replace(node, part=part)

    def node(self, value: Value) -> Node:
        """What computes a value."""
        return next(node for node in reversed(self._nodes) if node.name == value.node)

    def before(self, value: Value, position: int = 0) -> Value:
        """An input of what computes a value."""
        found = next(node for node in reversed(self._nodes) if node.name == self.node(value).inputs[position])
        dtype = found.dtype or value.dtype
        return Value(found.name, found.shape, dtype, dtype)

    def emitted(self, since: int = 0) -> tuple[Node, ...]:
        """The nodes so far, without the first ``since``."""
        return tuple(self._nodes[since:])

    def unaccounted(self, line: str) -> None:
        """Notes something whose rounding, when the network is executed, no node accounts for."""
        self._unaccounted.append(line)

    def check_underflow(self, where: str, constants: Iterable[object]) -> None:
        """Notes constants, read or computed from others, that are subnormal in the network's own type: a machine that
        flushes them to zero goes on with other numbers."""
        for constant in constants:
            if isinstance(constant, Tensor | Enclosure) and constant.dtype.is_floating_point:
                value = constant.value if isinstance(constant, Enclosure) else constant
                size = value.detach().double().abs()
                if bool(((size > 0) & (size < torch.finfo(constant.dtype).tiny)).any()):
                    self.unaccounted(f"{where} computes with a constant that a machine may flush to zero")

    def finish(self, output: Value) -> Graph:
        """The graph that computes ``output``, without the nodes that it does not need."""
        return Graph(prune(tuple(self._nodes), output.node), output.node, unaccounted=tuple(self._unaccounted))

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken or (unique in self._reserved and unique not in self._owned):
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique


def _tensors(op: Op) -> dict[str, Tensor]:
    fields = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def _check_tensors(op: Op) -> None:
    for name, tensor in _tensors(op).items():
        if tensor.dtype not in (torch.float32, torch.float64):
            refuse(f"its {name} is {tensor.dtype}; float32 and float64 are supported")
        if not bool(torch.isfinite(tensor.detach()).all()):
            refuse(f"its {name} holds NaN or infinity")
