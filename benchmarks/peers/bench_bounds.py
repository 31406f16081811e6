"""Bounds of one box, ours beside auto_LiRPA's and a sweep in plain torch: one group a network, time, the least margin
as ``margin``, and ``memory``, the bytes that the process grew by in one call, from free memory given back to the
system.

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
from benchmarks.networks import PROBLEMS, Problem, margins
from benchmarks.peers import lirpa
from benchmarks.peers.process import PeerError, Worker
from benchmarks.tightness_cases import Case
from benchmarks.yardstick import dense_sweep
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
def peers(case: Case) -> Iterator[list[Worker]]:
    """auto_LiRPA's processes for a network: another one where one has ended."""
    held: list[Worker] = []
    yield held
    for worker in held:
        worker.close()


@pytest.fixture
def peer(peers: list[Worker]) -> Worker:
    """auto_LiRPA, started anew where it has ended, or a skip with the reason."""
    if not peers or peers[-1].has_ended:
        found = lirpa.start(threads())
        if isinstance(found, str):
            pytest.skip(found)
        peers.append(found)
    return peers[-1]


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


def bench_plain_torch(benchmark: Any, case: Case) -> None:
    """The minimum-area zonotope with dense generators."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    graph = margins(case.graph, case.label)
    try:
        with torch.no_grad():
            call = lambda: dense_sweep(graph, case.box[0][0], case.box[1][0])[0].tolist()  # noqa: E731
            measure(benchmark, case.name, "plain torch", "minimum area, dense", call)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("setting", lirpa.SETTINGS)
def bench_auto_lirpa(benchmark: Any, case: Case, peer: Worker, setting: str, tmp_path: Path) -> None:
    try:
        lirpa.tell(peer, case, tmp_path)
    except (ValueError, PeerError) as error:
        pytest.skip(f"auto_LiRPA: {error}")
    method, iterations = lirpa.SETTINGS[setting]
    benchmark.extra_info |= peer.facts

    def call() -> list[float]:
        lower: list[float] = peer.ask(do="bound", method=method, iterations=iterations)["lower"]
        return lower

    try:
        measure(benchmark, case.name, "auto_LiRPA", setting, call, lambda: peer.ask(do="trim"), peer.pid)
    except PeerError as error:
        pytest.skip(f"auto_LiRPA ended: {error}")
