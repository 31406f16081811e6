"""An audit as a table in the terminal."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from zonocuda.nonsmooth.results import AuditReport, DtypeReport, LayerReport

COLUMNS = (
    "layer",
    "calls",
    "elements",
    "ties",
    "> 0",
    "structural",
    "induced",
    "reached",
    "differing",
    "change",
    "relative",
    "class",
)
_COLOURS = {"none": "green", "compensation": "yellow", "bifurcation": "red", "not finite": "magenta"}


def cells(layer: LayerReport) -> list[str]:
    """A row of the table."""
    return [
        layer.layer,
        f"{layer.calls:,}",
        f"{layer.elements:,}",
        f"{layer.ties:,}",
        f"{layer.tied_positive:,}",
        f"{layer.structural:,}",
        f"{layer.induced:,}",
        f"{layer.reached:,}",
        f"{layer.differing:,}/{layer.minibatches:,}",
        f"{layer.absolute:.2e}",
        f"{layer.relative:.2e}",
        layer.verdict,
    ]


def tables(report: AuditReport) -> Iterator[Table]:
    """One table for each dtype."""
    for of_dtype in report.dtypes:
        table = Table(title=f"{report.model}, {of_dtype.dtype}", title_justify="left")
        for i, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if i in (0, len(COLUMNS) - 1) else "right", overflow="fold")
        for layer in (*of_dtype.layers, of_dtype.total):
            *numbers, verdict = cells(layer)
            table.add_row(*numbers, f"[{_COLOURS[verdict]}]{verdict}[/]", end_section=layer in of_dtype.layers[-1:])
        yield table


def notes(of_dtype: DtypeReport) -> Iterator[str]:
    """What the table does not say: certificates, and operations that were not recorded."""
    found = Counter((c.verdict, c.theorem) for c in of_dtype.certificates)
    for (verdict, theorem), count in found.items():
        by = f" by {theorem}" if theorem else ""
        yield f"{of_dtype.dtype}: {count:,} of {len(of_dtype.certificates):,} minibatches: {verdict}{by}"
    for reason in sorted({c.reason for c in of_dtype.certificates if c.verdict == "unknown"}):
        yield f"{of_dtype.dtype}: unknown because: {reason}"
    if of_dtype.unrecorded:
        names = ", ".join(f"{name} ({count:,})" for name, count in sorted(of_dtype.unrecorded.items()))
        yield f"{of_dtype.dtype}: operations that are not recorded and not known to be smooth: {names}"


def text(report: AuditReport, width: int = 150, colour: bool = False) -> str:
    """The tables and notes as text."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, no_color=not colour)
    for table, of_dtype in zip(tables(report), report.dtypes, strict=True):
        console.print(table)
        for note in notes(of_dtype):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
    return out.getvalue()
