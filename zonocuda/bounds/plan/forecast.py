"""What a layer will cost: bytes and operations of the image of a zonotope, before anything is allocated."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from zonocuda.bounds.interval import Bounds, interval, unsettled
from zonocuda.bounds.transform import allocates, geometry
from zonocuda.domains import Block, Dense, Diagonal, Hosted, Windowed, Zonotope, maps, memory
from zonocuda.domains.blocks import Holders, as_windows, pieces, present
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.hosted import Stored
from zonocuda.domains.windowed import hull, is_convolved_dense, is_wide
from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Cast,
    Concat,
    Conv,
    Gather,
    Graph,
    Input,
    Linear,
    Node,
    Reshape,
    ScaleShift,
)
from zonocuda.relaxations import has_rule, rule_of

SCRATCH_BYTES = 64 * 2**20
"""What a layer needs beside its image: chunks of it in other layouts."""


@dataclass(frozen=True)
class Part:
    """What a layer makes of one block.

    Attributes:
        stored: bytes of the image, in new memory; 0 where it takes the block's place.
        scratch: bytes that are needed for a moment beside it.
        freed: bytes of the block that are free when its image is there.
        operations: additions and multiplications.
        hosted: bytes of the image in new host memory.
        host_freed: bytes in host memory that are free when its image is there.
    """

    stored: int
    scratch: int = 0
    freed: int = 0
    operations: int = 0
    hosted: int = 0
    host_freed: int = 0

    def on_host(self, needed: int, freed: int) -> Part:
        """The same for an image that is kept in host memory: ``needed`` bytes on the device for a moment."""
        return Part(0, needed, 0, self.operations, self.stored, freed)


def forecast(node: Node, values: Sequence[Zonotope], in_place: bool, on_host: bool = False) -> list[Part]:
    """What a node will make of its inputs' blocks, one after another.

    Args:
        node: the node.
        values: the values of its inputs.
        in_place: the inputs' memory is free for the result.
        on_host: images are kept in host memory.
    """
    if isinstance(node.op, Add):
        negated = [] if node.op.sign == 1 else [_negated(block, in_place, on_host) for block in values[1].blocks]
        return [*negated, *_sum(values[0], values[1], in_place, on_host)]
    parts = []
    for value in values:
        holders = Holders(value.blocks)
        for block in value.blocks:
            part = _image(node, present(block), value.features, in_place)
            copy = _copy_bytes(block)
            takes_place = _is_elementwise(node) or isinstance(node.op, ScaleShift)  # of the copy
            if takes_place and copy:
                part = part.on_host(copy, 0) if on_host else part
            elif on_host and not isinstance(node.op, Reshape | Cast):
                free = in_place and allocates(node.op) and copy and holders.leave(block)
                part = part.on_host(copy + part.stored + part.scratch, _storage_bytes(block) if free else 0)
            elif copy and not isinstance(node.op, Reshape | Cast):
                part = replace(part, scratch=part.scratch + copy)
            parts.append(part)
    return [*parts, *_overlaps(node, values, on_host)] if isinstance(node.op, Concat) else parts


def host_peak_bytes(parts: Sequence[Part]) -> int:
    """The most bytes in host memory that the parts of a layer will take beyond those in use."""
    level = peak = 0
    for part in parts:
        level += part.hosted
        peak = max(peak, level)
        level -= part.host_freed
    return peak


def peak_bytes(parts: Sequence[Part], pool: memory.Pool) -> int:
    """The most bytes that the parts of a layer will take beyond those in use, the pool's free ones among these.

    Follows :class:`zonocuda.domains.memory.Pool`: an image takes a free buffer that fits, else new memory; what is
    freed goes to the pool up to its limit.
    """
    free = sorted(buffer.nbytes for buffer in pool.free)
    level = peak = 0
    for part in parts:
        fitting = next((size for size in free if part.stored <= size <= 2 * part.stored), None)
        if part.stored and fitting is not None:
            free.remove(fitting)
        else:
            level += part.stored
        peak = max(peak, level + part.scratch)
        if part.freed and sum(free) + part.freed <= pool.limit:
            insort(free, part.freed)
        else:
            level -= part.freed
    return peak + SCRATCH_BYTES


def block_bytes(block: Block) -> int:
    """Bytes of a block's generators on the device."""
    return sum(tensor.nbytes for tensor in block.tensors)


def _copy_bytes(block: Block) -> int:
    """Bytes on the device of what is fetched of a block; none where it lies there."""
    return block_bytes(block.block) if isinstance(block, Hosted) else 0


def _storage_bytes(block: Block) -> int:
    """Bytes of the storage that a block lies in."""
    return sum(tensor.untyped_storage().nbytes() for tensor in present(block).tensors)


def _image(node: Node, block: Stored, features: tuple[int, ...], in_place: bool) -> Part:
    op = node.op
    each = next(iter(block.tensors)).element_size()
    rows = int(next(iter(block.tensors)).shape[0]) * block.symbols.count
    own = block_bytes(block)
    freed = own if in_place and not isinstance(block, Diagonal) else 0
    outputs = rows * prod(node.shape)
    undense = 0 if isinstance(block, Dense) else rows * prod(features) * each
    match op:
        case Conv() if len(features) == 3:
            numbers, work = _convolution(block, rows, features, op.weight.shape, geometry(op))
            windows = isinstance(block, Windowed) and not block.is_map(features)
            return Part(numbers * each, undense if windows else 0, freed, work)
        case AveragePool(kernel=(ky, kx), stride=(sy, sx)) if len(features) == 3:
            how = Convolution.pooling((ky, kx), (sy, sx), features[0])
            numbers, work = _convolution(block, rows, features, torch.Size((features[0], 1, ky, kx)), how)
            return Part(numbers * each, 0, freed, work)
        case Linear():
            work = 0 if isinstance(block, Diagonal) else 2 * rows * prod(features) * op.weight.shape[0]
            return Part(outputs * each, 0, freed, work)
        case _ if _is_elementwise(node) or isinstance(op, ScaleShift):
            return Part(0 if in_place or isinstance(block, Diagonal) else own, 0, 0, rows * prod(features))
        case Reshape() | Cast():
            return Part(0)
        case Gather(dim=dim, index=index) if maps.keeps_windows(block, features, dim, index):
            window = list(block.window) if isinstance(block, Windowed) else [1, 1]
            window[dim - 1] = -(-window[dim - 1] // maps.progression(index))
            numbers = rows * features[0] * prod(window)
            return Part(numbers * each, numbers * each, 0, 2 * numbers)
        case _ if has_rule(node):  # scaled, and summed into new memory
            scaled = undense + (0 if in_place else own)
            return Part(outputs * each, scaled, 0, 2 * rows * prod(features))
        case Affine() | Concat():
            kept = freed if allocates(op) else 0
            return Part(outputs * each, undense, kept, 2 * outputs)
    raise NotImplementedError(f"forecast: op {op.kind}")


def _is_elementwise(node: Node) -> bool:
    """Whether a node is an activation of single numbers, whose image may take its input's place."""
    return has_rule(node) and rule_of(node).terms == 1


def _convolution(
    block: Stored, rows: int, features: tuple[int, ...], weight: torch.Size, how: Convolution
) -> tuple[int, int]:
    """Numbers of a convolution's image of a block, and operations."""
    size = how.output_size((features[1], features[2]))
    full, per_number = weight[0] * prod(size), 2 * prod(weight[1:])
    window = (1, 1) if isinstance(block, Diagonal) else None
    if isinstance(block, Windowed) and block.is_map(features):
        window = None if is_convolved_dense(block.window, block.size, how) else block.window
    if window is None:
        return rows * full, rows * full * per_number
    extent = how.output_window(window)
    patch = weight[0] * prod(extent)
    work = 0 if isinstance(block, Diagonal) else rows * patch * per_number
    return rows * (full if is_wide(extent, size) else patch), work


def _negated(block: Block, in_place: bool, on_host: bool) -> Part:
    """A block of what is subtracted: in its place, or a copy."""
    size = 0 if in_place or isinstance(block, Diagonal) else block_bytes(present(block))
    part = Part(size, 0, 0, block_bytes(present(block)) // next(iter(present(block).tensors)).element_size())
    return part.on_host(_copy_bytes(block) or size, 0) if on_host else part


def _sum(a: Zonotope, b: Zonotope, in_place: bool, on_host: bool) -> list[Part]:
    """The blocks that a sum makes; what only one side has stays where it is, the parts of what was cut apart."""
    apart = sum(block_bytes(block) for z in (a, b) for block in z.blocks if _is_taken_apart(block))
    parts = [Part(apart)] if apart else []
    ours, theirs = ([piece for block in z.blocks for piece in pieces(block)] for z in (a, b))
    holders = Holders([*ours, *theirs])
    matches = {id(block.symbols): block for block in theirs}
    for block in ours:
        match = matches.get(id(block.symbols))
        if match is None:
            continue
        x, y = present(block), present(match)
        if isinstance(x, Diagonal) and isinstance(y, Diagonal) and torch.equal(x.index, y.index):
            continue
        copies = _copy_bytes(block), _copy_bytes(match)
        part = _sum_of(x, y, a.features, in_place and not on_host)
        if on_host:
            beside = _sum_of(x, y, a.features, in_place or all(copies))  # or in the place of a copy
            hosted = [term for term, copy in zip((block, match), copies, strict=True) if copy and in_place]
            freed = sum(_storage_bytes(term) for term in hosted if holders.leave(term))
            part = part.on_host(sum(copies) + beside.stored + beside.scratch, freed)
        else:
            part = replace(part, scratch=part.scratch + sum(copies))
        parts.append(part)
    return parts


def _overlaps(node: Node, values: Sequence[Zonotope], on_host: bool) -> list[Part]:
    """What a concatenation makes beside the images of its inputs: sums of those of the same symbols."""
    seen: set[int] = set()
    parts = []
    for value in values:
        for symbols in (piece.symbols for block in value.blocks for piece in pieces(block)):
            if id(symbols) in seen:
                full = len(value.center) * symbols.count * prod(node.shape) * value.center.element_size()
                part = Part(full, 0, 0, full // value.center.element_size())
                parts.append(part.on_host(3 * full, 0) if on_host else part)
            seen.add(id(symbols))
    return parts


def _is_taken_apart(block: Block) -> bool:
    return isinstance(block, Dense | Windowed) and block.symbols.parts is not None


def _sum_of(x: Stored, y: Stored, features: tuple[int, ...], in_place: bool) -> Part:
    """The block that a sum makes of two of the same symbols."""
    each = next(iter(x.tensors)).element_size()
    full = int(next(iter(x.tensors)).shape[0]) * x.symbols.count * prod(features) * each
    if isinstance(x, Dense) or isinstance(y, Dense):
        both = isinstance(x, Dense) and isinstance(y, Dense)
        other = min(block_bytes(x), block_bytes(y)) if not both else full
        return Part(0 if in_place else full, 0 if both else full, other if in_place else 0, full // each)
    freed = sum(block_bytes(block) for block in (x, y) if not isinstance(block, Diagonal)) if in_place else 0
    windows = [as_windows(block, features) for block in (x, y)]
    stored = full
    if windows[0] is not None and windows[1] is not None and windows[0].map == windows[1].map:
        extent = hull(windows[0], windows[1])[1]
        share = 1.0 if is_wide(extent, windows[0].size) else prod(extent) / prod(windows[0].size)
        stored = int(full * share)
    return Part(stored, 0, freed, stored // each)


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
        neurons of every later activation are unstable."""
        total, count = 0.0, float(symbols)
        for node in self.graph.nodes[position:]:
            total += count * self.of_node[node.name]
            if has_rule(node):
                count += share * prod(node.shape)
        return total

    def dual(self, position: int, known: Callable[[str], Bounds]) -> float:
        """Of dual passes for the rest of the network from node number ``position`` on: one row for each neuron that
        intervals leave unsettled, and one for each output.

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
            if has_rule(node):
                total += int(unsettled(node, *values[0]).sum()) * self.until[node.inputs[0]]
            ranges[node.name] = interval(node, values)
        return total


def _row_operations(node: Node, graph: Graph) -> int:
    """Of one row at a node; an elementwise pass counts as eight operations a number, as it is bound by memory."""
    op, numbers = node.op, prod(node.shape)
    if isinstance(op, Linear):
        return 2 * numbers * op.weight.shape[1]
    if isinstance(op, Conv):
        return 2 * numbers * prod(op.weight.shape[1:])
    if isinstance(op, Reshape | Cast):
        return 0
    if isinstance(op, Input | Affine | Add | Concat) or has_rule(node):
        return 8 * numbers
    raise NotImplementedError(f"forecast: node {node.name!r} (op {op.kind}) has no count of operations")
