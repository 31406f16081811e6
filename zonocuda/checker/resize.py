"""Resize and Upsample in balls, from the standard: a matrix of rational weights along each dimension."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor, prod
from typing import Any

import numpy as np
from flint import arb
from numpy.typing import NDArray

from zonocuda.checker.arithmetic import Array, matrix, product, zeros

_HALF = Fraction(1, 2)
_CHOICES: dict[str, Callable[[Fraction], int]] = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda x: -floor(_HALF - x),
    "round_prefer_ceil": lambda x: floor(x + _HALF),
}


def resized(call: Any) -> Array:
    """The interpolated tensor; ``call`` is a :class:`zonocuda.checker.operators.Call`.

    Raises:
        ValueError: a form that is not read here.
    """
    x: Array = call(0)
    text = {name: (call[name] or b"").decode() for name in ("mode", "coordinate_transformation_mode", "nearest_mode")}
    older = not text["coordinate_transformation_mode"]
    plain = (call["keep_aspect_ratio_policy"] or b"stretch") == b"stretch"
    if call["antialias"] or call["exclude_outside"] or call["axes"] or not plain:
        raise ValueError("a resizing of this form")
    if not older and call.has(3) and call(3).size:
        sizes = [int(n) for n in call(3)]
        scales = [Fraction(m, n) for m, n in zip(sizes, x.shape, strict=True)]
    else:
        scales = _numbers(call["scales"] if call["scales"] is not None else call(1 if older else 2))
        sizes = [floor(n * s) for n, s in zip(x.shape, scales, strict=True)]
    for dim, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        if scale != 1:
            extent = x.shape[dim]
            places = [_place(text["coordinate_transformation_mode"], i, extent, size, scale) for i in range(size)]
            rows = [_weights(text, place, scale, older, call) for place in places]
            x = _along(x, dim, rows, extent)
    return x


def _numbers(given: Any) -> list[Fraction]:
    """Exact scales, of balls or of an attribute."""
    flat = given.ravel().tolist() if isinstance(given, np.ndarray) else list(given)
    return [Fraction(float(number.mid()) if isinstance(number, arb) else number) for number in flat]


def _place(mode: str, i: int, n: int, m: int, scale: Fraction) -> Fraction:
    """Where element i of m lies among n."""
    if mode == "align_corners":
        return Fraction(i * (n - 1), m - 1) if m > 1 else Fraction(0)
    if mode in ("", "asymmetric"):
        return i / scale
    if mode == "tf_half_pixel_for_nn":
        return (i + _HALF) / scale
    centre = (i + _HALF) / scale - _HALF
    if mode == "half_pixel":
        return centre
    if mode == "pytorch_half_pixel":
        return centre if m > 1 else Fraction(0)
    if mode == "half_pixel_symmetric":
        return Fraction(n, 2) * (1 - m / (scale * n)) + centre
    raise ValueError(f"coordinates {mode!r}")


def _weights(text: dict[str, str], place: Fraction, scale: Fraction, older: bool, call: Any) -> dict[int, Fraction]:
    """Weights of elements, those outside being the one at the border."""
    low = floor(place)
    if text["mode"] == "nearest":
        choose = (ceil if scale < 1 else floor) if older else _CHOICES[text["nearest_mode"]]
        return {choose(place): Fraction(1)}
    if text["mode"] == "linear":
        return {low: low + 1 - place, low + 1: place - low}
    if text["mode"] == "cubic":
        a = Fraction(-3, 4) if older else Fraction(call["cubic_coeff_a"])
        return {i: _cubic(abs(place - i), a) for i in range(low - 1, low + 3)}
    raise ValueError(f"mode {text['mode']!r}")


def _cubic(t: Fraction, a: Fraction) -> Fraction:
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else Fraction(0)


def _along(x: Array, dim: int, rows: list[dict[int, Fraction]], extent: int) -> Array:
    """The rows times ``x`` along a dimension."""
    table = zeros(len(rows), extent)
    for number, row in enumerate(rows):
        for i, weight in row.items():
            inside = min(max(i, 0), extent - 1)
            table[number, inside] = table[number, inside] + arb(weight.numerator) / arb(weight.denominator)
    moved: NDArray[Any] = np.moveaxis(x, dim, 0)
    found = product(table, matrix(moved.reshape(extent, prod(moved.shape[1:]))))
    result: Array = np.moveaxis(found.reshape(len(rows), *moved.shape[1:]), 0, dim)
    return result
