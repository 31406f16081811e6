"""Two questions of linear algebra about floating-point numbers, answered exactly or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

_PRIME = 2**31 - 1
_FRACTION_BITS = 53
_GRID = 2**24  # directions are rounded to multiples of 1/_GRID, whose products are exact integers

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Row:
    """The functional x -> plus_weight <plus, x> - minus_weight <minus, x>."""

    plus: Vector
    plus_weight: float = 1.0
    minus: Vector | None = None
    minus_weight: float = 0.0

    def rounded(self) -> Vector:
        """Its coefficients, up to rounding."""
        row = self.plus_weight * self.plus
        return row if self.minus is None else row - self.minus_weight * self.minus

    def is_positive_at(self, x: list[int]) -> bool:
        """Whether its value at x is positive, exactly."""
        value = Fraction(self.plus_weight) * _product(self.plus, x)
        if self.minus is not None:
            value -= Fraction(self.minus_weight) * _product(self.minus, x)
        return value > 0


def _product(vector: Vector, x: list[int]) -> Fraction:
    return sum((Fraction(v) * k for v, k in zip(vector.tolist(), x, strict=True) if v and k), Fraction(0))


def independent(rows: Tensor) -> bool:
    """Whether the rows of a matrix ``[n, d]`` are linearly independent over the reals; False may mean "not proven".

    Every floating-point number is a dyadic rational, which has an exact image in the integers modulo an odd prime. A
    matrix of full rank there has full rank over the rationals.
    """
    matrix = rows.detach().double().cpu().numpy()
    count, length = matrix.shape
    if count > length or not np.isfinite(matrix).all():
        return False
    fraction, exponent = np.frexp(matrix)
    whole = np.ldexp(fraction, _FRACTION_BITS).astype(np.int64) % _PRIME
    powers = {e: pow(2, int(e) - _FRACTION_BITS, _PRIME) for e in np.unique(exponent)}
    work = whole * np.vectorize(powers.__getitem__, otypes=[np.int64])(exponent) % _PRIME
    for i in range(count):
        (candidates,) = np.nonzero(work[i])
        if len(candidates) == 0:
            return False
        pivot = candidates[0]
        work[i] = work[i] * pow(int(work[i, pivot]), -1, _PRIME) % _PRIME
        below = work[i + 1 :]
        below -= below[:, pivot : pivot + 1] * work[i] % _PRIME
        below %= _PRIME
    return True


def has_direction(rows: Sequence[Row]) -> bool:
    """Whether some x makes every row positive; False may mean "not found".

    The linear program is: maximise c such that every row is at least c and the entries of x lie in [-1, 1]. Its answer
    is floating-point, and is believed only after it has been rounded to a grid and checked in exact arithmetic.
    """
    matrix = np.stack([row.rounded() for row in rows])
    sizes = np.abs(matrix).max(axis=1)
    if not np.isfinite(sizes).all() or (sizes == 0).any():
        return False
    matrix = matrix / sizes[:, None]
    length = matrix.shape[1]
    result = linprog(
        c=np.r_[np.zeros(length), -1.0],
        A_ub=np.c_[-matrix, np.ones(len(rows))],
        b_ub=np.zeros(len(rows)),
        bounds=[(-1, 1)] * length + [(None, 1)],
        method="highs",
    )
    if result.status != 0 or not result.x[-1] > 0:
        return False
    x = [int(v) for v in np.rint(result.x[:-1] * _GRID)]
    return all(row.is_positive_at(x) for row in rows)
