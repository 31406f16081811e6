"""What many instances take: through ``zonocuda run``, one after the other in one process, and in a shell's loop.

    python -m benchmarks.fleet [LIST] [--count 20] [--jobs 2] [--tasks 500] [--output F.json]

LIST is a list of instances, by default that of acasxu in ZONOCUDA_TEST_DATA, of which every so many are taken. Seconds
are those of whole programs, loading torch included, in this order: one process that verifies them one after the other;
``zonocuda run --jobs N``; ``zonocuda verify`` for each. Then what the executor adds to a task: many that do nothing,
through one worker. The verdicts of all three must be the same.
"""

from __future__ import annotations

import argparse
import json
import operator
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.fleet import Instance, LocalExecutor, read_instances
from zonocuda.fleet.store import read_records

_ONE_PROCESS = """
import sys, torch
from zonocuda.importers import load_for_comparisons
from zonocuda.verifier import verify
networks = {}
for line in sys.stdin:
    net, spec, seconds = line.rstrip().split("\\t")
    if net not in networks:
        networks[net] = load_for_comparisons(net)
    print(verify(networks[net], spec, timeout=float(seconds), device="cpu").verdict, flush=True)
"""


def chosen(instances: Sequence[Instance], count: int) -> list[Instance]:
    """So many of them, evenly from the whole list; all where there are no more."""
    taken = min(count, len(instances))
    return [instances[i * len(instances) // taken] for i in range(taken)]


def one_process(instances: Sequence[Instance]) -> tuple[float, list[str]]:
    """Seconds, and the verdicts."""
    lines = "".join(f"{one.net.resolve()}\t{one.spec.resolve()}\t{one.timeout or 1e6}\n" for one in instances)
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", _ONE_PROCESS], input=lines, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - started, ended.stdout.split()


def fleet(instances: Sequence[Instance], jobs: int) -> tuple[float, list[str]]:
    """The same through ``zonocuda run``."""
    with tempfile.TemporaryDirectory() as folder:
        listed, out = Path(folder) / "list.csv", Path(folder) / "out"
        rows = [f"{one.net.resolve()},{one.spec.resolve()},{one.timeout or 1e6}\n" for one in instances]
        listed.write_text("".join(rows))
        command = ["run", listed, "--jobs", jobs, "--out", out, "--device", "cpu", "--quiet"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "zonocuda", *map(str, command)], capture_output=True)  # 1: one failed
        seconds = time.perf_counter() - started
        found = {(record.net, record.spec): record.verdict for record in read_records(out)}
    return seconds, [found[str(one.net.resolve()), str(one.spec.resolve())] for one in instances]


def shell_loop(instances: Sequence[Instance]) -> tuple[float, list[str]]:
    """The same, a program for each."""
    started = time.perf_counter()
    verdicts = []
    for one in instances:
        command = ["verify", one.net, one.spec, "--timeout", one.timeout or 1e6, "--device", "cpu", "--quiet"]
        ended = subprocess.run([sys.executable, "-m", "zonocuda", *map(str, command)], capture_output=True, text=True)
        verdicts.append(ended.stdout.strip() or "error")
    return time.perf_counter() - started, verdicts


def seconds_per_task(tasks: int) -> float:
    """Of tasks that do nothing, through one worker that has started."""
    with LocalExecutor(1) as executor:
        executor.submit(operator.neg, 0)
        assert [done.value for done in executor.as_completed()] == [0]
        started = time.perf_counter()
        for i in range(tasks):
            executor.submit(operator.neg, i)
        assert sum(done.value for done in executor.as_completed()) == -sum(range(tasks))
        return (time.perf_counter() - started) / tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints, and writes the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    given = options.list or data_root() / "vnncomp" / "acasxu" / "instances.csv"
    instances = chosen(read_instances(given), options.count)
    seconds, verdicts = {}, {}
    for name, measured in (
        ("one process", one_process(instances)),
        ("run", fleet(instances, options.jobs)),
        ("shell loop", shell_loop(instances)),
    ):
        seconds[name], verdicts[name] = measured
        counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts[name]).items())
        print(f"{name:<12} {seconds[name]:8.2f} s  {counts}", flush=True)
    overhead = seconds_per_task(options.tasks)
    print(f"run takes {seconds['run'] / seconds['one process']:.2f} of one process, with {options.jobs} jobs")
    print(f"run takes {seconds['run'] / seconds['shell loop']:.2f} of the shell's loop")
    print(f"the executor adds {1e3 * overhead:.2f} ms to a task")
    is_same = len({tuple(found) for found in verdicts.values()}) == 1
    if options.output:
        document = {
            "machine": machine_info(),
            "commit": commit_info(),
            "list": Path(given).parent.name,
            "instances": len(instances),
            "jobs": options.jobs,
            "seconds": seconds,
            "seconds_per_task": overhead,
            "verdicts_agree": is_same,
        }
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if not is_same:
        print("the verdicts are not the same")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
