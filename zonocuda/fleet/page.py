"""A folder of results as one page of HTML, which needs no other file and no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from zonocuda.fleet.charts import Curve, cactus_plot, margin_classes, tree_plot
from zonocuda.fleet.courses import course_of, course_plot
from zonocuda.fleet.layers import MOST_GROUPS, layer_groups
from zonocuda.fleet.pictures import counterexample_images, document_of, trees_of
from zonocuda.fleet.record import VERDICTS, Record
from zonocuda.pages import document, meanings
from zonocuda.pages.charts import Bar, bars, brief_name, short
from zonocuda.pages.table import SCRIPT, Cell, Line, table

MOST_COURSES = 12
"""Histories that are drawn: of the instances that took longest."""

MOST_PICTURES = 60
"""Counterexamples, and trees, that are drawn."""

MEANINGS = {
    "verified": "proven: no input of the box has an unsafe output, in the arithmetic that the instance's meaning names",
    "falsified": "an input of the box was found whose output, as the network itself computes it, is unsafe",
    "unknown": "neither a proof nor a counterexample was found; the property may hold or not",
    "timeout": "neither was found in the time allowed; the property may hold or not",
    "error": "it could not be run: the reason says why; nothing is known",
}

_COLUMNS = ("verdict", "network", "property", "seconds", "margin", "reason")


def page(folder: Path, records: Sequence[Record]) -> str:
    """The page about records whose files are in a folder."""
    parts = [
        *_charts(records),
        *_layers(folder, records),
        "<h2>Instances</h2>",
        _table(records),
        *_courses(folder, records),
        *_trees(folder, records),
        *_counterexamples(folder, records),
        "<h2>What the verdicts mean</h2>",
        meanings((verdict, MEANINGS[verdict]) for verdict in VERDICTS),
    ]
    return document(f"Results in {folder.resolve().name}", headline(records), parts, SCRIPT)


def headline(records: Sequence[Record]) -> str:
    """The totals in a sentence or two."""
    counts = Counter(record.verdict for record in records)
    seconds = sum(record.seconds for record in records)
    open_ones = counts["unknown"] + counts["timeout"]
    text = (
        f"Of {len(records):,} instances {counts['verified']:,} are verified, {counts['falsified']:,} are falsified by "
        f"a counterexample, and {open_ones:,} are open"
    )
    if counts["error"]:
        text += f"; {counts['error']:,} could not be run"
    return f"{text}. All took {short(seconds)} seconds of verification together."


def _charts(records: Sequence[Record]) -> Iterator[str]:
    decided = sorted(record.seconds for record in records if record.is_decided)
    drawing = cactus_plot([Curve("", decided)], len(records))
    if drawing:
        yield f"<h2>Decided within a time</h2>{drawing}"
    phases: Counter[str] = Counter()
    for record in records:
        for name, seconds in record.phases.items():
            phases[name] += seconds  # type: ignore[assignment]
    entries = [Bar(brief_name(name), seconds, f"{short(seconds)} s") for name, seconds in phases.most_common(12)]
    drawing = bars(entries, "seconds", "phase", "Seconds of each phase, all instances together.")
    if drawing:
        yield f"<h2>Time by phase</h2>{drawing}"
    margins = [record.margin for record in records if record.margin is not None]
    caption = (
        "Instances by the smallest lower bound of a row on the whole box. Where it is positive every row is refuted "
        "by itself; a property whose disjuncts have several rows, or whose box was split, may be proven below that."
    )
    entries = [Bar(name, count, f"{count:,}") for name, count in margin_classes(margins).items()]
    drawing = bars(entries, "instances", "margin", caption)
    if drawing:
        yield f"<h2>Margins</h2>{drawing}"


def _layers(folder: Path, records: Sequence[Record]) -> Iterator[str]:
    """How many neurons of each layer the bounds leave open, for networks with the same layers together."""
    shown = 0
    for group in layer_groups(folder, records):
        entries = [
            Bar(brief_name(layer.name), layer.share, f"{short(100 * layer.share)} % of {layer.neurons:,}")
            for layer in group.layers
        ]
        caption = (
            f"Neurons of each layer that are unstable, on average over {group.instances:,} instances"
            f"{f' of {len(group.nets):,} networks' if len(group.nets) > 1 else ''}: on the whole box the last bounds "
            "leave open on which side of its kink, or on which line, an activation is."
        )
        drawing = bars(entries, "share of unstable neurons", "layer", caption, 1.0)
        if drawing and shown < MOST_GROUPS:
            yield "" if shown else "<h2>Unstable neurons by layer</h2>"
            yield f"<h3>{escape(group.title)}</h3>{drawing}"
            shown += 1


def _table(records: Sequence[Record]) -> str:
    ordered = sorted(records, key=lambda r: (VERDICTS.index(r.verdict), r.net, r.spec))
    return table(_COLUMNS, [Line(record.verdict, _cells(record)) for record in ordered], "Verdict", VERDICTS)


def _cells(record: Record) -> Sequence[Cell]:
    return (
        Cell(record.verdict, record.verdict, record.verdict),
        Cell(record.net, record.net),
        Cell(record.spec, record.spec),
        Cell.number(record.seconds, ".3f"),
        Cell.number(record.margin, ".4g"),
        Cell(_reason(record), record.reason),
    )


def _reason(record: Record) -> str:
    parts = [record.reason]
    for split in record.splits:
        boxes, depth, noun = split.get("boxes"), split.get("depth"), split.get("split")
        if isinstance(boxes, int) and isinstance(depth, int) and noun in ("input", "neuron"):
            parts.append(f"{boxes:,} {'boxes' if noun == 'input' else 'parts'}, {depth:,} deep")
    parts += record.lost
    return "; ".join(str(part) for part in parts)


def _courses(folder: Path, records: Sequence[Record]) -> Iterator[str]:
    """The margin against time, of the instances that took longest."""
    shown = 0
    for record in sorted(records, key=lambda r: -r.seconds):
        drawing = course_plot(course_of(document_of(folder, record))) if shown < MOST_COURSES else ""
        if drawing:
            yield "" if shown else "<h2>Margin against time</h2>"
            yield f"<h3>{escape(f'{record.net}, {record.spec}: {record.verdict}')}</h3>{drawing}"
            shown += 1


def _trees(folder: Path, records: Sequence[Record]) -> Iterator[str]:
    shown = 0
    for record in records:
        for region, kinds, trees in trees_of(folder, record) if shown < MOST_PICTURES else ():
            drawing = tree_plot(kinds, trees)
            if drawing:
                yield "" if shown else "<h2>Proofs by splitting</h2>"
                yield f"<h3>{escape(f'{record.net}, {record.spec}, region {region}')}</h3>{drawing}"
                shown += 1


def _counterexamples(folder: Path, records: Sequence[Record]) -> Iterator[str]:
    shown = 0
    for record in records:
        if record.verdict != "falsified" or shown == MOST_PICTURES:
            continue
        images = counterexample_images(document_of(folder, record))
        if images:
            yield "" if shown else "<h2>Counterexamples</h2>"
            yield f"<details{'' if shown else ' open'}><summary>{escape(f'{record.net}, {record.spec}')}</summary>"
            for caption, image in images:
                yield (
                    f'<figure class="picture"><img src="{image}" alt="{escape(caption)}">'
                    f"<figcaption>{escape(caption)}</figcaption></figure>"
                )
            yield "</details>"
            shown += 1
