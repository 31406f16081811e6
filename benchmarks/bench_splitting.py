"""Splitting: how many parts, and how many seconds, by what is split and how.

    python -m benchmarks.bench_splitting [--sets S ...] [--ways W ...] [--every 6] [--seconds T] [--json F]
    python -m benchmarks.bench_splitting --instances [SET ...] [--specs P ...] [--ways neuron ...] [--seconds T]

Needs ZONOCUDA_TEST_DATA. Every instance is searched as :func:`zonocuda.verify` does where its bounds do not decide,
without the search for counterexamples that comes before: float32, float64 for what rounding leaves open,
counterexamples replayed. Boxes are split from the whole box on, neurons after the bounds of effort ``standard``, whose
time counts. ``nothing inherited``: a box does without the bounds of neurons of the box that it is a part of; ``any
network``: with the bounds of networks that are no small chains. Seconds are those of the CPU, without reading the
files. A line for each way:

    decided    instances with a verdict, of all
    parts      boxes, or parts where neurons have known signs, that were bounded, in all decided instances
    median, 90 % , sum   seconds of the decided instances
    rate       parts a second, over all instances
    wrong      verdicts that contradict the known answer

``symbols contracted``: boxes know what a row that may be violated leaves of the symbols of inputs and neurons
(:mod:`benchmarks.contract_symbols`), and are bounded again with it, or not, before they are split; ``bounds
contracted``: of the neurons' bounds alone. ``neuron, box cut``: parts have boxes of their own
(:mod:`benchmarks.cut_boxes`).

With ``--instances`` those of INSTANCES are searched, of which ``--specs`` has a part of the property's name, by
splitting neurons, and each has a line: the known answer and what was found, parts, those of lemmas among them, open
parts and the worst bound, seconds, parts a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.contract_symbols import contracting
from benchmarks.cut_boxes import CutProblem
from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.bounds.deadline import Deadline
from zonocuda.branch import CHOICES, Bounded, Settings
from zonocuda.graph import Graph
from zonocuda.importers import load_network
from zonocuda.precision import full_precision
from zonocuda.prove import lemmas
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.prover import LADDERS
from zonocuda.prove.sign_bounds import CHILD, LEMMA
from zonocuda.prove.stages import Arithmetic, Course, RegionProof
from zonocuda.specs import Region, load_vnnlib
from zonocuda.verifier import neuron_search, splitting
from zonocuda.verifier.attack import Attack
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.model import Subject
from zonocuda.verifier.neuron_search import NeuronCourse, NeuronSearch
from zonocuda.verifier.result import SplitStats
from zonocuda.verifier.splitting import RegionSearch

DTYPES = (torch.float32, torch.float64)
BOXES: dict[str, dict[str, Any]] = {choice: {"choice": choice} for choice in CHOICES}
BOXES |= {f"{choice}, no cuts": {"choice": choice, "cuts": False} for choice in CHOICES}
BOXES["alternate, nothing inherited"] = {}
BOXES["alternate, any network"] = {}
CONTRACTED = {
    "alternate, bounds contracted": (0, False),
    "alternate, symbols contracted": (0, True),
    **{f"alternate, symbols contracted, {count} more rounds": (count, True) for count in (1, 2, 3)},
}
"""Rounds, and whether bands are contracted, too; see :mod:`benchmarks.contract_symbols`."""
BOXES |= {way: {} for way in CONTRACTED}
NEURONS: dict[str, dict[str, Any]] = {
    "neuron": {},
    "neuron, no lemmas": {"EFFORTS": ()},
    "neuron, first wish": {"TRIED": 1},
    "neuron, 2 steps": {"CHILD": replace(CHILD, steps=2)},
    "neuron, 10 steps": {"CHILD": replace(CHILD, steps=10)},
    "neuron, lemmas of 3 steps": {"CONVOLVED_LEMMA": LEMMA},
    "neuron, box cut": {"SignProblem": CutProblem},
    "neuron, no lemmas, box cut": {"EFFORTS": (), "SignProblem": CutProblem},
}
WAYS = [*BOXES, *NEURONS]
INSTANCES: dict[str, list[tuple[str, str]]] = {
    "mnist_fc": [
        *(("256x2", name) for name in ("prop_6_0.03", "prop_9_0.05")),
        *(
            ("256x4", f"prop_{name}")
            for name in ("8_0.03", "5_0.05", "10_0.05", "4_0.05", "7_0.05", "12_0.05", "6_0.03")
        ),
        *(("256x6", f"prop_{name}") for name in ("7_0.03", "9_0.03", "3_0.05", "0_0.05", "8_0.05", "4_0.05")),
    ],
    "oval21_base_wide": [("base", "img8194")],
    "sri_resnet_a": [("", f"idx_{number}_") for number in (3612, 3667, 6817, 5807, 5190)],
    "cifar10_resnet_4b": [("", f"prop_{number}_") for number in (15, 1)],
}
"""Of each set, by parts of the network's and the property's file names: those that other tools need many parts for."""


@dataclass(frozen=True)
class Row:
    """One instance, searched one way."""

    set: str
    net: str
    spec: str
    truth: str
    way: str
    found: str
    parts: int
    depth: int
    open: int
    seconds: float
    lemma_parts: int = 0
    worst: float | None = None


def instances(name: str, every: int) -> Iterator[dict[str, str]]:
    """Of a VNN-COMP set."""
    with (data_root() / "vnncomp" / name / "instances.csv").open() as file:
        yield from list(csv.DictReader(file))[::every]


def chosen(name: str) -> Iterator[dict[str, str]]:
    """Those of INSTANCES."""
    rows = list(instances(name, 1))
    for net, spec in INSTANCES[name]:
        yield next(row for row in rows if net in row["onnx"] and spec in row["vnnlib"])


def decide(name: str, row: dict[str, str], way: str, seconds: float) -> Row:
    """One instance."""
    folder = data_root() / "vnncomp" / name
    network, spec = load_network(folder / row["onnx"]), load_vnnlib(folder / row["vnnlib"])
    subject, single = Subject.of(network, None), network.graph.to(torch.float32)
    arithmetics = {dtype: Arithmetic.of(network.graph, dtype, torch.device("cpu")) for dtype in DTYPES}
    parts = depth = left = for_lemmas = 0
    worst = math.inf
    found = "unsat"
    begin = time.process_time()

    def remaining() -> float:
        return seconds - (time.process_time() - begin)

    def settings(**given: Any) -> Settings:
        return Settings(**{**given, **BOXES[way]})

    with ExitStack() as stack:
        stack.enter_context(full_precision())
        if way in BOXES:
            stack.enter_context(patch.object(splitting, "Settings", settings))
        if way == "alternate, nothing inherited":
            stack.enter_context(patch.object(DenseBounder, "bound", forgetful))
        if way == "alternate, any network":
            stack.enter_context(patch.object(DenseNetwork, "of", lambda rounding, box: None))
        if way in CONTRACTED:
            stack.enter_context(contracting(*CONTRACTED[way]))
        for constant, value in NEURONS.get(way, {}).items():
            for module in (neuron_search, lemmas):
                if hasattr(module, constant):
                    stack.enter_context(patch.object(module, constant, value))
        for position, region in enumerate(spec.regions):
            if way in BOXES:
                search = RegionSearch(subject, single, region, position, DTYPES, arithmetics.__getitem__, remaining)
                point, stats, _ = search.run()
            else:
                point, stats, bounded = split_neurons(subject, single, region, position, arithmetics, remaining())
                for_lemmas += bounded
            worst = min(worst, stats.worst)
            parts, depth, left = parts + stats.boxes, max(depth, stats.depth), left + stats.open
            if point is not None:
                found = "sat"
                break
            found = found if stats.is_proven else "open"
    spent = time.process_time() - begin
    names = name, row["onnx"], row["vnnlib"], row["truth"], way
    return Row(*names, found, parts, depth, left, spent, for_lemmas, worst if left else None)


BOUND = DenseBounder.bound


def forgetful(self: DenseBounder, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
    """Bounds of boxes from what is known of them alone."""
    return replace(BOUND(self, lower, upper), known=None)


def split_neurons(
    subject: Subject,
    single: Graph,
    region: Region,
    position: int,
    arithmetics: Mapping[torch.dtype, Arithmetic],
    seconds: float,
) -> tuple[Counterexample | None, SplitStats, int]:
    """One region: refined bounds, then the search; last, how many parts were those of lemmas."""
    end = time.monotonic() + seconds
    stages = Course("auto", None, Deadline(), lambda phase, done, total: None)
    with torch.no_grad():
        proof = RegionProof(region, DTYPES, arithmetics.__getitem__, stages)
        proof.begin(is_last=False)
        proof.climb(LADDERS["standard"])
        if proof.proven:
            return None, SplitStats(position, 0, 0, 0, math.inf, True, 0.0, "neuron"), 0
        prover = proof.prover_in(proof.dtypes[0])
        still = [number for number, ok in enumerate(prover.rows.refuted(prover.bounds)) if not ok]
        attack = Attack(subject, single, region, position, prover.rows)
        used = [arithmetics[dtype] for dtype in proof.dtypes]
        course = NeuronCourse(NeuronSearch(region, position, used, prover.intermediate, still, attack, end))
        return *course.run(), course.lemma_parts


def line(name: str, way: str, rows: list[Row]) -> str:
    """The table's line for one way."""
    decided = [row for row in rows if row.found != "open"]
    times = sorted(row.seconds for row in decided) or [0.0]
    wrong = sum(row.truth.rstrip("1?") in ("sat", "unsat") and row.truth.rstrip("1?") != row.found for row in decided)
    rate = sum(row.parts for row in rows) / sum(row.seconds for row in rows)
    late = times[min(len(times) - 1, int(0.9 * len(times)))]
    parts = sum(row.parts for row in decided)
    return (
        f"| {name} | {way} | {len(decided)} of {len(rows)} | {parts:,} | {statistics.median(times):.3f} | {late:.2f} | "
        f"{sum(times):.1f} | {rate:,.0f} | {wrong} |"
    )


def instance_line(row: Row) -> str:
    """The table's line for one instance."""
    rate = row.parts / row.seconds if row.seconds > 0 else 0.0
    worst = "" if row.worst is None else f"{row.worst:.4g}"
    return (
        f"| {row.set} | {Path(row.net).name.split('.')[0]} | {Path(row.spec).name.removesuffix('.gz')} | {row.way} | "
        f"{row.truth} | {row.found} | {row.parts:,} | {row.lemma_parts:,} | {row.open:,} | {worst} | "
        f"{row.seconds:.1f} | {rate:,.0f} |"
    )


def by_instance(sets: Sequence[str], specs: Sequence[str], ways: Sequence[str], seconds: float) -> list[Row]:
    """Those of INSTANCES, each printed."""
    print("| set | network | property | way | truth | found | parts | of lemmas | open | worst | s | parts/s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name, way in product(sets, ways):
        for row in (row for row in chosen(name) if any(part in row["vnnlib"] for part in specs)):
            rows.append(decide(name, row, way, seconds))
            print(instance_line(rows[-1]), flush=True)
        if CutProblem.asked:
            print(f"of the side of a box that was cut {CutProblem.left / CutProblem.asked:.3f} is left in the mean")
            CutProblem.left, CutProblem.asked = 0.0, 0
    return rows


def by_way(sets: Sequence[str], ways: Sequence[str], every: int, seconds: float) -> list[Row]:
    """Every so manieth instance of the sets, in all ways by turns; each way is printed."""
    print("| set | way | decided | parts | median s | 90 % | sum | parts/s | wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[Row] = []
    for name in sets:
        found = [decide(name, row, way, seconds) for row in instances(name, every) for way in ways]
        for way in ways:
            print(line(name, way, [row for row in found if row.way == way]), flush=True)
        rows += found
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["acasxu"])
    parser.add_argument("--instances", nargs="*", choices=INSTANCES)
    parser.add_argument("--specs", nargs="+", default=[""])
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.instances is None:
        rows = by_way(options.sets, options.ways or list(BOXES), options.every, options.seconds)
    else:
        rows = by_instance(
            options.instances or list(INSTANCES), options.specs, options.ways or ["neuron"], options.seconds
        )
    which = f"--every {options.every}" if options.instances is None else f"--instances --specs {options.specs}"
    if options.json is not None:
        document = {
            "command": f"{which} --seconds {options.seconds:g} --threads {options.threads}",
            "datetime": datetime.now().isoformat(timespec="seconds"),
            "machine_info": machine_info(),
            "commit_info": commit_info(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
