"""Results as text, as VNN-COMP's format, and as the JSON documents that docs/json.md describes."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from zonocuda.cli.certificate import certificate_document
from zonocuda.verifier import LayerStats, NetworkBounds, Step, Verdict, VerifyResult
from zonocuda.version import __version__

_VNNCOMP = {
    Verdict.VERIFIED: "unsat",
    Verdict.FALSIFIED: "sat",
    Verdict.UNKNOWN: "unknown",
    Verdict.TIMEOUT: "timeout",
}


LONGEST_LINE = 1500
"""Characters of a line that quotes what a file says."""


def printable(text: str) -> str:
    """``text`` on one line of at most LONGEST_LINE characters, without control characters: a file may name its nodes
    anything."""
    shown = (c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
    line = "".join(shown)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."


def summary(result: VerifyResult) -> Iterator[str]:
    """The lines that follow the verdict."""
    yield f"reason   {result.reason}"
    yield f"meaning  {result.meaning}"
    if result.margin is not None:
        yield f"margin   {result.margin:.6g} (smallest of {len(result.margins)} rows)"
    for split in result.splits:
        yield f"split    region {split.region}: {split.boxes} boxes, {split.depth} deep, {split.open} open"
    yield from layer_lines(result.layers)
    yield from plan_lines(result.plan)
    phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result.seconds.items() if name != "total")
    yield f"seconds  {result.seconds['total']:.3f} ({phases})"
    ran = result.ran
    versions = ", ".join(f"{name} {version}" for name, version in ran.versions.items())
    how = f"{ran.backend} ops, effort {ran.effort}, replay in {ran.replay}"
    if ran.settled:
        yield f"refuted  {', '.join(f'{count} rows in {dtype}' for dtype, count in ran.settled.items())}"
    yield f"ran      {ran.dtype}, {ran.device}, {how}, {versions}"


def plan_lines(plan: Iterable[Step]) -> Iterator[str]:
    """One line for each decision of the planner."""
    for step in plan:
        if step.actions:
            yield f"plan     {step.name}: {step.direction}, {'; '.join(step.actions)}"


def layer_lines(layers: Iterable[LayerStats]) -> Iterator[str]:
    """One line for each ReLU."""
    for layer in layers:
        symbols = " + ".join(f"{count} {kind}" for kind, count in layer.symbols.items()) or "0"
        how = f"{symbols} symbols" if layer.direction == "forward" else f"{layer.dual_rows} dual rows"
        yield f"layer    {layer.name}: {layer.unstable} of {layer.neurons} unstable, {how}"


def vnncomp(result: VerifyResult) -> str:
    """The verdict in VNN-COMP's words, and for ``sat`` the counterexample: float32 values, printed exactly."""
    text = _VNNCOMP[result.verdict] + "\n"
    if result.counterexample is not None:
        point = [("X", result.counterexample.x), ("Y", result.counterexample.y)]
        values = [f"({name}_{i} {v!r})" for name, t in point for i, v in enumerate(t.flatten().tolist())]
        text += "(" + "\n".join(values) + ")\n"
    return text


def verify_document(result: VerifyResult, net: str, spec: str, timeout: float) -> dict[str, object]:
    """The JSON document of ``zonocuda verify``."""
    counterexample = None
    if result.counterexample is not None:
        counterexample = {
            "region": result.counterexample.region,
            "x": _numbers(result.counterexample.x.flatten().tolist()),
            "y": _numbers(result.counterexample.y.flatten().tolist()),
        }
    return {
        "schema": "zonocuda.verify/1",
        "verdict": str(result.verdict),
        "reason": result.reason,
        "meaning": result.meaning,
        "margin": _number(result.margin),
        "rows": [
            {
                "region": row.region,
                "constraint": row.constraint,
                "lower": _number(row.lower),
                "forward": _number(row.forward),
                "dual": _number(row.dual),
                "slack": _number(row.slack),
                "dtype": row.dtype,
            }
            for row in result.margins
        ],
        "counterexample": counterexample,
        "splits": [
            {
                "region": split.region,
                "boxes": split.boxes,
                "depth": split.depth,
                "open": split.open,
                "worst": _number(split.worst),
                "seconds": split.seconds,
            }
            for split in result.splits
        ],
        "certificate": None if result.certificate is None else certificate_document(result.certificate),
        "layers": [_layer(layer) for layer in result.layers],
        "plan": [_step(step) for step in result.plan],
        "seconds": dict(result.seconds),
        "timeout": _number(timeout),
        "ran": {
            "dtype": result.ran.dtype,
            "device": result.ran.device,
            "backend": result.ran.backend,
            "replay": result.ran.replay,
            "effort": result.ran.effort,
            "semantics": result.ran.semantics,
            "replay_dtype": result.ran.replay_dtype,
            "settled": dict(result.ran.settled),
            "versions": dict(result.ran.versions),
        },
        "files": {"net": _file(net), "spec": _file(spec)},
    }


def bounds_document(result: NetworkBounds, options: argparse.Namespace, device: str) -> dict[str, object]:
    """The JSON document of ``zonocuda bounds``."""
    return {
        "schema": "zonocuda.bounds/1",
        "lower": _numbers(result.lower.flatten().tolist()),
        "upper": _numbers(result.upper.flatten().tolist()),
        "eps": options.eps,
        "clip": None if options.clip is None else _numbers(options.clip),
        "layers": [_layer(layer) for layer in result.stats],
        "plan": [_step(step) for step in result.plan],
        "ran": {
            "dtype": options.dtype,
            "device": device,
            "backend": "native" if options.backend == "auto" else options.backend,
            "versions": {"zonocuda": __version__, "torch": torch.__version__},
        },
        "files": {"net": _file(options.net), "center": _file(options.center)},
    }


def _layer(layer: LayerStats) -> dict[str, object]:
    return {
        "name": layer.name,
        "neurons": layer.neurons,
        "dead": layer.dead,
        "active": layer.active,
        "unstable": layer.unstable,
        "symbols": dict(layer.symbols),
        "mean_width": _number(layer.mean_width),
        "direction": layer.direction,
        "dual_rows": layer.dual_rows,
    }


def _step(step: Step) -> dict[str, object]:
    return {
        "name": step.name,
        "direction": step.direction,
        "bytes": step.bytes,
        "host_bytes": step.host_bytes,
        "operations": step.operations,
        "actions": list(step.actions),
    }


def _file(path: str) -> dict[str, str]:
    return {"name": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def _number(value: float | None) -> float | str | None:
    """A JSON number; NaN and infinities as the strings "nan", "inf" and "-inf", which JSON has no numbers for."""
    return value if value is None or math.isfinite(value) else str(value)


def _numbers(values: list[float]) -> list[float | str | None]:
    return [_number(v) for v in values]
