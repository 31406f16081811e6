"""What an optimisation reached, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zonocuda.domains.plot import plot_course


@dataclass(frozen=True)
class Step:
    """A point of an optimisation's history.

    Attributes:
        seconds: since its start.
        rows: how many are still in it.
        total: the sum of the best bounds of all rows.
        worst: the smallest of them, the margin: where it is positive, every row is.
    """

    seconds: float
    rows: int
    total: float
    worst: float


class History(tuple[Step, ...]):
    """The steps of an optimisation, in order."""

    def plot(self, *, axes: Any = None, **style: Any) -> Any:
        """Draws the smallest of all rows' best bounds, the margin, against the seconds since the search began.

        Args:
            axes: matplotlib's, to draw on; by default those of a new figure.
            style: of the line, as ``matplotlib.axes.Axes.step`` takes it.

        Returns:
            The axes.

        Raises:
            ImportError: there is no matplotlib (``pip install 'zonocuda[plot]'``).
        """
        return plot_course([step.seconds for step in self], [step.worst for step in self], axes, **style)


def sum_and_smallest(bounds: Tensor) -> list[Tensor]:
    """Of all bounds, in float64; 0 where there is none."""
    smallest = bounds.amin() if bounds.numel() else bounds.sum()
    return [bounds.sum().double(), smallest.double()]
