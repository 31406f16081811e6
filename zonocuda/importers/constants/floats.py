"""Float64 arithmetic whose errors are known: of products, of sums, and of functions that :mod:`decimal` computes."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zonocuda import roundoff

U = 2.0**-53
LEAST = 2.0**-500
SAFE = 2.0**450
COVER = 1 + 2.0**-40
DIGITS = decimal.Context(
    prec=40,
    Emax=10**9,
    Emin=-(10**9),
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    spread: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call]
    return spread


def grown(x: Tensor) -> Tensor:
    """Nonnegative numbers, those between 0 and 2^-500 replaced by it; a NaN stays."""
    return torch.where(x > 0, x.clamp(min=LEAST), x)


def one_rounding(value: Tensor, exact: Tensor) -> Tensor:
    return (U * value.detach().abs()).clamp(min=LEAST).masked_fill(exact, 0.0)


def safe(*operands: Tensor) -> Tensor:
    """Where products of two, and of their halves, neither overflow nor underflow."""
    inside = [(x.abs() <= SAFE) & (x.abs() >= 1 / SAFE) for x in operands]
    return torch.stack(broadcast(*inside)).all(0)


def product_error(x: Tensor, y: Tensor, p: Tensor) -> Tensor:
    """x y - p for p = fl(x y), where :func:`safe` holds (Dekker's TwoProduct with Veltkamp's splitting)."""
    (xh, xl), (yh, yl) = split(x), split(y)
    return ((xh * yh - p) + xh * yl + xl * yh) + xl * yl


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    scaled = 134217729.0 * x
    high = scaled - (scaled - x)
    return high, x - high


def gamma(terms: int, u: float = U) -> float:
    """gamma of one rounding more than there are terms."""
    return roundoff.gamma(terms + 1, u) * COVER


def unit(x: Tensor) -> float:
    """The largest power of two of which all numbers are multiples; 0 for numbers too small to tell."""
    nonzero = x.detach()[x.detach() != 0]
    if not nonzero.numel():
        return 1.0
    if not bool(nonzero.isfinite().all()):
        return 0.0
    mantissa, exponent = torch.frexp(nonzero)
    digits = (mantissa * 2.0**53).long()
    lowest = torch.frexp((digits & -digits).double())[1] - 1
    least = int((exponent.long() - 53 + lowest).min())
    return math.ldexp(1.0, least) if least > -500 else 0.0


def distance(value: Tensor, function: Callable[..., decimal.Decimal], *operands: Tensor) -> Tensor:
    """At least the distance of each value from a function that :mod:`decimal` computes to 40 digits; infinite where it
    is not a real number."""
    columns: Any = [t.detach().flatten().tolist() for t in (value, *operands)]
    errors = []
    for found, *row in zip(*columns, strict=True):
        if not all(map(math.isfinite, (found, *row))):
            errors.append(math.inf)
            continue
        DIGITS.clear_flags()
        try:
            true = function(*map(decimal.Decimal, row))
        except decimal.DecimalException:
            errors.append(math.inf)
            continue
        off = DIGITS.subtract(decimal.Decimal(found), true).copy_abs()
        doubt = true.copy_abs() if DIGITS.flags[decimal.Inexact] else decimal.Decimal(0)
        errors.append(float(off + doubt.scaleb(-38)) * COVER)
    return value.detach().new_tensor(errors).reshape(value.shape)
