"""How many of many like cases a run tries: every pair of values, or a few of many, and all where
ZONOCUDA_TEST_THOROUGH is 1 (``make thorough``). The end of a run says how many it left out.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

THOROUGH = os.environ.get("ZONOCUDA_TEST_THOROUGH", "0") == "1"
left_out = 0
"""Cases, of the modules that were imported so far."""


def pairwise(axes: Sequence[Sequence[Any]], seed: int = 0) -> list[tuple[Any, ...]]:
    """Combinations of one value of each axis, in which every two values of two axes meet at least once.

    Greedy: of some that meet a pair not yet met, the one that meets the most. Which ones depends on ``seed``.
    """
    rng = random.Random(seed)
    sizes = [range(len(axis)) for axis in axes]
    two = list(itertools.combinations(range(len(axes)), 2))
    missing = {(a, i, b, j): None for a, b in two for i in sizes[a] for j in sizes[b]}
    chosen = []
    while missing:
        a, i, b, j = next(iter(missing))
        tries = [[rng.choice(size) for size in sizes] for _ in range(20)]
        for one in tries:
            one[a], one[b] = i, j
        best = max(tries, key=lambda one: sum((c, one[c], d, one[d]) in missing for c, d in two))
        for c, d in two:
            missing.pop((c, best[c], d, best[d]), None)
        chosen.append(tuple(best))
    return [tuple(axis[i] for axis, i in zip(axes, one, strict=True)) for one in sorted(chosen)]


def pairs(thorough: bool = THOROUGH, **axes: Iterable[Any]) -> pytest.MarkDecorator:
    """``parametrize`` by several names at once: every two values meet, but not every three."""
    values = [list(axis) for axis in axes.values()]
    every = list(itertools.product(*values))
    return pytest.mark.parametrize(tuple(axes), _counted(every, every if thorough else pairwise(values)))


def few(count: int, values: Iterable[Any], thorough: bool = THOROUGH) -> list[Any]:
    """The first and others at equal distances, ``count`` in all, of many values that differ in little but numbers."""
    every = list(values)
    return _counted(every, every if thorough else [every[i * len(every) // count] for i in range(count)])


def _counted(every: list[Any], chosen: list[Any]) -> list[Any]:
    global left_out
    left_out += len(every) - len(chosen)
    return chosen
