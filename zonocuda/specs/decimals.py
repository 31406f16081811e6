"""Decimal literals in bulk: exact values and floats, in arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.specs.formula import number

MAX_WIDTH = 40
"""Characters of a literal that is read in bulk."""
_DIGITS = 18
"""Digits of a mantissa: below 2^63 with any sign."""
_EXACT_POWER = 22
"""10^k is a float64 up to here."""
_TENS = np.array([float(10**k) for k in range(_EXACT_POWER + 1)])
_SPLIT = float(2**27 + 1)


@dataclass(frozen=True, eq=False)
class Decimals:
    """The numbers mantissa * 10^exponent, but for those in ``others``, which are given by number.

    Attributes:
        mantissa: ``[n]``, without trailing zeros (and 0 with exponent 0), so that equal numbers are written equally.
        exponent: ``[n]``.
        nearest: ``[n]``, the nearest float64.
        side: ``[n]``, the sign of number - nearest.
        others: numbers with longer mantissas.
    """

    mantissa: NDArray[np.int64]
    exponent: NDArray[np.int16]
    nearest: NDArray[np.float64]
    side: NDArray[np.int8]
    others: Mapping[int, Fraction]

    def exact(self, i: int) -> Fraction:
        """Number ``i``."""
        if i in self.others:
            return self.others[i]
        exponent = int(self.exponent[i])
        mantissa = int(self.mantissa[i])
        return Fraction(mantissa * 10**exponent) if exponent >= 0 else Fraction(mantissa, 10**-exponent)

    def negated(self, chosen: NDArray[Any]) -> Decimals:
        """The numbers, with the opposite of those that are ``chosen``, once each."""
        sign = np.ones(len(self.mantissa), dtype=np.int8)
        sign[chosen] = -1
        others = {i: value * int(sign[i]) for i, value in self.others.items()}
        return Decimals(self.mantissa * sign, self.exponent, self.nearest * sign + 0.0, self.side * sign, others)

    @staticmethod
    def joined(parts: list[Decimals]) -> Decimals:
        """All numbers of the parts, one part after the other."""
        others: dict[int, Fraction] = {}
        first = 0
        for part in parts:
            others |= {first + i: value for i, value in part.others.items()}
            first += len(part.mantissa)
        names = ("mantissa", "exponent", "nearest", "side")
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Decimals(**columns, others=others)


def read_decimals(text: NDArray[np.uint8], begin: NDArray[Any], length: NDArray[Any]) -> Decimals | None:
    """The literals that begin at ``begin`` ``[n]`` in ``text``.

    Returns:
        The numbers; None where one is no literal of :func:`zonocuda.specs.formula.number`, is too long to be read here,
        or exceeds float64.
    """
    n, width = len(begin), int(length.max(initial=1))
    if width > MAX_WIDTH:
        return None
    mantissa = np.zeros(n, dtype=np.int64)
    digits, leading, dots, after_dot, behind_e, e_at = (np.zeros(n, dtype=np.int8) for _ in range(6))
    in_exponent, wrong, falls = (np.zeros(n, dtype=bool) for _ in range(3))
    power = np.zeros(n, dtype=np.int64)
    char = np.zeros((width, n), dtype=np.uint8)
    size = length.astype(np.int8)
    for k in range(width):
        there = size > k
        char[k] = np.where(there, text[np.minimum(begin + k, len(text) - 1)], 0)
        digit = char[k] - np.uint8(48)
        is_digit = digit < 10
        counted = is_digit & ~in_exponent
        mantissa = np.where(counted, mantissa * 10 + digit, mantissa)
        digits += counted
        leading += counted & (mantissa == 0)
        after_dot += counted & (dots > 0)
        behind_e += is_digit & in_exponent
        if in_exponent.any():
            power = np.where(is_digit & in_exponent & (behind_e <= 3), power * 10 + digit, power)
            falls |= in_exponent & (char[k] == ord("-"))
        is_dot = char[k] == ord(".")
        dots += is_dot & ~in_exponent
        wrong |= is_dot & in_exponent
        is_sign = (char[k] == ord("+")) | (char[k] == ord("-"))
        wrong |= is_sign & ((e_at != k) if k else False)
        is_e = ((char[k] == ord("e")) | (char[k] == ord("E"))) & ~in_exponent
        e_at = np.where(is_e, np.int8(k + 1), e_at)
        in_exponent |= is_e
        wrong |= there & ~(is_digit | is_dot | is_sign | is_e)
    if bool((wrong | (digits < 1) | (dots > 1) | (in_exponent & ((behind_e < 1) | (behind_e > 3)))).any()):
        return None
    power = np.where(falls, -power, power)
    char = char.T
    mantissa = np.where(char[:, 0] == ord("-"), -mantissa, mantissa)
    exponent = power - after_dot
    is_long = digits - leading > _DIGITS
    mantissa[is_long] = 0
    exponent[is_long | (mantissa == 0)] = 0
    nearest = _nearest(char, mantissa, exponent, is_long)
    if not bool(np.isfinite(nearest).all()):
        return None
    others: dict[int, Fraction] = {}
    hard = is_long | (exponent > 0) | (exponent < -_EXACT_POWER)
    side = _side(np.where(hard, 0, mantissa), exponent, np.where(hard, 0.0, nearest))
    for i in np.flatnonzero(hard).tolist():
        value = number(bytes(char[i, : length[i]]).decode("ascii"))
        side[i] = (value > Fraction(nearest[i])) - (value < Fraction(nearest[i]))
        if is_long[i]:
            others[i] = value
    while True:
        shorter = (mantissa != 0) & (mantissa % 10 == 0)
        if not shorter.any():
            break
        mantissa, exponent = np.where(shorter, mantissa // 10, mantissa), exponent + shorter
    return Decimals(mantissa, exponent.astype(np.int16), nearest, side, others)


def _nearest(
    char: NDArray[np.uint8], mantissa: NDArray[np.int64], exponent: NDArray[np.int64], is_long: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The floats: a division of two exact ones is rounded once; the others as Python reads them."""
    short = ~is_long & (np.abs(mantissa) < 2**53) & (exponent <= 0) & (exponent >= -_EXACT_POWER)
    result = mantissa / _TENS[np.where(short, -exponent, 0)]
    if not short.all():
        rows = np.ascontiguousarray(char[~short])
        result[~short] = rows.view(f"S{rows.shape[1]}").ravel().astype(np.float64)
    return np.asarray(result + 0.0)  # no negative zero


def _side(mantissa: NDArray[np.int64], exponent: NDArray[np.int64], nearest: NDArray[np.float64]) -> NDArray[np.int8]:
    """The sign of m - f 10^k, for 0 <= k <= 22.

    f 10^k = p + e exactly (Dekker 1971). p and m are so close that m minus p is a small integer or, where m is below
    2^53, the difference of two close floats: exact in float64 either way; and the sign of the last difference is that
    of the exact one.
    """
    ten = _TENS[np.clip(-exponent, 0, _EXACT_POWER)]
    product = nearest * ten
    f_high = _SPLIT * nearest - (_SPLIT * nearest - nearest)
    t_high = _SPLIT * ten - (_SPLIT * ten - ten)
    f_low, t_low = nearest - f_high, ten - t_high
    error = ((f_high * t_high - product) + f_high * t_low + f_low * t_high) + f_low * t_low
    high = mantissa.astype(np.float64)
    low = (mantissa - high.astype(np.int64)).astype(np.float64)
    return np.asarray(np.sign(((high - product) + low) - error).astype(np.int8))
