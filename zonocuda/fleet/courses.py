"""How the margin of what is open went on in time, from the results' documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from zonocuda.pages.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, figure, line, short, text, upright

MOST_MOMENTS = 1000
"""Of a history that is drawn."""
LEAST_MOMENTS = 3
LEAST_SHARE = 1e-6
"""Of the worst margin that is drawn: what is nearer to zero is drawn there."""

Course = Sequence[tuple[float, float, int]]
"""Seconds, margin and open parts."""


def course_of(document: Mapping[str, Any]) -> Course:
    """The moments at which something was open with a margin; none where they are not as they should be."""
    try:
        moments = [(one["seconds"], one["margin"], one["open"]) for one in document["history"]]
    except (KeyError, TypeError):
        return []
    numbers = [
        (float(seconds), float(margin), count)
        for seconds, margin, count in moments
        if type(seconds) in (int, float) and type(margin) in (int, float) and type(count) is int
    ]
    known = [one for one in numbers if math.isfinite(one[1]) and math.isfinite(one[0]) and one[1] <= 0 < one[2]]
    rises = all(before[0] <= after[0] for before, after in pairwise(known))
    return known if rises and len(known) <= MOST_MOMENTS else []


def course_plot(course: Course) -> str:
    """How far below zero the margin is, on an axis of powers of ten, against the seconds.

    Returns:
        The drawing; empty where there are too few moments.
    """
    worst = max((-margin for _, margin, _ in course), default=0.0)
    if len(course) < LEAST_MOMENTS or not worst > 0 or not course[-1][0] > course[0][0]:
        return ""
    sizes = [max(-margin, LEAST_SHARE * worst) for _, margin, _ in course]
    low = math.floor(math.log10(min(sizes)))
    high = max(low + 1, math.ceil(math.log10(worst)))
    last = course[-1][0]

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / last

    def y(size: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (math.log10(size) - low) / (high - low)

    parts = []
    for exponent in range(low, high + 1):
        parts += [line(LEFT, y(10.0**exponent), WIDTH - RIGHT, y(10.0**exponent))]
        parts += [text(LEFT - 6, y(10.0**exponent) + 4, f"-{10.0**exponent:g}", "end")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts += [text(x(share * last), HEIGHT - BOTTOM + 16, short(share * last))]
    steps = [(x(course[0][0]), y(sizes[0]))]
    for (seconds, _, _), size in zip(course[1:], sizes[1:], strict=True):
        steps += [(x(seconds), steps[-1][1]), (x(seconds), y(size))]
    parts += [f'<polyline class="curve" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in steps)}"/>']
    parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "seconds")]
    parts += [upright(14, (TOP + HEIGHT - BOTTOM) / 2, "margin")]
    most = max(count for *_, count in course)
    caption = (
        f"The smallest bound of what was open, from {short(course[0][1])} to {short(course[-1][1])} after "
        f"{short(last)} s; at most {most:,} {'part was' if most == 1 else 'parts were'} open at a time."
    )
    return figure("".join(parts), "margin against seconds", caption)
