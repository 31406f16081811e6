"""Rows of the dual pass while they are windows: a neuron of a map depends on a small window of the maps before it.

A row of a neuron begins as one number on its map. Going backwards, a convolution spreads its window, an activation
scales it, and the branches of a sum take it to two maps. Only where a window has grown past its share of a map, or a
layer knows no windows, does the row need the whole map (:mod:`zonocuda.bounds.dual.dual_pass` goes on from there).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import Visit
from zonocuda.bounds.interval import Bounds, middle_and_radius
from zonocuda.bounds.rounding.arithmetic import counted_products
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rounding.tally import Measure, tally
from zonocuda.bounds.transform import geometry
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed, kernels
from zonocuda.domains.blocks import add_blocks
from zonocuda.domains.maps import progression
from zonocuda.domains.windowed import is_wide
from zonocuda.graph import Add, Cast, Concat, Conv, Gather, Graph, Node, ScaleShift
from zonocuda.relaxations import has_rule


class WindowRows:
    """Rows ``[B, R]`` on their way to the input, as windows.

    Attributes:
        rows: R.
        constant: ``[B, R]``, what the offsets of affine nodes have added.
        pending: by node name the rows of a node that has not been reached yet.
        tally: what rounding has cost so far, where that is counted.
    """

    def __init__(
        self, graph: Graph, node: Node, index: Tensor, batch: int, like: Tensor, ledger: Ledger | None = None
    ) -> None:
        """The unit vectors of chosen neurons (flattened positions ``index``) of a node with a map ``[C, H, W]``."""
        channels, height, width = node.shape
        self.nodes = graph.by_name
        self.graph, self.rows = graph, len(index)
        self.constant = like.new_zeros(batch, len(index))
        self.tally = tally(ledger, self.constant)
        position = index % (height * width)
        corners = torch.stack([position // width, position % width], 1)
        patches = like.new_zeros(len(index), channels)
        patches[torch.arange(len(index), device=like.device), index // (height * width)] = 1
        patches = patches.expand(batch, -1, -1).contiguous().reshape(batch, len(index), channels, 1, 1)
        unit = Windowed(Symbols(len(index)), patches, corners, (height, width))
        self.pending: dict[str, Windowed | Dense] = {node.name: unit}

    def keep(self, index: Tensor) -> None:
        """Goes on with the rows ``index`` alone."""
        symbols = Symbols(len(index))
        self.rows = len(index)
        self.constant = self.constant[:, index]
        self.tally.keep(index)
        for name, block in self.windows().items():
            patches = block.patches.index_select(1, index)
            self.pending[name] = replace(block, symbols=symbols, patches=patches, corners=block.corners[index])

    def windows(self) -> dict[str, Windowed]:
        """The pending rows; while an activation is handled all of them are windows."""
        return {name: block for name, block in self.pending.items() if isinstance(block, Windowed)}

    def run(self, activation: Callable[[Node, Windowed], Windowed | None], on_node: Visit) -> bool:
        """Carries the rows backwards as far as they are windows.

        Args:
            activation: gives the rows at the input of an activation for those at its output, which are still pending
                while it runs. None ends the pass.
            on_node: called before each node that has rows; may raise to stop the pass.

        Returns:
            Whether rows are left; they are in ``pending``.
        """
        with counted_products(() if self.tally.ledger is None else self.graph.nodes):
            return self._run(activation, on_node)

    def _run(self, activation: Callable[[Node, Windowed], Windowed | None], on_node: Visit) -> bool:
        for node in reversed(self.graph.nodes):
            block = self.pending.get(node.name)
            if block is None:
                continue
            if not isinstance(block, Windowed) or is_wide(block.window, block.size) or not self._passes(node):
                return True
            on_node(node)
            if has_rule(node):
                scaled = activation(node, block)
                if scaled is None:
                    return False
                del self.pending[node.name]
                self.tally.sent(node.inputs[0], scaled, node.inputs[0] not in self.pending)
                self._send(node.inputs[0], scaled)
            else:
                del self.pending[node.name]
                self._linear(node, block)
            if any(not isinstance(rows, Windowed) for rows in self.pending.values()):
                return True
        return True

    def dense(self, name: str) -> Tensor:
        """The rows of a node as ``[B * R, *features]``."""
        return self.pending[name].dense(self.nodes[name].shape).flatten(0, 1)

    def _passes(self, node: Node) -> bool:
        """Whether windows go through a node as windows."""
        op = node.op
        if isinstance(op, Conv):
            return len(op.stride) == 2
        if isinstance(op, ScaleShift):
            return all(t is None or (t.dim() <= 3 and t.shape[-2:].numel() == 1) for t in (op.scale, op.shift))
        if isinstance(op, Gather):
            return op.dim > 0 and len(node.shape) == 3 and progression(op.index) > 0
        if isinstance(op, Concat):
            return op.dim > 0 and len(node.shape) == 3
        return has_rule(node) or isinstance(op, Add | Cast)

    def add(self, value: Tensor) -> None:
        """Adds ``value`` ``[B, R]`` to the constant."""
        self.constant = self.constant + value
        self.tally.constant(self.constant)

    def _linear(self, node: Node, block: Windowed) -> None:
        op = node.op
        if isinstance(op, Concat):
            self._parts(node, op.dim - 1, block)
            return
        note = self.tally.sum if isinstance(op, Add) else self.tally.linear
        note(node, window_measure(block))
        if isinstance(op, Conv):
            if op.bias is not None:
                self.add(block.sums() @ op.bias)
            _, height, width = self.nodes[node.inputs[0]].shape
            self._send(node.inputs[0], block.convolve_adjoint(op.weight, geometry(op), (height, width)))
        elif isinstance(op, ScaleShift):
            if op.shift is not None:
                shift = op.shift.reshape(-1).expand(block.map[0])
                self.add(block.sums() @ shift)
            scaled = block if op.scale is None else replace(block, patches=block.patches * op.scale)
            self._send(node.inputs[0], scaled)
        elif isinstance(op, Cast):
            self._send(node.inputs[0], block)
        elif isinstance(op, Gather):
            _, height, width = self.nodes[node.inputs[0]].shape
            spread = block.every_adjoint(op.dim - 1, op.index[0], progression(op.index), (height, width))
            self._send(node.inputs[0], spread)
        elif isinstance(op, Add):
            self._send(node.inputs[0], block)
            self._send(node.inputs[1], block if op.sign == 1 else replace(block, patches=-block.patches))

    def _parts(self, node: Node, axis: int, block: Windowed) -> None:
        """Rows of a concatenation along rows (``axis`` 0) or columns."""
        begin, whole = 0, node.shape[axis + 1]
        for name in node.inputs:
            extent = self.nodes[name].shape[axis + 1]
            cut, none = (-begin, begin + extent - whole), (0, 0)
            self._send(name, block.pad(*((cut, none) if axis == 0 else (none, cut))))
            begin += extent

    def _send(self, name: str, block: Windowed) -> None:
        """Adds rows to those of a node."""
        present = self.pending.get(name)
        if present is None:
            self.pending[name] = block
            return
        total = add_blocks(present, block, self.nodes[name].shape)
        assert not isinstance(total, Diagonal)
        self.pending[name] = total
        self.tally.meeting(name, _measure(total), _measure(present))


def _measure(block: Windowed | Dense) -> Measure:
    """sum |v| values of every row, for values ``[B, C, H, W]``."""
    return window_measure(block) if isinstance(block, Windowed) else dense_measure(block.generators)


def window_measure(block: Windowed) -> Measure:
    """sum |v| values of every row, for values ``[B, C, H, W]``."""
    return lambda values: window_sums(replace(block, patches=block.patches.abs()), values)


def dense_measure(rows: Tensor) -> Measure:
    """sum |v| values of rows ``[B, R, C, H, W]``, for values ``[B, C, H, W]``."""
    return lambda values: (rows.abs() * values.unsqueeze(1)).flatten(2).sum(2)


def window_sums(block: Windowed, values: Tensor) -> Tensor:
    """``[B, R]``, the sum of every row times ``values`` ``[B, C, H, W]``."""
    scaled: Tensor = kernels().window_scale(block.patches, block.corners, values)
    return scaled.sum((2, 3, 4))


def window_extremes(block: Windowed, ends: Bounds) -> Bounds:
    """The least and the largest rows . y, ``[B, R]``, for bounds ``[B, C, H, W]`` of y."""
    middle, radius = middle_and_radius(ends)
    value, spread = window_sums(block, middle), window_sums(replace(block, patches=block.patches.abs()), radius)
    return value - spread, value + spread
