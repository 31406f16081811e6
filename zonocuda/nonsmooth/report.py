"""An audit as a table in the terminal, and as one page of HTML with a picture for each layer."""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from zonocuda.nonsmooth.results import AuditReport, DtypeReport, LayerReport

_COLUMNS = (
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


def _cells(layer: LayerReport) -> list[str]:
    return [
        layer.layer,
        str(layer.calls),
        str(layer.elements),
        str(layer.ties),
        str(layer.tied_positive),
        str(layer.structural),
        str(layer.induced),
        str(layer.reached),
        f"{layer.differing}/{layer.minibatches}",
        f"{layer.absolute:.2e}",
        f"{layer.relative:.2e}",
        layer.verdict,
    ]


def tables(report: AuditReport) -> Iterator[Table]:
    """One table for each dtype."""
    for of_dtype in report.dtypes:
        table = Table(title=f"{report.model}, {of_dtype.dtype}", title_justify="left")
        for i, name in enumerate(_COLUMNS):
            table.add_column(name, justify="left" if i in (0, len(_COLUMNS) - 1) else "right", overflow="fold")
        for layer in (*of_dtype.layers, of_dtype.total):
            *cells, verdict = _cells(layer)
            table.add_row(*cells, f"[{_COLOURS[verdict]}]{verdict}[/]", end_section=layer in of_dtype.layers[-1:])
        yield table


def notes(of_dtype: DtypeReport) -> Iterator[str]:
    """What the table does not say: certificates, and operations that were not recorded."""
    found = Counter((c.verdict, c.theorem) for c in of_dtype.certificates)
    for (verdict, theorem), count in found.items():
        by = f" by {theorem}" if theorem else ""
        yield f"{of_dtype.dtype}: {count} of {len(of_dtype.certificates)} minibatches: {verdict}{by}"
    for reason in sorted({c.reason for c in of_dtype.certificates if c.verdict == "unknown"}):
        yield f"{of_dtype.dtype}: unknown because: {reason}"
    if of_dtype.unrecorded:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(of_dtype.unrecorded.items()))
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


# ---- HTML ------------------------------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } h2 { margin-top: 2.5rem }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right } th { border-bottom-color: #888 }
td:first-child, th:first-child, td:last-child { text-align: left }
.none { color: #15803d } .compensation { color: #a16207 } .bifurcation { color: #b91c1c } .not { color: #a21caf }
figure { display: inline-block; margin: .5rem 1.5rem .5rem 0; vertical-align: top }
figcaption { font-size: 13px; color: #555 } rect.s { fill: #1f5a96 } rect.i { fill: #c2410c } rect.c { fill: #1f5a96 }
"""
_WIDTH, _HEIGHT = 340, 70
_MOST = 170  # bars of one picture


def _picture(layer: LayerReport) -> str:
    """Ties of each channel as bars (neighbours joined where there are many), and their split below."""
    counts = layer.by_channel
    join = -(-len(counts) // _MOST) if counts else 1
    bars = [sum(counts[i : i + join]) for i in range(0, len(counts), join)]
    most = max(bars, default=0)
    parts = []
    for i, bar in enumerate(bars):
        width = _WIDTH / len(bars)
        height = 0 if most == 0 else max(1.0, _HEIGHT * bar / most) if bar else 0
        if height:
            parts.append(
                f'<rect class="c" x="{i * width:.2f}" y="{_HEIGHT - height:.2f}" width="{max(0.5, width - 0.5):.2f}" '
                f'height="{height:.2f}"><title>channel {i * join}: {bar}</title></rect>'
            )
    total = layer.structural + layer.induced
    structural = _WIDTH * layer.structural / total if total else 0.0
    if total:
        parts.append(f'<rect class="s" x="0" y="{_HEIGHT + 6}" width="{structural:.2f}" height="8"/>')
        rest = _WIDTH - structural
        parts.append(f'<rect class="i" x="{structural:.2f}" y="{_HEIGHT + 6}" width="{rest:.2f}" height="8"/>')
    line = f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="#999"/>'
    label = html.escape(f"{layer.layer}: ties by channel")
    caption = (
        f"{html.escape(layer.layer)}: {layer.ties} ties of {layer.elements}, at most {most} in a bar; below: "
        f"{layer.structural} structural (blue), {layer.induced} made by rounding (orange)"
    )
    size = f'width="{_WIDTH}" height="{_HEIGHT + 16}" viewBox="0 0 {_WIDTH} {_HEIGHT + 16}"'
    return (
        f'<figure><svg {size} role="img" aria-label="{label}">{line}{"".join(parts)}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def html_page(report: AuditReport) -> str:
    """A page that needs no other file and no network."""
    title = html.escape(f"Audit of {report.model}")
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>']
    first, second = (", ".join(f"{k} {v}" for k, v in c.items() if v is not None) for c in report.conventions)
    parts.append(
        f"<h1>{title}</h1><p>{report.samples} samples in minibatches of {report.batch_size} on "
        f"{html.escape(report.device)}, torch {html.escape(report.versions['torch'])}. Two conventions for the "
        f"derivative at ties: <em>{html.escape(first)}</em> and <em>{html.escape(second)}</em>.</p>"
    )
    for of_dtype in report.dtypes:
        parts.append(f"<h2>{html.escape(of_dtype.dtype)}</h2><table><tr>")
        parts += [f"<th>{html.escape(name)}</th>" for name in _COLUMNS]
        for layer in (*of_dtype.layers, of_dtype.total):
            *cells, verdict = (html.escape(cell) for cell in _cells(layer))
            row = "".join(f"<td>{cell}</td>" for cell in cells)
            parts.append(f'</tr><tr>{row}<td class="{verdict.split()[0]}">{verdict}</td>')
        parts.append("</tr></table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in notes(of_dtype)]
        parts += [_picture(layer) for layer in of_dtype.layers]
    return "".join(parts) + "</html>\n"
