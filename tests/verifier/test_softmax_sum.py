"""The shares of a softmax sum to 1: rows that know it are the same function, and their bounds hold in balls."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb

from tests.verifier.graphs import sample_box
from tests.verifier.test_transformers import graph_of, run_in_balls
from zonocuda.bounds.dual.shares import centred, softmax_dim
from zonocuda.domains import Zonotope
from zonocuda.tighten.ascent import Ascent
from zonocuda.verifier import optimize_bounds


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_what_is_taken_off_a_row_adds_up_for_any_shares_in_rationals(dim: int) -> None:
    """Numbers of few bits, whose differences do not round."""
    generator = torch.Generator().manual_seed(dim)
    shape = (2, 3, 4)
    v = torch.randint(-64, 65, (5, *shape), generator=generator).double() / 16
    width = torch.rand(5, *shape, generator=generator, dtype=torch.float64)
    rows, constant = centred(v, width, dim)
    parts = torch.randint(1, 100, shape, generator=generator)
    total = parts.sum(dim, keepdim=True).expand(shape)
    pairs = zip(parts.flatten().tolist(), total.flatten().tolist(), strict=True)
    shares = [Fraction(part, whole) for part, whole in pairs]
    for old, new, more in zip(v, rows, constant.tolist(), strict=True):
        assert bool((old != new).any())
        before, after = (
            sum((Fraction(c) * y for c, y in zip(row.flatten().tolist(), shares, strict=True)), Fraction(0))
            for row in (old, new)
        )
        assert before == after + Fraction(more)
    waste = (rows.abs() * width).sum()
    for step in (-1 / 16, 1 / 16):  # a median wastes least
        assert waste <= ((rows + step).abs() * width).sum() + 1e-12


@pytest.mark.parametrize("name", ["softmax", "transformer"])
def test_bounds_with_the_sum_hold_in_balls(name: str) -> None:
    graph = graph_of(name)
    assert any(softmax_dim(node) is not None for node in graph.nodes)
    low = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    high, outputs = low + 0.5, graph.output_shape[0]
    rows = torch.cat([torch.eye(outputs), -torch.eye(outputs), torch.ones(1, outputs)]).double()
    zonotope, few = Zonotope.from_box(low, high), Ascent(iterations=2)
    found = {
        known: optimize_bounds(graph, zonotope, rows, intermediate=0, ascent=few, softmax_sum=known).lower[0]
        for known in (False, True)
    }
    assert bool((found[True] != found[False]).any())
    if name == "softmax":  # the sum itself is known then
        assert found[False][-1] < 0.99
        assert found[True][-1] == pytest.approx(1, abs=1e-12)
    for point in sample_box(low, high, 2, seed=1)[:2]:
        _, y = run_in_balls(graph, point)
        for row, claim in zip(rows.tolist(), found[True].tolist(), strict=True):
            value = sum((arb(c) * v for c, v in zip(row, y, strict=True)), arb(0))
            assert not arb(claim - 1e-12) > value
    with pytest.raises(ValueError, match="softmax_sum"):
        optimize_bounds(graph, zonotope, rows, mode="forward", softmax_sum=True)
