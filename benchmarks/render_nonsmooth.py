"""The tables of docs/nonsmooth.md, from the JSON of the benchmarks and of the literature's experiments.

    python -m pytest benchmarks -k nonsmooth --benchmark-only --benchmark-json=SPEED.json
    python -m benchmarks.nonsmooth_literature LITERATURE.json
    python -m benchmarks.render_nonsmooth SPEED.json [SPEED.json ...] LITERATURE.json

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.render import fill, markdown
from benchmarks.table import Row

DOCUMENT = Path(__file__).parents[1] / "docs" / "nonsmooth.md"
DTYPES = ("float32", "float64", "float16", "bfloat16")
LIMIT = 1.3  # of torch's time
PAPER = {
    1: "5 %",
    2: "26 %",
    3: "46 %",
}  # Bertoin et al. 2021, by hidden layers, float32, minibatches of 60,000 samples


def speed(rows: Sequence[Row]) -> str:
    """Time over torch's, a function in a row and a dtype in a column; what exceeds the limit is bold."""
    times: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        function, dtype, device = row.group.removeprefix("nonsmooth ").rsplit(", ", 2)
        where = function if device == "cpu" else f"{function}, {device}"
        times.setdefault((where, dtype), {})[row.subject] = row.median
    lines = []
    for function in dict.fromkeys(function for function, _ in times):
        cells = []
        for dtype in DTYPES:
            both = times.get((function, dtype), {})
            ratio = both["native"] / both["torch"] if len(both) == 2 else None
            cells.append("-" if ratio is None else f"**{ratio:.2f}**" if ratio > LIMIT else f"{ratio:.2f}")
        lines.append((function, *cells))
    return markdown(("function", *DTYPES), lines)


def initialisations(findings: Sequence[dict[str, Any]]) -> str:
    """Shares of initialisations, by dtype and depth."""
    lines = []
    for f in findings:
        depth, hit, count = f["hidden layers"], f["hit"], f["initialisations"]
        paper = PAPER[depth] if f["dtype"] == "float32" else "0" if f["dtype"] == "float64" else "all"
        zeros = "-" if f["samples with a zero"] is None else str(f["samples with a zero"])
        share = f"{hit} of {count} = {hit / count:.0%}"
        lines.append((f["dtype"], str(depth), f"{f['samples']:,}", share, paper, zeros))
    return markdown(("dtype", "hidden layers", "samples", "hit, here", "in the paper", "samples with a zero"), lines)


def pooling(findings: Sequence[dict[str, Any]]) -> str:
    """Differing minibatches and their classes, by data and dtype."""
    lines = [
        (
            f["data"],
            f["dtype"],
            f"{f['differing']} of {f['minibatches']}",
            f"{f['above the threshold']} of {f['minibatches']} (> {f['threshold']:.0e})",
            f"{f['relative']:.1e}",
            f["verdict"],
            f"{f['ties']:,}",
            f"{f['tied_positive']:,}",
            f"{f['structural']:,}",
        )
        for f in findings
    ]
    header = (
        "data",
        "dtype",
        "differ",
        "by the paper's threshold",
        "largest change, relative",
        "class",
        "ties",
        "above 0",
        "structural",
    )
    return markdown(header, lines)


def training(findings: Sequence[dict[str, Any]]) -> str:
    """Accuracies of the seeds, by choice and dtype."""
    dtypes = list(dict.fromkeys(f["dtype"] for f in findings))
    lines = []
    for choice in dict.fromkeys(f["choice"] for f in findings):
        found = {f["dtype"]: f["accuracies"] for f in findings if f["choice"] == choice}
        lines.append((choice, *(", ".join(f"{a:.3f}" for a in found[dtype]) for dtype in dtypes)))
    return markdown(("", *dtypes), lines)


def slopes(findings: Sequence[dict[str, Any]]) -> str:
    """How far each rule moves the gradient, on each device."""
    lines = [
        (
            report["device"],
            f"{report['on_kink']} of {report['slopes']}",
            *(f"{change['relative']:.2f}" for change in report["changes"]),
        )
        for report in findings[0]["devices"]
    ]
    rules = [f"`{change['rule']}`" for change in findings[0]["devices"][0]["changes"]]
    return markdown(("device", "slopes on the kink", *rules), lines)


PARTS = {"relu": initialisations, "pool": pooling, "training": training, "slopes": slopes}


def tables(speeds: Sequence[tuple[str, dict[str, Any]]], literature: tuple[str, dict[str, Any]]) -> dict[str, str]:
    """Every table by its name, from (source, contents); above each, where and when it was measured."""
    rows, notes = [], []
    for source, result in speeds:
        own = [Row.read(entry) for entry in result["benchmarks"] if entry["group"].startswith("nonsmooth ")]
        notes.append(f"`{source}`, {own[0].info['device']}, torch {own[0].info['torch']}, {result['datetime'][:10]}")
        rows += own
    found = {"speed": f"{'; '.join(notes)}.\n\n{speed(rows)}"}
    for name, table in PARTS.items():
        part = literature[1]["parts"][name]
        where = f"`{literature[0]}`, {part['processor']}, torch {part['torch']}, {part['date']}"
        found[name] = f"{where}.\n\n{table(part['findings'])}"
    return found


def read(files: Sequence[Path]) -> list[tuple[str, dict[str, Any]]]:
    """The files' places in the repository and contents."""
    return [(f"benchmarks/results/{file.name}", json.loads(file.read_text(encoding="utf-8"))) for file in files]


def main() -> None:
    """The command line."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    *speeds, literature = read([Path(argument) for argument in sys.argv[1:]])
    made = tables(speeds, literature)
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(fill(text, {name: partial(made.__getitem__, name) for name in made}), encoding="utf-8")


if __name__ == "__main__":
    main()
