"""Bounds of one box, ours beside auto_LiRPA's: one group a network, time, the smallest margin as ``margin``, and
``memory``, the bytes that the process grew by in one call, from free memory given back to the system.

    pytest benchmarks/peers/bench_bounds.py --benchmark-only --benchmark-json=FILE
    python -m benchmarks.peers.render FILE

Both in float32, without counting rounding, with the same number of threads (OMP_NUM_THREADS, by default 1), in the same
run, after a warm-up; loading the network is not counted. auto_LiRPA bounds the same rows as its own specification.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.bench_tightness import MODES, Point, bounds
from benchmarks.machine import trim_memory
from benchmarks.networks import PROBLEMS, Problem
from benchmarks.peers import lirpa
from benchmarks.peers.process import PeerError, Worker
from benchmarks.tightness_cases import Case
from tests.data import data_root
from tests.peak import peak_growth

ROUNDS, LONG = 7, 20
"""Calls that are timed after one to warm up; of long ones as many as fit into so many seconds, at least one."""
OURS: dict[str, Point] = {
    f"{mode.name}, {setting}" if setting else mode.name: point
    for mode in MODES
    if "joint" not in mode.name
    for setting, point in mode.points
    if not setting.startswith("30")
}
"""Those of benchmarks/bench_tightness.py without its slowest, which no setting of the peer needs to be met."""


def threads() -> int:
    """Of both sides."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@pytest.fixture(scope="module")
def peer(case: Case) -> Iterator[Worker]:
    """auto_LiRPA, one process a network, or a skip with the reason."""
    found = lirpa.start(threads())
    if isinstance(found, str):
        pytest.skip(found)
    yield found
    found.close()


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda problem: problem.name)
def case(request: pytest.FixtureRequest) -> Case:
    """The box around the first image of a network, and the margins of its class."""
    problem: Problem = request.param
    if problem.needs_data:
        data_root()
    graph = problem.load().to(torch.float32)
    pixels, _ = problem.images(1, graph)
    low, high = problem.box(pixels[0])
    return Case.of(problem.name, graph, (low.unsqueeze(0), high.unsqueeze(0)))


def measure(
    benchmark: Any,
    name: str,
    who: str,
    setting: str,
    call: Callable[[], list[float]],
    trim: Callable[[], object] = trim_memory,
    process: int | None = None,
) -> None:
    """One row of a group; ``trim`` and ``process`` are of who computes, by default this process."""
    benchmark.group = f"bounds, {name}"
    benchmark.extra_info |= {"network": name, "who": who, "setting": setting, "threads": threads()}
    trim()
    begin = time.perf_counter()
    found, memory = peak_growth(call, process)
    rounds = max(1, min(ROUNDS, int(LONG / (time.perf_counter() - begin))))
    benchmark.pedantic(call, rounds=rounds)
    if rounds == ROUNDS:  # what the first call holds for later ones is not counted where another one costs little
        trim()
        _, memory = peak_growth(call, process)
    benchmark.extra_info |= {"margin": min(found), "memory": memory}


@pytest.mark.parametrize("setting", OURS)
def bench_ours(benchmark: Any, case: Case, setting: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        measure(benchmark, case.name, "zonocuda", setting, lambda: bounds(OURS[setting], case).flatten().tolist())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("setting", lirpa.SETTINGS)
def bench_auto_lirpa(benchmark: Any, case: Case, peer: Worker, setting: str, tmp_path: Path) -> None:
    try:
        lirpa.tell(peer, case, tmp_path)
    except ValueError as error:
        pytest.skip(str(error))
    method, iterations = lirpa.SETTINGS[setting]
    benchmark.extra_info |= peer.facts

    def call() -> list[float]:
        lower: list[float] = peer.ask(do="bound", method=method, iterations=iterations)["lower"]
        return lower

    try:
        measure(benchmark, case.name, "auto_LiRPA", setting, call, lambda: peer.ask(do="trim"), peer.pid)
    except PeerError as error:
        pytest.skip(f"auto_LiRPA ended: {error}")
