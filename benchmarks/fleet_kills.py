"""Runs that are killed at random moments: nothing is lost, nothing is there twice, and no verdict is another.

    python -m benchmarks.fleet_kills [LIST] [--count 16] [--kills 20] [--executor local | ray] [--seed 0]
                                     [--output F.json]

LIST is a list of instances, by default that of acasxu in ZONOCUDA_TEST_DATA, of which every so many are taken. First
they are verified in this process, one after the other; those that this decides within two seconds each are then run
with ``zonocuda run --jobs 2``, of which at random moments a worker or the command itself gets SIGKILL (in turn), and
which is begun again with ``--resume`` where it was the command; or, with ``--executor ray``, on a cluster of two nodes
on this machine, of which one is killed and another one added. A run that ends is followed by another in a folder of its
own, until there were so many kills. The exit code is 1 where something is lost, twice, or changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.fleet import chosen
from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.fleet import Instance, read_instances, run
from zonocuda.fleet.record import Record
from zonocuda.fleet.store import JOURNAL, read_records
from zonocuda.importers import load_for_comparisons
from zonocuda.verifier import verify

QUICK = 2.0
"""Seconds in which an instance is decided without kills, to take part."""
TIMEOUT = 120.0
"""Seconds that each gets then."""
LEAST, MOST = 0.5, 6.0
"""Seconds between two kills."""
Names = tuple[str, str]


def names(net: str | Path, spec: str | Path) -> Names:
    """Of an instance, wherever its files are named from."""
    return Path(net).name, Path(spec).name


def truth(instances: Sequence[Instance]) -> dict[Names, str]:
    """The verdicts of those that are decided quickly."""
    found = {}
    for one in instances:
        result = verify(load_for_comparisons(str(one.net)), str(one.spec), timeout=QUICK, device="cpu")
        if str(result.verdict) in ("verified", "falsified"):
            found[names(one.net, one.spec)] = str(result.verdict)
    return found


def faults(records: Sequence[Record], expected: dict[Names, str]) -> list[str]:
    """What is wrong with all records of a run that has ended."""
    counts = Counter(names(record.net, record.spec) for record in records if record.has_verdict)
    found = [f"{name}: lost" for name in expected if not counts[name]]
    found += [f"{name}: {count} verdicts" for name, count in counts.items() if count > 1]
    for record in records:
        name = names(record.net, record.spec)
        if record.has_verdict and record.verdict != expected.get(name):
            found.append(f"{name}: {record.verdict}, and it is {expected.get(name)}")
    return found


def lines(folder: Path) -> list[Record]:
    """All lines of a folder of results, if there is one."""
    return read_records(folder) if (folder / JOURNAL).exists() else []


class Local:
    """Runs of the command, of which workers, or it itself, are killed."""

    def __init__(self, listed: Path, chance: random.Random) -> None:
        self.listed, self.chance = listed, chance
        self.kills: Counter[str] = Counter()

    def rounds(self, kills: int, place: Path, expected: dict[Names, str]) -> list[str]:
        """Until there were so many kills: what went wrong."""
        found: list[str] = []
        number = 0
        while sum(self.kills.values()) < kills and not found:
            number += 1
            found = self.round(kills, place / f"out{number}", expected)
        return found

    def round(self, kills: int, out: Path, expected: dict[Names, str]) -> list[str]:
        """One folder of results, to its end."""
        process = self.start(out)
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.chance.uniform(LEAST, MOST))
            if process.returncode is not None:
                records = lines(out)
                if {names(r.net, r.spec) for r in records if r.has_verdict} >= set(expected):
                    return faults(records, expected)
                if process.returncode not in (0, 1):
                    return [f"the run ended with {process.returncode}"]
                process = self.start(out)  # what could not be run, since it lost two workers, is tried again
            elif sum(self.kills.values()) < kills:
                process = self.kill(process, out)

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """The command, from the beginning or where it was."""
        again = ["--resume"] if out.exists() else []
        command = ["run", self.listed, "--jobs", "2", "--out", out, "--device", "cpu", "--quiet", *again]
        return subprocess.Popen(
            [sys.executable, "-m", "zonocuda", *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, process: subprocess.Popen[bytes], out: Path) -> subprocess.Popen[bytes]:
        """A worker, or the command and then what it began is gone on with; the command that runs now."""
        workers = children(process.pid)
        if sum(self.kills.values()) % 2 == 0:
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self.chance.choice(workers), signal.SIGKILL)
                    self.kills["worker"] += 1
            return process
        process.kill()
        process.wait()
        self.kills["parent"] += 1
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            if time.monotonic() > deadline:
                raise SystemExit("workers outlive their parent")
            time.sleep(0.05)
        return self.start(out)


def children(parent: int) -> list[int]:
    """Processes of a parent, by their numbers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return sorted(found)


def on_ray(
    listed: Path, kills: int, chance: random.Random, place: Path, expected: dict[Names, str]
) -> tuple[list[str], Counter[str]]:
    """The same on a cluster of two nodes, of which one is killed and another one added."""
    import ray
    from ray.cluster_utils import Cluster

    from zonocuda.executors.on_ray import RayExecutor
    from zonocuda.executors.protocol import Notice

    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes: list[Any] = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    done: Counter[str] = Counter()
    found: list[str] = []
    number = 0

    def count(notice: Notice) -> None:
        done["task with its node"] += notice.kind == "lost"

    try:
        while done["node"] < kills and not found:
            number += 1
            out, resume = place / f"out{number}", False
            while not {names(r.net, r.spec) for r in (lines(out) if resume else []) if r.has_verdict} >= set(expected):
                due = time.monotonic() + chance.uniform(LEAST, MOST)
                with RayExecutor(notify=count) as executor:
                    for _ in run(str(listed), out=out, resume=resume, executor=executor, device="cpu"):
                        if time.monotonic() >= due and done["node"] < kills:
                            node = nodes.pop(chance.randrange(len(nodes)))
                            cluster.remove_node(node, allow_graceful=False)
                            nodes.append(cluster.add_node(num_cpus=1))
                            done["node"] += 1
                            due = time.monotonic() + chance.uniform(LEAST, MOST)
                resume = True
            found = faults(lines(out), expected)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return found, done


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints, and writes the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    given = options.list or data_root() / "vnncomp" / "acasxu" / "instances.csv"
    instances = chosen(read_instances(given), options.count)
    expected = truth(instances)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.csv"
        quick = [one for one in instances if names(one.net, one.spec) in expected]
        listed.write_text("".join(f"{one.net.resolve()},{one.spec.resolve()},{TIMEOUT}\n" for one in quick))
        if options.executor == "local":
            local = Local(listed, chance)
            found, kills = local.rounds(options.kills, Path(folder), expected), local.kills
        else:
            found, kills = on_ray(listed, options.kills, chance, Path(folder), expected)
    how = ", ".join(f"{count} {kind}" for kind, count in kills.items())
    print(f"{len(expected)} instances, kills: {how}: {len(found)} faults", *found, sep="\n")
    if options.output:
        document = {"machine": machine_info(), "commit": commit_info(), "seed": options.seed, "kills": dict(kills)}
        document |= {"executor": options.executor, "instances": len(expected), "faults": found}
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if found or not expected else 0


if __name__ == "__main__":
    sys.exit(main())
