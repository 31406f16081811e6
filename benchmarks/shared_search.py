"""One hard instance with and without workers: seconds, what workers were idle, and what was sent.

    python -m benchmarks.shared_search [NET SPEC] [--workers 1 2] [--timeout 100] [--output F.json]

NET and SPEC are by default 1_1 and prop_3 of acasxu in ZONOCUDA_TEST_DATA. For each number of workers, of one thread
each (0: in this process), a line: the verdict, parts, packets, seconds from the search's first packet to its last
answer, those of all packets together, the share of the workers' time that no packet had (their start included), and
bytes: of the problem, which each worker gets once, and of a packet and an answer, on average.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.executors import Done, LocalExecutor, WhenLost
from zonocuda.fleet.runner import _prepare
from zonocuda.verifier import verify


class Counted:
    """A local executor whose traffic is counted."""

    def __init__(self, inner: LocalExecutor) -> None:
        self.inner, self.workers = inner, inner.workers
        self.problem = self.packets = self.answers = self.count = 0
        self.first = self.last = 0.0

    def put(self, value: object) -> object:
        self.problem = len(pickle.dumps(value))
        self.first = time.perf_counter()
        return self.inner.put(value)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: object,
        limit: float | None = None,
        when_lost: WhenLost = "alone",
    ) -> int:
        self.packets += len(pickle.dumps(arguments))
        return self.inner.submit(function, *arguments, limit=limit, when_lost=when_lost)

    def as_completed(self) -> Iterator[Done]:
        for done in self.inner.as_completed():
            self.count, self.last = self.count + 1, time.perf_counter()
            self.answers += len(pickle.dumps(done.value))
            yield done

    def cancel(self, task: int) -> None:
        self.inner.cancel(task)


def measured(net: Path, spec: Path, workers: int, timeout: float) -> dict[str, object]:
    """One search; with no workers, in this process."""
    torch.set_num_threads(1)
    if not workers:
        result = verify(net, spec, device="cpu", timeout=timeout)
        parts, seconds = sum(s.boxes for s in result.splits), sum(s.seconds for s in result.splits)
        return {"workers": 0, "verdict": str(result.verdict), "parts": parts, "seconds": seconds}
    with LocalExecutor(workers, prepare=partial(_prepare, 1, None)) as inner:
        executor = Counted(inner)
        result = verify(net, spec, device="cpu", timeout=timeout, executor=executor)
    work, seconds = sum(s.work_seconds for s in result.splits), executor.last - executor.first
    return {
        "workers": workers,
        "verdict": str(result.verdict),
        "parts": sum(s.boxes for s in result.splits),
        "packets": executor.count,
        "seconds": seconds,
        "work_seconds": work,
        "idle": 1 - work / (workers * seconds) if seconds else 0.0,
        "problem_bytes": executor.problem,
        "packet_bytes": executor.packets / max(1, executor.count),
        "answer_bytes": executor.answers / max(1, executor.count),
    }


def line(found: dict[str, Any]) -> str:
    """In words."""
    text = f"{found['workers']} workers: {found['verdict']}, {found['parts']} parts in {found['seconds']:.2f} s"
    if found.get("packets"):
        text += (
            f", {found['packets']} packets of {found['work_seconds']:.2f} s together, {found['idle']:.0%} idle; bytes: "
            f"problem {found['problem_bytes']}, packet {found['packet_bytes']:.0f}, answer {found['answer_bytes']:.0f}"
        )
    return text


def _example() -> tuple[Path, Path]:
    folder = data_root() / "vnncomp" / "acasxu"
    return next(folder.rglob("*_1_1_batch_2000.onnx*")), next(folder.rglob("prop_3.vnnlib*"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints, and writes the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--timeout", type=float, default=100.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    net, spec = options.files or _example()
    found = []
    for workers in options.workers:
        found.append(measured(net, spec, workers, options.timeout))
        print(line(found[-1]), flush=True)
    if options.output:
        about = {"machine": machine_info(), "commit": commit_info(), "net": net.name, "spec": spec.name}
        options.output.write_text(json.dumps({**about, "runs": found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
