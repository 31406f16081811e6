"""Fixtures of the benchmarks, and the table at their end.

A benchmark names the bytes that it must move and the operations that it must do; its row then tells what share of this
machine's copy bandwidth, or product rate, it reaches. Native and reference stand in one group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.clock import clock_of
from benchmarks.machine import (
    Machine,
    copy_bandwidth,
    measure_machine,
    recycle_memory,
    return_memory,
)
from benchmarks.machine import machine_info as known_machine_info
from benchmarks.table import Cost, Row, facts, table
from tests.devices import DEVICES, use_device
from zonocuda import ops, reference

MEBIBYTES = {"cpu": 64, "cuda": 2048}
"""Of generators: beyond the caches of a CPU's cores, and many times those of a GPU."""
FLOAT = 4  # bytes
ROUNDS, WARMUP_ROUNDS = 15, 3
Direction = Literal["forward", "forward+backward"]
Memory = Literal["recycled", "fresh"]


def generator_bytes(device: torch.device) -> int:
    """Bytes of the generators of a benchmark; ZONOCUDA_BENCH_MB, where it is set."""
    return int(os.environ.get("ZONOCUDA_BENCH_MB", MEBIBYTES[device.type])) * 2**20


@dataclass(frozen=True)
class Sizes:
    """A zonotope whose generators ``[batch, symbols, features]`` take ``bytes`` in float32."""

    batch: int
    symbols: int
    bytes: int

    @property
    def features(self) -> int:
        """Of one batch element."""
        return max(1, self.bytes // FLOAT // (self.batch * self.symbols))

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


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device once; CUDA carries the marker ``gpu`` and is skipped where it cannot run."""
    torch.manual_seed(0)
    return use_device(request.param)


@pytest.fixture(params=[(1, 128), (16, 1024)], ids=lambda s: f"{s[0]}x{s[1]}")
def sizes(request: pytest.FixtureRequest, device: torch.device) -> Sizes:
    """Few symbols of many neurons, and many symbols of few."""
    return Sizes(*request.param, generator_bytes(device))


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    """The devices measured so far."""
    return {}


@pytest.fixture
def recycles() -> bool:
    """Whether freed memory is kept for what comes: as inside the verifier."""
    return True


@pytest.fixture
def machine(device: torch.device, machines: dict[str, Machine], recycles: bool) -> Machine:
    """The device with its product rate, measured once a run, and its copy bandwidth, measured again for every row."""
    if device.type not in machines:
        machines[device.type] = measure_machine(device, generator_bytes(device))
    kept = machines[device.type].recycles_memory or (recycles and recycle_memory())
    return replace(
        machines[device.type], copy_bandwidth=copy_bandwidth(device, generator_bytes(device)), recycles_memory=kept
    )


@dataclass(frozen=True)
class Measure:
    """Runs a call and records how near it comes to what the machine can do."""

    benchmark: BenchmarkFixture
    machine: Machine
    backend: ModuleType
    direction: Direction
    memory: Memory

    def __call__(self, op: str, inputs: Mapping[str, Any], shape: str, forward: Cost, backward: Cost) -> None:
        """An op of one backend in one direction, with its inputs on the device and the costs of both passes."""
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

        self.run(f"{op} {self.direction}", shape, call, cost)

    def in_place(self, op: str, inputs: Mapping[str, Any], shape: str, cost: Cost) -> None:
        """An op that writes into its inputs; they get their numbers back before every round."""
        kept = {name: t.clone() for name, t in inputs.items() if isinstance(t, Tensor)}

        def restore() -> None:
            for name, t in kept.items():
                inputs[name].copy_(t)

        function = getattr(self.backend, op)
        with torch.no_grad():
            self.run(f"{op} forward", shape, lambda: function(**inputs), cost, before=restore)

    def run(
        self, what: str, shape: str, call: Callable[[], object], cost: Cost, before: Callable[[], None] | None = None
    ) -> None:
        """Any call; ``before`` is not measured. On a GPU its time is the device's, and the host's stands beside it."""
        device = self.machine.device
        fresh = self.memory == "fresh" and device.type == "cpu"
        group = f"{what}, {shape}, {device.type}{', fresh memory' if fresh else ''}"

        def setup() -> None:
            if fresh:
                return_memory()
            if before is not None:
                before()

        self.benchmark.group = group
        try:
            host = pedantic(self.benchmark, call, device, setup)
        finally:
            if fresh:
                recycle_memory()
        if self.benchmark.stats is not None:  # None under --benchmark-disable
            backend = "native" if self.backend is ops else "reference"
            self.benchmark.extra_info.update(
                facts(self.machine, backend, cost, self.benchmark.stats.stats.median, host),
                memory="fresh" if fresh or not self.machine.recycles_memory else "recycled",
            )


def pedantic(
    benchmark: BenchmarkFixture,
    call: Callable[[], object],
    device: torch.device,
    setup: Callable[[], None] = lambda: None,
    rounds: int = ROUNDS,
    warmup_rounds: int = WARMUP_ROUNDS,
) -> float | None:
    """Measures a call by the clock of its device; returns how long it keeps the host of a GPU."""
    clock, host = clock_of(device, call, setup)
    benchmark._timer = clock.read
    benchmark.pedantic(clock.timed(call), setup=setup, rounds=rounds, warmup_rounds=warmup_rounds, iterations=1)
    return host


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
def memory() -> Memory:
    """Where new tensors lie: in blocks that were freed before, or, where a benchmark asks so, fresh from the system."""
    return "recycled"


@pytest.fixture
def measure(
    benchmark: BenchmarkFixture, machine: Machine, backend: ModuleType, direction: Direction, memory: Memory
) -> Measure:
    """What a benchmark calls with its op."""
    return Measure(benchmark, machine, backend, direction, memory)


@pytest.fixture
def measure_once(benchmark: BenchmarkFixture, machine: Machine, backend: ModuleType, memory: Memory) -> Measure:
    """The same for what has no second direction."""
    return Measure(benchmark, machine, backend, "forward", memory)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Replaced by what numbers depend on."""
    machine_info.clear()
    machine_info.update(known_machine_info())


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Without the time of every round, and without parameters."""
    output_json["commit_info"] = {key: output_json["commit_info"].get(key) for key in ("id", "dirty")}
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
        benchmark.pop("params", None)  # what the names say, and paths of this machine


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """What was interrupted before its first round has no statistics, and would cost the file of all others."""
    found = getattr(session.config, "_benchmarksession", None)
    if found is not None:
        found.benchmarks = [one for one in found.benchmarks if one.stats.data]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table at the end of a run."""
    session = getattr(config, "_benchmarksession", None)
    rows = [Row.of(b) for b in (session.benchmarks if session else []) if "subject" in b.extra_info]
    if rows:
        terminalreporter.section("time, and what share of the machine's measured rates that is")
        for line in table(rows):
            terminalreporter.write_line(line)
