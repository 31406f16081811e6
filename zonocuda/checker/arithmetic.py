"""Balls of the library Arb (python-flint): a number with a rigorous bound of its error, in arrays and matrices.

Every operation encloses the exact result for all numbers of its operands' balls (Johansson, Arb: efficient
arbitrary-precision midpoint-radius interval arithmetic, IEEE Transactions on Computers 66, 2017). A comparison is true
only where it holds for all of them, and false wherever a NaN takes part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flint import arb, arb_mat, arf, ctx
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.graph import Affine

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


def constants(op: Affine, name: str) -> Array:
    """The numbers of the network that an operator holds as ``name``, each as a ball.

    A number c of the network, held as h, obeys |c - h| <= gamma_k |h| + E (:class:`zonocuda.graph.Affine`), with k the
    operator's ``roundings`` and E its ``doubt``. gamma_k is at most 2 k u, u = 2^-53, while k u <= 1/8; beyond that
    nothing is known of c, be h zero or not: zero may be what is held of a number about which nothing is known.
    """
    held = getattr(op, name)
    tensor = held if isinstance(held, Tensor) else torch.tensor(held, dtype=torch.float64, device="cpu")
    numbers = tensor.detach().cpu().double().flatten().tolist()
    if not op.roundings and name not in op.doubt:
        return balls(numbers, tuple(tensor.shape))
    if op.roundings > 2**50:
        return balls([arb(0, arb("inf"))] * len(numbers), tuple(tensor.shape))
    share = 2 * arb(op.roundings) / arb(2) ** 53
    error = op.doubt[name] if name in op.doubt else torch.zeros_like(tensor)
    errors = torch.as_tensor(error, dtype=torch.float64, device="cpu").detach().expand(tensor.shape).flatten().tolist()
    radii = ((abs(arb(h)) * share + arb(e)).upper() if h or e else ZERO for h, e in zip(numbers, errors, strict=True))
    return balls((arb(h, radius) for h, radius in zip(numbers, radii, strict=True)), tuple(tensor.shape))


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


def as_bytes(values: Array) -> NDArray[np.uint8]:
    """Exact numbers and infinities ``[n]`` as bytes, for another process or a file; what else there is, as NaN."""
    told = json.dumps([_told(value) for value in values.tolist()])
    return np.frombuffer(told.encode(), np.uint8)


def _told(value: arb) -> list[int] | str:
    if value.is_finite() and value.is_exact():
        return [int(part) for part in value.mid().man_exp()]
    return next((text for text in ("inf", "-inf") if value == arb(text)), "nan")


def from_bytes(told: NDArray[np.uint8]) -> Array:
    """The numbers, none of which is rounded."""
    found = json.loads(told.tobytes())
    return balls(arb(one) if isinstance(one, str) else arb(arf((one[0], one[1]))) for one in found)
