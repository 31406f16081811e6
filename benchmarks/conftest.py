"""Fixtures of the benchmarks, and the table at their end.

A benchmark names the bytes that it must move and the operations that it must do; its row then tells what share of this
machine's copy bandwidth it reaches. Native and reference stand in one group.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.machine import Machine, measure_machine, synchronised
from tests.devices import DEVICES, use_device
from zonocuda import ops, reference

GENERATOR_BYTES = int(os.environ.get("ZONOCUDA_BENCH_MB", "64")) * 2**20
FLOAT = 4  # bytes
ROUNDS, WARMUP_ROUNDS = 15, 3
Direction = Literal["forward", "forward+backward"]


@dataclass(frozen=True)
class Sizes:
    """A zonotope whose generators ``[batch, symbols, features]`` take GENERATOR_BYTES in float32."""

    batch: int
    symbols: int

    @property
    def features(self) -> int:
        """Of one batch element."""
        return max(1, GENERATOR_BYTES // FLOAT // (self.batch * self.symbols))

    @property
    def generators(self) -> int:
        """Numbers in the generators."""
        return self.neurons * self.symbols

    @property
    def neurons(self) -> int:
        """Numbers in the center."""
        return self.batch * self.features

    def zonotope(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Center ``[batch, features]`` and generators; about half of the neurons cross zero."""
        generators = torch.rand(self.batch, self.symbols, self.features, device=device) - 0.5
        radius = self.symbols / 4  # on average
        return radius * 4 * (torch.rand(self.batch, self.features, device=device) - 0.5), generators


@dataclass(frozen=True)
class Cost:
    """What an op must move and do, however it does it."""

    bytes: int
    operations: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.operations + other.operations)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device once; CUDA carries the marker ``gpu`` and is skipped where it cannot run."""
    torch.manual_seed(0)
    return use_device(request.param)


@pytest.fixture(params=[Sizes(1, 128), Sizes(16, 1024)], ids=lambda s: f"{s.batch}x{s.symbols}x{s.features}")
def sizes(request: pytest.FixtureRequest) -> Sizes:
    """Few symbols of many neurons, and many symbols of few."""
    chosen: Sizes = request.param
    return chosen


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    """The devices measured so far."""
    return {}


@pytest.fixture
def machine(device: torch.device, machines: dict[str, Machine]) -> Machine:
    """The device with its copy bandwidth, measured once a run."""
    if device.type not in machines:
        machines[device.type] = measure_machine(device, GENERATOR_BYTES)
    return machines[device.type]


@dataclass(frozen=True)
class Measure:
    """Runs an op of one backend in one direction and records how near it comes to the copy bandwidth."""

    benchmark: BenchmarkFixture
    machine: Machine
    backend: ModuleType
    direction: Direction

    def __call__(self, op: str, inputs: Mapping[str, Any], shape: str, forward: Cost, backward: Cost) -> None:
        """``inputs`` lie on the device; ``forward`` and ``backward`` are the costs of those passes."""
        function = getattr(self.backend, op)
        cost = forward
        if self.direction == "forward":

            def call() -> object:
                return function(**inputs)
        else:
            cost = forward + backward
            leaves = [t.requires_grad_() for t in inputs.values() if isinstance(t, Tensor) and t.is_floating_point()]
            gradients = [torch.ones_like(t) for t in _outputs(function(**inputs))]

            def call() -> object:
                return torch.autograd.grad(_outputs(function(**inputs)), leaves, gradients)

        device = self.machine.device
        self.benchmark.group = f"{op} {self.direction}, {shape}, {device.type}"
        self.benchmark.pedantic(synchronised(call, device), rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
        if self.benchmark.stats is not None:  # None under --benchmark-disable
            self._record(cost, self.benchmark.stats.stats.median)

    def _record(self, cost: Cost, seconds: float) -> None:
        reached = cost.bytes / seconds
        self.benchmark.extra_info.update(
            backend="native" if self.backend is ops else "reference",
            bytes=cost.bytes,
            operations=cost.operations,
            gigabytes_per_second=reached / 1e9,
            gigaoperations_per_second=cost.operations / seconds / 1e9,
            copy_gigabytes_per_second=self.machine.copy_bandwidth / 1e9,
            fraction_of_copy_bandwidth=reached / self.machine.copy_bandwidth,
            device=self.machine.name,
            torch=torch.__version__,
            memory="recycled" if self.machine.recycles_memory else "fresh",
        )


def _outputs(result: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


@pytest.fixture(params=[ops, reference], ids=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """The native ops and the plain torch ones."""
    chosen: ModuleType = request.param
    return chosen


@pytest.fixture(params=["forward", "forward+backward"])
def direction(request: pytest.FixtureRequest) -> Direction:
    """Values alone, or with the gradients of every input."""
    chosen: Direction = request.param
    return chosen


@pytest.fixture
def measure(benchmark: BenchmarkFixture, machine: Machine, backend: ModuleType, direction: Direction) -> Measure:
    """What a benchmark calls with its op."""
    return Measure(benchmark, machine, backend, direction)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table: time, bytes over time, and the share of copy bandwidth, native beside reference."""
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in (session.benchmarks if session else []) if "bytes" in b.extra_info]
    if not rows:
        return
    terminalreporter.section("bytes that must move over time, against copy bandwidth")
    for name in sorted({row.extra_info["device"] for row in rows}):
        info = next(row.extra_info for row in rows if row.extra_info["device"] == name)
        terminalreporter.write_line(
            f"{name}: copies {info['copy_gigabytes_per_second']:.1f} GB/s (read + written), "
            f"{info['memory']} memory, torch {info['torch']}"
        )
    width = max(len(row.group) for row in rows)
    terminalreporter.write_line(f"{'group':{width}}  {'backend':9}  {'median ms':>10}  {'GB/s':>8}  {'of copy':>7}")
    for row in sorted(rows, key=lambda row: (row.group, row.extra_info["backend"])):
        info = row.extra_info
        terminalreporter.write_line(
            f"{row.group:{width}}  {info['backend']:9}  {row.stats.median * 1e3:10.3f}  "
            f"{info['gigabytes_per_second']:8.2f}  {info['fraction_of_copy_bandwidth']:7.0%}"
        )
