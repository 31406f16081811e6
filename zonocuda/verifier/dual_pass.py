"""Rows carried backwards through a network: what every dual bound shares, without the ReLU.

A row v of a node y stands for the linear form v . y. Going from the output to the input, the pass rewrites all forms in
terms of earlier and earlier nodes: at an affine node const += v . b and v = A^T v; a node that several others read
collects the sum of their rows. What happens at a ReLU is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from zonocuda.graph import Add, Affine, Concat, Conv, Graph, Input, Linear, Node, Relu

Bounds = tuple[Tensor, Tensor]
"""Lower and upper bounds ``[B, *features]`` of the value of a node."""

Visit = Callable[[Node], None]


class DualPass:
    """Rows ``[B, R]`` on their way to the input.

    Attributes:
        nodes: the network's nodes by name.
        batch, rows: B and R.
        constant: ``[B, R]``, what the pass has collected.
        pending: by node name the rows ``[B * R, *features]`` of a node that has not been reached yet.
    """

    def __init__(self, graph: Graph, batch: int, rows: int, like: Tensor, *, in_place: bool = False) -> None:
        """No rows yet: see :meth:`send`.

        Args:
            graph: the network.
            batch, rows: B and R.
            like: a tensor of the dtype and device to compute in.
            in_place: whether rows may be overwritten where nobody else reads them; not under autograd.
        """
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.batch, self.rows = batch, rows
        self.constant = like.new_zeros(batch, rows)
        self.pending: dict[str, Tensor] = {}
        self.in_place = in_place
        self._owned: set[str] = set()

    def send(self, name: str, v: Tensor, *, owned: bool = False) -> None:
        """Adds rows ``[B * R, *features]`` to those of a node; ``owned``: nobody else will read this tensor."""
        present = self.pending.get(name)
        if present is None:
            self.pending[name] = v
            if owned and self.in_place:
                self._owned.add(name)
        elif name in self._owned:
            present.add_(v)
        else:
            self.pending[name] = present + v
            if self.in_place:
                self._owned.add(name)

    def owns(self, name: str) -> bool:
        """Whether the pending rows of a node may be overwritten."""
        return name in self._owned

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        self.rows = len(index)
        self.constant = self.constant[:, index]
        for name, v in self.pending.items():
            kept = v.reshape(self.batch, -1, *v.shape[1:]).index_select(1, index).flatten(0, 1)
            self.pending[name] = restride(kept, v)
            if self.in_place:
                self._owned.add(name)

    def run(
        self, relu: Callable[[Node, Tensor, bool], Tensor | None], on_node: Visit = lambda node: None
    ) -> Tensor | None:
        """Carries the rows to the input.

        Args:
            relu: gives the rows at the input of a ReLU for those ``[B * R, *features]`` at its output, which it may
                overwrite where its third argument says so; while it runs they are still pending. None ends the pass.
            on_node: called before each node that has rows; may raise to stop the pass.

        Returns:
            The rows of the input ``[B * R, *input features]``; None where no row depends on it or the pass was ended.
        """
        for node in reversed(self.graph.nodes):
            if node.name not in self.pending:
                continue
            on_node(node)
            if isinstance(node.op, Input):
                break
            if isinstance(node.op, Relu):
                result = relu(node, self.pending[node.name], node.name in self._owned)
                if result is None:
                    return None
                self._take(node)
                self.send(node.inputs[0], result, owned=True)
            else:
                self._linear(node, *self._take(node))
        return self.pending.get(self.graph.nodes[0].name)

    def _take(self, node: Node) -> tuple[Tensor, bool]:
        v, owned = self.pending.pop(node.name), node.name in self._owned
        self._owned.discard(node.name)
        return v, owned

    def _linear(self, node: Node, v: Tensor, owned: bool) -> None:
        """A node that is affine in its inputs."""
        op = node.op
        if isinstance(op, Affine):
            shape = self.nodes[node.inputs[0]].shape
            if op.has_offset:
                constant = _constant(op, v, shape)
                if constant is not None:
                    self.constant = self.constant + constant.reshape(self.batch, -1)
            image = op.adjoint(v, shape)
            self.send(node.inputs[0], image, owned=owned or not _share(image, v))
        elif isinstance(op, Add):
            self.send(node.inputs[0], v)
            self.send(node.inputs[1], v if op.sign == 1 else -v, owned=op.sign != 1)
        elif isinstance(op, Concat):
            sizes = [self.nodes[name].shape[op.dim] for name in node.inputs]
            for name, part in zip(node.inputs, torch.split(v, sizes, dim=op.dim + 1), strict=True):
                self.send(name, part, owned=owned)
        else:
            raise NotImplementedError(f"dual pass: node {node.name!r} (op {op.kind}) has no adjoint")


def _share(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _constant(op: Affine, v: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """v . b, ``[B * R]``; None where b is zero."""
    if isinstance(op, Linear | Conv):
        if op.bias is None:
            return None
        if isinstance(op, Conv):
            return v.flatten(2).sum(2) @ op.bias
        return (v if v.dim() == 2 else v.flatten(1, -2).sum(1)) @ op.bias
    return v.reshape(len(v), -1) @ op.offset(shape, v).reshape(-1)


def flatten_rows(v: Tensor) -> tuple[Tensor, bool]:
    """``[M, *features]`` as a matrix ``[M, N]`` in the order of its memory, and whether channels come last in it.

    A view where v is contiguous in either order, else a copy.
    """
    if v.dim() == 4 and not v.is_contiguous() and v.is_contiguous(memory_format=torch.channels_last):
        return v.permute(0, 2, 3, 1).reshape(len(v), -1), True
    return v.reshape(len(v), prod(v.shape[1:])), False


def unflatten_rows(matrix: Tensor, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """The inverse of :func:`flatten_rows`, for features ``shape``."""
    if channels_last:
        c, h, w = shape
        return matrix.reshape(-1, h, w, c).permute(0, 3, 1, 2)
    return matrix.reshape(-1, *shape)


def restride(t: Tensor, like: Tensor) -> Tensor:
    """``t`` with its channels last in memory where those of ``like`` are."""
    last = like.dim() == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
    return t.contiguous(memory_format=torch.channels_last) if last else t
