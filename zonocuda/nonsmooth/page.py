"""An audit as one page of HTML, with a picture for each layer that has ties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from zonocuda.nonsmooth.report import COLUMNS, cells, notes
from zonocuda.nonsmooth.results import AuditReport, DtypeReport, LayerReport
from zonocuda.pages import document, meanings
from zonocuda.pages.charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, figure, line, short, text, upright

CLASSES = {
    "none": "the gradient, as this dtype computes it, does not depend on the choice",
    "compensation": "it does, but by rounding alone: over the reals the choices agree, and floating-point sums do not "
    "cancel exactly",
    "bifurcation": "it does over the reals: the choice decides which gradient it is, and no precision helps",
    "not finite": "the gradient has infinities or NaN, and nothing is known",
}

_MEANINGS = {
    "calls": "how often the layer's function was called",
    "elements": "arguments of a ReLU, or maxima",
    "ties": "exact zeros, or maxima that several elements attain; at these there is no derivative, and one is chosen",
    "> 0": "tied maxima above 0",
    "structural": "ties that are still ties in float64 along the same routing",
    "induced": "the other ties, which only rounding to this dtype made",
    "reached": "ties whose incoming gradient is not 0",
    "differing": "in how many of the minibatches the choice in this layer alone changes the gradient",
    "change": "the largest change, in the Euclidean norm over all parameters",
    "relative": "that over the norm of the gradient",
    "class": "the gravest of all minibatches; the classes are explained below",
}


def html_page(report: AuditReport) -> str:
    """A page that needs no other file and no network.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU())
        >>> page = html_page(audit(model, torch.ones(8, 2), lambda y: y.sum(), progress=False))
        >>> page.startswith("<!doctype html>"), "https:" in page
        (True, False)
    """
    first, second = (", ".join(f"{k} {v}" for k, v in c.items() if v is not None) for c in report.conventions)
    body = [
        f"<p>{report.samples:,} samples in minibatches of {report.batch_size:,} on {escape(report.device)}, torch "
        f"{escape(report.versions['torch'])}. Two conventions for the derivative at ties are compared: "
        f"<em>{escape(first)}</em>, and <em>{escape(second)}</em>.</p>"
    ]
    for of_dtype in report.dtypes:
        body.append(f"<h2>{escape(of_dtype.dtype)}</h2>{_table(of_dtype)}")
        body += [f"<p>{escape(note)}</p>" for note in notes(of_dtype)]
        drawings = [_picture(layer) for layer in of_dtype.layers if layer.ties]
        body += ["<h3>Where the ties are</h3>", *drawings] if drawings else []
    body += [
        "<h2>What the classes mean</h2>",
        meanings(CLASSES.items()),
        "<h2>What the columns mean</h2>",
        meanings(_MEANINGS.items()),
    ]
    return document(f"Audit of {report.model}", headline(report), body)


def headline(report: AuditReport) -> str:
    """What the audit found, in a sentence for each dtype."""
    return " ".join(_sentence(of_dtype) for of_dtype in report.dtypes)


def _sentence(of_dtype: DtypeReport) -> str:
    total, name = of_dtype.total, of_dtype.dtype
    if not total.elements:
        return f"In {name} no function with ties was called."
    found = f"In {name} {_counted(total.ties, 'tie')} among {_counted(total.elements, 'element')}"
    moving = [layer for layer in of_dtype.layers if layer.verdict != "none"]
    if not moving and total.verdict == "none":
        return f"{found}: the gradient does not depend on the derivative that is chosen there."
    if total.verdict == "not finite":
        return f"{found}: the gradient is not finite."
    counts = {verdict: sum(layer.verdict == verdict for layer in moving) for verdict in CLASSES}
    kinds = ", ".join(f"{kind} in {_counted(count, 'layer')}" for kind, count in counts.items() if count)
    size = f"{short(100 * total.relative)} % of its norm" if math.isfinite(total.relative) else "more than its norm"
    return (
        f"{found}: the choice of derivative there changes the gradient by up to {size}, "
        f"{total.verdict} with all layers together{f' ({kinds})' if kinds else ''}."
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _table(of_dtype: DtypeReport) -> str:
    """The report's table, with the class beside the layer's name."""
    layer, *others, verdict = COLUMNS
    heads = f'<th scope="col">{layer}</th><th scope="col">{verdict}</th>'
    heads += "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in others)
    rows = []
    for one in (*of_dtype.layers, of_dtype.total):
        name, *numbers, verdict = map(escape, cells(one))
        word = f'<td class="word {verdict.replace(" ", "-")}">{verdict}</td>'
        row = "".join(f'<td class="number">{number}</td>' for number in numbers)
        rows.append(f'<tr><td class="text">{name}</td>{word}{row}</tr>')
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


_HEIGHT = 110
_MOST = 170  # columns of one picture


def _picture(layer: LayerReport) -> str:
    """Ties of each channel as columns (neighbours joined where there are many), and how they split below."""
    counts = layer.by_channel
    join = -(-len(counts) // _MOST) if counts else 1
    columns = [sum(counts[i : i + join]) for i in range(0, len(counts), join)]
    parts, top = [], 0
    if len(columns) > 1 and max(columns) > 0:
        parts, top = list(_columns(columns, join, len(counts))), TOP + _HEIGHT + BOTTOM
    whole = layer.structural + layer.induced
    width = WIDTH - LEFT - RIGHT
    structural = width * layer.structural / whole if whole else 0.0
    if whole:
        parts += [
            f'<rect class="bar" x="{LEFT}" y="{top}" width="{structural:.2f}" height="10"/>',
            f'<rect class="second" x="{LEFT + structural:.2f}" y="{top}" width="{width - structural:.2f}" '
            'height="10"/>',
            text(LEFT, top + 26, f"{layer.structural:,} structural", "start"),
            text(WIDTH - RIGHT, top + 26, f"{layer.induced:,} made by rounding", "end"),
        ]
    label = f"{layer.layer}: ties by channel"
    caption = f"{layer.layer}: {_counted(layer.ties, 'tie')} among {_counted(layer.elements, 'element')}"
    caption += f"; each column is {join} channels." if join > 1 else "."
    return figure("".join(parts), label, caption, top + 34 if whole else top)


def _columns(columns: list[int], join: int, channels: int) -> Iterator[str]:
    most, floor = max(columns), TOP + _HEIGHT
    width = (WIDTH - LEFT - RIGHT) / len(columns)
    yield line(LEFT, TOP, WIDTH - RIGHT, TOP) + line(LEFT, floor, WIDTH - RIGHT, floor)
    for i, count in enumerate(columns):
        height = max(1.0, _HEIGHT * count / most)
        if count:
            title = f"channel {i * join}" + (f" to {min(channels, (i + 1) * join) - 1}" if join > 1 else "")
            yield (
                f'<rect class="bar" x="{LEFT + i * width:.2f}" y="{floor - height:.2f}" '
                f'width="{max(0.5, width - 0.5):.2f}" height="{height:.2f}"><title>{title}: {count:,}</title></rect>'
            )
    yield text(LEFT - 6, floor, "0", "end") + text(LEFT - 6, TOP + 8, f"{most:,}", "end")
    yield upright(14, TOP + _HEIGHT / 2, "ties")
    yield text(LEFT, floor + 16, "0", "start") + text(WIDTH - RIGHT, floor + 16, f"{channels - 1:,}", "end")
    yield text((LEFT + WIDTH - RIGHT) / 2, floor + 16, "channel")
