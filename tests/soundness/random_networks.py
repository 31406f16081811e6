"""Random networks of every operator, small enough for rationals or larger."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from tests.soundness import random_piecewise
from tests.verifier.graphs import Builder
from zonocuda.graph import (
    Add,
    AveragePool,
    Cast,
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Graph,
    Linear,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Staircase,
    Transpose,
)
from zonocuda.graph.elementwise import StepName

STEPS: tuple[StepName, ...] = get_args(StepName)


class RandomNetwork:
    """A builder that appends one random operator after the other.

    Args:
        seed: of everything.
        size: features that a value should not exceed by much.
    """

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.size = size
        self.spread = self.rng.choice((0, 0, 1, 3, 6))
        """Decades that weights may differ by."""
        self.b = Builder(*self.start(), seed=seed)
        self.values = ["x"]

    def start(self) -> tuple[int, ...]:
        """The shape of an input."""
        extent = max(2, round(self.size ** (1 / 3)))
        return self.rng.choice(
            (
                (self.rng.randint(1, max(2, self.size // 6)),),
                (self.rng.randint(1, 3), self.rng.randint(1, extent)),
                (self.rng.randint(1, 2), self.rng.randint(2, extent), self.rng.randint(2, extent)),
                (1, 2, 2, self.rng.randint(1, 3)),
            )
        )

    def graph(self) -> Graph:
        """Some layers, and a linear one to one to three outputs."""
        for _ in range(self.rng.randint(2, 9)):
            self.append()
        self.b.flat()
        self.b(self.linear(self.b.shape()[0], self.rng.randint(1, 3)))
        if self.rng.random() < 0.2:
            self.b(Relu())
            self.b(ScaleShift(self.numbers(1), self.numbers(1)))
        return self._stepped(self.b.graph().to(torch.float64))

    def _stepped(self, graph: Graph) -> Graph:
        """The network; one of eight with steps in place of some ReLUs, but for the first."""
        rng = random.Random(f"steps {self.seed}")
        if rng.random() > 0.125:
            return graph
        steps = {n.name: rng.choice(STEPS) for n in graph.relus[1:] if n.part is None and rng.random() < 0.6}
        nodes = (replace(n, op=Staircase(steps[n.name])) if n.name in steps else n for n in graph.nodes)
        return Graph(tuple(nodes), graph.output)

    def append(self) -> None:
        """One operator that fits the last value, and more often than not a ReLU."""
        operator = self.rng.choice(OPERATORS)
        operator(self)
        if math.prod(self.b.shape()) > 4 * self.size:
            self.b(Reduce((len(self.b.shape()) - 1,), self.rng.random() < 0.5, False))
        if self.rng.random() < 0.6:
            self.b(Relu())
        self.values.append(self.b.nodes[-1].name)

    def numbers(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Random numbers, in some networks over many decades, some zero, in some networks of float32."""
        found = self.b.random(*shape, scale=scale)
        decades = 10.0 ** torch.randint(-self.spread, self.spread + 1, shape, generator=self.b.generator).double()
        found = found * decades
        if self.rng.random() < 0.2:
            found = torch.where(torch.rand(shape, generator=self.b.generator) < 0.3, torch.zeros(()).double(), found)
        return found.float().double() if self.rng.random() < 0.5 else found

    def linear(self, inputs: int, outputs: int) -> Linear:
        """A linear layer, with a bias or without."""
        bias = self.numbers(outputs, scale=0.3) if self.rng.random() < 0.8 else None
        return Linear(self.numbers(outputs, inputs, scale=inputs**-0.5), bias)

    def pairs(self, count: int, largest: int) -> tuple[tuple[int, int], ...]:
        """(begin, end) for each dimension."""
        return tuple((self.rng.randint(0, largest), self.rng.randint(0, largest)) for _ in range(count))


def _linear(n: RandomNetwork) -> None:
    shape = n.b.shape()
    if not shape or n.rng.random() < 0.3:
        n.b.flat()
        shape = n.b.shape()
    n.b(n.linear(shape[-1], n.rng.randint(1, 6)))


def _window(n: RandomNetwork) -> None:
    """A convolution, a transposed one or a pool, over one to three dimensions."""
    shape = n.b.shape()
    if not 2 <= len(shape) <= 4:
        n.b.flat()
        n.b(Reshape((1, *n.b.shape())))
        shape = n.b.shape()
    dims, channels = len(shape) - 1, shape[0]
    stride = tuple(n.rng.randint(1, 2) for _ in range(dims))
    kind = n.rng.randrange(4)
    if kind == 0:
        kernel = tuple(n.rng.randint(1, min(3, extent)) for extent in shape[1:])
        n.b(AveragePool(kernel, stride))
        return
    groups = n.rng.choice([g for g in (1, 1, 2, 3) if channels % g == 0])
    out = groups * n.rng.randint(1, 2)
    kernel = tuple(n.rng.randint(1, 3) for _ in range(dims))
    dilation = tuple(n.rng.choice((1, 1, 2)) for _ in range(dims))
    bias = n.numbers(out, scale=0.3) if n.rng.random() < 0.7 else None
    if kind == 1:
        weight = n.numbers(channels, out // groups, *kernel, scale=(channels * math.prod(kernel)) ** -0.5)
        pads = tuple((0, n.rng.randint(0, 1) if k > 1 else 0) for k in kernel)
        extra = tuple(n.rng.randint(0, s - 1) for s in stride)
        n.b(ConvTranspose(weight, bias, stride, pads, extra, dilation, groups))
        return
    pads = n.pairs(dims, 2)
    pads = tuple(
        (begin, end + max(0, d * (k - 1) + 1 - extent - begin - end))
        for (begin, end), d, k, extent in zip(pads, dilation, kernel, shape[1:], strict=True)
    )
    weight = n.numbers(out, channels // groups, *kernel, scale=(channels // groups * math.prod(kernel)) ** -0.5)
    n.b(Conv(weight, bias, stride, pads, dilation, groups))


def _scale_shift(n: RandomNetwork) -> None:
    shape = n.b.shape()
    extents = [extent if n.rng.random() < 0.5 else 1 for extent in shape]
    scale = n.numbers(*extents) if n.rng.random() < 0.8 else None
    shift = n.numbers(*extents) if scale is None or n.rng.random() < 0.7 else None
    n.b(ScaleShift(scale, shift))


def _add(n: RandomNetwork) -> None:
    """A sum or difference with an earlier value of the same shape, or with a layer of an earlier one."""
    last, shape = n.b.nodes[-1].name, n.b.shape()
    same = [name for name in n.values if n.b.shape(name) == shape]
    if same and n.rng.random() < 0.7:
        other = n.rng.choice(same)
    else:
        flat = n.b.flat(n.rng.choice(n.values))
        n.b(n.linear(n.b.shape(flat)[0], math.prod(shape)))
        other = n.b(Reshape(shape))
    n.b(Add(n.rng.choice((1, -1))), *((last, other) if n.rng.random() < 0.5 else (other, last)))


def _concat(n: RandomNetwork) -> None:
    last, shape = n.b.nodes[-1].name, n.b.shape()
    if not shape:
        last = n.b.flat()
        shape = n.b.shape()
    dim = n.rng.randrange(len(shape))

    def fits(name: str) -> bool:
        other = n.b.shape(name)
        return len(other) == len(shape) and all(
            a == b for d, (a, b) in enumerate(zip(shape, other, strict=True)) if d != dim
        )

    parts = [last, n.rng.choice([name for name in n.values if fits(name)] or [last])]
    n.rng.shuffle(parts)
    n.b(Concat(dim), *parts)


def _move(n: RandomNetwork) -> None:
    """What computes nothing: permutations, selections, padding, reshapes, expansions, and sums and means."""
    shape = n.b.shape()
    if not shape:
        n.b.flat()
        shape = n.b.shape()
    dim = n.rng.randrange(len(shape))
    match n.rng.randrange(6):
        case 0:
            n.b(Transpose(tuple(n.rng.sample(range(len(shape)), len(shape)))))
        case 1:
            n.b(Gather(dim, tuple(n.rng.randrange(shape[dim]) for _ in range(n.rng.randint(1, 4)))))
        case 2:
            n.b(Pad(n.pairs(len(shape), 1), n.rng.choice((0.0, 0.25, -1.0, 0.1, 1e-30))))
        case 3:
            n.b.flat()
        case 4:
            dims = tuple(sorted(n.rng.sample(range(len(shape)), n.rng.randint(1, len(shape)))))
            n.b(Reduce(dims, n.rng.random() < 0.5, n.rng.random() < 0.5))
        case _:
            n.b(Expand((n.rng.randint(1, 3), *shape)) if len(shape) < 4 else Reshape((1, math.prod(shape))))


def _cast(n: RandomNetwork) -> None:
    n.b(Cast(n.rng.choice((torch.float32, torch.float32, torch.bfloat16, torch.float16))))


def _piecewise(n: RandomNetwork) -> None:
    random_piecewise.append(n.b, n.rng, n.numbers)


OPERATORS: tuple[Callable[[RandomNetwork], None], ...] = (
    *(_linear, _linear, _window, _window, _window, _scale_shift, _add, _concat, _move, _move, _cast),
    *(_piecewise, _piecewise),
)
