"""Networks and zonotopes in exact rational arithmetic, and how far float64 may be from them.

An affine operator is represented by its matrix: the image of a unit vector is one weight, times 1, plus zeros, in every
output, which floating point computes exactly; the weight of a mean, which no float may hold, is taken from its count.
Sums over rationals do not round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Bilinear,
    Cast,
    Concat,
    Graph,
    Node,
    Reduce,
    Relu,
    Staircase,
    interpret,
)

Vector = list[Fraction]
Matrix = list[dict[int, Fraction]]
"""For every output, the inputs with a coefficient that is not zero."""

U = Fraction(1, 2**53)
"""Unit roundoff of float64."""


def gamma(n: int) -> Fraction:
    """n u / (1 - n u)."""
    return n * U / (1 - n * U)


def exactly(t: Tensor) -> Vector:
    """The numbers of a tensor, flattened."""
    return [Fraction(v) for v in t.flatten().tolist()]


def affine_map(op: Affine, shape: tuple[int, ...]) -> tuple[Matrix, Vector]:
    """A and b of an affine operator on features of ``shape``."""
    size = math.prod(shape)
    columns = op.linear(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, -1)
    offset = op.offset(shape, columns).flatten()
    rows: Matrix = [{} for _ in range(columns.shape[1])]
    share = _share(op, shape)
    for j, i in columns.nonzero().tolist():
        rows[i][j] = Fraction(columns[j, i].item()) if share is None else share
    return rows, exactly(offset)


def _share(op: Affine, shape: tuple[int, ...]) -> Fraction | None:
    """The weight of every value that a mean is of; None for other operators."""
    if isinstance(op, AveragePool):
        return Fraction(1, math.prod(op.kernel))
    if isinstance(op, Reduce) and op.mean:
        return Fraction(1, math.prod(shape[dim] for dim in op.dims))
    return None


def multiply(matrix: Matrix, x: Sequence[Fraction]) -> Vector:
    """A x."""
    return [sum((c * x[j] for j, c in row.items()), Fraction(0)) for row in matrix]


def rounded(value: Fraction, dtype: torch.dtype) -> Fraction:
    """The nearest number of a binary format, of two the even one.

    Raises:
        OverflowError: it is infinite.
    """
    digits, least, top = {
        torch.float16: (11, -14, 16),
        torch.bfloat16: (8, -126, 128),
        torch.float32: (24, -126, 128),
    }[dtype]
    if not value:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    spacing = Fraction(2) ** (max(exponent, least) - digits + 1)
    found = round(value / spacing) * spacing
    if abs(found) >= Fraction(2) ** top:
        raise OverflowError
    return found


STEPS: dict[str, Callable[[Fraction], Fraction]] = {
    "sign": lambda x: Fraction((x > 0) - (x < 0)),
    "floor": lambda x: Fraction(math.floor(x)),
    "ceil": lambda x: Fraction(math.ceil(x)),
    "round": lambda x: Fraction(round(x)),
}
"""Step functions; of two integers as near ``round`` takes the even one."""


def value_step(graph: Graph, node: Node, values: tuple[Vector, ...]) -> Vector:
    """The value of a node from those before it."""
    if isinstance(node.op, Relu):
        return [max(v, Fraction(0)) for v in values[0]]
    if isinstance(node.op, Staircase):
        return [STEPS[node.op.function](v) for v in values[0]]
    if isinstance(node.op, Cast):
        return [rounded(v, node.op.target) for v in values[0]]
    if isinstance(node.op, Bilinear):
        half, terms = len(values[0]) // 2, node.op.terms
        products = [x * y for x, y in zip(values[0][:half], values[0][half:], strict=True)]
        return [sum(products[i : i + terms], Fraction(0)) for i in range(0, half, terms)]
    return linear_step(graph, node, values, constant=True)


def evaluate(graph: Graph, x: Sequence[Fraction]) -> Vector:
    """The network's output at a point."""
    return interpret(graph, list(x), lambda node, values: value_step(graph, node, values))


def linear_step(graph: Graph, node: Node, values: tuple[Vector, ...], constant: bool) -> Vector:
    """A node that is linear in its inputs, with or without its constant."""
    if isinstance(node.op, Affine):
        matrix, offset = affine_map(node.op, graph[node.inputs[0]].shape)
        image = multiply(matrix, values[0])
        return [v + b for v, b in zip(image, offset, strict=True)] if constant else image
    if isinstance(node.op, Add):
        return [v + node.op.sign * w for v, w in zip(*values, strict=True)]
    assert isinstance(node.op, Concat)
    together = [v for part in values for v in part]
    places, begin = [], 0
    for name in node.inputs:
        shape = graph[name].shape
        places.append(torch.arange(begin, begin + math.prod(shape)).reshape(shape))
        begin += math.prod(shape)
    return [together[i] for i in torch.cat(places, node.op.dim).flatten().tolist()]


@dataclass
class ExactZonotope:
    """c + sum_k eps_k G_k in rationals; ``error`` bounds |c~ - c| + sum_k |G~_k - G_k| of its float64 computation."""

    center: Vector
    generators: dict[object, Vector]
    error: Vector

    @property
    def radius(self) -> Vector:
        """sum_k |G_k|."""
        return [sum((abs(g[i]) for g in self.generators.values()), Fraction(0)) for i in range(len(self.center))]

    def bounds(self) -> tuple[Vector, Vector]:
        """c - r and c + r."""
        radius = self.radius
        return (
            [c - r for c, r in zip(self.center, radius, strict=True)],
            [c + r for c, r in zip(self.center, radius, strict=True)],
        )

    def rounding(self) -> Vector:
        """How far the float64 bounds may be from ``bounds``: the error, the sum over K symbols, and c +- r."""
        size = [abs(c) + r + e for c, r, e in zip(self.center, self.radius, self.error, strict=True)]
        return [e + gamma(len(self.generators) + 2) * s for e, s in zip(self.error, size, strict=True)]

    @staticmethod
    def of_box(center: Tensor, radius: Tensor) -> ExactZonotope:
        """The box center +- radius, one symbol for each input that has a width."""
        c, r = exactly(center), exactly(radius)
        zero = Fraction(0)
        symbols = {("x", i): [v if j == i else zero for j in range(len(r))] for i, v in enumerate(r) if v}
        return ExactZonotope(c, dict(symbols), [zero] * len(c))


def propagate(graph: Graph, zonotope: ExactZonotope, slopes: Mapping[str, Tensor] | None) -> dict[str, ExactZonotope]:
    """The zonotope of every node, by name, with the given slopes (float64, taken as exact), or u / (u - l) for None.

    The error follows the forward sweep in round to nearest, operation by operation:

    * y = A x + b: every sum of n products adds gamma_{n+1} of the magnitudes it sums, for c and for every generator;
    * x + y: one rounding of the result;
    * ReLU with slope lam: l~ and u~ are off by ``rounding``, hence mu by half of that and two roundings; c' and G' take
      one product, and c' one sum, each with one rounding. (Not defined for slopes None, whose error is left at zero.)
    """
    result: dict[str, ExactZonotope] = {}

    def step(node: Node, values: tuple[ExactZonotope, ...]) -> ExactZonotope:
        if isinstance(node.op, Relu):
            return relu(node.name, values[0], None if slopes is None else exactly(slopes[node.name]))
        center = linear_step(graph, node, tuple(v.center for v in values), constant=True)
        sizes = [len(v.center) for v in values]
        symbols = dict.fromkeys(s for v in values for s in v.generators)
        zeros = [[Fraction(0)] * n for n in sizes]
        generators: dict[object, Vector] = {
            s: linear_step(
                graph, node, tuple(v.generators.get(s, z) for v, z in zip(values, zeros, strict=True)), constant=False
            )
            for s in symbols
        }
        return ExactZonotope(center, generators, linear_error(node, values, center, generators))

    def linear_error(
        node: Node, values: tuple[ExactZonotope, ...], center: Vector, generators: dict[object, Vector]
    ) -> Vector:
        if isinstance(node.op, Affine):
            matrix, offset = affine_map(node.op, graph[node.inputs[0]].shape)
            size = [abs(c) + r for c, r in zip(values[0].center, values[0].radius, strict=True)]
            error = []
            for row, b in zip(matrix, offset, strict=True):
                before = sum((abs(c) * values[0].error[j] for j, c in row.items()), Fraction(0))
                summed = sum((abs(c) * (size[j] + values[0].error[j]) for j, c in row.items()), abs(b))
                error.append(before + gamma(len(row) + 1) * summed)
            return error
        if isinstance(node.op, Concat):
            return [e for v in values for e in v.error]
        radius = [sum((abs(g[i]) for g in generators.values()), Fraction(0)) for i in range(len(center))]
        before = [e + f for e, f in zip(values[0].error, values[1].error, strict=True)]
        return [e + U * (abs(c) + r + e) for e, c, r in zip(before, center, radius, strict=True)]

    def observe(node: Node, value: ExactZonotope) -> None:
        result[node.name] = value

    interpret(graph, zonotope, step, observe)
    return result


def relu(name: str, z: ExactZonotope, slopes: Vector | None) -> ExactZonotope:
    """The ReLU of a zonotope with new symbols (name, neuron); slopes None are u / (u - l)."""
    low, high = z.bounds()
    slack = z.rounding()
    center, error = [], []
    generators: dict[object, Vector] = {s: [] for s in z.generators}
    fresh: dict[object, Fraction] = {}
    for i, (c, lo, up, e) in enumerate(zip(z.center, low, high, z.error, strict=True)):
        assert min(abs(lo), abs(up)) > slack[i], f"{name}: neuron {i} is too close to a tie for a comparison"
        if up < 0 or lo > 0:
            lam, mu = Fraction(lo > 0), Fraction(0)
        else:
            lam = up / (up - lo) if slopes is None else slopes[i]
            mu = max(-lo * lam, up * (1 - lam)) / 2
            fresh[(name, i)] = mu
        center.append(lam * c + mu)
        for s, g in z.generators.items():
            generators[s].append(lam * g[i])
        size = abs(c) + e + sum((abs(g[i]) for g in z.generators.values()), Fraction(0))
        offset = slack[i] / 2 + 2 * U * (mu + slack[i]) if mu else Fraction(0)
        error.append(lam * e + 2 * offset + U * (2 * lam * size + mu + slack[i]))
    zero = Fraction(0)
    for s, mu in fresh.items():
        generators[s] = [mu if (name, i) == s else zero for i in range(len(center))]
    return ExactZonotope(center, generators, error)
