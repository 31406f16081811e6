"""Drawings of a report, as inline SVG: coloured by classes of the page's style, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44
LEAST_SECONDS = 1e-3
"""Where the axis of seconds may begin at the lowest."""


def short(value: float) -> str:
    """A number for people."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(content: str, label: str, caption: str, height: float = _HEIGHT) -> str:
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}">{content}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def cactus_plot(seconds: Sequence[float], total: int) -> str:
    """How many instances are decided within what time.

    Args:
        seconds: of the decided ones, ascending.
        total: of all instances.
    """
    if not seconds:
        return ""
    low = math.floor(math.log10(max(LEAST_SECONDS, seconds[0])))
    high = max(low + 1, math.ceil(math.log10(max(LEAST_SECONDS, seconds[-1]))))

    def x(count: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * count / total

    def y(value: float) -> float:
        share = (math.log10(max(10.0**low, value)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = []
    for exponent in range(low, high + 1):
        parts += [_line(_LEFT, y(10.0**exponent), _WIDTH - _RIGHT, y(10.0**exponent))]
        parts += [_text(_LEFT - 6, y(10.0**exponent) + 4, f"{10.0**exponent:g}", "end")]
    for count in sorted({0, total // 4, total // 2, 3 * total // 4, total}):
        parts += [_text(x(count), _HEIGHT - _BOTTOM + 16, f"{count:,}")]
    points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(seconds, 1))
    parts += [f'<polyline class="curve" points="{x(0):.1f},{y(seconds[0]):.1f} {points}"/>']
    parts += [_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "instances decided")]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts += [_text(14, middle, "seconds", more=f' transform="rotate(-90 14 {middle:.1f})"')]
    caption = (
        f"{len(seconds):,} of {total:,} instances are decided, half of these within "
        f"{short(seconds[(len(seconds) - 1) // 2])} s each, the last in {short(seconds[-1])} s."
    )
    return _figure("".join(parts), "seconds against instances decided", caption)


def bars(values: Mapping[str, float], label: str, unit: str, caption: str) -> str:
    """A bar for each name, in order."""
    most = max(values.values(), default=0.0)
    if not most > 0:
        return ""
    parts, left, row = [], 150, 24
    for i, (name, value) in enumerate(values.items()):
        width = (_WIDTH - left - 110) * value / most
        parts += [_text(left - 8, row * i + 19, name, "end")]
        parts += [f'<rect class="bar" x="{left}" y="{row * i + 6}" width="{width:.1f}" height="16"/>']
        parts += [_text(left + width + 6, row * i + 19, f"{short(value)}{unit}", "start")]
    return _figure("".join(parts), label, caption, row * len(values) + 8)


def margin_classes(margins: Iterable[float]) -> dict[str, float]:
    """How many margins lie in each decade, from the most negative."""
    counts: dict[tuple[int, int], int] = {}
    for margin in margins:
        if not math.isfinite(margin):
            continue
        size = max(-6, math.floor(math.log10(abs(margin)))) if margin else -6
        key = (-1, -size) if margin <= 0 else (1, size)
        counts[key] = counts.get(key, 0) + 1
    return {_decade(*key): counts[key] for key in sorted(counts)}


def _decade(sign: int, size: int) -> str:
    size = size if sign > 0 else -size
    low, high = f"{10.0**size:g}", f"{10.0 ** (size + 1):g}"
    if size == -6:
        return f"below {high}" if sign > 0 else f"-{high} to 0"
    return f"{low} to {high}" if sign > 0 else f"-{high} to -{low}"


MOST_NODES = 4000
"""Of a tree that is drawn."""


def tree_plot(kinds: Sequence[int], trees: int) -> str:
    """Trees in preorder (0 a leaf, else a split in two), as layers: each node as wide as its share of the leaves.

    Returns:
        The drawing; empty where these are no trees, a single leaf, or too many nodes.
    """
    if not 1 < len(kinds) <= MOST_NODES:
        return ""
    nodes: list[tuple[int, int, int]] = []  # depth, first leaf, leaves
    open_nodes: list[tuple[int, int, int]] = []  # position in nodes, children to come, first leaf
    leaves = begun = 0
    for kind in kinds:
        begun += not open_nodes
        nodes.append((len(open_nodes), leaves, 1))
        if kind:
            open_nodes.append((len(nodes) - 1, 2, leaves))
            continue
        leaves += 1
        while open_nodes:
            place, missing, first = open_nodes.pop()
            if missing > 1:
                open_nodes.append((place, missing - 1, first))
                break
            nodes[place] = (len(open_nodes), first, leaves - first)
    if open_nodes or begun != trees:
        return ""
    deepest = max(depth for depth, _, _ in nodes)
    row = min(16.0, 240.0 / (deepest + 1))
    parts = [
        f'<rect class="node{" leaf" if not kind else ""}" x="{(_WIDTH - 2) * first / leaves + 1:.2f}" '
        f'y="{row * depth + 1:.2f}" width="{max(0.3, (_WIDTH - 2) * count / leaves - 0.4):.2f}" '
        f'height="{max(0.5, row - 0.8):.2f}"/>'
        for (depth, first, count), kind in zip(nodes, kinds, strict=True)
    ]
    caption = f"{leaves:,} leaves, at most {deepest} splits above one; a node is as wide as its share of the leaves."
    return _figure("".join(parts), "the splits of a proof", caption, row * (deepest + 1) + 2)
