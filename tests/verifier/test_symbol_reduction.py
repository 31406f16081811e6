"""Sweeps that keep few symbols between blocks: their bounds hold in balls, and are wider than those of all symbols."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb

import zonocuda
from tests.verifier.test_transformers import graph_of, run_in_balls
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.domains import Zonotope
from zonocuda.precision import summed_products


def merged(swept: Sweep) -> set[str]:
    return {step.name for step in swept.plan if any(action.startswith("merged") for action in step.actions)}


@torch.no_grad()
def test_bounds_of_a_transformer_on_few_symbols_hold_in_balls_with_their_rounding() -> None:
    """Rounding is counted in float32, of sums that merging made too."""
    network = graph_of("transformer")
    graph = network.to(torch.float32, torch.device("cpu"))
    low = torch.randn(1, *graph.input_shape, generator=torch.Generator().manual_seed(2))
    high = low + 0.02
    rounding, box = Rounding.of(network, graph, torch.float32), Zonotope.from_box(low, high)
    with summed_products():
        found = {most: sweep(graph, box, Means(symbols=most), rounding=rounding) for most in (None, 1000, 8, 0)}
    for point in (low[0], high[0]):
        seen, _ = run_in_balls(network, point)
        for node, (lower, upper) in found[8].intermediate.items():
            exact = seen[graph[node].inputs[0]]
            for v, a, b in zip(exact, lower.flatten().tolist(), upper.flatten().tolist(), strict=True):
                assert arb(a) <= v
                assert arb(b) >= v
    assert merged(found[8]) <= graph.passes
    assert len(merged(found[8])) > 0
    assert not merged(found[1000])
    widths = {most: float((one.bounds[1] - one.bounds[0]).mean()) for most, one in found.items()}
    assert widths[1000] == widths[None] < widths[8] <= widths[0]


def test_passes_are_the_nodes_that_no_edge_spans() -> None:
    graph = graph_of("transformer")
    for i, node in enumerate(graph.nodes):
        spans = any(graph.position[name] < i for later in graph.nodes[i + 1 :] for name in later.inputs)
        assert (node.name in graph.passes) == (not spans)
    assert len(graph.nodes) > len(graph.passes) > 3


def test_merged_symbols_have_no_gradient() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).eval()
    ball = zonocuda.Zonotope.from_ball(torch.zeros(1, 2), 0.1)
    with pytest.raises(ValueError, match="max_symbols"):
        zonocuda.compute_bounds(model, ball, max_symbols=1)
    with torch.no_grad():
        few, all_ = (zonocuda.compute_bounds(model, ball, max_symbols=n) for n in (1, None))
    assert bool((few.lower < all_.lower).all())
    with pytest.raises(ValueError, match="max_symbols"):
        zonocuda.compute_bounds(model, ball, max_symbols=-1)
