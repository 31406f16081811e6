"""The sweep by definition: one dense generator for every symbol, every layer by its own ``linear``; no blocks.

Also how far two evaluations of it may differ by rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.domains import Zonotope
from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Linear,
    Node,
    Reduce,
    Relu,
    interpret,
)


@dataclass(frozen=True, eq=False)
class Generators:
    """A center ``[B, *features]`` and generators ``[B, K, *features]`` for each group of symbols, by origin."""

    center: Tensor
    groups: Mapping[str, Tensor]

    def bounds(self) -> tuple[Tensor, Tensor]:
        """c - r and c + r."""
        radius = sum((rows.abs().sum(1) for rows in self.groups.values()), torch.zeros_like(self.center))
        return self.center - radius, self.center + radius


def generators(zonotope: Zonotope) -> Generators:
    """A zonotope by its definition; groups with the same origin stand one after the other."""
    groups: dict[str, Tensor] = {}
    for block in zonotope.blocks:
        rows, name = block.dense(zonotope.features), block.symbols.origin
        groups[name] = torch.cat([groups[name], rows], 1) if name in groups else rows
    return Generators(zonotope.center, groups)


def propagate(graph: Graph, start: Generators, slopes: Mapping[str, Tensor] | None = None) -> Generators:
    """The sweep; with the slope u / (u - l) where ``slopes`` has none. Differentiable by autograd."""
    given = dict(slopes or {})

    def image(node: Node, values: tuple[Generators, ...]) -> Generators:
        op, x = node.op, values[0]
        if isinstance(op, Relu):
            return _relu(node, x, given.get(node.name))
        if isinstance(op, Affine):
            return Generators(op.apply(x.center), {name: _rows(op.linear, g) for name, g in x.groups.items()})
        assert isinstance(op, Add | Concat)
        names = dict.fromkeys(name for value in values for name in value.groups)
        groups = {}
        for name in names:
            count = next(value.groups[name].shape[1] for value in values if name in value.groups)
            zeros = (value.center.new_zeros(len(value.center), count, *value.center.shape[1:]) for value in values)
            groups[name] = _rows(
                op.apply, *(value.groups.get(name, zero) for value, zero in zip(values, zeros, strict=True))
            )
        return Generators(op.apply(*(value.center for value in values)), groups)

    return interpret(graph, start, image)


def _rows(apply: object, *rows: Tensor) -> Tensor:
    batch, count = rows[0].shape[:2]
    assert callable(apply)
    image = apply(*(r.flatten(0, 1) for r in rows))
    return image.reshape(batch, count, *image.shape[1:])


def _relu(node: Node, x: Generators, slope: Tensor | None) -> Generators:
    """lam G, and lam c + mu, and mu for every neuron that is unstable in some element of the batch."""
    low, high = x.bounds()
    crossing = (low < 0) & (high > 0)
    lower, upper = torch.where(crossing, low, -1.0), torch.where(crossing, high, 1.0)
    line = upper / (upper - lower) if slope is None else slope.expand(lower.shape)
    lam = torch.where(crossing, line, (low >= 0).to(low.dtype) * (high > 0))
    mu = torch.where(crossing, torch.maximum(-lower * line, upper * (1 - line)) / 2, 0.0)
    flat = mu.flatten(1)
    index = (flat != 0).any(0).nonzero().squeeze(1)
    new = torch.zeros(len(flat), len(index), flat.shape[1], dtype=flat.dtype)
    new = new.scatter(2, index.expand(len(flat), -1).unsqueeze(2), flat[:, index].unsqueeze(2))
    groups = {name: rows * lam.unsqueeze(1) for name, rows in x.groups.items()}
    return Generators(lam * x.center + mu, {**groups, node.name: new.reshape(*new.shape[:2], *mu.shape[1:])})


def gamma(n: int) -> float:
    """n u / (1 - n u) in float64: the relative error of a sum of n products, in any order."""
    u = torch.finfo(torch.float64).eps / 2
    return n * u / (1 - n * u)


def rounding(graph: Graph, layers: Mapping[str, tuple[Tensor, Tensor]], symbols: int) -> dict[str, Tensor]:
    """For every node a bound E ``[B, *features]``, to first order, of |c~ - c| + sum_k |G~_k - G_k|: what an evaluation
    in float64, in any order, is off the real sweep with slopes u / (u - l).

    ``layers`` bounds the value of every node, and ``symbols`` counts the symbols of the largest one. With m = |c| + r:

    * y = A x + b: E' = |A| E + gamma (|A| m + |b|), of as many terms as a row of A has, and two;
    * l, u are off by E + gamma_{K+2} m =: F. ReLU, dead: 0; active: F; crossing: the slope is off by F / d, which
      makes at most F of c and G (c <= r <= d / 2 where l, u cross), each of the two mu is off by F / 2 + F / 2, as
      |dmu/dl|, |dmu/du| <= 1/2; in all lam E + F + 2 F <= 4 F, and 8 u m for the roundings of the step itself.
    """
    errors: dict[str, Tensor] = {}
    sizes = {name: torch.maximum(low.abs(), high.abs()) for name, (low, high) in layers.items()}
    for node in graph.nodes:
        op, names = node.op, node.inputs
        if not names:
            errors[node.name] = torch.zeros_like(sizes[node.name])
            continue
        error, size = errors[names[0]], sizes[names[0]]
        if isinstance(op, Relu):
            low, high = layers[names[0]]
            error = error + gamma(symbols + 2) * size
            crossing = 4 * error + gamma(8) * size
            image = torch.where(high < -error, 0 * error, torch.where(low > error, error, crossing))
        elif isinstance(op, Affine):
            positive = _absolute(op)
            offset = op.offset(graph[names[0]].shape, size).abs() if op.has_offset else 0.0
            grown = positive.linear(size) + offset
            image = positive.linear(error) + gamma(_terms(op, graph[names[0]].shape) + 2) * grown
        else:
            assert isinstance(op, Add | Concat)
            plus = Add() if isinstance(op, Add) else op
            image = plus.apply(*(errors[name] for name in names))
            image = image + gamma(1) * plus.apply(*(sizes[name] for name in names))
        errors[node.name] = image
    return errors


def _absolute(op: Affine) -> Affine:
    """The operator with the magnitudes of its matrix."""
    fields = {name: getattr(op, name) for name in ("weight", "scale") if getattr(op, name, None) is not None}
    return dataclasses.replace(op, **{name: tensor.abs() for name, tensor in fields.items()})


def _terms(op: Affine, shape: tuple[int, ...]) -> int:
    """At least as many as a row of the operator's matrix has."""
    match op:
        case Conv() | Linear():
            return op.weight[0].numel()
        case ConvTranspose():
            return op.weight.numel()
        case AveragePool():
            return prod(op.kernel)
        case Reduce():
            return prod(shape)
    return 1
