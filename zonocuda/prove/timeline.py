"""What a verification had reached, and when: the margin and the open parts against time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from zonocuda.domains.plot import plot_course

Phase = Literal["bounds", "input", "neuron"]
"""What found the bounds: those of the whole box, or a search that splits the box, or neurons by their signs."""

MOST = 256
"""Moments that are kept: of more, every second one goes, and from then on fewer come."""


@dataclass(frozen=True)
class Moment:
    """A point of a verification's history.

    Attributes:
        seconds: since it began.
        region: position of the region in the specification.
        phase: what found the bounds.
        open: disjuncts that are not refuted on the whole box; in a search, boxes or parts.
        margin: the smallest bound of one of them: of a disjunct that of its best row, of a part the one above it; not
            finite where nothing is known yet, or nothing is open.
    """

    seconds: float
    region: int
    phase: Phase
    open: int
    margin: float


class Moments(tuple[Moment, ...]):
    """The moments of a verification, in order."""

    def plot(self, *, axes: Any = None, **style: Any) -> Any:
        """Draws the margin of what is open against the seconds since the verification began.

        It may fall where a search begins on parts, or a region follows another. Moments without a margin are left out.

        Args:
            axes: matplotlib's, to draw on; by default those of a new figure.
            style: of the line, as ``matplotlib.axes.Axes.step`` takes it.

        Returns:
            The axes.

        Raises:
            ImportError: there is no matplotlib (``pip install 'zonocuda[plot]'``).
        """
        known = [one for one in self if abs(one.margin) < float("inf")]
        return plot_course([one.seconds for one in known], [one.margin for one in known], axes, **style)


Watch = Callable[[int, Callable[[], float]], None]
"""Is told, between two batches of a search, how many parts are open, and what gives the smallest bound of one."""


def unwatched(count: int, worst: Callable[[], float]) -> None:
    """A :data:`Watch` that looks away."""


@dataclass
class Timeline:
    """The history of a verification under way.

    Attributes:
        region: the one under way.
        began: when, by :func:`time.monotonic`.
    """

    region: int = 0
    began: float = field(default_factory=time.monotonic)
    _moments: list[Moment] = field(default_factory=list)
    _pace: float = 0.0  # seconds between two moments of a search
    _next: float = 0.0

    def note(self, phase: Phase, count: int, worst: float) -> None:
        """Adds a moment."""
        moments, seconds = self._moments, time.monotonic() - self.began
        moments.append(Moment(seconds, self.region, phase, count, worst))
        if len(moments) > MOST:
            del moments[1:-1:2]
            self._pace = max(2 * self._pace, 2 * seconds / MOST)
        self._next = seconds + self._pace

    def watch(self, phase: Phase) -> Watch:
        """What a search tells between batches; as few moments are taken from it as are kept."""

        def watch(count: int, worst: Callable[[], float]) -> None:
            if time.monotonic() - self.began >= self._next:
                self.note(phase, count, worst())

        return watch

    @property
    def moments(self) -> Moments:
        """So far."""
        return Moments(self._moments)
