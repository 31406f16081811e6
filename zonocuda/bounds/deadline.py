"""A time budget that long loops look at."""

from __future__ import annotations

import math
import time


class TimeoutReached(Exception):  # noqa: N818 - it is an outcome, not an error
    """The time budget is used up."""


class Deadline:
    """``seconds`` from now (infinite by default)."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raises TimeoutReached once it has passed."""
        if self.remaining() <= 0:
            raise TimeoutReached

    def part(self, share: float) -> Deadline:
        """A deadline after ``share`` of the time that is left."""
        return Deadline(max(0.0, self.remaining()) * share)
