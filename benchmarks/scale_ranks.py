"""Large networks whose symbols are shared out over ranks: memory of each, and bounds beside those of one process.

    python -m benchmarks.scale_ranks [vgg16 | resnet34] [--ranks 1 2 4] [--iterations 0] [--dtype float64]
                                    [--output F.json]
    torchrun --nproc-per-node 4 -m benchmarks.scale_ranks vgg16

The networks of :mod:`benchmarks.scale_networks`, forward. For each number of ranks, each a process of one thread, a
line: the most symbols of a rank, the most bytes of generators that a rank's plan foresaw, the most that its memory grew
by (its network is there before), seconds, and the largest difference of an output's bound from those of the first line,
over the widest output's width. With ``--iterations`` the slopes of all layers are optimised together for so many steps,
for the smallest of ten outputs, and differences are over the largest of their bounds. Under torchrun there is one line,
of the ranks that it started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.machine import commit_info, machine_info
from benchmarks.one_rank import measure
from benchmarks.scale_networks import GIB
from zonocuda.executors import LocalExecutor, run_ranks

MIB = 2**20
RADII = {"vgg16": 1 / 255, "resnet34": 8e-5}


def summary(size: int, found: Sequence[tuple[dict[str, Any], Tensor]], first: Tensor) -> dict[str, Any]:
    """One line's numbers, of what all ranks found."""
    bounds = found[0][1]
    assert all(torch.equal(other, bounds) for _, other in found), "the ranks' bounds differ"
    width = (first[1] - first[0]).max() if not torch.equal(first[0], first[1]) else first.abs().max()
    most = {
        key: max(numbers[key] for numbers, _ in found) for key in ("symbols", "planned_bytes", "peak_bytes", "seconds")
    }
    return {"ranks": size, **most, "difference": float((bounds - first).abs().max() / width)}


def line(report: dict[str, Any]) -> str:
    """The report in words."""
    return (
        f"{report['ranks']} ranks: {report['symbols']} symbols, {report['planned_bytes'] / MIB:.0f} MiB of generators, "
        f"peak {report['peak_bytes'] / MIB:.0f} MiB, {report['seconds']:.1f} s, difference {report['difference']:.1e}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints, and writes the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", choices=sorted(RADII), default="vgg16")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--radius", type=float)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--budget", type=float, default=16, help="GiB for each rank")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    radius, budget = options.radius or RADII[options.network], int(options.budget * GIB)
    given = options.network, radius, budget, options.iterations, options.dtype
    if "RANK" in os.environ:
        return under_torchrun(*given)
    reports: list[dict[str, Any]] = []
    first: Tensor | None = None
    for size in options.ranks:
        with LocalExecutor(size) as executor:
            found = run_ranks(executor, size, measure, *given)
        first = found[0][1] if first is None else first
        reports.append(summary(size, found, first))
        print(line(reports[-1]), flush=True)
    if options.output:
        document = {"machine_info": machine_info(), "commit_info": commit_info(), "network": options.network}
        document |= {"radius": radius, "dtype": options.dtype, "iterations": options.iterations, "reports": reports}
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def under_torchrun(*given: Any) -> int:
    """One rank of those that torchrun started; the first one prints."""
    dist.init_process_group("gloo")
    try:
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, measure(*given))
        if dist.get_rank() == 0:
            print(line(summary(len(found), found, found[0][1])), flush=True)
    finally:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
