"""Slopes by rule for lines around smooth functions, in floats: good ones, while any would do.

Of s between the least and the largest chord of samples of f on [l, u], with d = min f - s x and e = max f - s x over
the samples and m the middle: for both signs the s with the least e - d, for lines below the one with the largest
d + s m, for lines above the one with the least e + s m. Where f bends one way these are the chord from end to end and
the tangent in the middle, which are tried first.

Of a step function the samples are where f - s x is extreme for some s: the ends, the first and the last jump, each with
the values of both sides, and 0 for what a machine may take for it; tried first are 0, 1, and the slopes from either end
to the farther side of the jump nearest.
"""

from __future__ import annotations

import numpy as np
import torch

from zonocuda.checker.floats import Floats
from zonocuda.checker.steps import NORMAL
from zonocuda.graph import Elementwise

SAMPLES = 33
SLOPES = 17
"""That are tried, and as many about the best one, twice."""
NEAR = 2.0**-10
"""Of half an interval: how far two samples beside the middle are from it."""
AT_ONCE = 2**11
"""Intervals."""
JUMPS = {"sign": 0.0, "floor": 1.0, "ceil": 0.0, "round": 0.5}
"""By the step function, how far behind k it jumps from k to k + 1; the sign jumps at 0."""


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
    with np.errstate(all="ignore"):
        if op.function in JUMPS:
            return _of_samples(*_at_jumps(op, lower, upper))
        share = np.sort([*np.linspace(0, 1, SAMPLES), (1 - NEAR) / 2, (1 + NEAR) / 2])
        x = lower[:, None] * (1 - share) + upper[:, None] * share
        f = op.apply(torch.from_numpy(x)).numpy()
        middle = len(share) // 2
        run = x[:, middle] - x[:, middle - 1]
        near = np.where(run > 0, (f[:, middle] - f[:, middle - 1]) / np.where(run > 0, run, 1), np.nan)
        return _of_samples(x, f, np.stack([(f[:, -1] - f[:, 0]) / (x[:, -1] - x[:, 0]), near], axis=1))


def _at_jumps(op: Elementwise, lower: Floats, upper: Floats) -> tuple[Floats, Floats, Floats]:
    """Of a step function, samples ``[n, 7]``, the middle among them, f there, and slopes ``[n, 4]``."""
    is_small = [np.abs(end) < NORMAL for end in (lower, upper)]
    by, middle = JUMPS[op.function], lower / 2 + upper / 2
    least = np.where(is_small[0], np.minimum(lower, 0.0), lower)
    largest = np.where(is_small[1], np.maximum(upper, 0.0), upper)
    first, last, own = (op.apply(torch.from_numpy(x)).numpy() for x in (least, largest, middle))
    lower, upper = (np.where(small, 0.0, end) for small, end in zip(is_small, (lower, upper), strict=True))
    is_sign = op.function == "sign"
    height = np.where(is_sign, last - first, np.minimum(last - first, 1.0))
    begin, end = (np.zeros_like(first),) * 2 if is_sign else (first + by, last - 1 + by)
    begin, end = (np.clip(place, lower, upper) for place in (begin, end))
    x = np.stack([lower, begin, begin, middle, end, end, upper], axis=1)
    f = np.stack([first, first, first + height, own, last - height, last, last], axis=1)
    zero = np.zeros_like(first)
    return x, f, np.stack([zero, zero + 1, height / (begin - lower), height / (upper - end)], axis=1)


def _of_samples(x: Floats, f: Floats, tried: Floats) -> Floats:
    """``[3, n]`` for samples ``[n, odd]`` of which that in the middle is, and slopes ``[n, k]`` to try first."""
    middle = x.shape[1] // 2
    rise, run = np.diff(f, axis=1), np.diff(x, axis=1)
    chords = np.where(run > 0, rise / np.where(run > 0, run, 1), np.nan)
    chords = np.where(np.isnan(chords).all(1, keepdims=True), 0, chords)
    first, last = np.nanmin(chords, 1), np.nanmax(chords, 1)
    found = []
    for aim in ("area", "below", "above"):
        low, high, best_yet = first, last, tried
        for _ in range(3):
            grid = low[:, None] + np.linspace(0, 1, SLOPES) * (high - low)[:, None]
            grid = np.concatenate([best_yet, grid], axis=1)
            best = np.argmin(np.nan_to_num(_cost(aim, x, f, grid, middle), nan=np.inf), 1)
            step = (high - low) / (SLOPES - 1)
            chosen = grid[np.arange(len(grid)), best]
            best_yet = chosen[:, None]
            low, high = np.maximum(low, chosen - step), np.minimum(high, chosen + step)
        found.append(chosen)
    return np.asarray(np.nan_to_num(np.stack(found), nan=0.0, posinf=0.0, neginf=0.0))


def _cost(aim: str, x: Floats, f: Floats, slopes: Floats, middle: int) -> Floats:
    """``[n, slopes]``."""
    h = f[:, None, :] - slopes[:, :, None] * x[:, None, :]
    d, e = h.min(2), h.max(2)
    there = slopes * x[:, middle, None]
    return np.asarray({"area": e - d, "below": -d - there, "above": e + there}[aim])
