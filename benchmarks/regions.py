"""Specifications of many regions: seconds of a verdict by the number of regions.

    python -m benchmarks.regions [--kinds KIND ...] [--regions N ...] [--certificate] [--semantics S] [--json FILE]

A network of one input and one output, random but fixed, is bounded on N boxes: on each, the output stays near its value
in the middle (two disjuncts a region). Kinds:

    keys    1-128-128-1, boxes of width 1e-6, as of an index over keys (nn4sys): hardly a neuron is unstable
    parts   1-64-64-1, N equal parts of [-1, 1]: some neurons are unstable in each
    open    1-64-64-1, boxes of width 0.2, and on every tenth the output may deviate by a hundredth more than it does:
            these are searched for themselves

Every line is of a process of its own: seconds of CPU (user and system) of ``zonocuda.verify`` on the ONNX file with one
thread, without reading the specification, a second time in that process (the first one imports); by how much the peak
of resident memory grew meanwhile; the verdict; and the phases in seconds of wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import commit_info, machine_info
from tests.cli.files import save_model
from zonocuda import verify
from zonocuda.importers import load_network
from zonocuda.specs import Box, LinearConstraint, Region, Spec


@dataclass(frozen=True)
class Kind:
    """Widths of a network's layers, and boxes: ``width`` of each, or None for parts of [-1, 1] that leave no gap.

    The output may be ``error`` from its value in the middle of a box, and ``spread`` times half its width beyond; with
    ``tight`` in every tenth one only so much of what it is.
    """

    layers: tuple[int, ...]
    width: float | None
    error: float
    spread: float
    tight: float | None = None


KINDS = {
    "keys": Kind((1, 128, 128, 1), 1e-6, 1e-3, 0.0),
    "parts": Kind((1, 64, 64, 1), None, 1e-4, 4.0),
    "open": Kind((1, 64, 64, 1), 0.2, 1e-4, 4.0, 1.01),
}


def layers(widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of linear layers, random but fixed."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for before, after in pairwise(widths):
        weight = torch.randn(after, before, generator=generator) * (2 / before) ** 0.5
        found.append((weight, torch.rand(after, generator=generator) - 0.5))
    return found


def network(path: Path, widths: Sequence[int]) -> Path:
    """The ONNX file of linear layers with ReLUs between."""
    from onnx import helper

    nodes, weights, name = [], dict[str, object](), "x"
    for i, (weight, bias) in enumerate(layers(widths)):
        last = i == len(widths) - 2
        weights |= {f"w{i}": weight.numpy(), f"b{i}": bias.numpy()}
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], ["y" if last else f"h{i}"], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
            name = f"r{i}"
    return save_model(path, nodes, weights, [1, widths[0]], [1, widths[-1]])


def values(widths: Sequence[int], x: Tensor) -> Tensor:
    """The network at points ``[n, 1]``, in float64."""
    x = x.double()
    for i, (weight, bias) in enumerate(layers(widths)):
        x = x @ weight.double().T + bias.double()
        x = x if i == len(widths) - 2 else x.relu()
    return x


def specification(kind: Kind, count: int) -> Spec:
    """The regions of a kind."""
    middles = torch.linspace(-1, 1, 2 * count + 1, dtype=torch.float64)[1::2]
    half = 1 / count if kind.width is None else kind.width / 2
    found = values(kind.layers, middles.unsqueeze(1)).squeeze(1)
    regions = []
    for i, (x, y) in enumerate(zip(middles.tolist(), found.tolist(), strict=True)):
        error = kind.error + kind.spread * half
        if kind.tight is not None and i % 10 == 0:
            inside = torch.linspace(x - half, x + half, 1001, dtype=torch.float64).unsqueeze(1)
            error = kind.tight * float((values(kind.layers, inside) - y).abs().max())
        box = Box.exact([Fraction(x - half)], [Fraction(x + half)])
        above = LinearConstraint({0: Fraction(-1)}, {}, Fraction(y + error))
        below = LinearConstraint({0: Fraction(1)}, {}, Fraction(error - y))
        regions.append(Region(box, ((above,), (below,))))
    return Spec(1, 1, tuple(regions))


def run(name: str, count: int, certificate: bool, semantics: str) -> dict[str, Any]:
    """One verification, in this process."""
    torch.set_num_threads(1)
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = network(Path(folder) / "net.onnx", kind.layers)
        spec, warm = specification(kind, count), specification(kind, 4)
        load_network(path)
        options: Any = {"device": "cpu", "certificate": certificate, "semantics": semantics}
        verify(path, warm, **options)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        result = verify(path, spec, **options)
        seconds = time.process_time() - begin
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "kind": name,
        "regions": count,
        "cpu_seconds": seconds,
        "grown_bytes": grown * (1 if sys.platform == "darwin" else 1024),
        "verdict": str(result.verdict),
        "margins": len(result.margins),
        "certified_regions": None if result.certificate is None else len(result.certificate.regions),
        "seconds": dict(result.seconds),
    }


def main() -> None:
    """Prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--regions", nargs="+", type=int, default=[300, 1000, 10_000])
    parser.add_argument("--certificate", action="store_true", help="with what a check of the proof needs")
    parser.add_argument("--semantics", default="real")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        found = run(arguments.kinds[0], arguments.regions[0], arguments.certificate, arguments.semantics)
        print(json.dumps(found))
        return
    options = ["--semantics", arguments.semantics, *(["--certificate"] if arguments.certificate else [])]
    rows = []
    print(f"{'kind':8} {'regions':>8} {'CPU s':>8} {'MB grown':>9} {'verdict':10} phases, s")
    for kind in arguments.kinds:
        for count in arguments.regions:
            command = [sys.executable, "-m", "benchmarks.regions", "--here", "--kinds", kind, "--regions", str(count)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, env=environment)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            phases = " ".join(f"{name} {seconds:.2f}" for name, seconds in row["seconds"].items())
            print(
                f"{kind:8} {count:8} {row['cpu_seconds']:8.2f} {row['grown_bytes'] / 1e6:9.1f} {row['verdict']:10} "
                f"{phases}",
                flush=True,
            )
    if arguments.json:
        about = {"date": date.today().isoformat(), "machine": machine_info(), "commit_info": commit_info()}
        arguments.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
