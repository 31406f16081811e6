"""Interpolation along one dimension after the other: selections, and sparse linear maps with constant weights.

Where a position of the result lies in the tensor that is resized is a number that both runtimes compute in float32, at
every execution. In real arithmetic weights are those of the formula's own rational numbers; in graphs as executed they
carry what the rounding of a position, and of the weights, may change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from zonocuda.importers import lowering, products
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.constants import enclosure
from zonocuda.importers.constants.enclosure import Enclosure, Numbers
from zonocuda.importers.errors import refuse

_U = Fraction(1, 2**24)
_STEPS = 16
"""Roundings of a position, relative to the extent and 2, and of a weight, at most."""

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Position:
    """Where an element lies in a dimension, and on the way there.

    Attributes:
        place: the position, over the reals.
        steps: what an execution computes before; exact if float32 holds all of it.
        doubt: by how much the position may be another one in the network's own real arithmetic.
    """

    place: Fraction
    steps: tuple[Fraction, ...] = ()
    doubt: Fraction = Fraction(0)

    @property
    def is_exact(self) -> bool:
        """Whether an execution computes just this one."""
        return all(map(is_single, (*self.steps, self.place)))


def is_single(number: Fraction) -> bool:
    """Whether float32 holds a number."""
    return Fraction(float(np.float32(float(number)))) == number


def nearest(
    builder: GraphBuilder,
    name: str,
    x: Value,
    dim: int,
    positions: Sequence[Position],
    choose: Callable[[Fraction], int],
) -> Value:
    """The element that ``choose`` takes for each position.

    Raises:
        UnsupportedNetworkError: the rounding of a position may decide which one that is.
    """
    extent = x.shape[dim]

    def element(place: Fraction) -> int:
        return min(max(choose(place), 0), extent - 1)

    index = []
    for position in positions:
        near = 0 if position.is_exact else _reach(extent)
        near = max(near, position.doubt)
        ends = {element(position.place + sign * near) for sign in (-1, 0, 1)}
        if len(ends) > 1:
            refuse(
                f"rounding decides which of the elements {sorted(ends)} of dimension {dim} it takes; "
                "resize by a whole number, or with explicit indices (Gather)"
            )
        index.append(ends.pop())
    return lowering.select(builder, name, x, dim, index)


def linear(builder: GraphBuilder, name: str, x: Value, dim: int, positions: Sequence[Position]) -> Value:
    """Weights 1 - t and t of the two neighbours; positions outside take the element at the border."""
    extent = x.shape[dim]
    rows: list[Mapping[int, Fraction]] = []
    for position in positions:
        place = min(max(position.place, Fraction(0)), Fraction(extent - 1))
        low = math.floor(place)
        t = place - low
        rows.append({low: 1 - t} | ({low + 1: t} if t else {}))
    return _applied(builder, name, x, dim, positions, rows, reach=1, steepness=1)


def cubic(builder: GraphBuilder, name: str, x: Value, dim: int, positions: Sequence[Position], a: Fraction) -> Value:
    """Keys' cubic convolution of the four nearest elements, those outside being the one at the border."""
    extent = x.shape[dim]
    rows: list[Mapping[int, Fraction]] = []
    for position in positions:
        low = math.floor(position.place)
        row: dict[int, Fraction] = {}
        for i in range(low - 1, low + 3):
            inside = min(max(i, 0), extent - 1)
            row[inside] = row.get(inside, Fraction(0)) + _keys(abs(position.place - i), a)
        rows.append(row)
    steepness = math.ceil(4 * (12 + 5 * abs(a)))  # of at most four weights that meet at a border
    return _applied(builder, name, x, dim, positions, rows, reach=3, steepness=steepness)


def _keys(t: Fraction, a: Fraction) -> Fraction:
    """The kernel at distance t; its derivative is at most 12 + 5 |a| in size."""
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else Fraction(0)


def means(builder: GraphBuilder, name: str, x: Value, dim: int, windows: Sequence[tuple[int, int, int]]) -> Value:
    """Sums over windows (first, end), divided by a count each."""
    rows = [{i: Fraction(1, count) for i in range(first, end)} for first, end, count in windows]
    return _applied(builder, name, x, dim, None, rows, reach=0, steepness=0)


def _reach(extent: int) -> Fraction:
    """What an execution's position may be off."""
    return _STEPS * _U * (extent + 2)


def _applied(
    builder: GraphBuilder,
    name: str,
    x: Value,
    dim: int,
    positions: Sequence[Position] | None,
    rows: Sequence[Mapping[int, Fraction]],
    reach: int,
    steepness: int,
) -> Value:
    """The map of ``rows`` along a dimension.

    A weight changes by at most ``steepness`` times the change of a position, and is 0 at a distance of ``reach`` + 1.
    """
    extent = x.shape[dim]
    value = torch.zeros(len(rows), extent, dtype=torch.float64, device="cpu")
    off = torch.zeros_like(value)
    as_executed = torch.zeros_like(value)
    for r, row in enumerate(rows):
        for i, weight in row.items():
            value[r, i] = float(weight)
            off[r, i] = _above(abs(weight - Fraction(float(weight))))
        if positions is None:
            continue
        position = positions[r]
        exactly = position.is_exact and all(map(is_single, row.values()))
        for error, away in ((off, position.doubt), (as_executed, Fraction(0) if exactly else _reach(extent))):
            if away:
                first, last = (math.floor(position.place) - reach - 1, math.ceil(position.place) + reach + 1)
                low, high = (min(max(i, 0), extent - 1) for i in (first, last))
                error[r, low : high + 1] += _above(away * steepness + (_STEPS * _U if error is as_executed else 0))
    builder.unaccounted(f"node {name!r} interpolates, in an order of its own")
    if not bool(((as_executed > 0) | (off > 0)).any()):
        return products.along(builder, name, x, dim, value.to(x.dtype))
    builder.differs_as_executed = True
    return products.along(builder, name, x, dim, _weights(builder, x.dtype, value, off, as_executed))


def _weights(builder: GraphBuilder, dtype: torch.dtype, value: Tensor, off: Tensor, as_executed: Tensor) -> Numbers:
    """The weights, in the arithmetic that the graph is about."""
    if not builder.executed and not enclosure.covers_execution():
        return Enclosure(value, off, dtype)
    rounding = torch.finfo(dtype).eps * value.abs()
    error = (off + as_executed + torch.where(off > 0, rounding, 0.0)) * (1 + 2.0**-40)
    return Enclosure(value, error, dtype, builder.executed)


def _above(number: Fraction) -> float:
    """A float64 number that is at least as large."""
    near = float(number)
    return near if Fraction(near) >= number else math.nextafter(near, math.inf)
