"""The bounds found for one row."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RowBound:
    """The bounds found for one row of a region; the row is refuted where the larger one is positive, or 0
    for a strict row.

    Attributes:
        region: position of the region in the specification.
        constraint: the row, as in ``Y_0 - Y_4 <= 0``; a counterexample has it (and the rest of its disjunct) satisfied.
        forward: lower bound of its left-hand side from the forward sweep, or None where the sweep was not needed.
        dual: the larger lower bound of the dual passes, or None where they were not needed.
        slack: how much of the dual bound was given up for the rounding of its own computation.
        dtype: of the bounds, the first one in which the row was refuted.
        strict: whether a counterexample needs it to be < 0.
    """

    region: int
    constraint: str
    forward: float | None
    dual: float | None
    slack: float | None = None
    dtype: str = "float64"
    strict: bool = False

    @property
    def is_positive(self) -> bool:
        """Whether the row is refuted: its bound is positive, or 0 for a strict row; an overflow is no proof."""
        lower = self.lower
        return lower is not None and lower < math.inf and (lower > 0 or (self.strict and lower == 0))

    @property
    def lower(self) -> float | None:
        """The larger of the two bounds."""
        bounds = [b for b in (self.forward, self.dual) if b is not None and b == b]
        return max(bounds) if bounds else None
