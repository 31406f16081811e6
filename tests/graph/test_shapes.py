"""Rules of output shapes say what torch finds by running the operator without data, or nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    AveragePool,
    Cast,
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Linear,
    Op,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.graph.ops import Shape
from zonocuda.graph.shapes import output_shape, rule, run_without_data

Case = tuple[Op, list[Shape]]


def held(*shape: int) -> Tensor:
    return torch.zeros(shape)


def features(r: random.Random, rank: int | None = None, most: int = 5) -> Shape:
    return tuple(r.randint(1, most) for _ in range(r.randint(0, 3) if rank is None else rank))


def broadcast(r: random.Random, shape: Shape) -> Tensor:
    last = shape[r.randint(0, len(shape)) :]
    return held(*(n if r.random() < 0.7 else r.choice([1, n + 1]) for n in last))


def linear(r: random.Random) -> Case:
    out, shape = r.randint(1, 4), features(r)
    wanted = shape[-1] if shape and r.random() < 0.8 else r.randint(1, 4)
    bias = r.choice([None, held(out), held(1), held(out + 1)])
    return Linear(held(out, wanted), bias), [shape]


def convolution(r: random.Random) -> Case:
    axes, groups = r.randint(1, 3), r.choice([1, 1, 2])
    channels = groups * r.randint(1, 2) if r.random() < 0.9 else r.randint(1, 4)
    each, out = max(1, channels // groups), groups * r.randint(1, 2)
    rank = axes + 1 if r.random() < 0.9 else axes
    shape = (channels, *features(r, rank - 1, 7))
    pads = tuple((r.choice([0, 0, 1, 2]), r.choice([0, 0, 1, -1])) for _ in range(axes))
    stride, dilation = (tuple(r.randint(1, 3) for _ in range(axes)) for _ in range(2))
    weight = held(out, each, *features(r, axes, 3))
    return Conv(weight, r.choice([None, held(out)]), stride, pads, dilation, groups), [shape]


def pool(r: random.Random) -> Case:
    axes = r.randint(1, 3)
    kernel, stride = (tuple(r.randint(1, 3) for _ in range(axes)) for _ in range(2))
    return AveragePool(kernel, stride), [features(r, axes + 1 if r.random() < 0.9 else axes + 2, 6)]


def reduction(r: random.Random) -> Case:
    shape = features(r, r.randint(1, 4))
    dims = tuple(sorted(r.sample(range(len(shape)), r.randint(1, len(shape)))))
    return Reduce(dims if r.random() < 0.9 else (len(shape),), r.random() < 0.5, r.random() < 0.5), [shape]


def expansion(r: random.Random) -> Case:
    target = features(r, r.randint(1, 4))
    shape = tuple(n if r.random() < 0.5 else 1 for n in target[r.randint(0, len(target)) :])
    return Expand(target if r.random() < 0.8 else features(r, len(target))), [shape]


def reshaping(r: random.Random) -> Case:
    shape = features(r, r.randint(1, 4))
    target = list(shape)
    r.shuffle(target)
    return Reshape(r.choice([tuple(target), (int(torch.Size(shape).numel()),), features(r)])), [shape]


def transposition(r: random.Random) -> Case:
    shape = features(r, r.randint(1, 4))
    order = list(range(len(shape)))
    r.shuffle(order)
    return Transpose(tuple(order) if r.random() < 0.9 else (*order, len(order))), [shape]


def padding(r: random.Random) -> Case:
    shape = features(r, r.randint(1, 4))
    return Pad(tuple((r.choice([0, 1, 2, -1]), r.choice([0, 1, 3])) for _ in shape)), [shape]


def gathering(r: random.Random) -> Case:
    shape = features(r, r.randint(1, 4))
    dim = r.randrange(len(shape))
    return Gather(dim, tuple(r.randrange(shape[dim]) for _ in range(r.randint(1, 4)))), [shape]


def concatenation(r: random.Random) -> Case:
    first = features(r, r.randint(1, 4))
    dim = r.randrange(len(first))
    others = [(*first[:dim], r.randint(1, 4), *first[dim + 1 :]) for _ in range(r.randint(0, 2))]
    return Concat(dim), [first, *others, *([features(r)] if r.random() < 0.2 else [])]


def addition(r: random.Random) -> Case:
    shape = features(r)
    return Add(r.choice([1, -1])), [shape, shape if r.random() < 0.8 else features(r)]


def scaling(r: random.Random) -> Case:
    shape = features(r)
    scale, shift = (None if r.random() < 0.3 else broadcast(r, shape) for _ in range(2))
    return ScaleShift(scale, shift), [shape]


MAKERS: dict[str, Callable[[random.Random], Case]] = {
    "Add": addition,
    "AveragePool": pool,
    "Cast": lambda r: (Cast(torch.float16), [features(r)]),
    "Concat": concatenation,
    "Conv": convolution,
    "Expand": expansion,
    "Gather": gathering,
    "Linear": linear,
    "Pad": padding,
    "Reduce": reduction,
    "Relu": lambda r: (Relu(), [features(r)]),
    "Reshape": reshaping,
    "ScaleShift": scaling,
    "Transpose": transposition,
}


def cases(name: str, count: int = 120) -> Iterator[Case]:
    r = random.Random(name)
    for _ in range(count):
        yield MAKERS[name](r)


def by_torch(op: Op, shapes: list[Shape]) -> Shape | None:
    try:
        return run_without_data(op, shapes)
    except ValueError:
        return None


@pytest.mark.parametrize("name", MAKERS)
def test_a_rule_says_what_torch_says(name: str) -> None:
    sure = 0
    for op, shapes in cases(name):
        found = rule(op, shapes)
        if found is not None:
            sure += 1
            assert found == by_torch(op, shapes), (op, shapes)
    assert sure >= 30, "the rule is hardly ever asked"


@pytest.mark.parametrize("name", MAKERS)
def test_a_rule_knows_what_networks_have(name: str) -> None:
    """Where torch finds a shape, the rule is silent about odd cases alone, such as padding that cuts."""
    silent = [
        (op, shapes)
        for op, shapes in cases(name)
        if rule(op, shapes) is None and by_torch(op, shapes) is not None
        if not (
            isinstance(op, Conv | Pad) and any(min(p) < 0 for p in (op.padding if isinstance(op, Conv) else op.pads))
        )
        if not (isinstance(op, Linear) and op.bias is not None and op.bias.shape != op.weight.shape[:1])
        if not (isinstance(op, Add) and shapes[0] != shapes[1])
        if not (isinstance(op, ScaleShift) and by_torch(op, shapes) != shapes[0])
        if not (isinstance(op, AveragePool) and len(shapes[0]) != len(op.kernel) + 1)
        if not (isinstance(op, Conv) and len(shapes[0]) != len(op.stride) + 1)
    ]
    assert not silent, silent[0]


def test_what_no_rule_knows_is_run_without_data() -> None:
    op = ConvTranspose(held(2, 3, 2, 2), None, (2, 2), ((0, 0), (0, 0)), (0, 0), (1, 1), 1)
    assert rule(op, [(2, 4, 4)]) is None
    assert output_shape(op, [(2, 4, 4)]) == (3, 8, 8)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="its shapes do not fit"):
        output_shape(Linear(held(2, 3)), [(4,)])
    with pytest.raises(ValueError, match="would change the batch dimension from 1 to"):
        output_shape(ScaleShift(held(2, 3), None), [(3,)])
