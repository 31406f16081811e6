"""A chain of three convolutions on a map, every pixel perturbed: structured generators against dense ones.

The dense side is the yardstick. The radius is such that a tenth of the neurons is unstable. Peak memory is that of this
process during one more call. The larger map takes minutes and gigabytes and is marked slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.machine import Machine, peak_growth, recycle_memory
from benchmarks.radius import radius_for
from benchmarks.table import facts
from benchmarks.yardstick import dense_sweep
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module

UNSTABLE = 0.1  # of all neurons
ROUNDS = {32: 5, 64: 1}  # by side


@dataclass(frozen=True)
class Chain:
    """Convolutions of 3x3 with stride 1, 2, 1 and 16, 32, 32 channels, a ReLU behind each, on 3 x side x side."""

    side: int

    def graph(self) -> Graph:
        """The network, with random He weights."""
        layers: list[nn.Module] = []
        torch.manual_seed(0)
        for channels, outputs, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 1)):
            conv = nn.Conv2d(channels, outputs, 3, stride, padding=1)
            nn.init.kaiming_normal_(conv.weight)
            layers += [conv, nn.ReLU()]
        return from_module(nn.Sequential(*layers).eval(), (3, self.side, self.side))

    def box(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Around a random image."""
        image = torch.rand(3, self.side, self.side, generator=torch.Generator().manual_seed(0))
        radius = radius_for(graph, image, UNSTABLE)
        return image - radius, image + radius


CHAINS = (Chain(32), pytest.param(Chain(64), marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def boxes() -> dict[Chain, tuple[Graph, Tensor, Tensor]]:
    """The chains with their boxes, once for both methods."""
    return {}


@pytest.mark.parametrize("method", ["dense", "structured"])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"{chain.side}x{chain.side}")
@pytest.mark.parametrize("device", ["cpu"], indirect=True)
def bench_chain(
    benchmark: BenchmarkFixture,
    machine: Machine,
    chain: Chain,
    method: str,
    boxes: dict[Chain, tuple[Graph, Tensor, Tensor]],
) -> None:
    """Bounds of the last ReLU's value."""
    if chain not in boxes:
        graph = chain.graph()
        boxes[chain] = (graph, *chain.box(graph))
    graph, lower, upper = boxes[chain]

    def structured() -> object:
        return sweep(graph, Zonotope.from_box(lower.unsqueeze(0), upper.unsqueeze(0))).bounds

    call: Callable[[], object] = structured if method == "structured" else lambda: dense_sweep(graph, lower, upper)
    benchmark.group = f"chain of convolutions, 3x{chain.side}x{chain.side}"
    with torch.no_grad():
        benchmark.pedantic(call, rounds=ROUNDS[chain.side], warmup_rounds=1, iterations=1)
        if benchmark.stats is not None:
            _, peak = peak_growth(call)
            recycle_memory()
            benchmark.extra_info.update(
                facts(machine, method, None, benchmark.stats.stats.median), peak_megabytes=peak / 1e6
            )
