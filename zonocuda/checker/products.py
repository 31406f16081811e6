"""Products of two values, x in [xl, xu] and y in [yl, yu], between planes, in any arithmetic that numpy can hold.

For all numbers a and b, x y - a x - b y = (x - b)(y - a) - a b, and as a bilinear form on a box it is least and largest
at corners. Planes that touch x y (McCormick, Mathematical Programming 10, 1976) have a = yl + r (yu - yl), and
b = xl + r (xu - xl) below, b = xu - r (xu - xl) above, for some r in [0, 1].
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


def split(values: Values, terms: int) -> tuple[Values, Values]:
    """The factors ``[..., N, terms]`` of what a :class:`zonocuda.graph.Bilinear` reads, ``[..., 2 N terms]``."""
    pairs = values.reshape(*values.shape[:-1], 2, -1, terms)
    return pairs[..., 0, :, :], pairs[..., 1, :, :]


def corners(x: tuple[Values, Values], y: tuple[Values, Values]) -> tuple[Values, Values]:
    """The least and the largest product of ends (lower, upper); of floats, rounded to nearest."""
    products = [a * b for a in x for b in y]
    return reduce(_smaller, products), reduce(_larger, products)


def _smaller(a: Values, b: Values) -> Values:
    return np.asarray(np.frompyfunc(lambda x, y: x.min(y), 2, 1)(a, b) if a.dtype == object else np.minimum(a, b))


def _larger(a: Values, b: Values) -> Values:
    return np.asarray(np.frompyfunc(lambda x, y: x.max(y), 2, 1)(a, b) if a.dtype == object else np.maximum(a, b))
