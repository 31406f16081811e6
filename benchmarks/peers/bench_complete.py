"""Whole verifications as processes, start-up included: one group a property, the verdict as ``verdict``, and the
most memory that the process held as ``memory``, in bytes. First a network of one ReLU whose property is plain: what it
takes to start a tool.

    pytest benchmarks/peers/bench_complete.py --benchmark-only --benchmark-json=FILE
    python -m benchmarks.peers.render FILE

Each peer is started by the command in its variable: ZONOCUDA_PEER_MARABOU ("Marabou", which is the default where it is
on the path), ZONOCUDA_PEER_ABCROWN ("python .../complete_verifier/abcrown.py"), ZONOCUDA_PEER_NEURALSAT ("python
.../main.py"). The properties are those of examples/, and of VNN-COMP's acasxu and mnist_fc where ZONOCUDA_TEST_DATA is
set.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.bench_bounds import threads
from benchmarks.peers.commands import START_UP, TOOLS, Tool
from tests.cli import files

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 30
QUICK = 5
"""Seconds below which a verification is run three times."""
SETS = {"acasxu": 24, "mnist_fc": 15}
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


def plain(file: Path, folder: Path) -> Path:
    """A file that every tool reads: unpacked where it is packed."""
    if file.suffix != ".gz":
        return file
    unpacked = folder / file.stem
    unpacked.write_bytes(gzip.decompress(file.read_bytes()))
    return unpacked


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def bench_start_up(benchmark: Any, tool: Tool, tmp_path: Path) -> None:
    net = files.fc_model(tmp_path / "net.onnx", [[1.0]], [[1.0]])
    spec = files.save_spec(tmp_path / "spec.vnnlib", [0.0], [1.0], 1, "(>= Y_0 2.0)")
    measure(benchmark, START_UP, tool, net, spec, tmp_path)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize(("net", "spec"), list(instances()), ids=lambda path: path.stem)
def bench_verification(benchmark: Any, net: Path, spec: Path, tool: Tool, tmp_path: Path) -> None:
    name = " ".join(file.name.removesuffix(".gz").rsplit(".", 1)[0] for file in (net, spec))
    measure(benchmark, name, tool, net, spec, tmp_path)


def measure(benchmark: Any, instance: str, tool: Tool, net: Path, spec: Path, folder: Path) -> None:
    """One cell of the table; what is quick is run three times, after one another."""
    if tool.command() is None:
        pytest.skip(f"{tool.name}: {tool.variable} names no command")
    benchmark.group = f"verification, {instance}"
    given = plain(net, folder), plain(spec, folder), SECONDS, folder / "result.txt", threads()
    runs = [benchmark.pedantic(tool.run, args=given, rounds=1, warmup_rounds=0)]
    if runs[0][1] < QUICK:
        runs += [tool.run(*given) for _ in range(2)]
    verdicts, seconds, memory = zip(*runs, strict=True)
    benchmark.extra_info |= {"instance": instance, "who": tool.name, "verdict": "/".join(sorted(set(verdicts)))}
    benchmark.extra_info |= {"threads": threads(), "memory": max(memory), "seconds": seconds}
