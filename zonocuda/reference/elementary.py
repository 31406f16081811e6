"""Reference twin of :func:`zonocuda.ops.elementary`."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.functions import FunctionName, RoundingName, function_number, rounding_number


def _normal_cdf(x: Tensor) -> Tensor:
    return torch.erfc(-x / sqrt(2)) / 2


def _power(x: Tensor, n: float) -> Tensor:
    if n < 1 or n != int(n):
        raise RuntimeError(f"elementary: the exponent must be an integer from 1 to 1024, got {n}")
    return x ** int(n)


_FUNCTIONS: dict[FunctionName, Callable[[Tensor, float], Tensor]] = {
    "exp": lambda x, _: torch.exp(x),
    "expm1": lambda x, _: torch.expm1(x),
    "log": lambda x, _: torch.log(x),
    "log1p": lambda x, _: torch.log1p(x),
    "tanh": lambda x, _: torch.tanh(x),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "erf": lambda x, _: torch.erf(x),
    "erfc": lambda x, _: torch.erfc(x),
    "normal_cdf": lambda x, _: _normal_cdf(x),
    "softplus": lambda x, _: torch.logaddexp(x, torch.zeros_like(x)),
    "silu": lambda x, _: F.silu(x),
    "gelu": lambda x, _: x * _normal_cdf(x),
    "gelu_tanh": lambda x, _: F.gelu(x, approximate="tanh"),
    "elu": F.elu,
    "selu": lambda x, _: F.selu(x),
    "celu": F.celu,
    "mish": lambda x, _: F.mish(x),
    "softsign": lambda x, _: F.softsign(x),
    "hardswish": lambda x, _: F.hardswish(x),
    "sin": lambda x, _: torch.sin(x),
    "cos": lambda x, _: torch.cos(x),
    "atan": lambda x, _: torch.atan(x),
    "reciprocal": lambda x, _: 1 / x,
    "sqrt": lambda x, _: torch.sqrt(x),
    "rsqrt": lambda x, _: torch.rsqrt(x),
    "power": _power,
}


def elementary(x: Tensor, function: FunctionName, parameter: float = 1.0, rounding: RoundingName = "nearest") -> Tensor:
    """f(x) by torch's own functions, whose error nobody guarantees: so there are no bounds of it.

    Raises:
        ValueError: a function or a rounding of another name.
        NotImplementedError: ``rounding`` is not ``nearest``.
    """
    function_number(function)
    if rounding_number(rounding) != 0:
        raise NotImplementedError(
            f"reference.elementary: rounding={rounding!r} needs a proven error, which torch's functions have not; use "
            "zonocuda.ops.elementary"
        )
    return _FUNCTIONS[function](x, parameter)
