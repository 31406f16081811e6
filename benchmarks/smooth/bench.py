"""Widths of the outputs of small smooth networks, ours beside auto_LiRPA's CROWN and alpha-CROWN (20 iterations).

    python -m benchmarks.smooth.bench --json FILE [--only TEXT]
    python -m benchmarks.smooth.bench --write FILE        the table of FILE into docs/tightness.md

The peer is optional: ZONOCUDA_PEER_AUTO_LIRPA names a Python interpreter that has it (docs/comparison.md); without it
the table holds our figures alone. Bounds in float32, round to nearest, of each output from below and above; a width is
the mean of upper - lower over outputs and points. Seconds are those of the processor, with one thread, after a run to
warm up; the peer's do not count its analysis of the module, ours not the import. The peer computes the same functions
by other operators (:mod:`benchmarks.smooth.models`); what it cannot is said.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import commit_info, machine_info
from benchmarks.peers import lirpa
from benchmarks.peers.process import Worker
from benchmarks.peers.render import table
from benchmarks.smooth.models import NETWORKS
from benchmarks.smooth.train import Trained, trained
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import from_module
from zonocuda.tighten.ascent import Ascent
from zonocuda.verifier import compute_bounds, optimize_bounds

Bounder = Callable[[Graph, Zonotope], tuple[Tensor, Tensor]]

PAGE = Path(__file__).parents[2] / "docs" / "tightness.md"
PEERS = {"CROWN": 0, "alpha-CROWN": 20}
MARK, END = "<!-- smooth networks -->", "<!-- end -->"


def forward(graph: Graph, zonotope: Zonotope) -> tuple[Tensor, Tensor]:
    """One sweep."""
    bounds = compute_bounds(graph, zonotope)
    return bounds.lower, bounds.upper


def dual(intermediate: int, steps: int, softmax_sum: bool = False) -> Bounder:
    """Refined, with so many steps for the inputs of activations, and for the outputs."""

    def run(graph: Graph, zonotope: Zonotope) -> tuple[Tensor, Tensor]:
        (outputs,) = graph.output_shape
        rows = torch.cat([torch.eye(outputs), -torch.eye(outputs)])
        asked = {"intermediate": intermediate, "ascent": Ascent(iterations=steps), "softmax_sum": softmax_sum}
        lower = optimize_bounds(graph, zonotope, rows, **asked).lower  # type: ignore[arg-type]
        return lower[:, :outputs], -lower[:, outputs:]

    return run


QUICK: Mapping[str, Bounder] = {"forward": forward, "refined": dual(0, 0), "refined, 0 + 20 steps": dual(0, 20)}
DEAR: Mapping[str, Bounder] = {"refined, 10 + 20 steps": dual(10, 20), "refined, 20 + 30 steps": dual(20, 30)}
"""Not for networks with attention, where it takes minutes."""
SUM: Mapping[str, Bounder] = {
    "refined, softmax_sum": dual(0, 0, True),
    "refined, 0 + 20 steps, softmax_sum": dual(0, 20, True),
}
"""For networks with attention."""


def measure(subject: Trained, worker: Worker | None) -> Iterator[dict[str, Any]]:
    """One entry for each way and radius."""
    graph = from_module(subject.network, tuple(subject.points.shape[1:]))
    points = subject.points if subject.name.startswith("mlp") else subject.points[:1]
    ways = {**QUICK, **(SUM if subject.name in ("vit", "text") else DEAR)}
    for radius in subject.radii:
        for name, way in ways.items():
            found = [_timed(way, graph, Zonotope.from_box(p - radius, p + radius)) for p in points.split(1)]
            widths, seconds = zip(*found, strict=True)
            yield _entry(subject.name, radius, "zonocuda", name, widths, seconds)
        for name, iterations in PEERS.items() if worker is not None else ():
            asked = {"radius": radius, "iterations": iterations}
            answers = [worker.ask(do="bound", point=p.tolist(), **asked) for p in points]
            failed = [answer["failed"] for answer in answers if "failed" in answer]
            if failed:
                yield {**_entry(subject.name, radius, "auto_LiRPA", name, (), ()), "failed": failed[0]}
                continue
            for answer, value in zip(answers, subject.network(points), strict=True):
                difference = (torch.tensor(answer["value"]) - value).abs().max()
                assert float(difference) < 1e-4, "the peer was told another network"
            widths = [float((torch.tensor(a["upper"]) - torch.tensor(a["lower"])).mean()) for a in answers]
            yield _entry(subject.name, radius, "auto_LiRPA", name, widths, [a["seconds"] for a in answers])


def _timed(way: Bounder, graph: Graph, zonotope: Zonotope) -> tuple[float, float]:
    """The width, and seconds of the second run."""
    seconds = 0.0
    for _ in range(2):
        begin = time.process_time()
        lower, upper = way(graph, zonotope)
        seconds = time.process_time() - begin
        if seconds > 1:
            break
    return float((upper - lower).mean()), seconds


def _entry(
    network: str, radius: float, who: str, setting: str, widths: Sequence[float], seconds: Sequence[float]
) -> dict[str, Any]:
    mean = sum(widths) / len(widths) if widths else math.nan
    total = sum(seconds) / len(seconds) if seconds else math.nan
    return {"network": network, "radius": radius, "who": who, "setting": setting, "width": mean, "seconds": total}


def render(document: Mapping[str, Any]) -> str:
    """The table, and how often the target is met."""
    entries = document["entries"]
    cases = list(dict.fromkeys((entry["network"], entry["radius"]) for entry in entries))
    rows, met = [], {name: [0, 0, 0] for name in PEERS}
    for network, radius in cases:
        own = [e for e in entries if (e["network"], e["radius"]) == (network, radius)]
        ours = [e for e in own if e["who"] == "zonocuda"]
        cells = [f"{network}, {radius:g}"]
        for name in PEERS:
            peer = next((e for e in own if e["setting"] == name), None)
            if peer is None or "failed" in peer:
                cells += ["absent" if peer is None else peer["failed"].split("\n")[0], _cell(_best(ours))]
                continue
            tight = [e for e in ours if e["width"] <= peer["width"] or math.isnan(peer["width"])]
            quick = [e for e in tight if e["seconds"] <= peer["seconds"]]
            met[name][0] += 1
            met[name][1] += bool(tight)
            met[name][2] += bool(quick)
            chosen = _best(quick) if quick else min(tight, key=lambda e: e["seconds"]) if tight else _best(ours)
            mark = "" if quick else ": slower" if tight else ": wider"
            cells += [_cell(peer), f"{_cell(chosen)}, {chosen['setting']}{mark}"]
        rows.append(cells)
    text = table(["network, radius", "CROWN", "ours", "alpha-CROWN", "ours"], rows)
    for name, (count, tight, quick) in met.items():
        text += (
            f"\n\n{name}: of {count} cases {tight} are no wider by one of our settings, {quick} of them in its time."
        )
    facts = document["peer"]
    told = f"auto_LiRPA {facts['auto_LiRPA']} with torch {facts['torch']}" if facts else "without auto_LiRPA"
    machine = document["machine_info"]["processor"]
    return f"{machine}, torch {document['torch']}; {told}; {document['datetime'][:10]}.\n\n{text}"


def _best(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(entries, key=lambda e: math.inf if math.isnan(e["width"]) else e["width"])


def _cell(entry: Mapping[str, Any]) -> str:
    return f"{entry['width']:.4g} in {entry['seconds'] * 1e3:.0f} ms"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="a file for the results; what it has of other networks stays")
    parser.add_argument("--write", type=Path, help="a file of results, whose table goes into the page")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    options = parser.parse_args()
    if options.write:
        before, _, rest = PAGE.read_text().partition(MARK)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{MARK}\n{render(json.loads(options.write.read_text()))}\n{END}{after}")
        return
    torch.set_num_threads(1)
    worker = lirpa.start(1, Path(__file__).with_name("worker.py"))
    if isinstance(worker, str):
        print(worker)
    held = None if isinstance(worker, str) else worker
    document = {"datetime": datetime.now(UTC).isoformat(timespec="seconds"), "torch": torch.__version__}
    document |= {"machine_info": machine_info(), "commit_info": commit_info()}
    file = options.json
    earlier = json.loads(file.read_text())["entries"] if file and file.is_file() else []
    kept = [entry for entry in earlier if options.only not in entry["network"]]
    document |= {"peer": held.facts if held else None, "entries": kept}
    for name in NETWORKS:
        if options.only not in name:
            continue
        subject = trained(name)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.npz"
            np.savez(weights, **{key: value.numpy() for key, value in subject.network.state_dict().items()})
            if held is not None:
                held.ask(do="load", name=name, file=str(weights))
        for entry in measure(subject, held):
            document["entries"].append(entry)  # type: ignore[attr-defined]
            print(json.dumps(entry), flush=True)
        if file:
            file.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
