"""Clocks of the benchmarks: how long a call takes on its device, and how long it keeps the host.

On a GPU the time of a call is what two events in its stream say. The stream is kept busy until the host has asked for
all of it, so that the events have the device's work between them and none of the host's; what was put into the stream
before, buffers that get their numbers back, is done when the first event comes. The host's own time is measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Protocol

import torch

CYCLES_PER_SECOND = 2.5e9
"""At least those of a GPU."""


class Clock(Protocol):
    """Seconds of calls."""

    def read(self) -> float:
        """Seconds, from any begin; the difference around a call of :meth:`timed` is what it took."""

    def timed(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call, such that the clock counts it."""


class HostClock:
    """Seconds as they pass."""

    def read(self) -> float:
        return time.perf_counter()

    def timed(self, call: Callable[[], object]) -> Callable[[], object]:
        return call


@dataclass
class StreamClock:
    """Seconds that a GPU's stream spends on calls, and no others.

    Attributes:
        busy: seconds that the stream is kept busy before each: more than the host needs to ask for a call.
        event: makes an event with a time.
        spin: keeps the stream busy for so many cycles.
    """

    busy: float = 0.0
    event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True)
    spin: Callable[[int], object] = torch.cuda._sleep
    total: float = 0.0

    def read(self) -> float:
        return self.total

    def timed(self, call: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            begin, end = self.event(), self.event()
            self.spin(int(self.busy * CYCLES_PER_SECOND))
            begin.record()
            call()
            end.record()
            end.synchronize()
            self.total += begin.elapsed_time(end) / 1e3  # milliseconds

        return run


def host_seconds(
    call: Callable[[], object],
    synchronise: Callable[[], object],
    before: Callable[[], object] = lambda: None,
    rounds: int = 15,
) -> float:
    """How long a call keeps the host on an idle device: the median. ``before``: not measured, before each."""
    times = []
    for _ in range(rounds):
        before()
        synchronise()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    synchronise()
    return median(times)


def clock_of(
    device: torch.device, call: Callable[[], object], before: Callable[[], object] = lambda: None
) -> tuple[Clock, float | None]:
    """The clock of a call on a device, and how long it keeps the host of a GPU."""
    if device.type == "cpu":
        return HostClock(), None
    host = host_seconds(call, partial(torch.cuda.synchronize, device), before)
    return StreamClock(busy=2 * host), host


def median_seconds(call: Callable[[], object], device: torch.device, rounds: int) -> float:
    """How long a call takes on a device: the median, after one call more."""
    call()
    clock, _ = clock_of(device, call)
    timed, times = clock.timed(call), []
    for _ in range(rounds):
        start = clock.read()
        timed()
        times.append(clock.read() - start)
    return median(times)
