"""Drawings of a report: how fast, how far, and by which splits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from zonocuda.pages.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, figure, line, short, text, upright

LEAST_SECONDS = 1e-3
"""Where the axis of seconds may begin at the lowest."""


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
    points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(seconds, 1))
    parts += [f'<polyline class="curve" points="{x(0):.1f},{y(seconds[0]):.1f} {points}"/>']
    parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "instances decided")]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts += [upright(14, middle, "seconds")]
    caption = (
        f"{len(seconds):,} of {total:,} instances are decided, half of these within "
        f"{short(seconds[(len(seconds) - 1) // 2])} s each, the last in {short(seconds[-1])} s."
    )
    return figure("".join(parts), "seconds against instances decided", caption)


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
