"""Two sets of results as one page of HTML, contradictions first; it needs no other file and no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from zonocuda.fleet.charts import Curve, cactus_plot
from zonocuda.fleet.compare import KINDS, Pair, Result, cactus
from zonocuda.pages import document, meanings
from zonocuda.pages.charts import short
from zonocuda.pages.table import SCRIPT, Cell, Line, table

_MEANINGS = {
    "contradiction": "one set says verified and the other falsified: one of them is wrong, or they are not about the "
    "same box or arithmetic",
    "decided by one": "one set has a proof or a counterexample, the other has neither",
    "both open": "neither set has decided it, and they say so in different words",
    "only in one": "the other set lacks the instance",
    "same": "both say the same",
}
_COLUMNS = ("difference", "network", "property", "first", "second", "seconds, first", "seconds, second")


def comparison_page(names: Sequence[str], pairs: Sequence[Pair]) -> str:
    """The page.

    Args:
        names: of the two sets.
        pairs: as :func:`zonocuda.fleet.compare.paired` has them.
    """
    wrong = [pair for pair in pairs if pair.kind == "contradiction"]
    curves = [Curve(name, cactus(_known(pairs, side))) for side, name in enumerate(names)]
    drawing = cactus_plot(curves, len(pairs))
    parts = [
        *_contradictions(names, wrong),
        f"<h2>Decided within a time</h2>{drawing}" if drawing else "",
        "<h2>Instances</h2>",
        f"<p>First: {escape(names[0])}. Second: {escape(names[1])}.</p>",
        table(_COLUMNS, [Line(pair.kind, _cells(pair)) for pair in pairs], "Difference", KINDS),
        "<h2>What the differences are</h2>",
        meanings((kind, _MEANINGS[kind]) for kind in KINDS),
    ]
    return document(f"{names[0]} and {names[1]}", headline(names, pairs), parts, SCRIPT)


def headline(names: Sequence[str], pairs: Sequence[Pair]) -> str:
    """How many contradict each other, and what each set decides, in a sentence or two."""
    counts = Counter(pair.kind for pair in pairs)
    kinds = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS[1:] if counts[kind])
    wrong = counts["contradiction"]
    text = f"Of {len(pairs):,} instances {f'{wrong:,}' if wrong else 'none'} "
    text += f"{'has' if wrong < 2 else 'have'} contradicting verdicts"
    text += f" ({kinds})." if kinds else "."
    for side, name in enumerate(names):
        known = _known(pairs, side)
        times = cactus(known)
        text += f" {name} decides {len(times):,} of {len(known):,}, in {short(sum(times))} seconds together."
    return text


def _known(pairs: Sequence[Pair], side: int) -> list[Result]:
    """The results of one of the sets."""
    return [one for one in ((pair.first, pair.second)[side] for pair in pairs) if one is not None]


def _contradictions(names: Sequence[str], wrong: Sequence[Pair]) -> Iterator[str]:
    if not wrong:
        return
    yield "<h2>Contradictions</h2><ul>"
    for pair in wrong:
        said = (f"{name} {one.verdict}" for name, one in zip(names, (pair.first, pair.second), strict=True) if one)
        yield f'<li class="text">{escape(", ".join(pair.name))}: {escape("; ".join(said))}</li>'
    yield "</ul>"


def _cells(pair: Pair) -> Sequence[Cell]:
    both = pair.first, pair.second
    verdicts = (Cell("absent", "absent") if r is None else Cell(r.verdict, r.verdict, r.verdict) for r in both)
    seconds = (Cell.number(None if r is None else r.seconds, ".3f") for r in both)
    kind = Cell(pair.kind, str(KINDS.index(pair.kind)), pair.kind.replace(" ", "-"))
    return kind, *(Cell(name, name) for name in pair.name), *verdicts, *seconds
