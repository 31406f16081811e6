"""The tables of docs/performance.md, from the JSON of a benchmark run: no number there is typed by hand.

    python -m benchmarks.render benchmarks/results/MACHINE.json [benchmarks/results/MACHINE-networks.json ...]

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; NAME is one of TABLES.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.table import HEADER, Row, cells, machines

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_PLACE = re.compile(r"(<!-- table: (?P<name>[\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """What a group of rows is to reach: ``value`` of a native row is at least ``least``."""

    what: str
    groups: str
    value: Callable[[Row, Sequence[Row]], float | None]
    least: float
    unit: str

    def line(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """The target, the lowest value measured, and whether that is enough; dashes without such rows."""
        found = [(self.value(row, rows), row) for row in rows if re.match(self.groups, row.group)]
        values = [(value, row.group) for value, row in found if value is not None]
        if not values:
            return (self.what, self.text(self.least), "-", "-", "not measured")
        value, group = min(values)
        return (self.what, self.text(self.least), self.text(value), group, "met" if value >= self.least else "missed")

    def text(self, value: float) -> str:
        """A number in the target's unit."""
        return f"{value:.0%}" if self.unit == "%" else f"{value:.2f}x"


def of_copy(row: Row, rows: Sequence[Row]) -> float | None:
    """The share of the copy bandwidth that a native row reaches."""
    return float(row.info["fraction_of_copy_bandwidth"]) if row.subject == "native" else None


def backward_of_copy(row: Row, rows: Sequence[Row]) -> float | None:
    """The same for the backward pass alone: what forward and backward took together, less the forward pass."""
    if row.subject != "native":
        return None
    alone = row.group.replace("forward+backward", "forward")
    forward = next((r for r in rows if r.group == alone and r.subject == "native"), None)
    if forward is None:
        return None
    seconds = row.median - forward.median
    moved = row.info["bytes"] - forward.info["bytes"]
    return float(moved / seconds / (row.info["copy_gigabytes_per_second"] * 1e9)) if seconds > 0 else None


def times_faster(subject: str, baseline: str) -> Callable[[Row, Sequence[Row]], float | None]:
    """How many times faster than another row of the group."""

    def value(row: Row, rows: Sequence[Row]) -> float | None:
        other = next((r for r in rows if r.group == row.group and r.subject == baseline), None)
        return other.median / row.median if other is not None and row.subject == subject else None

    return value


def times_smaller(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times less peak memory than the dense row of the group."""
    other = next((r for r in rows if r.group == row.group and r.subject == "dense"), None)
    if other is None or row.subject != "structured":
        return None
    return float(other.info["peak_megabytes"] / row.info["peak_megabytes"])


TARGETS = (
    Target("concretize, of copy bandwidth", r"concretize forward,(?!.*fresh)", of_copy, 0.8, "%"),
    Target("relu into reused memory, of copy bandwidth", r"relu_ forward,", of_copy, 0.8, "%"),
    Target("relu backward, of copy bandwidth", r"relu forward\+backward,(?!.*fresh)", backward_of_copy, 0.6, "%"),
    Target(
        "concretize against torch, own allocations",
        r"concretize forward,.*fresh",
        times_faster("native", "reference"),
        5,
        "x",
    ),
    Target(
        "relu forward and backward against torch, own allocations",
        r"relu forward\+backward,.*fresh",
        times_faster("native", "reference"),
        2,
        "x",
    ),
    Target("chain on 32x32, time", r"chain of.*3x32x32", times_faster("structured", "dense"), 1, "x"),
    Target("chain on 64x64, time", r"chain of.*3x64x64", times_faster("structured", "dense"), 3, "x"),
    Target("chain on 64x64, peak memory", r"chain of.*3x64x64", times_smaller, 5, "x"),
    Target("networks, forward", r"network (?!example)", times_faster("forward", "yardstick"), 1.5, "x"),
    Target("networks, auto", r"network (?!example)", times_faster("auto", "yardstick"), 5, "x"),
)


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def matching(pattern: str) -> Callable[[Sequence[Row]], str]:
    """The rows whose group matches, with all columns."""
    return lambda rows: markdown(HEADER, cells([row for row in rows if re.match(pattern, row.group)]))


def floors(rows: Sequence[Row]) -> str:
    """For each row with known costs: bytes, operations, the least time at the measured rates, and what bounds it."""
    lines = []
    for row in sorted(rows, key=lambda row: row.group):
        if row.subject not in ("native", "forward") or "bytes" not in row.info or row.group.startswith("nonsmooth"):
            continue
        info = row.info
        by_bytes = info["bytes"] / info["copy_gigabytes_per_second"] / 1e6
        by_operations = info["operations"] / info["product_gigaoperations_per_second"] / 1e6
        bound = "bytes" if by_bytes >= by_operations else "operations"
        lines.append(
            (
                row.group,
                f"{info['bytes'] / 1e6:.1f}",
                f"{info['operations'] / 1e6:.1f}",
                f"{max(by_bytes, by_operations):.3f}",
                bound,
                f"{info['fraction_of_floor']:.0%}",
            )
        )
    return markdown(("group", "MB", "Mop", "floor ms", "bound by", "floor / time"), lines)


def ways(rows: Sequence[Row]) -> str:
    """What each way through a network must compute, the least time of the cheapest at the measured product rate, and a
    fifth of the yardstick's time."""
    lines = []
    for row in sorted(rows, key=lambda row: row.group):
        others = {other.subject: other for other in rows if other.group == row.group}
        if row.subject != "auto" or not {"forward", "yardstick"} <= others.keys():
            continue
        work = [others["forward"].info["operations"], row.info["dual_operations"], row.info["dual_operations_unstable"]]
        least = min(work) / row.info["product_gigaoperations_per_second"] / 1e6
        fifth = others["yardstick"].median * 1e3 / 5
        lines.append((row.group, *(f"{count / 1e9:.2f}" for count in work), f"{least:.1f}", f"{fifth:.1f}"))
    header = ("group", "forward Gop", "dual, open", "dual, unstable", "least ms", "a fifth of the yardstick's")
    return markdown(header, lines)


def peaks(rows: Sequence[Row]) -> str:
    """The chains, with their peak memory."""
    chosen = [row for row in rows if "peak_megabytes" in row.info]
    lines = [
        (row.group, row.subject, f"{row.median * 1e3:.1f}", f"{row.info['peak_megabytes']:.1f}")
        for row in sorted(chosen, key=lambda row: (row.group, row.subject))
    ]
    return markdown(("group", "what", "median ms", "peak MB"), lines)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "machine": lambda rows: "".join(f"{line}\n" for line in machines(rows)),
    "targets": lambda rows: markdown(
        ("target", "least", "lowest measured", "where", ""), (target.line(rows) for target in TARGETS)
    ),
    "floors": floors,
    "ops": matching(r"(?!layer|network|chain|nonsmooth)"),
    "layers": matching(r"layer"),
    "windows": peaks,
    "networks": matching(r"network"),
    "ways": ways,
}


def render(document: str, result: dict[str, Any], source: str) -> str:
    """The document with its tables written anew.

    Raises:
        ValueError: a table without a name of TABLES.
    """
    rows = [Row.read(entry) for entry in result["benchmarks"] if "subject" in entry["extra_info"]]

    def text(name: str) -> str:
        note = f"From {source}, {result['datetime'][:10]}.\n\n" if name == "machine" else ""
        return note + TABLES[name](rows)

    return fill(document, {name: partial(text, name) for name in TABLES})


def fill(document: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The document with the text of ``tables`` between their marks.

    Raises:
        ValueError: a mark whose name is none of theirs.
    """

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise ValueError(f"render: there is no table {name!r}; tables: {', '.join(tables)}")
        return f"{match[1]}{tables[name]()}{match[3]}"

    return _PLACE.sub(replacement, document)


def main() -> None:
    """The command line."""
    sources = [Path(name) for name in sys.argv[1:]]
    if not sources:
        raise SystemExit(__doc__)
    results = [json.loads(source.read_text()) for source in sources]
    result = {**results[0], "benchmarks": [row for one in results for row in one["benchmarks"]]}
    names = " and ".join(f"`benchmarks/results/{source.name}`" for source in sources)
    DOCUMENT.write_text(render(DOCUMENT.read_text(), result, names))


if __name__ == "__main__":
    main()
