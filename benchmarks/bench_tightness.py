"""Tightness against time: what each way to a bound buys, and whether the stated targets are reached. Float32.

    python -m benchmarks.bench_tightness SECTION ... --json FILE [--only TEXT]

* ``curve``: the smallest margin and the seconds of every mode of MODES, on CURVE and CURVE_COURSE.
* ``targets``: the same on the rows of TARGETS, for QUICK_MODES; the stated columns stand beside.
* ``course``: ``verify`` on the cases of ``rtai2019``.
* ``images``: how many of the first hundred images are proven, without a search for counterexamples; and, where
  alpha-CROWN's margins are known, ours with all rows optimised to the end.
* ``kinks``: bounds after each number of steps, by the rule on the kink; ``ties``: how a slope on its kink compares with
  it in floating point.

Sections are written into FILE beside those that it already has. ``--only``: cases whose name holds TEXT. The tables and
the figure of docs/tightness.md come from FILE by ``python -m benchmarks.render_tightness FILE``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import device_name, recycle_memory
from benchmarks.tightness_cases import (
    IMAGE_SETS,
    TARGETS,
    Case,
    course_cases,
    curve_cases,
    image_cases,
    table_case,
)
from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.domains import Zonotope
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.precision import full_precision
from zonocuda.prove.prover import LADDERS, Prover
from zonocuda.relaxations import Start
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.refine import refine
from zonocuda.verifier import optimize_bounds, verify
from zonocuda.verifier.optimize_bounds import FORWARD

Point = Callable[[Case], Tensor]
"""Lower bounds ``[1, R]`` of a case's rows."""

ROUNDS, QUICK = 15, 0.3  # a run that takes less than QUICK seconds is repeated, after one to warm up


@dataclass(frozen=True)
class Mode:
    """A way to bounds, with the points of its curve: a setting's name, and how it bounds."""

    name: str
    points: tuple[tuple[str, Point], ...]


def minimum_area(case: Case) -> Tensor:
    """The forward sweep's."""
    zonotope = Zonotope.from_box(*case.box)
    output = sweep(case.graph, zonotope).output
    assert output is not None, "a forward sweep ends in a zonotope"
    return case.rows.image(zonotope, output).bounds()[0]


def dual(intermediate: int | None, steps: int, start: Start = "adaptive") -> Point:
    """A sweep, a refinement with ``intermediate`` steps (None: none), and the rows with ``steps`` steps."""

    def bound(case: Case) -> Tensor:
        inputs = sweep(case.graph, Zonotope.from_box(*case.box), Means("auto")).intermediate
        if intermediate is not None:
            inputs = refine(case.graph, case.box, inputs, Ascent(iterations=intermediate)).intermediate
        left = compact(case.graph, inputs)
        problem = RowProblem(output_rows(left.graph, case.rows, 1), case.box, left.intermediate)
        begin = {name: slopes.flat() for name, slopes in initial_slopes(left.graph, left.intermediate, start).items()}
        return ascend(problem, Ascent(iterations=steps), begin).lower

    return bound


def joint(steps: int) -> Point:
    """A forward sweep whose slopes are optimised together for the smallest margin, with ``steps`` steps."""

    def bound(case: Case) -> Tensor:
        zonotope, ascent = Zonotope.from_box(*case.box), replace(FORWARD, iterations=steps)
        found = optimize_bounds(case.graph, zonotope, case.rows.output, mode="forward", ascent=ascent)
        return found.lower + case.rows.constant

    return bound


MODES = (
    Mode("minimum area, forward", (("", minimum_area),)),
    Mode("joint, forward", tuple((f"{n} steps", joint(n)) for n in (5, 20))),
    Mode("dual, one slope", (("", dual(None, 0, "minimum_area")),)),
    Mode("dual, adaptive", (("", dual(None, 0)),)),
    Mode("dual, optimised", tuple((f"{n} steps", dual(None, n)) for n in (5, 20, 60))),
    Mode("refined", (("", dual(0, 0)),)),
    Mode("refined and optimised", tuple((f"{n} + 20 steps", dual(n, 20)) for n in (0, 1, 4, 10, 30))),
)
QUICK_MODES = (
    Mode("dual, adaptive", (("", dual(None, 0)),)),
    Mode("refined", tuple((f"{n} steps", dual(n, 0)) for n in (0, 1, 2))),
    Mode("refined and optimised", tuple((f"{n} + 20 steps", dual(n, 20)) for n in (0, 4, 10))),
)
"""From these the stated targets are to be reached."""


def bounds(point: Point, case: Case) -> Tensor:
    """The bounds, in full float32."""
    with full_precision(), torch.no_grad():
        return point(case)


def timed(point: Point, case: Case) -> dict[str, float]:
    """The smallest margin, and of the seconds the median and the least."""

    def once() -> tuple[float, float]:
        begin = time.perf_counter()
        lower = bounds(point, case)
        return float(lower.min()), time.perf_counter() - begin

    margin, first = once()
    rounds = 0 if first > 10 * QUICK else ROUNDS if first < QUICK else 3
    times = [once()[1] for _ in range(rounds)] or [first]
    return {"margin": margin, "seconds": median(times), "least_seconds": min(times)}


def measured(case: Case, modes: Iterable[Mode]) -> Iterator[dict[str, Any]]:
    """Every point of some modes."""
    for mode in modes:
        for setting, point in mode.points:
            found = timed(point, case)
            times = f"{found['seconds'] * 1e3:9.1f} ms, least {found['least_seconds'] * 1e3:9.1f} ms"
            print(f"{case.name:28} {mode.name:24} {setting:14} {found['margin']:12.4f} {times}", flush=True)
            yield {"case": case.name, "mode": mode.name, "setting": setting, **found}


def curve(only: str) -> list[dict[str, Any]]:
    """Margin against time of every mode."""
    return [entry for case in curve_cases() if only in case.name for entry in measured(case, MODES)]


def targets(only: str) -> list[dict[str, Any]]:
    """The stated rows, with every point that we measured."""
    found = []
    for target in TARGETS:
        if only not in f"{target.network}, image {target.image}":
            continue
        case = table_case(target.network, target.image)
        assert case.label == target.label, f"{case.name}: predicted {case.label}, stated {target.label}"
        found.append({**asdict(target), "points": list(measured(case, QUICK_MODES))})
    return found


def course(only: str) -> list[dict[str, Any]]:
    """What ``verify`` says."""
    found = []
    for case in course_cases():
        if only not in case.name:
            continue
        result = verify(case.graph(), case.spec(), dtype=torch.float32, timeout=180)
        entry = {
            "case": case.name,
            "is_verifiable": case.is_verifiable,
            "has_counterexample": case.has_counterexample,
            "alpha_margin": case.alpha_margin,
            "verdict": str(result.verdict),
            "margin": result.margin,
            "seconds": result.seconds["total"],
        }
        print(entry, flush=True)
        found.append(entry)
    return found


def proven(case: Case) -> bool:
    """Whether the proofs of ``effort="standard"``, without a search for counterexamples, prove all rows positive."""
    zonotope = Zonotope.from_box(*case.box)
    swept = sweep(case.graph, zonotope, Means("auto"))
    rows = case.rows
    forward = None if swept.output is None else rows.image(zonotope, swept.output).bounds()[0].squeeze(0)
    prover = Prover(case.graph, rows, case.box, swept.intermediate, forward, lambda node: None)
    prover.plain()
    for rung in LADDERS["standard"]:
        if prover.proven or not prover.climb(rung):
            break
    return prover.proven


def images(only: str) -> list[dict[str, Any]]:
    """Proofs, and margins beside alpha-CROWN's."""
    best = dual(16, 30)
    found = []
    for image_set in IMAGE_SETS:
        if only not in image_set.name:
            continue
        begin = time.perf_counter()
        entries = []
        for image in image_cases(image_set):
            start = time.perf_counter()
            with full_precision(), torch.no_grad():
                is_proven = proven(image.case)
            seconds = time.perf_counter() - start
            margin = None if image.alpha is None else float(bounds(best, image.case).min())
            entries.append(
                {"index": image.index, "crown": image.crown, "alpha": image.alpha}
                | {"proven": is_proven, "seconds": seconds, "margin": margin}
            )
        found.append({"set": image_set.name, "radius": image_set.radius, "images": entries})
        count = sum(bool(entry["proven"]) for entry in entries)
        print(f"{image_set.name}: {count} of {len(entries)}, {time.perf_counter() - begin:.1f} s", flush=True)
    return found


def kinks(only: str) -> list[dict[str, Any]]:
    """The best bounds' sum after each step, slopes of both signs free and beginning on their kink."""
    return [
        {"case": case.name, "rule": rule, "totals": _totals(case, rule)}
        for case in curve_cases()
        if only in case.name and "resnet" not in case.name
        for rule in KINK_RULES
    ]


def _totals(case: Case, rule: KinkRule) -> list[float]:
    with full_precision(), torch.no_grad():
        inputs = sweep(case.graph, Zonotope.from_box(*case.box), Means("auto")).intermediate
        left = compact(case.graph, inputs)
        problem = RowProblem(output_rows(left.graph, case.rows, 1), case.box, left.intermediate)
        begin = {
            name: slopes.flat()
            for name, slopes in initial_slopes(left.graph, left.intermediate, "minimum_area").items()
        }
        ascent = Ascent(iterations=100, patience=100, signs="both", kink=rule)
        totals = [step.total for step in ascend(problem, ascent, begin).history]
    print(f"{case.name:28} {rule:10}", *(f"{total:.5f}" for total in totals[:3]), f"... {totals[-1]:.5f}", flush=True)
    return totals


def ties(only: str) -> list[dict[str, Any]]:
    """How a minimum-area slope fl(u / (u - l)) compares with itself: lam (u - l) with u, by products."""
    found = []
    for dtype in (torch.float32, torch.float64):
        lower, upper = -torch.rand(1_000_000, dtype=dtype), torch.rand(1_000_000, dtype=dtype)
        slope = upper / (upper - lower)
        left, right = slope * -lower, upper * (1 - slope)
        shares = {"greater": left > right, "equal": left == right, "less": left < right}
        found.append({"case": str(dtype), **{name: float(mask.float().mean()) for name, mask in shares.items()}})
        print(found[-1])
    return found


SECTIONS: dict[str, Callable[[str], Any]] = {
    "curve": curve,
    "targets": targets,
    "course": course,
    "images": images,
    "kinks": kinks,
    "ties": ties,
}


def store(path: Path, sections: dict[str, Any]) -> None:
    """Adds sections to a file, with the machine and the date; of two entries for one case the newer one stays."""
    document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    document["datetime"] = datetime.now(UTC).isoformat(timespec="seconds")
    processor = device_name(torch.device("cpu"))
    document["machine_info"] = {
        "processor": processor,
        "system": platform.system(),
        "python": platform.python_version(),
    }
    document["torch"] = torch.__version__
    for name, entries in sections.items():
        kept = {_key(entry): entry for entry in [*document.get(name, []), *entries]}
        document[name] = list(kept.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _key(entry: dict[str, Any]) -> tuple[object, ...]:
    return tuple(entry.get(field) for field in ("case", "mode", "setting", "network", "image", "set", "rule"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    recycle_memory()
    for name in chosen.sections:
        store(chosen.json, {name: SECTIONS[name](chosen.only)})


if __name__ == "__main__":
    main()
