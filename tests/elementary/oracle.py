"""The functions by Arb, and the comparison of float64 results with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flint import arb, ctx
from torch import Tensor

from tests.elementary.model import ALPHA, EXPONENT
from tests.elementary.rounding import power


def _limited(x: arb, limit: int) -> arb:
    """x within [-limit, limit]: beyond, no float64 number tells the function from its value there."""
    return x.max(arb(-limit)).min(arb(limit))


def _exp(x: arb) -> arb:
    return _limited(x, 10000).exp()


def _expm1(x: arb) -> arb:
    return _limited(x, 10000).expm1()


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + _exp(-x))


def _erfc(x: arb) -> arb:
    return _limited(x, 100).erfc()


def _normal_cdf(x: arb) -> arb:
    return _erfc(-x / arb(2).sqrt()) / 2


def _softplus(x: arb) -> arb:
    return (x if x > 0 else arb(0)) + _exp(-abs(x)).log1p()


def _gelu_tanh(x: arb) -> arb:
    return x * _sigmoid(2 * (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3))


def _elu(x: arb, alpha: arb, inner: arb) -> arb:
    return x if x > 0 else alpha * _expm1(x / inner)


def _selu(x: arb) -> arb:
    return arb("1.0507009873554804934193349852946") * _elu(x, arb("1.6732632423543772848170429916717"), arb(1))


def _mish(x: arb) -> arb:
    w = _exp(x)
    n = w * (w + 2)
    return x * (n / (n + 2))


ORACLES: dict[str, Callable[[arb], arb]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": arb.log,
    "log1p": arb.log1p,
    "tanh": lambda x: _limited(x, 1000).tanh(),
    "sigmoid": _sigmoid,
    "erf": lambda x: _limited(x, 100).erf(),
    "erfc": _erfc,
    "normal_cdf": _normal_cdf,
    "softplus": _softplus,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _normal_cdf(x),
    "gelu_tanh": _gelu_tanh,
    "elu": lambda x: _elu(x, arb(ALPHA), arb(1)),
    "selu": _selu,
    "celu": lambda x: _elu(x, arb(ALPHA), arb(ALPHA)),
    "mish": _mish,
    "softsign": lambda x: x / (1 + abs(x)),
    "hardswish": lambda x: x * (x + 3).max(arb(0)).min(arb(6)) / 6,
    "sin": arb.sin,
    "cos": arb.cos,
    "atan": arb.atan,
    "reciprocal": lambda x: 1 / x,
    "sqrt": arb.sqrt,
    "rsqrt": arb.rsqrt,
    "power": lambda x: x**EXPONENT,
}


@dataclass
class Comparison:
    """What a comparison has found.

    Attributes:
        units: the largest |value - f| beyond an absolute error, in 2^-53 |f|.
        at: where.
        outside: points whose bounds do not hold f.
    """

    outside: list[float] = field(default_factory=list)
    units: float = 0.0
    at: float = 0.0


def true_value(name: str, x: float) -> arb:
    """f(x) to 90 bits, or to within 2^-1200."""
    before = ctx.prec
    try:
        for bits in (128, 256, 512, 1024, 2048, 4096):
            ctx.prec = bits
            true = ORACLES[name](arb(x))
            if true.rad() <= abs(true.mid()) * power(-90) or abs(true) < power(-1200):
                return true
    finally:
        ctx.prec = before
    raise ValueError(f"{name}({x!r}) is not known well enough: {true}")


def holds(lower: float, upper: float, true: arb) -> bool:
    """Whether [lower, upper] holds f(x), as far as that is known."""
    return lower <= upper and not arb(lower) > true and not arb(upper) < true


def compare(name: str, x: Tensor, value: Tensor, lower: Tensor, upper: Tensor, absolute: arb) -> Comparison:
    """Each value and its bounds against Arb; values that have overflowed by their bounds alone."""
    found = Comparison()
    for at, y, low, high in zip(x.tolist(), value.tolist(), lower.tolist(), upper.tolist(), strict=True):
        true = true_value(name, at)
        if not holds(low, high, true):
            found.outside.append(at)
        if abs(y) == float("inf"):
            continue
        distance = abs(arb(y) - true) - absolute
        if not distance <= 0:
            units = float((distance / abs(true) * power(53)).upper())
            if not units <= found.units:
                found.units, found.at = units, at
    return found
