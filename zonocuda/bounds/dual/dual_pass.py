"""Rows carried backwards through a network: what every dual bound shares.

A row v of a node y stands for the linear form v . y. Going from the output to the input, the pass rewrites all forms in
terms of earlier and earlier nodes: at an affine node const += v . b and v = A^T v; a node that several others read
collects the sum of their rows. What happens at an activation is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.rounding.arithmetic import convolves, counted_products
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rounding.tally import Measure, tally
from zonocuda.graph import Add, Affine, Concat, Conv, Graph, Input, Linear, Node
from zonocuda.relaxations import has_rule

PASS_BYTES = 2**24
"""Of a layer's rows in one pass: large enough for fast products, small enough for the cache."""

Visit = Callable[[Node], None]
Shape = tuple[int, ...]


def proceed(node: Node) -> None:
    """A visit that never stops a pass."""


class DualPass:
    """Rows ``[B, R]`` on their way to the input.

    Attributes:
        nodes: the network's nodes by name.
        batch, rows: B and R.
        constant: ``[B, R]``, what the pass has collected.
        pending: by node name the rows ``[B * R, *features]`` of a node that has not been reached yet.
        tally: what rounding has cost so far, where that is counted.
    """

    def __init__(self, graph: Graph, batch: int, rows: int, like: Tensor, ledger: Ledger | None = None) -> None:
        """No rows yet (see :meth:`send`), in the dtype and on the device of ``like``."""
        self.graph = graph
        self.nodes = graph.by_name
        self.batch, self.rows = batch, rows
        self.constant = like.new_zeros(batch, rows)
        self.pending: dict[str, Tensor] = {}
        self.tally = tally(ledger, self.constant)

    def fork(self) -> DualPass:
        """A pass that goes on from here, and leaves this one where it is."""
        other = DualPass(self.graph, self.batch, self.rows, self.constant)
        other.constant, other.tally = self.constant, self.tally.fork()
        other.pending = dict(self.pending)
        return other

    def send(self, name: str, v: Tensor) -> None:
        """Adds rows ``[B * R, *features]`` to those of a node."""
        present = self.pending.get(name)
        total = self.pending[name] = v if present is None else present + v
        if present is not None:
            self.tally.meeting(name, self.measure(total), self.measure(present))

    def add(self, value: Tensor) -> None:
        """Adds ``value`` ``[B, R]`` to the constant."""
        self.constant = self.constant + value
        self.tally.constant(self.constant)

    def measure(self, v: Tensor) -> Measure:
        """sum_i |v_i| values_i of rows ``[B * R, *features]``."""

        def measured(values: Tensor) -> Tensor:
            rows = flatten_rows(v.detach().abs()).reshape(self.batch, self.rows, -1)
            return (rows @ flatten_rows(values).unsqueeze(2)).squeeze(2)

        return measured

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        for name, v in self.pending.items():
            matrix = flatten_rows(v).reshape(self.batch, self.rows, -1).index_select(1, index)
            self.pending[name] = unflatten_rows(matrix.flatten(0, 1), self.nodes[name].shape)
        self.rows = len(index)
        self.constant = self.constant[:, index]
        self.tally.keep(index)

    def run(
        self,
        activation: Callable[[Node, Tensor], Tensor | None],
        on_node: Visit = proceed,
        stops: Collection[str] = (),
    ) -> Tensor | None:
        """Carries the rows to the input; where rounding is counted, by sums of products alone.

        Args:
            activation: gives the rows at the input of an activation for those ``[B * R, *features]`` at its output,
                which are still pending while it runs. None ends the pass there.
            on_node: called before each node that has rows; may raise to stop the pass.
            stops: other nodes where ``activation`` is asked, too; it gives rows of the node itself, that go on.

        Returns:
            The rows of the input ``[B * R, *input features]``; None where no row depends on it or the pass was ended.
        """
        with counted_products(() if self.tally.ledger is None else self.graph.nodes):
            return self._run(activation, on_node, stops)

    def _run(
        self, activation: Callable[[Node, Tensor], Tensor | None], on_node: Visit, stops: Collection[str]
    ) -> Tensor | None:
        for node in reversed(self.graph.nodes):
            if node.name not in self.pending:
                continue
            on_node(node)
            if isinstance(node.op, Input):
                break
            if not has_rule(node) and node.name not in stops:
                self._linear(node, self.pending.pop(node.name))
                continue
            result = activation(node, self.pending[node.name])
            if result is None:
                return None
            del self.pending[node.name]
            if has_rule(node):
                self.tally.sent(node.inputs[0], result, node.inputs[0] not in self.pending)
                self.send(node.inputs[0], result)
            else:
                self._linear(node, result)
        return self.pending.get(self.graph.nodes[0].name)

    def _linear(self, node: Node, v: Tensor) -> None:
        """A node that is affine in its inputs."""
        op = node.op
        if isinstance(op, Affine):
            shape = self.nodes[node.inputs[0]].shape
            self.tally.linear(node, self.measure(v))
            if op.has_offset:
                constant = _constant(op, v, shape)
                if constant is not None:
                    self.add(constant.reshape(self.batch, -1))
            self.send(node.inputs[0], op.adjoint(v, shape))
        elif isinstance(op, Add):
            self.tally.sum(node, self.measure(v))
            self.send(node.inputs[0], v)
            self.send(node.inputs[1], v if op.sign == 1 else -v)
        elif isinstance(op, Concat):
            sizes = [self.nodes[name].shape[op.dim] for name in node.inputs]
            for name, part in zip(node.inputs, torch.split(v, sizes, dim=op.dim + 1), strict=True):
                self.send(name, part)
        else:
            raise NotImplementedError(f"dual pass: node {node.name!r} (op {op.kind}) has no adjoint")


def _constant(op: Affine, v: Tensor, shape: Shape) -> Tensor | None:
    """v . b, ``[B * R]``; None where b is zero."""
    if isinstance(op, Linear | Conv):
        if op.bias is None:
            return None
        if isinstance(op, Conv):
            return v.flatten(2).sum(2) @ op.bias
        return (v if v.dim() == 2 else v.flatten(1, -2).sum(1)) @ op.bias
    offset = op.offset(shape, v).reshape(-1)
    return v.reshape(len(v), len(offset)) @ offset


def standard_rows(graph: Graph, device: torch.device, count: int) -> int:
    """How many rows to carry where ``count`` are wanted.

    On the CPU torch compiles a convolution for every number of rows that it has not seen, which can take longer than
    the convolution itself: there it is the next power of two, or three quarters of one.
    """
    if device.type != "cpu" or count < 3 or not convolves(graph.nodes):
        return count
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 else power


def neurons_per_pass(graph: Graph, node: Node, like: Tensor, each: int = 1) -> int:
    """How many neurons of a node go together, with ``each`` rows a neuron: so many that the rows of the largest node up
    to it take PASS_BYTES, for the batch and dtype of ``like`` ``[B, ...]``."""
    largest = max(prod(n.shape) for n in graph.nodes[: graph.position[node.name] + 1])
    return max(1, PASS_BYTES // (each * like.shape[0] * max(1, largest) * like.element_size()))


def flatten_positions(shape: Shape) -> Tensor:
    """For every position in the order of the pass, the position in the flattened features."""
    return flatten_rows(torch.arange(prod(shape), device="cpu").reshape(1, *shape)).squeeze(0)


def flatten_rows(v: Tensor) -> Tensor:
    """``[M, *features]`` as ``[M, N]``, channels last for maps ``[C, H, W]``: the order of the pass."""
    return (v.permute(0, 2, 3, 1) if v.dim() == 4 else v).reshape(v.shape[0], prod(v.shape[1:]))


def unflatten_rows(matrix: Tensor, shape: Shape) -> Tensor:
    """The inverse of :func:`flatten_rows`, for features ``shape``."""
    if len(shape) == 3:
        channels, height, width = shape
        return matrix.reshape(matrix.shape[0], height, width, channels).permute(0, 3, 1, 2)
    return matrix.reshape(matrix.shape[0], *shape)
