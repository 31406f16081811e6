"""Small random networks of every shape that the verifier must carry, and helpers to state properties of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from zonocuda.domains import Dense, Zonotope
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
    Input,
    Linear,
    Node,
    Op,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.specs import Box, LinearConstraint, Region, Spec

Shape = tuple[int, ...]


def rand(*shape: int, seed: int) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Builder:
    """A graph under construction: ``builder(op, *inputs)`` appends a node and returns its name.

    Random weights come from one generator, scaled so that values keep their size from layer to layer.
    """

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.nodes = [Node("x", Input(), (), shape)]
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, op: Op, *inputs: str) -> str:
        inputs = inputs or (self.nodes[-1].name,)
        out = op.apply(*(torch.zeros(1, *self.shape(name), dtype=torch.float64) for name in inputs))
        name = f"{op.kind.lower()}{len(self.nodes)}"
        self.nodes.append(Node(name, op, inputs, tuple(out.shape[1:])))
        return name

    def shape(self, name: str | None = None) -> Shape:
        """Feature shape of a node, by default of the last one."""
        return next(node.shape for node in reversed(self.nodes) if name in (None, node.name))

    def flat(self, *inputs: str) -> str:
        """Appends a reshape to one dimension."""
        return self(Reshape((math.prod(self.shape(*inputs)),)), *inputs)

    def random(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers with standard deviation ``scale``."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale

    def linear(self, inputs: int, outputs: int) -> Linear:
        """A random linear layer."""
        return Linear(self.random(outputs, inputs, scale=inputs**-0.5), self.random(outputs, scale=0.3))

    def conv(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pad: int = 1, groups: int = 1) -> Conv:
        """A random convolution over two dimensions."""
        weight = self.random(outputs, inputs // groups, kernel, kernel, scale=(inputs // groups * kernel**2) ** -0.5)
        return Conv(weight, self.random(outputs, scale=0.3), (stride, stride), ((pad, pad), (pad, pad)), (1, 1), groups)

    def graph(self) -> Graph:
        """The graph; its output is the last node."""
        return Graph(tuple(self.nodes), self.nodes[-1].name)


def fc(seed: int = 0, widths: Sequence[int] = (4, 8, 6, 3)) -> Graph:
    """Linear layers with ReLUs between."""
    b = Builder(widths[0], seed=seed)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        b(b.linear(inputs, outputs))
        if i < len(widths) - 2:
            b(Relu())
    return b.graph()


def conv(seed: int = 0) -> Graph:
    """Convolutions, one with a stride and uneven padding, then a linear layer."""
    b = Builder(2, 5, 4, seed=seed)
    b(b.conv(2, 3))
    b(Relu())
    b(Conv(b.random(4, 3, 3, 2, scale=0.3), None, (2, 1), ((1, 0), (0, 1)), (1, 1), 1))
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def residual(seed: int = 0) -> Graph:
    """Two residual blocks, the second with a projection, and a last linear layer that reads the input too."""
    b = Builder(6, seed=seed)
    inner = b(b.linear(6, 6), b(Relu(), b(b.linear(6, 6))))
    block = b(Relu(), b(Add(), inner, "x"))
    inner = b(b.linear(5, 5), b(Relu(), b(b.linear(6, 5), block)))
    b(Add(-1), b(b.linear(6, 5), block), inner)
    b(Relu())
    b(b.linear(5, 3))
    return b.graph()


def concat(seed: int = 0) -> Graph:
    """Two branches of the input, joined along the channels."""
    b = Builder(2, 4, 4, seed=seed)
    left = b(Relu(), b(b.conv(2, 2), "x"))
    right = b(b.conv(2, 3, kernel=1, pad=0), "x")
    b(Relu(), b(Concat(0), left, right))
    b(b.conv(5, 2, kernel=2, stride=2, pad=0))
    b(Relu())
    b.flat()
    b(b.linear(8, 3))
    return b.graph()


def pooling(seed: int = 0) -> Graph:
    """Average pooling, a mean over the map, and a scale and shift per channel."""
    b = Builder(2, 6, 6, seed=seed)
    b(b.conv(2, 4, groups=2))
    b(ScaleShift(b.random(4, 1, 1), b.random(4, 1, 1, scale=0.2)))
    b(Relu())
    b(AveragePool((2, 3), (2, 1)))
    b(b.conv(4, 4, kernel=2, pad=0))
    b(Relu())
    b(Reduce((1, 2), True, False))
    b(b.linear(4, 3))
    return b.graph()


def everything(seed: int = 0) -> Graph:
    """Every operator of the graph at least once."""
    b = Builder(2, 3, 4, seed=seed)
    b(Pad(((0, 0), (1, 0), (0, 2)), 0.25))
    b(b.conv(2, 3, kernel=2, stride=2, pad=0))
    first = b(Relu())
    b(
        ConvTranspose(
            b.random(3, 2, 2, 2, scale=0.5), b.random(2, scale=0.1), (1, 1), ((0, 1), (1, 0)), (0, 0), (1, 1), 1
        )
    )
    b(Relu())
    second = b(Transpose((0, 2, 1)))
    b(Gather(1, (2, 0, 0)))
    b(ScaleShift(b.random(1, 2), None))
    third = b(Reduce((0,), False, True))
    b(Expand((2, 3, 2)))
    b(Add(-1), b(Gather(1, (0, 1, 1)), second), b(Expand((2, 3, 2)), third))
    b(Relu())
    fourth, fifth = b.flat(), b.flat(first)
    b(Concat(0), fourth, fifth, fourth)
    b(b.linear(b.shape()[0], 7))
    b(Relu())
    b(AveragePool((2,), (1,)), b(Reshape((1, 7))))
    b(Reshape((6,)))
    b(b.linear(6, 3))
    return b.graph()


def casting(seed: int = 0) -> Graph:
    """Values rounded to narrower types: of a map whose rows are windows, of a branch, and of the output.

    It is not one of NETWORKS: what it computes is no piecewise linear function.
    """
    b = Builder(1, 6, 6, seed=seed)
    b(b.conv(1, 1))
    first = b(Cast(torch.bfloat16))
    b(Relu())
    b(b.conv(1, 1))
    b(Cast(torch.float16))
    b(Add(-1), b.nodes[-1].name, first)
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    b(Cast(torch.float32))
    return b.graph()


NETWORKS: dict[str, Callable[[int], Graph]] = {
    "fc": fc,
    "conv": conv,
    "residual": residual,
    "concat": concat,
    "pooling": pooling,
    "everything": everything,
}


def random_box(graph: Graph, batch: int = 1, width: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A box ``[B, *input features]`` around a random point, of random widths up to ``2 * width``; a tenth are zero."""
    center = rand(batch, *graph.input_shape, seed=seed)
    radius = width * rand(batch, *graph.input_shape, seed=seed + 1).abs().clamp(max=1)
    radius = torch.where(rand(batch, *graph.input_shape, seed=seed + 2) > 1.28, torch.zeros_like(radius), radius)
    return center - radius, center + radius


def sample_box(lower: Tensor, upper: Tensor, n: int, seed: int = 0) -> Tensor:
    """``[n, *shape]`` points of a box ``[*shape]``; every second one a vertex."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand((n, *lower.shape), generator=generator, dtype=lower.dtype)
    t[::2] = (t[::2] > 0.5).to(lower.dtype)
    return torch.lerp(lower, upper, t)


def vertices(lower: Tensor, upper: Tensor, most: int = 8) -> Tensor:
    """``[n, *shape]``, every vertex of a box ``[*shape]``; none where more than ``most`` coordinates are open."""
    index = (lower != upper).flatten().nonzero().squeeze(1)
    if len(index) > most:
        return lower.new_zeros(0, *lower.shape)
    ends = torch.stack([lower.flatten()[index], upper.flatten()[index]], 1)
    corners = torch.cartesian_prod(*ends).reshape(-1, len(index)) if len(index) else lower.new_zeros(1, 0)
    points = lower.flatten().repeat(len(corners), 1)
    points[:, index] = corners
    return points.reshape(-1, *lower.shape)


def random_slopes(graph: Graph, batch: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """A random slope in [0, 1] for every neuron."""
    generator = torch.Generator().manual_seed(seed)
    return {
        node.name: torch.rand((batch, *node.shape), generator=generator, dtype=torch.float64) for node in graph.relus
    }


def constraint(outputs: dict[int, float], constant: float = 0.0, strict: bool = False) -> LinearConstraint:
    """sum outputs[i] * Y_i + constant <= 0, the floats taken as exact."""
    return LinearConstraint({i: Fraction(c) for i, c in outputs.items()}, {}, Fraction(constant), strict)


def spec(lower: Tensor, upper: Tensor, disjuncts: Sequence[Sequence[LinearConstraint]], outputs: int) -> Spec:
    """The property with one region."""
    return Spec(lower.numel(), outputs, (region(lower, upper, disjuncts),))


def region(lower: Tensor, upper: Tensor, disjuncts: Sequence[Sequence[LinearConstraint]]) -> Region:
    """A region of a box ``[*shape]``."""
    return Region(Box.from_tensors(lower, upper), tuple(tuple(rows) for rows in disjuncts))


def generator_matrix(zonotope: Zonotope) -> Tensor:
    """All generators side by side, ``[B, K, *features]``, in the order of the blocks."""
    return torch.cat([block.dense(zonotope.features) for block in zonotope.blocks], dim=1)


def as_dense(zonotope: Zonotope) -> Zonotope:
    """The same zonotope with every block dense, on the same symbols."""
    blocks = tuple(Dense(block.symbols, block.dense(zonotope.features)) for block in zonotope.blocks)
    return Zonotope(zonotope.center, blocks)
