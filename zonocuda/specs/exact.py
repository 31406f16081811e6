"""Numbers of any kind as exact rationals: of floats their value, of strings the decimal or quotient that they spell."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Rational, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_SPELLED = re.compile(
    r"\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3}|/[0-9]*[1-9][0-9]*)?\s*", re.ASCII
)
_MAX_LENGTH = 1000


def exact(value: Any, what: str) -> Fraction:
    """The number ``value``: an int, float, Fraction, Decimal, numpy or torch scalar, or a string such as ``"8/255"``.

    Raises:
        ValueError: no number, or one that is not finite; ``what`` it is stands in the message.
    """
    if isinstance(value, str):
        text = value if len(value) <= 40 else value[:37] + "..."
        if len(value) > _MAX_LENGTH or _SPELLED.fullmatch(value) is None:
            raise ValueError(f"{what}: {text!r} is not a number such as 0.1, 1e-3 or 8/255")
        return Fraction(value.strip())
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if math.prod(value.shape) != 1:
            raise ValueError(f"{what}: must be one number, got an array of shape {list(value.shape)}")
        value = _as_array(value, what).item() if isinstance(value, Tensor) else value.item()
    if isinstance(value, bool) or not isinstance(value, Decimal | Real):
        raise ValueError(f"{what}: must be a number, got {type(value).__name__}")
    if isinstance(value, Rational):
        return Fraction(int(value.numerator), int(value.denominator))
    if not math.isfinite(value):
        raise ValueError(f"{what} holds a NaN or an infinity")
    ratio = getattr(value, "as_integer_ratio", None)  # of floats of any precision
    if ratio is None:
        raise ValueError(f"{what}: the exact value of a {type(value).__name__} is unknown; give a Fraction or a string")
    return Fraction(*map(int, ratio()))


def _as_array(values: Tensor, what: str) -> NDArray[Any]:
    if values.is_meta:
        raise ValueError(f"{what}: is a tensor on the device meta, which holds no numbers")
    try:
        dense = values.detach().cpu().to_dense()
        return (dense.double() if dense.is_floating_point() else dense).numpy()
    except (RuntimeError, TypeError) as error:  # such as one of quantised numbers
        raise ValueError(f"{what}: must be a tensor of numbers, got one of {values.dtype}") from error


def exact_array(values: Any, what: str) -> NDArray[np.object_]:
    """An array of rationals: of a tensor, an array, nested lists, or a single number.

    Raises:
        ValueError: something that is no number, is not finite, or ragged lists.
    """
    if isinstance(values, Tensor):
        held: Any = _as_array(values, what)
    elif isinstance(values, np.ndarray):
        held = values
    else:
        try:
            held = np.array(values, dtype=object)
        except ValueError as error:
            raise ValueError(f"{what}: must be an array, a tensor, or lists of one length ({error})") from error
    if held.dtype.kind == "f" and not bool(np.isfinite(held).all()):
        raise ValueError(f"{what} holds a NaN or an infinity")
    result = np.empty(held.shape, dtype=object)
    result.reshape(-1)[:] = [exact(value, what) for value in held.reshape(-1).tolist()]
    return result
