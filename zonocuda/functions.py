"""The elementary functions: their names, numbers and parameters, as csrc/math/elementary.h has them."""

from __future__ import annotations

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
