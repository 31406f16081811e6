"""No bound that counts rounding exceeds an exact value; bounds that do not count it exceed many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from tests.soundness.rational import Claim, claims
from tests.thorough import few
from tests.verifier.graphs import NETWORKS, Builder, rand, random_box
from zonocuda.bounds.dual.signs import KnownSigns
from zonocuda.graph import Graph, Relu
from zonocuda.specs import LinearConstraint

DTYPES = (torch.float32, torch.float64)


def random_chain(seed: int) -> Graph:
    """Two to nine layers of one to six neurons, with weights of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    depth = int(torch.randint(2, 10, (), generator=generator))
    widths = torch.randint(1, 7, (depth + 1,), generator=generator).tolist()
    b = Builder(widths[0], seed=seed)
    for layer in range(depth):
        op = b.linear(widths[layer], widths[layer + 1])
        for tensor in (op.weight, op.bias):
            assert tensor is not None
            tensor *= 10.0 ** torch.randint(-3, 4, tensor.shape, generator=generator).double()
        b(op)
        if layer < depth - 1:
            b(Relu())
    return b.graph()


def some_rows(graph: Graph, seed: int) -> list[LinearConstraint]:
    """A row of one output, a combination, and one that also weighs an input and has numbers no dtype holds."""
    outputs = math.prod(graph.output_shape)
    weights = [Fraction(v) for v in rand(outputs, seed=seed).tolist()]
    third = Fraction(1, 3)
    return [
        LinearConstraint({0: Fraction(1)}, {}, Fraction(0)),
        LinearConstraint(dict(enumerate(weights)), {}, Fraction(1)),
        LinearConstraint({outputs - 1: -third}, {0: third}, Fraction(1, 7)),
    ]


SEEDS = few(6, range(16))


def count(
    network: Callable[[int], Graph], seeds: Sequence[int], dtype: torch.dtype, counted: bool
) -> tuple[int, list[Claim]]:
    """How many claims were made about random networks, and those that do not hold."""
    total, wrong = 0, []
    for seed in seeds:
        graph = network(seed).to(dtype if seed % 2 else torch.float64).to(torch.float64)
        box = random_box(graph, width=(0.0, 1e-6, 1e-2, 1.0)[seed % 4], seed=seed + 7)
        low, high = (b.to(dtype) for b in box)
        for claim in claims(graph, (low, high), some_rows(graph, seed), dtype, counted):
            total += 1
            if not claim.holds:
                wrong.append(claim)
    return total, wrong


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seeds", few(1, [range(40), range(40, 250)]))
def test_no_counted_bound_of_random_chains_exceeds_an_exact_value(seeds: range, dtype: torch.dtype) -> None:
    total, wrong = count(random_chain, seeds, dtype, True)
    assert not wrong, wrong[:3]
    print(f"{total} bounds of {len(seeds)} chains in {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_counted_bound_of_networks_of_every_operator_exceeds_an_exact_value(name: str, dtype: torch.dtype) -> None:
    total, wrong = count(NETWORKS[name], SEEDS, dtype, True)
    assert not wrong, wrong[:3]
    print(f"{total} bounds of {len(SEEDS)} networks in {dtype}")


def test_a_multiplier_of_the_wrong_sign_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KnownSigns.of  # whose signs multiply the multipliers, and nothing else
    wrong_sign = staticmethod(lambda sign, slope: replace(right(sign, slope), sign=-sign))
    monkeypatch.setattr(KnownSigns, "of", wrong_sign)
    _, wrong = count(random_chain, range(30), torch.float64, True)
    assert wrong
    assert {claim.what for claim in wrong} == {"part by signs"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_that_do_not_count_rounding_exceed_exact_values(dtype: torch.dtype) -> None:
    """So that the tests above can fail: a share of at least a hundredth of all bounds, and some of every kind."""
    total, wrong = count(random_chain, range(30), dtype, False)
    assert len(wrong) > total / 100
    for kind in ("forward", "backward", "neurons", "minimum_area", "adaptive", "random"):
        assert any(claim.what.startswith(kind) for claim in wrong), kind
