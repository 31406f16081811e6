"""What a layer will cost: bytes and operations of the image of a zonotope, before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.domains import Block, Dense, Diagonal, Windowed, Zonotope
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.windowed import DENSE_SHARE
from zonocuda.graph import Add, Affine, AveragePool, Concat, Conv, Graph, Linear, Node, Op, Relu, Reshape, ScaleShift
from zonocuda.verifier.interval import Bounds, interval
from zonocuda.verifier.transform import allocates

SCRATCH_BYTES = 64 * 2**20
"""What a layer needs beside its image: chunks of it in other layouts."""


@dataclass(frozen=True)
class Cost:
    """Of one layer.

    Attributes:
        stored: bytes of the image, less what its inputs give up for it.
        peak: the most bytes in use while it is computed, beyond those before it.
        operations: additions and multiplications.
    """

    stored: int
    peak: int
    operations: int


@dataclass(frozen=True)
class _Part:
    """Of the image of one block: numbers that stay, numbers that are needed for a moment, operations."""

    numbers: int
    scratch: int = 0
    operations: int = 0


def forecast(node: Node, values: Sequence[Zonotope], in_place: bool) -> Cost:
    """The cost of a node for zonotopes at its inputs; ``in_place``: their memory is free for the image."""
    size = values[0].center.element_size()
    op = node.op
    stored = peak = operations = 0
    if isinstance(op, Add):
        parts = _sum(values[0], values[1], in_place)
        stored = sum(part.numbers for part in parts) * size
        peak = stored + max((part.scratch for part in parts), default=0) * size
        return Cost(stored, peak + SCRATCH_BYTES, sum(part.operations for part in parts))
    for value in values:
        for block in value.blocks:
            part = _image(op, block, value.features, node.shape, in_place)
            peak = max(peak, stored + (part.numbers + part.scratch) * size)
            stored += part.numbers * size
            operations += part.operations
            if in_place and allocates(op):
                stored -= block_bytes(block)
    return Cost(stored, peak + SCRATCH_BYTES, operations)


def block_bytes(block: Block) -> int:
    """Bytes of a block's generators."""
    return sum(tensor.nbytes for tensor in block.tensors)


def _rows(block: Block) -> int:
    """Generators of all batch elements."""
    return int(next(iter(block.tensors)).shape[0]) * block.symbols.count


def _image(op: Op, block: Block, features: tuple[int, ...], shape: tuple[int, ...], in_place: bool) -> _Part:
    rows, numbers = _rows(block), sum(tensor.numel() for tensor in block.tensors)
    dense = rows * prod(features)
    match op:
        case Conv(stride=(sy, sx), padding=(p, q), dilation=(dy, dx)):
            kernel = (op.weight.shape[2], op.weight.shape[3])
            how = Convolution(kernel, (sy, sx), (p, q), (dy, dx), op.groups)
            return _convolution(block, rows, features, op.weight.shape, how)
        case AveragePool(kernel=(ky, kx), stride=(sy, sx)) if len(features) == 3:
            how = Convolution.pooling((ky, kx), (sy, sx), features[0])
            return _convolution(block, rows, features, torch.Size((features[0], 1, ky, kx)), how)
        case Linear():
            work = 0 if isinstance(block, Diagonal) else 2 * rows * prod(features) * op.weight.shape[0]
            return _Part(rows * prod(shape), 0, work)
        case ScaleShift() | Relu():
            return _Part(0 if in_place else numbers, 0, numbers)
        case Reshape():
            return _Part(0)
        case Affine() | Concat():
            scratch = 0 if isinstance(block, Dense) else dense
            return _Part(rows * prod(shape), scratch, 2 * rows * prod(shape))
    raise NotImplementedError(f"forecast: op {op.kind}")


def _convolution(block: Block, rows: int, features: tuple[int, ...], weight: torch.Size, how: Convolution) -> _Part:
    size = how.output_size((features[1], features[2]))
    full, per_number = weight[0] * prod(size), 2 * prod(weight[1:])
    window = (1, 1) if isinstance(block, Diagonal) else None
    if isinstance(block, Windowed) and block.is_map(features):
        window = block.window
    if window is None:
        return _Part(rows * full, 0 if isinstance(block, Dense) else rows * prod(features), rows * full * per_number)
    extent = how.output_window(window)
    patch = weight[0] * prod(extent)
    work = 0 if isinstance(block, Diagonal) else rows * patch * per_number
    if prod(extent) > DENSE_SHARE * prod(size):
        return _Part(rows * full, rows * patch, work)
    return _Part(rows * patch, 0, work)


def _sum(a: Zonotope, b: Zonotope, in_place: bool) -> list[_Part]:
    """The blocks that a sum makes; what only one side has stays where it is."""
    theirs = {id(block.symbols): block for block in b.blocks}
    parts: list[_Part] = []
    for block in a.blocks:
        match = theirs.get(id(block.symbols))
        if match is None or (isinstance(block, Diagonal) and isinstance(match, Diagonal)):
            continue
        rows, full = _rows(block), _rows(block) * prod(a.features)
        if isinstance(block, Dense) or isinstance(match, Dense):
            both = isinstance(block, Dense) and isinstance(match, Dense)
            parts.append(_Part(0 if in_place else full, 0 if both else full, full))
        else:
            hull = rows * a.features[0] * _hull(block, match) if len(a.features) == 3 else full
            parts.append(_Part(min(hull, full), min(hull, full), full))
    return parts


def _hull(a: Block, b: Block) -> int:
    """At most the positions of the hull of two blocks' windows: those of one that begins where the other ends."""
    windows = [block.window if isinstance(block, Windowed) else (1, 1) for block in (a, b)]
    return prod(max(m, n) + min(m, n) for m, n in zip(*windows, strict=True))


class Work:
    """Operations of a network for one row, forward or backward, by node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.of_node = {node.name: _row_operations(node, graph) for node in graph.nodes}
        before: dict[str, frozenset[str]] = {}
        for node in graph.nodes:
            before[node.name] = frozenset({node.name}).union(*(before[name] for name in node.inputs))
        self.until = {name: sum(self.of_node[n] for n in names) for name, names in before.items()}

    def forward(self, position: int, symbols: int, share: float) -> float:
        """Of the rest of a forward sweep from node number ``position`` on with ``symbols`` symbols, if ``share`` of the
        neurons of every later ReLU are unstable."""
        total, count = 0.0, float(symbols)
        for node in self.graph.nodes[position:]:
            total += count * self.of_node[node.name]
            if isinstance(node.op, Relu):
                count += share * prod(node.shape)
        return total

    def dual(self, position: int, known: Callable[[str], Bounds]) -> float:
        """Of dual passes for the rest of the network from node number ``position`` on: one row for each neuron whose
        sign intervals leave open, and one for each output.

        Args:
            position: of the first node to come.
            known: bounds ``[B, *features]`` of the value of an earlier node, by name.
        """
        ranges: dict[str, Bounds] = {}
        total = float(self.until[self.graph.output] * prod(self.graph.output_shape))
        for node in self.graph.nodes[position:]:
            values = []
            for name in node.inputs:
                if name not in ranges:
                    ranges[name] = known(name)
                values.append(ranges[name])
            if isinstance(node.op, Relu):
                lower, upper = values[0]
                total += int(undecided(lower, upper).sum()) * self.until[node.inputs[0]]
                ranges[node.name] = (lower.clamp(min=0), upper.clamp(min=0))
            else:
                ranges[node.name] = interval(node, values)
        return total


def undecided(lower: Tensor, upper: Tensor) -> Tensor:
    """Places ``[N]`` where the sign is open in some batch element; a NaN is open."""
    return (~((lower >= 0) | (upper <= 0))).flatten(1).any(0)


def _row_operations(node: Node, graph: Graph) -> int:
    """Of one row at a node; an elementwise pass counts as eight operations a number, as it is bound by memory."""
    op, numbers = node.op, prod(node.shape)
    if isinstance(op, Linear):
        return 2 * numbers * op.weight.shape[1]
    if isinstance(op, Conv):
        return 2 * numbers * prod(op.weight.shape[1:])
    if isinstance(op, Reshape):
        return 0
    return 8 * numbers
