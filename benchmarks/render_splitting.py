"""The tables of docs/splitting.md, from the JSON of bench_splitting and bench_verdicts: no number is typed by hand.

    python -m benchmarks.render_splitting benchmarks/results/splitting-*.json

A table that none of the files has something for stays as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import bench_verdicts
from benchmarks.bench_splitting import Row, line
from benchmarks.render import fill, markdown

DOCUMENT = Path(__file__).parents[1] / "docs" / "splitting.md"
WAYS = ("set", "way", "decided", "parts", "median s", "90 %", "sum", "parts/s", "wrong")
NEURONS = ("network", "property", "known", "found", "parts", "of lemmas", "CPU s", "parts a CPU s")
PEERS = ("network", "property", "known", "found", "parts", "CPU s", "its parts", "its CPU s")
Entries = Sequence[Mapping[str, Any]]


def name(path: str) -> str:
    """Of a file, without what its name ends with."""
    return Path(path).name.removesuffix(".gz").removesuffix(".onnx").removesuffix(".vnnlib")


def ways(rows: Entries) -> str:
    """A line for each way of splitting boxes."""
    found = [Row(**row) for row in rows]
    groups = groupby(found, lambda row: (row.set, row.way))
    return markdown(WAYS, [line(*key, list(group)).strip("| ").split(" | ") for key, group in groups])


def neurons(rows: Entries) -> str:
    """A line for each instance whose neurons were split."""
    found = [Row(**row) for row in rows]
    lines = []
    for one in found:
        counts = f"{one.parts:,}", f"{one.lemma_parts:,}", f"{one.seconds:.1f}", f"{one.parts / one.seconds:,.0f}"
        lines.append((name(one.net), name(one.spec), one.truth, one.found, *counts))
    return markdown(NEURONS, lines)


def peers(rows: Entries) -> str:
    """A line for each instance of bench_verdicts.ROWS."""
    found = [bench_verdicts.Found(**row) for row in rows]
    lines = []
    for one in found:
        theirs = bench_verdicts.cells_of(bench_verdicts.peer_of(one))
        own = f"{one.parts:,}", f"{one.seconds:.2f}"
        lines.append((name(one.net), name(one.spec), one.known, one.found, *own, *theirs))
    return markdown(PEERS, lines)


def main() -> None:
    """The command line."""
    results = [json.loads(Path(source).read_text()) for source in sys.argv[1:]]
    if not results:
        raise SystemExit(__doc__)
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(), results))


def rendered(document: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The document with the tables of some results, each of which says by its command what it is of."""
    kinds: dict[str, list[Mapping[str, Any]]] = {"ways": [], "neurons": [], "peers": []}
    for result in results:
        command = result["command"]
        kind = "peers" if "--rows" in command else "neurons" if "--instances" in command else "ways"
        kinds[kind] += result["rows"]
    for kind, render in (("ways", ways), ("neurons", neurons), ("peers", peers)):
        if kinds[kind]:
            document = replaced(document, kind, render(kinds[kind]))
    return document


def replaced(document: str, table: str, text: str) -> str:
    """The document with one table."""
    head, mark, rest = document.partition(f"<!-- table: {table} -->")
    if not mark:
        raise SystemExit(f"{DOCUMENT} has no table {table!r}")
    own, end, tail = rest.partition("<!-- end -->")
    return head + fill(mark + own + end, {table: partial(str, text)}) + tail


if __name__ == "__main__":
    main()
