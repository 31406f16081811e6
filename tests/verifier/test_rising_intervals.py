"""Intervals of sums and shifts are the images of their ends: what is not negative stays so, and a small number that is
added to a large one on the other side is not lost."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from zonocuda.bounds.interval import interval
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.graph import Graph, Input, Node, Reduce, ScaleShift

EPS = 1e-5


def graph(mean: bool) -> Graph:
    shift = ScaleShift(scale=None, shift=torch.tensor([EPS]))
    nodes = [
        Node("x", Input(), (), (3, 5)),
        Node("sum", Reduce((1,), mean, True), ("x",), (3, 1)),
        Node("shift", shift, ("sum",), (3, 1)),
    ]
    return Graph(tuple(nodes), "shift")


def exact(x: Tensor, mean: bool) -> list[Fraction]:
    """The values for x ``[3, 5]``, in rationals."""
    share, shift = Fraction(5 if mean else 1), Fraction(float(torch.tensor(EPS)))
    return [sum(map(Fraction, row), Fraction(0)) / share + shift for row in x.double().tolist()]


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_proven_intervals_hold_the_values_at_both_ends_and_stay_positive(mean: bool, dtype: torch.dtype) -> None:
    network = graph(mean)
    held = network.to(dtype, torch.device("cpu"))
    errors = ForwardErrors(Rounding.of(network, held, dtype))
    generator = torch.Generator().manual_seed(0)
    for power in range(-10, 11):
        ends = 10.0**power * torch.rand(2, 1, 3, 5, generator=generator, dtype=torch.float64)
        lower, upper = ends.amin(0).to(dtype), ends.amax(0).to(dtype)
        lower[0, 0] = 0
        lower[0, 1, ::2] *= -1  # differences that cancel
        bounds = (lower, upper)
        for name in ("sum", "shift"):
            bounds = errors.interval(held[name], [bounds])
        for end, found, sign in ((lower, bounds[0], -1), (upper, bounds[1], 1)):
            for value, bound in zip(exact(end[0], mean), found.flatten().tolist(), strict=True):
                assert sign * (Fraction(bound) - value) >= 0
        assert float(bounds[0][0, 0]) > 0.99 * EPS  # whatever the upper end
        plain = interval(held["shift"], [interval(held["sum"], [(lower, upper)])])
        assert float(plain[0][0, 0]) == float(torch.tensor(EPS, dtype=torch.float32).to(dtype))
