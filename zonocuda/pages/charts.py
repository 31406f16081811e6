"""Drawings of a page as inline SVG: coloured by classes of its style, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 44
"""Of a drawing, and what its axes leave free around them."""


def short(value: float) -> str:
    """A number for people."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def figure(content: str, label: str, caption: str, height: float = HEIGHT) -> str:
    """A drawing ``[WIDTH, height]``, what it is in a few words, and the sentence below it."""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{content}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    """A text whose start, middle or end (``anchor``) is at a point; ``more`` attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """A line from one point to another."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def upright(x: float, y: float, label: str) -> str:
    """The title of a vertical axis, around a point."""
    return text(x, y, label, more=f' transform="rotate(-90 {x:.1f} {y:.1f})"')


class Bar(NamedTuple):
    """A name, how long its bar is, and what stands at the bar's end."""

    name: str
    value: float
    text: str


def bars(entries: Sequence[Bar], axis: str, by: str, caption: str, most: float | None = None) -> str:
    """A bar for each entry, one below the other; empty where all are 0.

    Args:
        entries: from the top.
        axis: what the length of a bar is.
        by: of what there is a bar each.
        caption: the sentence below.
        most: the value of the longest bar there could be; by default of the longest there is.
    """
    longest = max((entry.value for entry in entries), default=0.0)
    if not longest > 0:
        return ""
    parts, left, row = [], 170, 24
    whole = WIDTH - left - 130
    for i, (name, value, shown) in enumerate(entries):
        width = whole * value / (most or longest)
        parts += [text(left - 8, row * i + 19, name, "end")]
        parts += [f'<rect class="bar" x="{left}" y="{row * i + 6}" width="{width:.1f}" height="16"/>']
        parts += [text(left + width + 6, row * i + 19, shown, "start")]
    end = row * len(entries) + 6
    parts += [line(left, 2, left, end), text(left + whole / 2, end + 16, axis)]
    return figure("".join(parts), f"{axis} by {by}", caption, end + 22)


NAME = 24
"""Characters of a name that fit beside a bar."""


def brief_name(name: str) -> str:
    """A name's end, which tells more than its beginning."""
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"
