"""The elementary functions: their names, numbers and parameters, as csrc/math/elementary.h has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Literal, get_args

FunctionName = Literal[
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "sigmoid",
    "erf",
    "erfc",
    "normal_cdf",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "elu",
    "selu",
    "celu",
    "mish",
    "softsign",
    "hardswish",
    "sin",
    "cos",
    "atan",
    "reciprocal",
    "sqrt",
    "rsqrt",
    "power",
]
FUNCTIONS: tuple[FunctionName, ...] = get_args(FunctionName)

RoundingName = Literal["nearest", "down", "up"]
ROUNDINGS: tuple[RoundingName, ...] = get_args(RoundingName)


def function_number(name: FunctionName) -> int:
    """The number of a function.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in FUNCTIONS:
        raise ValueError(f"elementary: function must be one of {', '.join(FUNCTIONS)}, got {name!r}")
    return FUNCTIONS.index(name)


def rounding_number(name: RoundingName) -> int:
    """The number of a direction of rounding.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ROUNDINGS:
        raise ValueError(f"elementary: rounding must be one of {', '.join(ROUNDINGS)}, got {name!r}")
    return ROUNDINGS.index(name)


LEAST_ULP, MOST_ULP = 0.5, 2.0**16
"""Stated errors that can hold: no function here has floats alone as its values at floats, and the nearest float is
within half a unit of a value, which the best of machines returns. An error beyond the other is no statement."""


def resolve_ulp(given: object) -> dict[str, float]:
    """A stated error of executed functions: by the name of a function, units in the last place, sorted.

    Raises:
        TypeError, ValueError: what is none, in one line.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"ulp must be numbers by the name of a function, such as {{'exp': 2}}, got {given!r}"[:200])
    found = {}
    for name, units in given.items():
        if name not in FUNCTIONS:
            raise ValueError(f"ulp: function must be one of {', '.join(FUNCTIONS)}, got {name!r}"[:1000])
        if isinstance(units, bool) or not isinstance(units, Real):
            raise TypeError(f"ulp: the units of {name} must be a number, got {units!r}"[:200])
        try:
            number = float(units)
        except OverflowError:
            number = math.inf
        if not LEAST_ULP <= number <= MOST_ULP:
            raise ValueError(
                f"ulp: the units of {name} must be from {LEAST_ULP:g}, which is every value rounded correctly, to "
                f"{MOST_ULP:g}, got {units!s:.40}"
            )
        found[str(name)] = number
    return dict(sorted(found.items()))


def parse_ulp(text: str) -> dict[str, float]:
    """A stated error as a command line has it: ``exp=2,tanh=3``.

    Raises:
        ValueError: what is none.
    """
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, separator, units = (word.strip() for word in part.partition("="))
        try:
            number = float(units)
        except ValueError:
            separator, number = "", 0.0
        if not separator or name in found:
            raise ValueError(f"ulp: must be as exp=2,tanh=3, got {text[:100]!r}")
        found[name] = number
    return resolve_ulp(found)


def ulp_text(ulp: Mapping[str, float]) -> str:
    """The inverse of :func:`parse_ulp`."""
    return ",".join(f"{name}={units!r}" for name, units in ulp.items())


def assumption(ulp: Mapping[str, float]) -> str:
    """What a stated error says, for the meaning of a verdict; empty where nothing is stated."""
    if not ulp:
        return ""
    named = ", ".join(f"{name} within {units:g} ulp" for name, units in ulp.items())
    return f"assuming, as stated and not proven, that it computes {named} of the exact value"
