"""Whole verifications of known instances, in this process: verdicts beside what is known, parts, seconds.

    python -m benchmarks.bench_verdicts --rows [--seconds 60] [--json F]
    python -m benchmarks.bench_verdicts --sets reach_prob_density rtai2019 ... [--part 1/3] [--seconds 60] [--json F]

Needs ZONOCUDA_TEST_DATA. What is timed is :func:`zonocuda.verify` with its defaults, on a network and a property that
are read already, after a small verification that is not counted: seconds of the CPU, all threads together, and of the
wall. ``--rows`` takes the instances of ROWS, each beside the figures of alpha-beta-CROWN, in CPU seconds on a CPU of
the same kind, without start-up. ``--part k/n`` takes every n-th instance from the k-th on. A line for each instance:

    known      what is known of it: sat by a counterexample at hand, unsat by two tools, unsat1 by one, open by none
    parts      boxes, or parts where neurons have known signs, that were bounded
    seconds    of the CPU; of the wall

and one for each set: how many are decided, of all, how many verdicts contradict what is known, the median, the sum. A
verdict that contradicts it ends the run with an error.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import torch

import zonocuda
from benchmarks.machine import commit_info, machine_info
from benchmarks.tightness_cases import course_cases
from tests import networks
from tests.data import data_root
from zonocuda.importers import load_network
from zonocuda.specs import Spec, load_vnnlib
from zonocuda.verifier.model import Model


@dataclass(frozen=True)
class Peer:
    """What alpha-beta-CROWN needed: subproblems, where they are known, and CPU seconds; infinite where it was open."""

    parts: int | None
    seconds: float | None


OPEN = Peer(None, None)
ROWS: dict[tuple[str, str, str], Peer] = {
    ("acasxu", "1_1_", "prop_1."): Peer(3411, 2.2),
    ("acasxu", "1_1_", "prop_2."): Peer(26611, 11.0),
    ("acasxu", "1_1_", "prop_3."): Peer(15266, 4.4),
    ("acasxu", "4_5_", "prop_10."): Peer(9158, 5.7),
    ("acasxu", "3_3_", "prop_9."): Peer(15512, 7.9),
    ("acasxu", "2_1_", "prop_4."): Peer(33, 0.5),
    ("acasxu", "1_5_", "prop_2."): Peer(33993, 16.9),
    ("acasxu", "1_9_", "prop_7."): Peer(None, 1.4),
    ("acasxu", "3_3_", "prop_2."): OPEN,
    ("mnist_fc", "256x2", "prop_6_0.03"): Peer(96, 0.2),
    ("mnist_fc", "256x2", "prop_9_0.05"): Peer(32, 0.1),
    ("mnist_fc", "256x4", "prop_8_0.03"): Peer(19924, 26.8),
    ("mnist_fc", "256x4", "prop_0_0.05"): OPEN,
    ("mnist_fc", "256x6", "prop_3_0.05"): OPEN,
    ("oval21_base_wide", "base", "img8194-"): Peer(1568, 4.5),
    ("oval21_base_wide", "wide", "img3478-"): Peer(1056, 2.1),
    ("reach_prob_density", "robot", "robot_3."): Peer(204023, 7.8),
    ("reach_prob_density", "robot", "robot_0."): Peer(463339, 14.1),
    ("reach_prob_density", "vdp", "vdp_0."): Peer(7411, 1.3),
    ("reach_prob_density", "gcas", "gcas_4."): Peer(5916, 3.8),
}
"""By set, and parts of the network's and the property's file names."""


@dataclass(frozen=True)
class Instance:
    """One instance of a set, and what is known of it."""

    set: str
    net: str
    spec: str
    known: str

    def load(self) -> tuple[Model, Spec]:
        """The network and the property."""
        if self.set == "rtai2019":
            case = next(case for case in course_cases() if case.name == self.spec)
            return networks.rtai2019(self.net), case.spec()
        folder = data_root() / "vnncomp" / self.set
        return load_network(folder / self.net), load_vnnlib(folder / self.spec)


@dataclass(frozen=True)
class Found:
    """What a verification said of an instance."""

    set: str
    net: str
    spec: str
    known: str
    found: str
    reason: str
    parts: int
    open: int
    worst: float | None
    seconds: float
    wall: float

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict."""
        return self.found in ("sat", "unsat")

    @property
    def is_wrong(self) -> bool:
        """Whether it contradicts what is known."""
        known = self.known.rstrip("1?")
        return self.is_decided and known in ("sat", "unsat") and known != self.found


def instances(name: str) -> list[Instance]:
    """Of a set of VNN-COMP, or the cases of the course of 2019."""
    if name == "rtai2019":
        return [
            Instance(name, case.network, case.name, _known(case.is_verifiable, case.has_counterexample))
            for case in course_cases()
        ]
    with (data_root() / "vnncomp" / name / "instances.csv").open() as file:
        return [Instance(name, row["onnx"], row["vnnlib"], row["truth"]) for row in csv.DictReader(file)]


def _known(verified: bool, attacked: bool) -> str:
    return "sat" if attacked else "unsat" if verified else "open"


def of_rows() -> Iterator[Instance]:
    """Those of ROWS."""
    for name, net, spec in ROWS:
        yield next(one for one in instances(name) if net in one.net and spec in one.spec)


def peer_of(found: Found) -> Peer | None:
    """What ROWS say of an instance."""
    for (name, net, spec), peer in ROWS.items():
        if name == found.set and net in found.net and spec in found.spec:
            return peer
    return None


def decide(one: Instance, seconds: float) -> Found:
    """Verifies an instance."""
    model, spec = one.load()
    wall, cpu = time.monotonic(), time.process_time()
    result = zonocuda.verify(model, spec, timeout=seconds)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    verdict = {"verified": "unsat", "falsified": "sat"}.get(result.verdict.value, result.verdict.value)
    parts, left = (sum(getattr(stats, name) for stats in result.splits) for name in ("boxes", "open"))
    worst = min((stats.worst for stats in result.splits if stats.open), default=None)
    return Found(one.set, one.net, one.spec, one.known, verdict, result.reason, parts, left, worst, cpu, wall)


def warm_up() -> None:
    """A verification that is not counted."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()).eval()
    zonocuda.verify(model, Spec.linear([0, 0], [1, 1], [[-1, 0], [0, -1]], [0, 0]), input_shape=(2,))


def line(found: Found) -> str:
    """Of the table of instances."""
    peer, names = peer_of(found), (Path(name).name.split(".onnx")[0] for name in (found.net,))
    cells = [found.set, *names, Path(found.spec).name.removesuffix(".gz").removesuffix(".vnnlib")]
    cells += [found.known, found.found, f"{found.parts:,}", f"{found.seconds:.2f}", f"{found.wall:.2f}"]
    if peer is not None:
        cells.append("" if peer.parts is None else f"{peer.parts:,}")
        cells.append("open" if peer is OPEN else f"{peer.seconds:g}")
    return markdown_line(cells)


def markdown_line(cells: Sequence[str]) -> str:
    """Of a table."""
    return f"| {' | '.join(cells)} |"


def summary(name: str, found: Sequence[Found]) -> str:
    """Of a set."""
    seconds = [one.seconds for one in found if one.is_decided] or [0.0]
    return (
        f"{name}: {sum(one.is_decided for one in found)} of {len(found)} decided, "
        f"{sum(one.is_wrong for one in found)} wrong; CPU s of the decided ones: {statistics.median(seconds):.3f} "
        f"median, {max(seconds):.2f} at most, {sum(seconds):.1f} together"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--rows", action="store_true")
    which.add_argument("--sets", nargs="+")
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    first, step = map(int, options.part.split("/"))
    asked = list(of_rows()) if options.rows else [one for name in options.sets for one in instances(name)]
    warm_up()
    header = ["set", "network", "property", "known", "found", "parts", "CPU s", "wall s"]
    print(markdown_line(header + ["its parts", "its CPU s"] * options.rows))
    print(markdown_line(["---"] * (len(header) + 2 * options.rows)))
    rows = []
    for one in asked[first - 1 :: step]:
        rows.append(decide(one, options.seconds))
        print(line(rows[-1]), flush=True)
        if options.json is not None:
            write(options.json, sys.argv[1:], rows)
        if rows[-1].is_wrong:
            sys.exit(f"WRONG: {rows[-1]}")
    for name in dict.fromkeys(one.set for one in rows):
        print(summary(name, [one for one in rows if one.set == name]))


def write(path: Path, command: Sequence[str], rows: Sequence[Found]) -> None:
    """What was found so far."""
    document = {
        "command": " ".join(command),
        "datetime": datetime.now().isoformat(timespec="seconds"),
        "machine_info": machine_info(),
        "commit_info": commit_info(),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
