"""The clock of benchmarks on a GPU, on a stream that is none: what it counts, and in which order it asks for it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import clock, conftest, table
from benchmarks.clock import HostClock, StreamClock, clock_of, host_seconds, median_seconds
from benchmarks.machine import Machine

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class Stream:
    """Work in order: every event has the time at which the stream reaches it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []

    def work(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.asked.append(name)

    def event(self) -> Event:
        return Event(self)

    def spin(self, cycles: int) -> None:
        self.work("spin", cycles / clock.CYCLES_PER_SECOND)


class Event:
    """As torch.cuda.Event, with ``enable_timing``."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.at, self.waited = stream, -1.0, False

    def record(self) -> None:
        self.at = self.stream.now
        self.stream.asked.append("event")

    def synchronize(self) -> None:
        self.waited = True

    def elapsed_time(self, end: Event) -> float:
        assert end.waited, "the end has not come yet"
        return (end.at - self.at) * 1e3


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """In place of the GPU's."""
    made = Stream()
    monkeypatch.setattr(clock, "StreamClock", lambda busy: StreamClock(busy, made.event, made.spin))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    return made


def test_the_time_of_a_call_is_between_its_events_and_the_stream_is_busy_before(stream: Stream) -> None:
    measured = StreamClock(0.5, stream.event, stream.spin)
    call = measured.timed(lambda: stream.work("call", 0.25))
    assert measured.read() == 0.0
    call()
    assert measured.read() == pytest.approx(0.25)
    assert stream.asked == ["spin", "event", "call", "event"]
    assert stream.now == pytest.approx(0.75)
    call()
    assert measured.read() == pytest.approx(0.5)


def test_the_median_of_a_call_on_a_gpu_is_its_streams(stream: Stream) -> None:
    times = iter([9.0, *[1.0] * 15, 3.0, 1.0, 2.0])  # once before, 15 times for the host, and then 3 rounds
    assert median_seconds(lambda: stream.work("call", next(times)), CUDA, rounds=3) == pytest.approx(2.0)


def test_the_hosts_time_is_that_of_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def take(seconds: float) -> Callable[[], None]:
        def call() -> None:
            now[0] += seconds

        return call

    assert host_seconds(take(2.0), take(30.0), take(400.0), rounds=3) == pytest.approx(2.0)


def test_a_cpu_has_one_clock() -> None:
    measured, host = clock_of(CPU, lambda: None)
    assert isinstance(measured, HostClock)
    assert host is None


class Benchmark:
    """As pytest-benchmark's fixture: rounds of setup, clock, call, clock."""

    def __init__(self) -> None:
        self.group = ""
        self.extra_info: dict[str, Any] = {}
        self._timer: Callable[[], float] = lambda: 0.0
        self.times: list[float] = []

    @property
    def stats(self) -> SimpleNamespace:
        times = sorted(self.times)
        return SimpleNamespace(stats=SimpleNamespace(median=times[len(times) // 2]))

    def pedantic(self, target: Callable[[], object], setup: Callable[[], object], rounds: int, **_: int) -> None:
        for _round in range(rounds):
            setup()
            start = self._timer()
            target()
            self.times.append(self._timer() - start)


def test_buffers_are_restored_before_the_clock_of_a_gpu_starts(stream: Stream) -> None:
    benchmark: Any = Benchmark()
    machine = Machine(CUDA, "none", 1e9, 1e9, True)
    measure = conftest.Measure(benchmark, machine, conftest.ops, "forward", "recycled")
    measure.run(
        "op", "1x2x3", lambda: stream.work("call", 0.125), table.Cost(1000, 10), lambda: stream.work("restore", 7.0)
    )
    assert benchmark.times == pytest.approx([0.125] * conftest.ROUNDS)
    assert stream.asked[-5:] == ["restore", "spin", "event", "call", "event"]
    assert benchmark.extra_info["host_seconds"] >= 0
    assert benchmark.extra_info["gigabytes_per_second"] == pytest.approx(1000 / 0.125 / 1e9)


def test_sizes_on_a_gpu_are_many_times_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZONOCUDA_BENCH_MB", raising=False)
    assert conftest.generator_bytes(CUDA) >= 2 * 2**30
    assert conftest.Sizes(16, 1024, conftest.generator_bytes(CUDA)).generators * conftest.FLOAT == 2 * 2**30
    assert conftest.generator_bytes(CPU) == 64 * 2**20
    monkeypatch.setenv("ZONOCUDA_BENCH_MB", "3")
    assert conftest.generator_bytes(CUDA) == 3 * 2**20


def test_the_table_of_a_gpu_shows_how_long_a_call_keeps_the_host() -> None:
    machine = Machine(CUDA, "none", 1e9, 1e9, True)
    rows = [
        table.Row("a", 0.5, table.facts(machine, "native", None, 0.5, 0.002)),
        table.Row("a", 1.0, table.facts(machine, "reference", None, 1.0)),
    ]
    _, header, first, second = table.table(rows)
    assert header.endswith("host ms")
    assert first.endswith("2.000")
    assert second.endswith("-")
    assert not any("host ms" in line for line in table.table(rows[1:]))
