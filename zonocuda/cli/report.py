"""Results as text, in VNN-COMP's format, and the JSON document of bounds that docs/json.md describes."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import torch

from zonocuda.cli.output import printable
from zonocuda.specs import LinearConstraint, Spec
from zonocuda.verifier import Counterexample, LayerStats, NetworkBounds, Step, Verdict, VerifyResult
from zonocuda.verifier.documents import file_entry, layer_entry, numbers, step_entry
from zonocuda.version import __version__

WIDTH = 100
"""Columns of a line for people."""

SHOWN = 5
"""Constraints, and numbers of a point, that a line names."""


def wrapped(lines: Iterable[str], indent: int = 9) -> Iterator[str]:
    """Lines of at most WIDTH columns: what is longer goes on below, indented. A word is never split."""
    for line in lines:
        yield from textwrap.wrap(
            printable(line), WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )


def plain_lines(result: VerifyResult, spec: Spec, places: Sequence[str]) -> Iterator[str]:
    """What the verdict means, in plain words; ``places`` are the files that the result was written to."""
    yield from wrapped(_plain(result, spec, places), 2)


def _plain(result: VerifyResult, spec: Spec, places: Sequence[str]) -> Iterator[str]:
    if result.verdict is Verdict.VERIFIED:
        boxes = "the box" if len(spec.regions) == 1 else f"each of the {len(spec.regions)} boxes"
        yield f"for every input of {boxes} the output is safe: {result.reason}"
        yield f"the proof {result.meaning}"
    elif result.counterexample is not None:
        yield f"an input of the box has an unsafe output: {_violation(result.counterexample, spec)}"
        yield f"the network {result.meaning}"
        yield _whereabouts(result.counterexample, places)
        if result.reason:
            yield result.reason
    else:
        yield f"neither a proof nor a counterexample was found: {result.reason}"
    if result.resumed:
        yield "it goes on with a checkpoint, which is believed"
    if result.checkpoint_fault:
        yield result.checkpoint_fault


def _violation(found: Counterexample, spec: Spec) -> str:
    """Which class wins over which, or the constraints that hold at the point."""
    x, y = found.x.flatten().tolist(), found.y.flatten().tolist()
    disjuncts = spec.regions[found.region].disjuncts
    rows = next(rows for rows in disjuncts if all(row.holds(x, y) for row in rows))
    if not rows:
        return "the specification calls every output unsafe"
    labels = {_label(rows) for rows in disjuncts}
    label = labels.pop()
    if label is not None and not labels and len(disjuncts) == spec.outputs - 1:
        (other,) = (i for i in rows[0].outputs if i != label)
        scores = f"Y_{other} = {y[other]!r}, Y_{label} = {y[label]!r}"
        return f"class {other} scores at least as high as class {label}, {scores}"
    shown = " and ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
    outputs = sorted({i for row in rows[:SHOWN] for i in row.outputs})
    return f"{shown} ({', '.join(f'Y_{i} = {y[i]!r}' for i in outputs[:SHOWN])})"


def _label(rows: Sequence[LinearConstraint]) -> int | None:
    """The class that a disjunct of one row ``Y_label - Y_other <= 0`` protects; None of any other disjunct."""
    if len(rows) != 1 or rows[0].inputs or rows[0].constant or sorted(rows[0].outputs.values()) != [-1, 1]:
        return None
    return next(i for i, coefficient in rows[0].outputs.items() if coefficient == 1)


def _whereabouts(found: Counterexample, places: Sequence[str]) -> str:
    if places:
        return f"the point is in {' and in '.join(places)}"
    x = found.x.flatten().tolist()
    if len(x) <= SHOWN:
        return "the point is " + ", ".join(f"X_{i} = {v!r}" for i, v in enumerate(x))
    return f"the point has {len(x)} numbers: --results-file F or --json F writes it to a file"


def detail_lines(result: VerifyResult) -> Iterator[str]:
    """What ``-v`` adds."""
    yield from wrapped(_details(result))


def _details(result: VerifyResult) -> Iterator[str]:
    yield f"reason   {result.reason}"
    yield f"meaning  {result.meaning}"
    if result.margin is not None:
        yield f"margin   {result.margin:.6g} (smallest of {len(result.margins)} rows)"
    for split in result.splits:
        lemmas = f", {split.lemmas} lemmas" if split.lemmas else ""
        packets = f" in {split.packets} packets of {split.work_seconds:.1f} s together" if split.packets else ""
        bounded = f"{split.boxes} {split.noun}{lemmas}{packets}"
        yield f"split    region {split.region}: {bounded}, {split.depth} deep, {split.open} open"
    size = None if result.certificate is None else result.certificate.forest
    if size is not None:
        trees = f"{size.leaves} leaves, {size.depth} deep, {size.lemmas} lemmas, {size.slopes} rows of slopes"
        yield f"proof    {trees}, {size.bytes} bytes before they are packed"
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
    """One line for each activation."""
    for layer in layers:
        symbols = " + ".join(f"{count} {kind}" for kind, count in layer.symbols.items()) or "0"
        how = f"{symbols} symbols" if layer.direction == "forward" else f"{layer.dual_rows} dual rows"
        yield f"layer    {layer.name}: {layer.unstable} of {layer.neurons} unstable, {how}"


def bounds_document(result: NetworkBounds, options: argparse.Namespace, device: str) -> dict[str, object]:
    """The JSON document of ``zonocuda bounds``."""
    return {
        "schema": "zonocuda.bounds/1",
        "lower": numbers(result.lower.flatten().tolist()),
        "upper": numbers(result.upper.flatten().tolist()),
        "eps": options.eps,
        "clip": None if options.clip is None else numbers(options.clip),
        "layers": [layer_entry(layer) for layer in result.stats],
        "plan": [step_entry(step) for step in result.plan],
        "ran": {
            "dtype": options.dtype,
            "device": device,
            "backend": "native" if options.backend == "auto" else options.backend,
            "versions": {"zonocuda": __version__, "torch": torch.__version__},
        },
        "files": {"net": file_entry(options.net), "center": file_entry(options.center)},
    }
