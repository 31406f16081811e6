"""What one of several ranks measures for :mod:`benchmarks.scale_ranks`: a module that workers can import."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import peak_growth
from benchmarks.scale_networks import problem
from zonocuda import Ranks, Zonotope, compute_bounds, optimize_bounds
from zonocuda.bounds.plan.planner import Step
from zonocuda.graph import Graph
from zonocuda.verifier import Ascent

OUTPUTS = 10
"""Of which slopes are optimised for the smallest lower bound."""


def measure(name: str, radius: float, budget: int, iterations: int, dtype: str) -> tuple[dict[str, Any], Tensor]:
    """What one rank finds: its numbers, and bounds ``[2, outputs]``."""
    torch.set_num_threads(1)
    graph, image, mask = problem(name)
    kind: torch.dtype = getattr(torch, dtype)
    network, image, mask = graph.to(kind), image.to(kind), mask.to(kind)
    return measured(
        network, Zonotope.from_box((image - radius * mask)[None], (image + radius * mask)[None]), budget, iterations
    )


def measured(graph: Graph, zonotope: Zonotope, budget: int, iterations: int) -> tuple[dict[str, Any], Tensor]:
    """The same for a network and a zonotope."""
    ranks = Ranks()
    share = zonotope.shared(ranks)
    rows = torch.eye(OUTPUTS, graph.output_shape[0], dtype=zonotope.center.dtype)
    ascent = Ascent(iterations=iterations, rate=0.1)
    plan: tuple[Step, ...] = ()

    def call() -> tuple[int, Tensor]:
        nonlocal plan
        if iterations:
            best = optimize_bounds(graph, share, rows, mode="forward", ascent=ascent, memory_budget=budget)
            return 0, torch.stack([best.lower[0], best.lower[0]])
        with torch.no_grad():
            found = compute_bounds(graph, share, memory_budget=budget)
        assert found.output is not None
        plan = found.plan
        return sum(block.symbols.count for block in found.output.blocks), torch.stack([found.lower[0], found.upper[0]])

    began = time.perf_counter()
    (symbols, bounds), peak = peak_growth(call)
    numbers = {
        "rank": ranks.rank,
        "symbols": symbols,
        "planned_bytes": max((step.bytes for step in plan), default=0),
        "peak_bytes": peak,
        "seconds": time.perf_counter() - began,
    }
    return numbers, bounds
