"""Random piecewise linear operators, as the importers write them with affine maps and ReLUs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tests.verifier.graphs import Builder
from zonocuda.importers import lowering_piecewise as lowering
from zonocuda.importers.builder import GraphBuilder, Value

Numbers = Callable[..., Tensor]
Write = Callable[[random.Random, GraphBuilder, Value, Numbers], Value]


def append(b: Builder, rng: random.Random, numbers: Numbers) -> None:
    """One operator of the last value, as nodes of ``b``; ``numbers`` makes constants of a shape."""
    last, shape = b.nodes[-1], b.shape()
    if not shape:
        b.flat()
        last, shape = b.nodes[-1], b.shape()
    builder = GraphBuilder(last.name, shape, torch.float64, batched=True)
    rng.choice(OPERATORS)(rng, builder, builder.input, numbers)
    prefix = f"p{len(b.nodes)}/"
    names = {node.name: f"{prefix}{node.name}" for node in builder.emitted(1)}
    for node in builder.emitted(1):
        inputs = tuple(names.get(name, name) for name in node.inputs)
        part = node.part
        if part is not None:
            part = replace(part, inputs=tuple(names.get(name, name) for name in part.inputs))
        b.nodes.append(replace(node, name=names[node.name], inputs=inputs, part=part))


def _spread(rng: random.Random, x: Value) -> tuple[int, ...]:
    return tuple(extent if rng.random() < 0.5 else 1 for extent in x.shape)


def _leaky(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    slope = numbers(*_spread(rng, x)) if rng.random() < 0.5 else torch.tensor(rng.choice((0.01, 0.2, 0.0, 1.0, 3.0)))
    return lowering.leaky_relu(builder, "leaky", x, slope)


def _absolute(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    return lowering.absolute(builder, "absolute", x)


def _clip(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    """In some networks the limits are in the wrong order."""
    lower = None if rng.random() < 0.3 else numbers(*_spread(rng, x), scale=0.3)
    upper = None if rng.random() < 0.3 else numbers(*_spread(rng, x), scale=0.3).abs()
    if rng.random() < 0.2 and lower is not None:
        lower = torch.where(
            torch.rand(lower.shape, generator=torch.Generator().manual_seed(0)) < 0.5, lower, -torch.inf
        )
    return lowering.clip(builder, "clip", x, lower, upper)


def _extreme(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    """Of the value and others that are affine in it."""
    parts = [x]
    for i in range(rng.randint(1, 3)):
        shift = numbers(*_spread(rng, x), scale=0.5)
        parts.append(lowering.scale_shift(builder, f"branch{i}", x, numbers(*_spread(rng, x)), shift))
    return lowering.extreme(builder, "extreme", parts, rng.choice((1, -1)))


def _reduce(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    dims = tuple(rng.sample(range(len(x.shape)), rng.randint(1, len(x.shape))))
    return lowering.reduce_extreme(builder, "reduce", x, dims, rng.choice((1, -1)), rng.random() < 0.5)


def _pool(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    if not 2 <= len(x.shape) <= 4:
        return _reduce(rng, builder, x, numbers)
    if rng.random() < 0.2:
        out = tuple(rng.randint(1, extent) for extent in x.shape[1:])
        return lowering.adaptive_max_pool(builder, "pool", x, out)
    window = [_axis(rng, n) for n in x.shape[1:]]
    kernel, stride, pads, dilation, out = zip(*window, strict=True)
    return lowering.max_pool(builder, "pool", x, kernel, stride, pads, dilation, out)


def _axis(rng: random.Random, n: int) -> tuple[int, int, tuple[int, int], int, int]:
    """Kernel, stride, pads, dilation and results along an axis, each window with a position inside."""
    while True:
        kernel, stride, dilation = rng.randint(1, min(3, n)), rng.randint(1, 2), rng.choice((1, 1, 2))
        begin, end = rng.randint(0, kernel // 2), rng.randint(0, kernel // 2)
        reach = dilation * (kernel - 1) + 1
        out = (n + begin + end - reach) // stride + 1
        starts = [stride * i - begin for i in range(out)]
        if out > 0 and all(any(0 <= p < n for p in range(a, a + reach, dilation)) for a in starts):
            return kernel, stride, (begin, end), dilation, out


def _choose(rng: random.Random, builder: GraphBuilder, x: Value, numbers: Numbers) -> Value:
    condition = numbers(*_spread(rng, x)) > 0
    other: Value | Tensor = numbers(*_spread(rng, x))
    if rng.random() < 0.5:
        other = lowering.scale_shift(builder, "other", x, other, None)
    return lowering.choose(builder, "choice", condition, *((x, other) if rng.random() < 0.5 else (other, x)))


OPERATORS: tuple[Write, ...] = (_leaky, _absolute, _clip, _extreme, _reduce, _pool, _pool, _choose)
