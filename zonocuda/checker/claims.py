"""What a certificate claims of one region; :mod:`zonocuda.checker.certificate` reads it.

Nothing here is believed: slopes are good whatever their value (of ReLUs and products in [0, 1]), and bounds are only
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOPE_UNIT = 1 / 128
"""Of slopes that are stored in bytes: an exact number in every precision."""


@dataclass(frozen=True, eq=False)
class OwnSlopes:
    """Slopes ``[*rows, K]`` of rows of their own: where v >= 0, and where v < 0 if they are there."""

    nonnegative: NDArray[Any]
    negative: NDArray[Any] | None


@dataclass(frozen=True, eq=False)
class Refined:
    """Slopes of rows that each have their own: for M ``neurons``, first of their lower, then of their upper bounds.

    ``slopes`` holds by activation ``[2 M, K]``, in units (:meth:`ActivationSlopes.scaled`).
    """

    neurons: NDArray[np.int64]
    slopes: Mapping[str, OwnSlopes]


@dataclass(frozen=True, eq=False)
class EndClaim:
    """Places ``[M]`` of a node's features at which a row ends: where v < 0 (``negative``), or where v > 0."""

    negative: bool
    neurons: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EndedRows:
    """Rows of neurons that end: where, by node, and slopes ``[K]`` of their own, by activation."""

    ends: Mapping[str, EndClaim]
    slopes: Mapping[str, OwnSlopes]


@dataclass(frozen=True, eq=False)
class ActivationSlopes:
    """Of the K neurons of one activation that are listed: claimed bounds, and slopes.

    Attributes:
        neurons: ``[K]``, places in the flattened features that it reads, ascending.
        lower, upper: ``[K]``, the claim.
        area: ``[K]``, for both signs of v, of the first pass.
        negative, nonnegative: ``[K]``, where v < 0 and where v >= 0, of the second pass and of the rows.
        refined: rows with slopes of their own.
        ended: rows that end.
        least, largest: ``[K]``, what 0 and 1 / SLOPE_UNIT units stand for; None for 0 and 1.
    """

    neurons: NDArray[np.int64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    area: NDArray[np.float64]
    negative: NDArray[np.float64]
    nonnegative: NDArray[np.float64]
    refined: Refined | None
    ended: EndedRows | None = None
    least: NDArray[np.float64] | None = None
    largest: NDArray[np.float64] | None = None

    def scaled(self, units: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Slopes ``[..., K]`` in floats."""
        share: NDArray[np.float64] = units * np.float64(SLOPE_UNIT)
        if self.least is None or self.largest is None:
            return share
        with np.errstate(all="ignore"):
            return np.asarray(self.least + share * (self.largest - self.least))


@dataclass(frozen=True, eq=False)
class RowClaim:
    """A row of the specification: the claimed bound, slopes ``[K]`` of its own, if it has any, and where it ends, by
    node."""

    lower: float
    slopes: Mapping[str, OwnSlopes] | None
    ends: Mapping[str, EndClaim] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RegionClaim:
    """Of one region: slopes by activation, rows by number, and whether neurons need the second pass."""

    second_pass: bool
    activations: Mapping[str, ActivationSlopes]
    rows: Mapping[int, RowClaim]
