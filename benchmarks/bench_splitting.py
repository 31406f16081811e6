"""Input splitting: how many boxes, and how many seconds, by the rule that chooses what is split, with cuts and without.

    python -m benchmarks.bench_splitting [--sets acasxu ...] [--every 6] [--seconds 20] [--threads 1] [--json F]

Needs ZONOCUDA_TEST_DATA. Every instance is searched as :func:`zonocuda.verify` does where its bounds do not decide,
from the whole box, without the search for counterexamples that comes before: float32, float64 for what rounding leaves
open, counterexamples replayed. Seconds are those of the CPU, without reading the files. A line for each way:

    decided    instances with a verdict, of all
    boxes      that were bounded, in all decided instances
    median, 90 % , sum   seconds of the decided instances
    rate       boxes a second, over all instances
    wrong      verdicts that contradict the known answer
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.machine import commit_info, machine_info
from tests.data import data_root
from zonocuda.branch import CHOICES, Settings
from zonocuda.importers import load_network
from zonocuda.precision import full_precision
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import load_vnnlib
from zonocuda.verifier import splitting
from zonocuda.verifier.model import Subject
from zonocuda.verifier.splitting import RegionSearch

DTYPES = (torch.float32, torch.float64)
WAYS = {choice: {"choice": choice} for choice in CHOICES} | {"alternate, no cuts": {"cuts": False}}


@dataclass(frozen=True)
class Row:
    """One instance, searched one way."""

    set: str
    net: str
    spec: str
    truth: str
    way: str
    found: str
    boxes: int
    depth: int
    open: int
    seconds: float


def instances(name: str, every: int) -> Iterator[dict[str, str]]:
    """Of a VNN-COMP set."""
    with (data_root() / "vnncomp" / name / "instances.csv").open() as file:
        yield from list(csv.DictReader(file))[::every]


def decide(name: str, row: dict[str, str], way: str, seconds: float) -> Row:
    """One instance."""
    folder = data_root() / "vnncomp" / name
    network, spec = load_network(folder / row["onnx"]), load_vnnlib(folder / row["vnnlib"])
    subject, single = Subject.of(network, None), network.graph.to(torch.float32)
    arithmetics = [Arithmetic.of(network.graph, dtype, torch.device("cpu")) for dtype in DTYPES]
    boxes = depth = left = 0
    found = "unsat"
    begin = time.process_time()

    def remaining() -> float:
        return seconds - (time.process_time() - begin)

    def settings(**given: Any) -> Settings:
        return Settings(**given, **WAYS[way])

    with patch.object(splitting, "Settings", settings), full_precision():
        for position, region in enumerate(spec.regions):
            point, stats = RegionSearch(subject, single, region, position, arithmetics, remaining).run()
            boxes, depth, left = boxes + stats.boxes, max(depth, stats.depth), left + stats.open
            if point is not None:
                found = "sat"
                break
            found = found if stats.is_proven else "open"
    spent = time.process_time() - begin
    return Row(name, row["onnx"], row["vnnlib"], row["truth"], way, found, boxes, depth, left, spent)


def line(name: str, way: str, rows: list[Row]) -> str:
    """The table's line for one way."""
    decided = [row for row in rows if row.found != "open"]
    times = sorted(row.seconds for row in decided) or [0.0]
    wrong = sum(row.truth.rstrip("1?") in ("sat", "unsat") and row.truth.rstrip("1?") != row.found for row in decided)
    rate = sum(row.boxes for row in rows) / sum(row.seconds for row in rows)
    late = times[min(len(times) - 1, int(0.9 * len(times)))]
    boxes = sum(row.boxes for row in decided)
    return (
        f"| {name} | {way} | {len(decided)} of {len(rows)} | {boxes:,} | {statistics.median(times):.3f} | {late:.2f} | "
        f"{sum(times):.1f} | {rate:,.0f} | {wrong} |"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["acasxu"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    print("| set | rule | decided | boxes | median s | 90 % | sum | boxes/s | wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.sets:
        for way in options.ways:
            rows += (found := [decide(name, row, way, options.seconds) for row in instances(name, options.every)])
            print(line(name, way, found), flush=True)
    if options.json is not None:
        document = {
            "command": f"--every {options.every} --seconds {options.seconds:g} --threads {options.threads}",
            "date": date.today().isoformat(),
            "machine_info": machine_info(),
            "commit_info": commit_info(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
