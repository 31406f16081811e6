"""No bound for executed values is exceeded by what any machine computes; bounds for the real network are.

The machines draw their order of summation, fused multiply-add, subnormal numbers flushed to zero and constants folded
into the layers before; see :mod:`tests.soundness.executions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.soundness.executions import Layers, Machine
from tests.soundness.fuzz import SMALL
from tests.soundness.operators import wholes_of, wholes_to_attack
from tests.soundness.random_networks import RandomNetwork
from tests.soundness.rational import Claim, claims
from tests.soundness.test_rounding import random_chain, some_rows
from tests.thorough import few
from tests.verifier.graphs import NETWORKS, Builder, random_box
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.graph import (
    Add,
    AveragePool,
    Cast,
    Conv,
    ConvTranspose,
    Gather,
    Graph,
    Linear,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Staircase,
)

PAIRS = [(torch.float32, torch.float32), (torch.float32, torch.float64), (torch.float64, torch.float64)]
"""Semantics, and the dtype of the bounds."""


def folded(seed: int) -> Graph:
    """Chains that a runtime folds: normalisations behind layers and after the input, residual sums, pools; with large
    means, which cancel."""
    b = Builder(2, 4, 4, seed=seed)

    def normalised(name: str, channels: int) -> str:
        large = 10.0 ** (4 - seed % 5)
        name = b(ScaleShift(None, b.random(channels, 1, 1, scale=large)), name)
        return b(ScaleShift(b.random(channels, 1, 1), b.random(channels, 1, 1, scale=large)), name)

    start = normalised("x", 2)
    first = b(Relu(), normalised(b(b.conv(2, 3), start), 3))
    second = normalised(b(b.conv(3, 3, groups=3), first), 3)
    b(Relu(), b(Add(), second, first))
    pooled = b(AveragePool((3, 2), (1, 1)))
    b(ScaleShift(b.random(1, 2, 3).abs(), None), pooled)
    b(Reduce((1,), True, False))
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def every_operator(seed: int) -> Graph:
    """A random network of every operator that is executed, piecewise linear ones among them: none is a cast."""
    made = RandomNetwork(seed, SMALL)
    made.spread = min(made.spread, 1)  # far from what float32 holds
    graph = made.graph()
    nodes = (replace(n, op=Reshape(n.shape)) if isinstance(n.op, Cast) else n for n in graph.nodes)
    return Graph(tuple(nodes), graph.output)


def single(kind: str, seed: int) -> Graph:
    """One operator, or one chain that is folded, whose rounding shows in the ReLU behind it."""
    b = Builder(2, 3, 4, seed=seed)
    large = b.random(2, 1, 1, scale=1e3)
    match kind:
        case "shift":
            b(ScaleShift(None, b.random(2, 1, 1)))
        case "scale":
            b(ScaleShift(b.random(2, 1, 1), None))
        case "sum":
            b(Add(-1), b(Reshape((4, 6)), "x"), b(Reshape((4, 6)), b(Gather(2, (3, 2, 1, 0)), "x")))
        case "normalisation":
            b(ScaleShift(b.random(2, 1, 1), b.random(2, 1, 1)), b(ScaleShift(None, large), "x"))
        case "normalised layer":
            layer = b(Conv(b.random(2, 2, 2, 2), large.flatten(), (1, 1), ((0, 0), (0, 0)), (1, 1), 1))
            b(ScaleShift(b.random(2, 1, 1), b.random(2, 1, 1)), b(ScaleShift(None, -large), layer))
        case "residual sum":
            layer = b(Conv(b.random(2, 2, 1, 1), None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1))
            b(Add(), layer, b(Relu(), b(ScaleShift(None, large), "x")))
        case "pool":
            b(AveragePool((3, 2), (1, 1)))
        case "mean":
            b(Reduce((1, 2), True, False))
        case "padding":
            b(Pad(((0, 0), (1, 0), (0, 0)), 0.1))
            b(Reduce((1,), False, False))
        case "layer":
            b.flat()
            b(b.linear(24, 3))
        case "transposed":
            b(ConvTranspose(b.random(2, 2, 2, 2), None, (1, 1), ((0, 0), (0, 0)), (0, 0), (1, 1), 1))
        case "step":  # of differences of equal sums: integers, of what these round
            layer = b.linear(24, 3)
            turned = Linear(layer.weight.flip(1), layer.bias)
            b.flat()
            first = b(layer)
            second = b(turned, b(Gather(0, tuple(range(23, -1, -1))), b(Reshape((24,)), "x")))
            b(Staircase("round"), b(ScaleShift(torch.full((3,), 2.0**23), None), b(Add(-1), first, second)))
    b(Relu())
    return b.graph()


SINGLES = (
    "shift",
    "scale",
    "sum",
    "normalisation",
    "normalised layer",
    "residual sum",
    "pool",
    "mean",
    "padding",
    "layer",
    "transposed",
    "step",
)


def count(
    network: Callable[[int], Graph], seeds: range, semantics: torch.dtype, dtype: torch.dtype, counted: bool = True
) -> tuple[int, list[Claim]]:
    """How many claims were made about random networks as executed in ``semantics``, and those that do not hold.

    ``counted``: whether the bounds, in ``dtype``, are for the executed values, or for the real ones alone.
    """
    total, wrong = 0, []
    for seed in seeds:
        graph = network(seed)
        graph = graph.to(torch.float32 if seed % 3 else torch.float64).to(torch.float64)
        box = random_box(graph, width=(0.0, 1e-6, 1e-2, 1.0)[seed % 4], seed=seed + 7)
        narrow = torch.float32 if torch.float32 in (semantics, dtype) else torch.float64
        low, high = (b.to(narrow).to(dtype) for b in box)
        layers = Layers(graph)
        runs = [partial(Machine(semantics, s).run, layers) for s in range(5 * seed, 5 * seed + 5)]
        execution = Execution.of(graph, semantics)
        if not counted:
            execution = Execution(semantics, {})
        for claim in claims(graph, (low, high), some_rows(graph, seed), dtype, True, execution, runs):
            total += 1
            if not claim.holds:
                wrong.append(claim)
    return total, wrong


def check_none_is_exceeded(
    network: Callable[[int], Graph], seeds: range, semantics: torch.dtype, dtype: torch.dtype
) -> None:
    """That executions exceed no bound of the networks of some seeds."""
    total, wrong = count(network, seeds, semantics, dtype)
    assert not wrong, wrong[:3]
    print(f"{total} bounds in {dtype} of {len(seeds)} networks as executed in {semantics}")


@pytest.mark.parametrize(("semantics", "dtype"), PAIRS)
@pytest.mark.parametrize("seeds", few(1, [range(6), range(6, 50)]))
def test_no_execution_of_a_random_chain_exceeds_a_bound(
    seeds: range, semantics: torch.dtype, dtype: torch.dtype
) -> None:
    check_none_is_exceeded(random_chain, seeds, semantics, dtype)


@pytest.mark.parametrize(("semantics", "dtype"), PAIRS)
@pytest.mark.parametrize("seeds", few(1, [range(2), range(2, 6)]))
@pytest.mark.parametrize("name", [*(name for name in NETWORKS if name != "pooling"), "folded"])
def test_no_execution_of_networks_of_every_operator_exceeds_a_bound(
    name: str, seeds: range, semantics: torch.dtype, dtype: torch.dtype
) -> None:
    check_none_is_exceeded({**NETWORKS, "folded": folded}[name], seeds, semantics, dtype)


@pytest.mark.parametrize(("semantics", "dtype"), PAIRS)
@pytest.mark.parametrize("seeds", few(1, [range(10), range(10, 100)]))
def test_no_execution_of_a_random_network_of_every_operator_exceeds_a_bound(
    seeds: range, semantics: torch.dtype, dtype: torch.dtype
) -> None:
    check_none_is_exceeded(every_operator, seeds, semantics, dtype)


def test_these_have_every_operator_that_is_written_with_several_nodes() -> None:
    assert wholes_of(map(every_operator, range(100))) == wholes_to_attack()


@pytest.mark.parametrize("network", [random_chain, folded, every_operator])
def test_bounds_of_the_real_network_are_exceeded_by_executions(network: Callable[[int], Graph]) -> None:
    """So that the tests above can fail."""
    total, wrong = count(network, range(4), torch.float32, torch.float64, counted=False)
    assert len(wrong) > total / 100


@pytest.mark.parametrize("kind", SINGLES)
def test_every_operator_that_rounds_needs_to_be_counted_and_is(kind: str) -> None:
    """At points, in float64: without the execution of this one operator some bounds are exceeded, with it none."""
    network, seeds = partial(single, kind), range(0, 12, 4)
    _, wrong = count(network, seeds, torch.float32, torch.float64)
    assert not wrong, wrong[:3]
    assert any(count(network, range(s, s + 1), torch.float32, torch.float64, counted=False)[1] for s in seeds)
