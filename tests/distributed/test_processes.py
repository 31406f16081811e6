"""Ranks that are processes: gloo's collectives, started in an executor's workers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmarks import scale_ranks
from benchmarks.one_rank import measured
from tests.verifier.graphs import NETWORKS, random_box
from zonocuda import Ranks, Zonotope, compute_bounds, optimize_bounds
from zonocuda.bounds.plan.forecast import SCRATCH_BYTES
from zonocuda.executors import LocalExecutor, run_ranks
from zonocuda.verifier import Ascent

ROWS = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def inputs(seed: int) -> Zonotope:
    """A box of the network ``residual``."""
    return Zonotope.from_box(*random_box(NETWORKS["residual"](1), 2, width=0.5, seed=seed))


def bounds(seed: int) -> tuple[int, list[torch.Tensor]]:
    """What a rank finds, and its number; the second one also in a group of its own."""
    graph, zonotope = NETWORKS["residual"](1), inputs(seed)
    ranks = Ranks()
    assert {ranks, Ranks()} == {ranks}, "of one group"
    found = compute_bounds(graph, zonotope.shared(ranks))
    best = optimize_bounds(graph, zonotope.shared(ranks), ROWS, mode="forward", ascent=Ascent(iterations=3, rate=0.1))
    group = dist.new_group([1])
    if ranks.rank == 1:
        own = [compute_bounds(graph, zonotope.shared(Ranks(group))).lower]
    else:
        own = []
        with pytest.raises(ValueError, match="not in the group"):
            Ranks(group)
    return ranks.rank, [found.lower, found.upper, best.lower, *own]


def benchmark(seed: int) -> list[tuple[dict[str, Any], torch.Tensor]]:
    """What :mod:`benchmarks.scale_ranks` measures on a rank, of bounds and of slopes."""
    return [measured(NETWORKS["residual"](1), inputs(seed), 2**30, iterations) for iterations in (0, 1)]


def fail(rank: int) -> None:
    """One of the ranks fails while the others wait for it."""
    ranks = Ranks()
    if ranks.rank == rank:
        raise ValueError("no way")
    ranks.sum(torch.ones(1))


def test_processes_find_what_one_finds_and_a_fault_ends_all_of_them() -> None:
    graph, zonotope = NETWORKS["residual"](1), inputs(3)
    alone = compute_bounds(graph, zonotope)
    best = optimize_bounds(graph, zonotope, ROWS, mode="forward", ascent=Ascent(iterations=3, rate=0.1))
    with LocalExecutor(2) as executor:
        found = run_ranks(executor, 2, bounds, 3)
        assert [rank for rank, _ in found] == [0, 1]
        for _, tensors in found:
            for mine, one in zip(tensors, [alone.lower, alone.upper, best.lower, alone.lower], strict=False):
                torch.testing.assert_close(mine, one, rtol=1e-9, atol=1e-9)
        for mine, one in zip(found[0][1], found[1][1], strict=False):
            assert torch.equal(mine, one)
        for each, name in zip(
            zip(*run_ranks(executor, 2, benchmark, 3), strict=True), ("bounds", "slopes"), strict=True
        ):
            report = scale_ranks.summary(2, each, each[0][1])
            assert report["difference"] == 0
            assert report["seconds"] > 0
            if name == "bounds":
                assert alone.output is not None
                symbols = [numbers["symbols"] for numbers, _ in each]
                assert (sum(symbols), max(symbols)) == (alone.output.symbols, report["symbols"])
                assert report["planned_bytes"] > SCRATCH_BYTES
            assert scale_ranks.line(report).startswith(f"2 ranks: {report['symbols']} symbols, ")
        with pytest.raises(ValueError, match="3 ranks need as many workers at once, and the executor has 2"):
            run_ranks(executor, 3, bounds, 3)
        with pytest.raises(RuntimeError, match="run_ranks: rank 1: ValueError: no way"):
            run_ranks(executor, 2, fail, 1)
