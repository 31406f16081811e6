"""The tables and the figure of docs/tightness.md, from the JSON of the tightness benchmark: no number is typed by hand.

    python -m benchmarks.render_tightness benchmarks/results/tightness-MACHINE.json [docs/tightness.md]

The figure, ``tightness.svg``, is written beside the document.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.render import fill, markdown

DOCUMENT = Path(__file__).parents[1] / "docs" / "tightness.md"
FIGURE = "tightness.svg"
TOLERANCE = 0.01  # of max(|margin|, 1), below a stated margin
KINK_STEPS = (1, 5, 20, 100)
Entry = Mapping[str, Any]


def machine(result: Entry) -> str:
    """Where and when."""
    info = result["machine_info"]
    return f"{info['processor']}, torch {result['torch']}, {result['datetime'][:10]}.\n"


def seconds(value: float) -> str:
    """With as many digits as make sense."""
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"


def curve(result: Entry) -> str:
    """Every point of the figure."""
    cases = list(dict.fromkeys(entry["case"] for entry in result["curve"]))
    points = list(dict.fromkeys((entry["mode"], entry["setting"]) for entry in result["curve"]))
    found = {(e["case"], e["mode"], e["setting"]): e for e in result["curve"]}
    lines = []
    for mode, setting in points:
        cells = [found.get((case, mode, setting)) for case in cases]
        texts = ["-" if e is None else f"{e['margin']:.3f}, {seconds(e['seconds'])}" for e in cells]
        lines.append((f"{mode} {setting}".strip(), *texts))
    return markdown(("mode", *cases), lines)


def reaches(margin: float, stated: float) -> bool:
    """Whether a margin is as good as a stated one, up to the tolerance."""
    return margin >= stated - TOLERANCE * max(abs(stated), 1)


def fastest(points: Sequence[Entry], stated: float) -> Entry | None:
    """The quickest point that reaches a stated margin."""
    good = [point for point in points if reaches(point["margin"], stated)]
    return min(good, key=lambda point: float(point["least_seconds"]), default=None)


def _column(points: Sequence[Entry], stated: Entry, limit: float) -> tuple[str, str, bool, bool]:
    """What is stated, ours, and whether it is in time: the quickest run of it, and the median."""
    column = f"{stated['margin']:.3f} in {seconds(limit)}"
    point = fastest(points, stated["margin"])
    if point is None:
        best = max(points, key=lambda point: float(point["margin"]))
        return column, f"not reached: {best['margin']:.3f} in {seconds(best['seconds'])}", False, False
    how = f"{point['mode']} {point['setting']}".strip()
    times = f"{seconds(point['least_seconds'])} (median {seconds(point['seconds'])})"
    met = point["least_seconds"] <= limit
    text = f"{point['margin']:.3f} in {times}, {how}"
    return column, text if met else f"{text}: too late", met, point["seconds"] <= limit


def targets(result: Entry) -> str:
    """The stated rows: CROWN's margin in its time, and alpha-CROWN's in a third of its time."""
    lines: list[tuple[str, ...]] = []
    met: list[tuple[bool, ...]] = []
    for row in result["targets"]:
        crown = _column(row["points"], row["crown"], row["crown"]["seconds"])
        alpha = _column(row["points"], row["alpha"], row["alpha"]["seconds"] / 3)
        met.append((*crown[2:], *alpha[2:]))
        lines.append((f"{row['network']}, {row['image']}", *crown[:2], *alpha[:2]))
    header = ("network, image", "CROWN", "ours", "alpha-CROWN, a third of its time", "ours")
    counts = [sum(column) for column in zip(*met, strict=True)]
    summary = (
        f"In time, of {len(lines)}: {counts[0]} for CROWN's column ({counts[1]} by the median of our runs), "
        f"{counts[2]} for alpha-CROWN's ({counts[3]} by the median).\n"
    )
    return f"{markdown(header, lines)}\n{summary}"


def course(result: Entry) -> str:
    """How many cases are verified, and how long they take."""
    cases = result["course"]
    good = [case for case in cases if case["is_verifiable"]]
    verified = [case for case in good if case["verdict"] == "verified"]
    attacked = [case for case in cases if case["has_counterexample"]]
    times = [case["seconds"] for case in good]
    wrong = sum(case["verdict"] == "verified" for case in attacked)
    return (
        f"{len(verified)} of {len(good)} cases labelled `verified` are verified, in {sum(times):.1f} s together and "
        f"{max(times):.1f} s at most. Of the {len(attacked)} with an adversarial image {wrong} are verified and "
        f"{sum(case['verdict'] == 'falsified' for case in attacked)} are falsified.\n"
    )


def images(result: Entry) -> str:
    """Images proven, beside CROWN and alpha-CROWN."""
    lines = []
    for one in result["images"]:
        entries = one["images"]
        known = [entry for entry in entries if entry["alpha"] is not None]
        alpha = str(sum(entry["alpha"] > 0 for entry in known)) if known else "-"
        close = sum(reaches(entry["margin"], entry["alpha"]) for entry in known)
        times = [entry["seconds"] for entry in entries]
        lines.append(
            (
                one["set"],
                str(len(entries)),
                str(sum(entry["crown"] > 0 for entry in entries)),
                alpha,
                str(sum(entry["proven"] for entry in entries)),
                f"{close / len(known):.0%}" if known else "-",
                f"{sum(times):.1f} s",
                seconds(max(times)),
            )
        )
    header = ("set", "images", "CROWN", "alpha-CROWN", "ours", "margins as alpha-CROWN's", "together", "slowest")
    return markdown(header, lines)


def kinks(result: Entry) -> str:
    """The best bounds' mean after some steps, by rule."""
    lines = []
    for entry in result["kinks"]:
        totals = entry["totals"]
        rows = [f"{totals[min(step, len(totals) - 1)]:.4f}" for step in KINK_STEPS]
        lines.append((entry["case"], entry["rule"], f"{totals[0]:.4f}", *rows))
    return markdown(("case", "rule", "at first", *(f"{step} steps" for step in KINK_STEPS)), lines)


def kink_spread(result: Entry) -> str:
    """How far apart the rules are, as a share of what the optimisation gained."""
    lines = []
    cases: dict[str, list[list[float]]] = defaultdict(list)
    for entry in result["kinks"]:
        cases[entry["case"]].append(entry["totals"])
    for case, totals in cases.items():
        gain = max(t[-1] for t in totals) - totals[0][0]
        spreads = []
        for step in KINK_STEPS:
            values = [t[min(step, len(t) - 1)] for t in totals]
            spreads.append(f"{(max(values) - min(values)) / gain:.2%}" if gain > 0 else "-")
        lines.append((case, *spreads))
    return markdown(("case", *(f"{step} steps" for step in KINK_STEPS)), lines)


def ties(result: Entry) -> str:
    """Shares of the comparisons."""
    lines = [(e["case"], *(f"{e[name]:.0%}" for name in ("greater", "equal", "less"))) for e in result["ties"]]
    return markdown(("dtype", "greater", "equal", "less"), lines)


TABLES: dict[str, Callable[[Entry], str]] = {
    "machine": machine,
    "curve": curve,
    "targets": targets,
    "course": course,
    "images": images,
    "kinks": kinks,
    "kink spread": kink_spread,
    "ties": ties,
}


def render(document: str, result: Entry) -> str:
    """The document with its tables written anew."""
    return fill(document, {name: lambda table=table: table(result) for name, table in TABLES.items()})  # type: ignore[misc]


def draw(result: Entry, path: Path) -> None:
    """The figure: for each case, how far each mode stays below the best margin of all, against its time."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "tightness", "svg.fonttype": "none", "font.size": 8})
    by_case: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for entry in result["curve"]:
        by_case[entry["case"]][entry["mode"]].append((entry["seconds"], entry["margin"]))
    columns = 4
    rows = -(-len(by_case) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.3 * rows), squeeze=False)
    for axis in axes.flat[len(by_case) :]:
        axis.set_axis_off()
    for axis, (case, modes) in zip(axes.flat, by_case.items(), strict=False):
        margins = [margin for points in modes.values() for _, margin in points]
        best, linear = max(margins), TOLERANCE * max(abs(max(margins)), 1)
        for mode, points in modes.items():
            times, gaps = zip(*((time, best - margin) for time, margin in points), strict=True)
            axis.plot(times, gaps, marker="o", markersize=3, linewidth=1, label=mode)
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=linear)
        axis.set_ylim(2 * (best - min(margins)), -linear / 2)
        axis.minorticks_off()
        axis.set_title(case, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("below the best margin")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """The command line."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    document = Path(sys.argv[2]) if len(sys.argv) == 3 else DOCUMENT
    document.write_text(render(document.read_text(encoding="utf-8"), result), encoding="utf-8")
    draw(result, document.with_name(FIGURE))


if __name__ == "__main__":
    main()
