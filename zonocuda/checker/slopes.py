"""Slopes by rule for lines around smooth functions, in floats: good ones, while any would do.

Of s between the least and the largest chord of samples of f on [l, u], with d = min f - s x and e = max f - s x over
the samples and m the middle: for both signs the s with the least e - d, for lines below the one with the largest
d + s m, for lines above the one with the least e + s m. Where f bends one way these are the chord from end to end and
the tangent in the middle, which are tried first.
"""

from __future__ import annotations

import numpy as np
import torch

from zonocuda.checker.floats import Floats
from zonocuda.graph import Elementwise

SAMPLES = 33
SLOPES = 17
"""That are tried, and as many about the best one, twice."""
NEAR = 2.0**-10
"""Of half an interval: how far two samples beside the middle are from it."""
AT_ONCE = 2**11
"""Intervals."""


def by_rule(op: Elementwise, lower: Floats, upper: Floats) -> tuple[Floats, Floats, Floats]:
    """Slopes for both signs, of lines below, and of lines above, for intervals of any shape."""
    ends = [np.ascontiguousarray(end, np.float64).ravel() for end in (lower, upper)]
    parts = [
        _some(op, *(end[first : first + AT_ONCE] for end in ends)) for first in range(0, len(ends[0]), AT_ONCE)
    ] or [np.zeros((3, 0))]
    area, below, above = np.concatenate(parts, axis=1)
    return area.reshape(lower.shape), below.reshape(lower.shape), above.reshape(lower.shape)


def _some(op: Elementwise, lower: Floats, upper: Floats) -> Floats:
    """``[3, n]`` for intervals ``[n]``."""
    share = np.sort([*np.linspace(0, 1, SAMPLES), (1 - NEAR) / 2, (1 + NEAR) / 2])
    middle = len(share) // 2
    with np.errstate(all="ignore"):
        x = lower[:, None] * (1 - share) + upper[:, None] * share
        f = op.apply(torch.from_numpy(x)).numpy()
        rise, run = np.diff(f, axis=1), np.diff(x, axis=1)
        chords = np.where(run > 0, rise / np.where(run > 0, run, 1), np.nan)
        chords = np.where(np.isnan(chords).all(1, keepdims=True), 0, chords)
        first, last = np.nanmin(chords, 1), np.nanmax(chords, 1)
        found = []
        for aim in ("area", "below", "above"):
            low, high = first, last
            tried = np.stack([(f[:, -1] - f[:, 0]) / (x[:, -1] - x[:, 0]), chords[:, middle - 1]], axis=1)
            for _ in range(3):
                grid = low[:, None] + np.linspace(0, 1, SLOPES) * (high - low)[:, None]
                grid = np.concatenate([tried, grid], axis=1)
                best = np.argmin(np.nan_to_num(_cost(aim, x, f, grid, middle), nan=np.inf), 1)
                step = (high - low) / (SLOPES - 1)
                chosen = grid[np.arange(len(grid)), best]
                tried = chosen[:, None]
                low, high = np.maximum(low, chosen - step), np.minimum(high, chosen + step)
            found.append(chosen)
    return np.asarray(np.nan_to_num(np.stack(found), nan=0.0, posinf=0.0, neginf=0.0))


def _cost(aim: str, x: Floats, f: Floats, slopes: Floats, middle: int) -> Floats:
    """``[n, slopes]``."""
    h = f[:, None, :] - slopes[:, :, None] * x[:, None, :]
    d, e = h.min(2), h.max(2)
    there = slopes * x[:, middle, None]
    return np.asarray({"area": e - d, "below": -d - there, "above": e + there}[aim])
