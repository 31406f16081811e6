"""Drawings of a report: how fast, how far, and by which splits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from zonocuda.pages.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    brief_name,
    figure,
    line,
    short,
    text,
    upright,
)

LEAST_SECONDS = 1e-3
"""Where the axis of seconds may begin at the lowest."""


class Curve(NamedTuple):
    """The name of a set of results, and the seconds of its decided instances, ascending."""

    name: str
    seconds: Sequence[float]


def cactus_plot(curves: Sequence[Curve], total: int) -> str:
    """How many instances are decided within what time.

    Args:
        curves: one, whose name is not shown, or two.
        total: of all instances.
    """
    drawn = [curve for curve in curves if curve.seconds]
    if not drawn:
        return ""
    low = math.floor(math.log10(max(LEAST_SECONDS, min(curve.seconds[0] for curve in drawn))))
    high = max(low + 1, math.ceil(math.log10(max(LEAST_SECONDS, *(curve.seconds[-1] for curve in drawn)))))

    def x(count: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * count / total

    def y(value: float) -> float:
        share = (math.log10(max(10.0**low, value)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = []
    for exponent in range(low, high + 1):
        parts += [line(LEFT, y(10.0**exponent), WIDTH - RIGHT, y(10.0**exponent))]
        parts += [text(LEFT - 6, y(10.0**exponent) + 4, f"{10.0**exponent:g}", "end")]
    for count in sorted({0, total // 4, total // 2, 3 * total // 4, total}):
        parts += [text(x(count), HEIGHT - BOTTOM + 16, f"{count:,}")]
    for number, curve in enumerate(curves):
        kind, above = ("curve other" if number else "curve"), TOP + 16 * (number + 1)
        if curve.seconds:
            points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(curve.seconds, 1))
            parts += [f'<polyline class="{kind}" points="{x(0):.1f},{y(curve.seconds[0]):.1f} {points}"/>']
        if len(curves) > 1:
            parts += [line(LEFT + 10, above - 4, LEFT + 40, above - 4, kind)]
            parts += [text(LEFT + 48, above, brief_name(curve.name), "start")]
    parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "instances decided")]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts += [upright(14, middle, "seconds")]
    caption = " ".join(_decided(curve, total) for curve in curves)
    return figure("".join(parts), "seconds against instances decided", caption)


def _decided(curve: Curve, total: int) -> str:
    """How many, in a sentence."""
    count, name = len(curve.seconds), f"{curve.name}: " if curve.name else ""
    if not count:
        return f"{name}0 of {total:,} instances are decided."
    return (
        f"{name}{count:,} of {total:,} instances are decided, half of these within "
        f"{short(curve.seconds[(count - 1) // 2])} s each, the last in {short(curve.seconds[-1])} s."
    )


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
        f'<rect class="node{" leaf" if not kind else ""}" x="{(WIDTH - 2) * first / leaves + 1:.2f}" '
        f'y="{row * depth + 1:.2f}" width="{max(0.3, (WIDTH - 2) * count / leaves - 0.4):.2f}" '
        f'height="{max(0.5, row - 0.8):.2f}"/>'
        for (depth, first, count), kind in zip(nodes, kinds, strict=True)
    ]
    caption = f"{leaves:,} leaves, at most {deepest} splits above one; a node is as wide as its share of the leaves."
    return figure("".join(parts), "the splits of a proof", caption, row * (deepest + 1) + 2)
