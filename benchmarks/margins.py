"""Whether a change of the code changed a result: the documents of ``zonocuda verify --json``, two folders of them.

    python -m benchmarks.margins record FOLDER [--data] [--count 2]
    python -m benchmarks.margins compare BEFORE AFTER

``record`` verifies the examples, and with ``--data`` the first proven instances of sets in ZONOCUDA_TEST_DATA, on one
thread, without splitting and without a time limit: what comes out depends on the code alone. ``compare`` takes any two
folders of documents of the same names, and ends with 1 where a verdict, a margin, a plan, a layer or a certificate is
not the same to the last digit; seconds, versions and paths are not compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.data import data_root
from zonocuda.cli.report import json_text, verify_document
from zonocuda.importers import load_network
from zonocuda.specs import load_vnnlib
from zonocuda.verifier import verify

EXAMPLES = Path(__file__).parents[1] / "examples"
SETS = ("acasxu", "mnist_fc", "collins_rul_cnn", "reach_prob_density", "oval21_base_wide", "cifar10_resnet_4b")
IGNORED = {"seconds", "versions", "files", "timeout", "meaning"}
BUDGET = 4 * 2**30
"""Bytes of generators: by default they depend on what is free."""

Pairs = Iterator[tuple[str, Path, Path]]


def examples() -> Pairs:
    """Name, network and specification of every example."""
    for spec in sorted((EXAMPLES / "specs").glob("*.vnnlib")):
        yield spec.stem, EXAMPLES / "networks" / f"{spec.stem.split('_')[0]}.onnx", spec


def instances(count: int) -> Pairs:
    """The same of the first proven instances of every set."""
    for name in SETS:
        folder = data_root() / "vnncomp" / name
        with (folder / "instances.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["truth"].startswith("unsat")]
        for number, row in enumerate(rows[:: max(1, len(rows) // count)][:count]):
            yield f"{name}_{number}", folder / row["onnx"], folder / row["vnnlib"]


def record(folder: Path, pairs: Pairs) -> None:
    """Writes a document for each pair into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, net, spec in pairs:
        result = verify(
            load_network(net), load_vnnlib(spec), split="none", memory_budget=BUDGET, device="cpu", certificate=True
        )
        document = verify_document(result, str(net), str(spec), 0.0)
        (folder / f"{name}.json").write_text(json_text(document), encoding="utf-8")
        print(f"{name:30} {document['verdict']:10} {document['margin']}", flush=True)


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Every place where two documents are not the same."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted((before.keys() | after.keys()) - IGNORED):
            place = f"{where}.{key}" if where else key
            if key in before and key in after:
                yield from differences(before[key], after[key], place)
            else:
                yield f"{place}: only {'before' if key in before else 'after'}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where}[{i}]")
    elif before != after or type(before) is not type(after):
        yield f"{where}: {_short(before)} before, {_short(after)} after"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def compare(before: Path, after: Path) -> Iterator[str]:
    """What differs between two folders: missing documents first, then places in each."""
    old, new = ({path.name for path in folder.glob("*.json")} for folder in (before, after))
    for name in sorted(old ^ new):
        yield f"{name}: only in {before if name in old else after}"
    for name in sorted(old & new):
        documents = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (before, after))
        yield from (f"{name}: {line}" for line in differences(*documents))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--data", action="store_true")
    recording.add_argument("--count", type=int, default=2)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        record(options.folder, examples())
        if options.data:
            record(options.folder, instances(options.count))
        return 0
    compared = len(list(options.before.glob("*.json")))
    found = list(compare(options.before, options.after))
    print("\n".join(found) or f"{compared} documents, no difference")
    return 1 if found or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
