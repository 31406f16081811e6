"""Networks that hide a neuron behind rounding.

Over the reals it is alive and violates the property; computed in floating point, in one order or another, it is dead,
or the violation is lost.

Every family takes a dtype (float32 numbers hide from float32, float64 numbers from float64) and a seed, and gives a
network, a box and a row that some point of the box violates exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import Builder
from zonocuda.graph import Add, Graph, Linear, Relu
from zonocuda.specs import Box, LinearConstraint, Region, Spec


@dataclass(frozen=True, eq=False)
class Hidden:
    """A network, a box (float64) and a row that the point ``x`` of the box satisfies: a counterexample."""

    graph: Graph
    box: tuple[Tensor, Tensor]
    row: LinearConstraint
    x: Tensor

    def spec(self) -> Spec:
        """The property; fails if the point is no counterexample."""
        assert bool(((self.x >= self.box[0]) & (self.x <= self.box[1])).all())
        y = evaluate(self.graph, exactly(self.x))
        total = sum((c * y[i] for i, c in self.row.outputs.items()), self.row.constant)
        assert total <= 0, "the hidden point is no counterexample"
        return Spec(self.x.numel(), len(y), (Region(Box.from_tensors(*self.box), ((self.row,),)),))


def _digits(dtype: torch.dtype) -> int:
    return 24 if dtype == torch.float32 else 53


def _matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def cancellation(dtype: torch.dtype, seed: int) -> Hidden:
    """x hides in one sum between M a and -M b, with a = b = 1 fixed: M is so large that M + x rounds to M.

    The neuron is x - c; at x = 1 it is 1 - c > 0, and relu(x - c) <= 0 is violated.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(6, generator=generator).tolist()
    large = 2.0 ** (_digits(dtype) + int(torch.randint(1, 4, (), generator=generator)))
    weights = [0.0] * 6
    for place, weight in zip(places, (large, 1.0, -large, 2 * large, -2 * large, 0.5), strict=True):
        weights[place] = weight
    low = torch.ones(6, dtype=torch.float64)
    low[places[1]] = 0.0
    b = Builder(6)
    b(Linear(_matrix([weights]), _matrix([[-1.0]]).flatten()))  # x + 0.5 - 1
    b(Relu())
    b(Linear(_matrix([[-1.0]])))
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1, 4))  # -relu(x - 1/2) <= -1/4
    return Hidden(b.graph(), (low, torch.ones(6, dtype=torch.float64)), row, torch.ones(6, dtype=torch.float64))


def absorption(dtype: torch.dtype, seed: int) -> Hidden:
    """x + M in one layer, - M in the next: the sum rounds to a multiple of a unit in the last place of M."""
    generator = torch.Generator().manual_seed(seed)
    large = 2.0 ** (_digits(dtype) + int(torch.randint(1, 5, (), generator=generator)))
    depth = int(torch.randint(1, 5, (), generator=generator))
    one = _matrix([[1.0]])
    b = Builder(1)
    for _ in range(depth):
        b(Linear(one, torch.tensor([large], dtype=torch.float64)))
        b(Linear(one, torch.tensor([-large], dtype=torch.float64)))
    b(Linear(one, torch.tensor([-0.5], dtype=torch.float64)))
    b(Relu())
    b(Linear(-one))
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1, 4))
    one_ = torch.ones(1, dtype=torch.float64)
    return Hidden(b.graph(), (0 * one_, one_), row, one_)


def residual(dtype: torch.dtype, seed: int) -> Hidden:
    """Two branches M z + x and M z of a fixed z, and their difference."""
    generator = torch.Generator().manual_seed(seed)
    large = 2.0 ** (_digits(dtype) + int(torch.randint(1, 5, (), generator=generator)))
    b = Builder(2)
    left = b(Linear(_matrix([[large, 1.0]])), "x")
    right = b(Linear(_matrix([[large, 0.0]])), "x")
    b(Add(-1), b(Relu(), left), b(Relu(), right))
    b(Linear(_matrix([[1.0]]), torch.tensor([-0.5], dtype=torch.float64)))
    b(Relu())
    b(Linear(_matrix([[-1.0]])))
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1, 4))
    low, high = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    return Hidden(b.graph(), (low, high), row, high)


def underflow(dtype: torch.dtype, seed: int) -> Hidden:
    """Layers that shrink x below the smallest number, then enlarge it again."""
    generator = torch.Generator().manual_seed(seed)
    shrink = 2.0 ** -(100 if dtype == torch.float32 else 700)
    depth = int(torch.randint(2, 4, (), generator=generator))
    b = Builder(1)
    for factor in (shrink,) * depth + (1 / shrink,) * depth:
        b(Linear(_matrix([[factor]])))
        b(Relu())
    b(Linear(_matrix([[-1.0]])))
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1, 4))
    one = torch.ones(1, dtype=torch.float64)
    return Hidden(b.graph(), (0 * one, one), row, one)


def many_small(dtype: torch.dtype, seed: int) -> Hidden:
    """A thousand neurons of one unit in the last place each, beside a large one, which absorbs them in a float sum."""
    generator = torch.Generator().manual_seed(seed)
    count = 1000
    small = 2.0 ** -_digits(dtype) * (0.5 + 0.49 * torch.rand(count, generator=generator, dtype=torch.float64))
    small = small.to(dtype).double()
    b = Builder(1)
    b(Linear(torch.cat([torch.ones(1, 1, dtype=torch.float64), small.unsqueeze(1)])))
    b(Relu())
    b(Linear(-torch.ones(1, count + 1, dtype=torch.float64)))
    x = torch.ones(1, dtype=torch.float64)
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(1) + sum(map(Fraction, small.tolist())))
    return Hidden(b.graph(), (0 * x, x), row, x)


FAMILIES: dict[str, Callable[[torch.dtype, int], Hidden]] = {
    "cancellation": cancellation,
    "absorption": absorption,
    "residual": residual,
    "underflow": underflow,
    "many_small": many_small,
}
