"""Balls of the library Arb (python-flint): a number with a rigorous bound of its error, in arrays and matrices.

Every operation encloses the exact result for all numbers of its operands' balls (Johansson, Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic, IEEE Transactions on Computers 66, 2017). A comparison is true
only where it holds for all of them, and false wherever a NaN takes part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.object_]
"""Balls."""

PRECISION = 128
"""Bits of a ball's middle."""

ZERO, ONE = arb(0), arb(1)


def precisely() -> Any:
    """A context in which middles have PRECISION bits."""
    return ctx.workprec(PRECISION)


def balls(values: Iterable[Any], shape: tuple[int, ...] = (-1,)) -> Array:
    """An array of balls of numbers that are taken as exact."""
    flat = [value if isinstance(value, arb) else arb(value) for value in values]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(shape)


def constants(tensor: Tensor, roundings: int = 0) -> Array:
    """A tensor's numbers, each of which stands for those that lie ``roundings`` roundings to float64 away.

    With u = 2^-53 and c (1 + theta) held for c, |theta| <= gamma_n, the distance is at most 2 n u |c (1 + theta)|,
    as long as n u <= 1/8.
    """
    numbers = tensor.detach().cpu().double().flatten().tolist()
    if not roundings:
        return balls(numbers, tuple(tensor.shape))
    share = arb(2 * roundings) / arb(2) ** 53
    return balls((arb(c, (abs(arb(c)) * share).upper()) for c in numbers), tuple(tensor.shape))


def zeros(*shape: int) -> Array:
    """Exact zeros."""
    out = np.empty(shape, dtype=object)
    out.fill(ZERO)
    return out


def matrix(values: Array) -> arb_mat:
    """``values`` ``[m, n]`` for the library."""
    rows, columns = values.shape
    return arb_mat(rows, columns, values.ravel().tolist())


def product(left: Array, right: arb_mat) -> Array:
    """``left`` ``[m, k]`` times a matrix ``[k, n]``."""
    result = matrix(left) * right
    return balls(result.entries(), (left.shape[0], right.ncols()))


def lower(values: Array) -> Array:
    """Exact numbers below."""
    return balls((value.lower() for value in values.ravel()), values.shape)


def upper(values: Array) -> Array:
    """Exact numbers above."""
    return balls((value.upper() for value in values.ravel()), values.shape)
