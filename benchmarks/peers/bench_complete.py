"""Whole verifications as processes, start-up included: one group a property, the verdict as ``verdict``, and the
most memory that the process held as ``memory``, in bytes.

    pytest benchmarks/peers/bench_complete.py --benchmark-only --benchmark-json=FILE
    python -m benchmarks.peers.render FILE

Each peer is started by the command in its variable: ZONOCUDA_PEER_MARABOU ("Marabou"), ZONOCUDA_PEER_ABCROWN
("python .../complete_verifier/abcrown.py"), ZONOCUDA_PEER_NEURALSAT ("python .../main.py"). The properties are those of
examples/, and of VNN-COMP's acasxu and mnist_fc where ZONOCUDA_TEST_DATA is set.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.bench_bounds import threads
from benchmarks.peers.commands import TOOLS, Tool

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 60
SETS = {"acasxu": 12, "mnist_fc": 6}
"""Every so many instances of a set are taken."""


def instances() -> Iterator[tuple[Path, Path]]:
    """Networks and properties."""
    for spec in sorted((EXAMPLES / "specs").glob("*.vnnlib")):
        yield EXAMPLES / "networks" / f"{spec.stem.split('_')[0]}.onnx", spec
    data = os.environ.get("ZONOCUDA_TEST_DATA")
    for name, step in SETS.items() if data else ():
        folder = Path(str(data)) / "vnncomp" / name
        with (folder / "instances.csv").open() as file:
            for row in list(csv.DictReader(file))[::step]:
                yield folder / row["onnx"], folder / row["vnnlib"]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize(("net", "spec"), list(instances()), ids=lambda path: path.stem)
def bench_verification(benchmark: Any, net: Path, spec: Path, tool: Tool, tmp_path: Path) -> None:
    if tool.command() is None:
        pytest.skip(f"{tool.name}: {tool.variable} names no command")
    benchmark.group = f"verification, {net.stem} {spec.stem}"
    verdict, _, memory = benchmark.pedantic(
        tool.run, args=(net, spec, SECONDS, tmp_path / "result.txt", threads()), rounds=1, warmup_rounds=0
    )
    benchmark.extra_info |= {"instance": f"{net.stem} {spec.stem}", "who": tool.name, "verdict": verdict}
    benchmark.extra_info |= {"threads": threads(), "memory": memory}
