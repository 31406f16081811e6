"""The yardstick of the sweeps: the minimum-area zonotope sweep in plain torch, dense, and written for speed.

A value is one tensor ``[1 + K, *features]``: the center, and below it a row for each symbol. An affine layer is one
``addmm`` or ``conv2d`` for all of them. A ReLU sums the magnitudes of the rows, scales them, and appends one row for
each unstable neuron; no loop runs over neurons. Where a value is not read again, it is scaled in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.graph import Add, Affine, Graph, Input, Relu

Bounds = tuple[Tensor, Tensor]
SUM_BYTES = 2**20  # magnitudes are summed over so many rows at a time that their temporary stays in the cache


@dataclass(frozen=True, eq=False)
class DenseZonotope:
    """``rows`` ``[1 + K, *features]``; ``groups``: the symbols in order, as (the ReLU that made them, how many)."""

    rows: Tensor
    groups: tuple[tuple[str, int], ...]

    def radius(self) -> Tensor:
        """The sum of the magnitudes of the generators."""
        step = max(1, SUM_BYTES // max(1, self.rows[0].nbytes))
        radius = torch.zeros_like(self.rows[0])
        for part in self.rows[1:].split(step):
            radius += part.abs().sum(0)
        return radius

    def bounds(self) -> Bounds:
        """The smallest box around it."""
        radius = self.radius()
        return self.rows[0] - radius, self.rows[0] + radius


def dense_sweep(graph: Graph, lower: Tensor, upper: Tensor) -> Bounds:
    """Bounds of the network's output ``[*output features]`` for inputs in the box [lower, upper] of one input.

    Raises:
        NotImplementedError: a node that is neither affine nor a ReLU nor an addition.
    """
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    uses[graph.output] += 1
    values: dict[str, DenseZonotope] = {}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                del values[name]
        if isinstance(node.op, Input):
            values[node.name] = box(lower, upper)
        elif isinstance(node.op, Relu):
            x = inputs.pop()
            values[node.name] = relu(x, node.name, in_place=not is_shared(x, values))
        elif isinstance(node.op, Add):
            a, b = inputs
            values[node.name] = add(a, b, node.op.sign, in_place=not is_shared(a, values))
        elif isinstance(node.op, Affine):
            x = inputs.pop()
            rows = node.op.linear(x.rows)
            if node.op.has_offset:
                rows[:1] = node.op.apply(x.rows[:1])
            values[node.name] = DenseZonotope(rows, x.groups)
        else:
            raise NotImplementedError(f"yardstick: node {node.name!r} (op {node.op.kind}) is not supported")
    return values[graph.output].bounds()


def is_shared(x: DenseZonotope, values: Mapping[str, DenseZonotope]) -> bool:
    """Whether a value that will be read again lies in the same memory, as a reshaped one does."""
    memory = x.rows.untyped_storage().data_ptr()
    return any(value.rows.untyped_storage().data_ptr() == memory for value in values.values())


def box(lower: Tensor, upper: Tensor) -> DenseZonotope:
    """One symbol for each feature."""
    count = lower.numel()
    rows = torch.zeros(1 + count, count)
    rows[0] = ((lower + upper) / 2).flatten()
    rows[1:].diagonal().copy_(((upper - lower) / 2).flatten())
    return DenseZonotope(rows.reshape(1 + count, *lower.shape), (("", count),))


def relu(x: DenseZonotope, name: str, in_place: bool) -> DenseZonotope:
    """The minimum-area relaxation: lam = u / (u - l) and mu = -lam l / 2 where l < 0 < u."""
    lower, upper = x.bounds()
    unstable = (lower < 0) & (upper > 0)
    slope = torch.where(unstable, upper / (upper - lower), (lower >= 0).to(lower.dtype))
    offset = torch.where(unstable, -slope * lower / 2, 0)
    index = unstable.flatten().nonzero().squeeze(1)
    if in_place and not len(index):
        rows = x.rows.mul_(slope)
    else:
        rows = torch.empty(len(x.rows) + len(index), *lower.shape)
        torch.mul(x.rows, slope, out=rows[: len(x.rows)])
        errors = rows[len(x.rows) :].zero_()
        errors.view(len(index), -1)[torch.arange(len(index)), index] = offset.flatten()[index]
    rows[0] += offset
    return DenseZonotope(rows, (*x.groups, (name, len(index))))


def add(a: DenseZonotope, b: DenseZonotope, sign: int, in_place: bool) -> DenseZonotope:
    """a + sign b: rows of common symbols are added, the others appended."""
    common = 0
    while common < min(len(a.groups), len(b.groups)) and a.groups[common] == b.groups[common]:
        common += 1
    shared = 1 + sum(count for _, count in a.groups[:common])
    if common == len(b.groups):  # all that b has: the usual residual block
        rows = a.rows if in_place else a.rows.clone()
        rows[:shared].add_(b.rows, alpha=sign)
        return DenseZonotope(rows, a.groups)
    if common == len(a.groups):
        rows = b.rows * sign
        rows[:shared].add_(a.rows)
        return DenseZonotope(rows, b.groups)
    head = torch.add(a.rows[:shared], b.rows[:shared], alpha=sign)
    rows = torch.cat([head, a.rows[shared:], sign * b.rows[shared:]])
    return DenseZonotope(rows, (*a.groups, *b.groups[common:]))
