"""The forward sweep in float64 against exact rational arithmetic on three small networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch

from tests.verifier.exact import ExactZonotope, U, evaluate, propagate
from tests.verifier.graphs import Builder, fc
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Diagonal, Zonotope
from zonocuda.graph import Add, AveragePool, Concat, Graph, Relu
from zonocuda.relaxations.relu import ReluRule


def small_conv() -> Graph:
    """A convolution, an average over two values, and a linear layer, on six inputs."""
    b = Builder(1, 2, 3, seed=1)
    b(b.conv(1, 2, kernel=2, pad=0))
    b(Relu())
    b(AveragePool((1, 2), (1, 1)))
    b(b.conv(2, 2, kernel=1, pad=0))
    b(Relu())
    b.flat()
    b(b.linear(2, 2))
    return b.graph()


def small_residual() -> Graph:
    """A residual block, a difference, and a concatenation with the input."""
    b = Builder(3, seed=2)
    inner = b(b.linear(3, 3), b(Relu(), b(b.linear(3, 3))))
    block = b(Relu(), b(Add(), inner, "x"))
    b(Add(-1), block, b(Relu(), b(b.linear(3, 3), block)))
    b(Concat(0), b.nodes[-1].name, "x")
    b(b.linear(6, 2))
    return b.graph()


NETWORKS: dict[str, Callable[[], Graph]] = {
    "fc": lambda: fc(3, (3, 6, 5, 2)),
    "conv": small_conv,
    "residual": small_residual,
}


def box(graph: Graph) -> Zonotope:
    """A box around a random point."""
    x = torch.randn((1, *graph.input_shape), dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    return Zonotope.from_ball(x, 0.6)


def exact_box(z: Zonotope) -> ExactZonotope:
    """The same box, its float64 center and radius taken as exact."""
    (block,) = z.blocks
    assert isinstance(block, Diagonal)
    return ExactZonotope.of_box(z.center[0], z.radius()[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_float64_bounds_of_every_node_agree_with_exact_ones(name: str) -> None:
    graph = NETWORKS[name]()
    z = box(graph)
    result = sweep(graph, z, all_layers=True)
    slopes = {name: ReluRule().band(*bounds, None).slope for name, bounds in result.intermediate.items()}
    exact = propagate(graph, exact_box(z), slopes)
    assert any(stats.unstable for stats in result.stats)
    for node in graph.nodes:
        allowed = exact[node.name].rounding()
        for bound, true in zip(result.layers[node.name], exact[node.name].bounds(), strict=True):
            for value, reference, tolerance in zip(bound.flatten().tolist(), true, allowed, strict=True):
                assert abs(Fraction(value) - reference) <= tolerance
        scale = max(abs(v) for bound in exact[node.name].bounds() for v in bound)
        assert max(allowed) < 1e-11 * (1 + scale), "the tolerance would hide an error"


@pytest.mark.parametrize("name", NETWORKS)
def test_float64_slopes_are_the_exact_minimum_area_slopes(name: str) -> None:
    """lam = fl(u / fl(u - l)): two roundings of the exact quotient of the same l and u."""
    graph = NETWORKS[name]()
    for low, high in sweep(graph, box(graph)).intermediate.values():
        slopes = ReluRule().initial(low, high)
        for lo, up, lam in zip(low.flatten().tolist(), high.flatten().tolist(), slopes.flatten().tolist(), strict=True):
            if lo < 0 < up:
                exact = Fraction(up) / (Fraction(up) - Fraction(lo))
                assert abs(Fraction(lam) - exact) <= 2 * U * (1 + 2 * U) * exact


@pytest.mark.parametrize("name", NETWORKS)
def test_every_vertex_lies_inside_the_exact_and_the_float64_bounds(name: str) -> None:
    graph = NETWORKS[name]()
    z = box(graph)
    start = exact_box(z)
    exact = propagate(graph, start, None)[graph.output]
    low, high = exact.bounds()
    result = sweep(graph, z)
    float_low, float_high = (b.flatten().tolist() for b in result.output.bounds())
    slopes = {name: ReluRule().band(*bounds, None).slope for name, bounds in result.intermediate.items()}
    slack = propagate(graph, start, slopes)[graph.output].rounding()  # sound for these slopes, too
    radius = start.radius
    seen = []
    for signs in itertools.product((-1, 1), repeat=len(radius)):
        y = evaluate(graph, [c + s * r for c, s, r in zip(start.center, signs, radius, strict=True)])
        seen.append(y)
        for i, v in enumerate(y):
            assert low[i] <= v <= high[i]
            assert Fraction(float_low[i]) - slack[i] <= v <= Fraction(float_high[i]) + slack[i]
    assert len(seen) == 2 ** len(radius)
    assert max(y[0] for y in seen) > min(y[0] for y in seen)


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_evaluation_agrees_with_the_graph(name: str) -> None:
    graph = NETWORKS[name]()
    x = box(graph).center
    exact = evaluate(graph, [Fraction(v) for v in x.flatten().tolist()])
    assert torch.allclose(graph(x).flatten(), torch.tensor([float(v) for v in exact], dtype=torch.float64), rtol=1e-13)
