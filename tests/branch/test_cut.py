"""A cut leaves out nothing that the linear bounds leave open: compared with rationals."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from zonocuda.branch.cut import cut


def exactly(t: Tensor) -> list[Fraction]:
    """The numbers of a tensor."""
    return [Fraction(v) for v in t.flatten().tolist()]


def linear(bound: float, v: Tensor, low: Tensor, high: Tensor, x: list[Fraction]) -> Fraction:
    """bound + v . (x - corner)."""
    corner = torch.where(v >= 0, low, high)
    terms = (a * (at - c) for a, at, c in zip(exactly(v), x, exactly(corner), strict=True))
    return Fraction(bound) + sum(terms, Fraction(0))


def edges(bound: float, v: Tensor, low: Tensor, high: Tensor) -> list[list[Fraction]]:
    """Points of the box where the linear bound is zero exactly, one on each edge at the corner that has one."""
    corner = exactly(torch.where(v >= 0, low, high))
    found = []
    for j, a in enumerate(exactly(v)):
        if a:
            at = corner[j] - Fraction(bound) / a
            if Fraction(float(low[j])) <= at <= Fraction(float(high[j])):
                found.append([*corner[:j], at, *corner[j + 1 :]])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(40))
def test_a_point_that_every_row_of_a_disjunct_leaves_open_stays(seed: int, dtype: torch.dtype) -> None:
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs, rows = rng.randint(1, 4), rng.randint(1, 4)

    def rand(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    low = rand(1, inputs) * 10 ** rng.choice((-6, 0, 3))
    high = low + rand(1, inputs).abs() * 10 ** rng.choice((-6, -2, 0))
    weight = rand(1, rows, inputs) * 10 ** rng.choice((-30, -3, 0, 3))
    weight[torch.rand(weight.shape, generator=generator) < 0.2] = 0
    width = (weight.abs() * (high - low).unsqueeze(1)).sum(2)
    bound = (-width.double() * torch.rand(1, rows, generator=generator, dtype=torch.float64)).to(dtype)
    disjuncts = [rng.sample(range(rows), rng.randint(1, rows)) for _ in range(rng.randint(1, 3))]
    bottom, top = cut(low, high, bound, weight, disjuncts)
    ends = bottom[0].tolist(), top[0].tolist()  # floats compare with rationals exactly
    points = [p for r in range(rows) for p in edges(float(bound[0, r]), weight[0, r], low[0], high[0])]
    points += [
        [a + (b - a) * Fraction(rng.random()) for a, b in zip(exactly(low), exactly(high), strict=True)]
        for _ in range(60)
    ]
    kept = 0
    for x in points:
        values = [linear(float(bound[0, r]), weight[0, r], low[0], high[0], x) for r in range(rows)]
        if any(all(values[r] <= 0 for r in members) for members in disjuncts):
            kept += 1
            assert all(a <= at <= b for a, at, b in zip(ends[0], x, ends[1], strict=True))
    assert kept or len(disjuncts[0]) > 1


def test_a_cut_lies_within_its_box_and_is_close_to_what_is_open() -> None:
    low, high = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    bottom, top = cut(low, high, torch.tensor([[-0.25]]), torch.tensor([[[1.0, -0.5]]]), [[0]])
    assert bottom.tolist() == [[0.0, pytest.approx(0.5)]]
    assert top.tolist() == [[pytest.approx(0.25), 1.0]]
    assert float(bottom[0, 1]) <= 0.5
    assert float(top[0, 0]) >= 0.25


def test_what_is_left_is_the_hull_over_the_disjuncts() -> None:
    low, high = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    bound, weight = torch.tensor([[-0.25, -0.25, 1.0]]), torch.tensor([[[1.0], [-1.0], [1.0]]])
    assert cut(low, high, bound, weight, [[0], [2]])[1].item() == pytest.approx(0.25)
    whole = cut(low, high, bound, weight, [[0], [1]])
    assert (whole[0].item(), whole[1].item()) == (0.0, 1.0)
    both = cut(low, high, bound, weight, [[0, 1]])  # at most 0.25 and at least 0.75
    assert both[0].item() > both[1].item()


@pytest.mark.parametrize("said", [math.nan, math.inf, -math.inf])
def test_a_bound_that_is_no_number_cuts_nothing(said: float) -> None:
    low, high = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    bottom, top = cut(low, high, torch.tensor([[said]]), torch.tensor([[[1.0]]]), [[0]])
    assert (bottom.item(), top.item()) == (0.0, 1.0)


@pytest.mark.parametrize("said", [math.nan, math.inf])
def test_a_weight_that_is_no_number_cuts_nothing(said: float) -> None:
    low, high = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    bottom, top = cut(low, high, torch.tensor([[-0.5]]), torch.tensor([[[said, 1.0]]]), [[0]])
    assert (bottom[0, 0].item(), top[0, 0].item()) == (0.0, 1.0)
    assert top[0, 1].item() == pytest.approx(0.5)


def test_a_row_without_weights_refutes_by_its_bound_alone() -> None:
    low, high = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    zero = torch.zeros(1, 1, 1)
    refuted = cut(low, high, torch.tensor([[1e-30]]), zero, [[0]])
    assert refuted[0].item() > refuted[1].item()
    attained = cut(low, high, torch.tensor([[0.0]]), zero, [[0]])
    assert (attained[0].item(), attained[1].item()) == (0.0, 1.0)
