"""The formulas of csrc/math a second time, in Python.

The kernels take float or :class:`tests.elementary.rounding.Computed`: the first gives the bits of the C++ (a test
compares them), the second the theorem. What chooses and what handles bits takes float alone.
"""

from __future__ import annotations

import math
import struct
from typing import TypeVar

from tests.elementary.polynomials import coefficients, constants
from tests.elementary.rounding import Computed

Number = TypeVar("Number", float, Computed)
C = constants()
SHIFT = 1.5 * 2.0**52
NAN, INF = math.nan, math.inf


def horner(name: str, x: Number) -> Number:
    """The polynomial of that name."""
    first, *rest = reversed(coefficients(name))
    value: Number = x * first + rest[0]
    for c in rest[1:]:
        value = x * value + c
    return value


# ---- kernels ---------------------------------------------------------------------------------------------------------


def exp_rest(r: Number) -> Number:
    """e^r - 1."""
    return r + r * r * horner("exp_rest", r)


def log_fraction(f: Number) -> Number:
    """log(1 + f)."""
    s = f / (2.0 + f)
    z = s * s
    return (s + s) + s * (z * horner("log_rest", z))


def erf_small(x: Number) -> Number:
    """erf(x) up to 0.75."""
    return x + x * horner("erf_rest", x * x)


def tail_argument(w: Number) -> Number:
    """t of G."""
    return (w - 3.0) / (w + 3.0)


def sine(r: Number) -> Number:
    """sin(r)."""
    z = r * r
    return r + r * (z * horner("sin_rest", z))


def cosine(r: Number) -> Number:
    """cos(r)."""
    z = r * r
    return (1.0 - 0.5 * z) + (z * z) * horner("cos_rest", z)


def atan_small(t: Number) -> Number:
    """atan(t)."""
    z = t * t
    return t + t * (z * horner("atan_rest", z))


# ---- what handles bits -----------------------------------------------------------------------------------------------


def bits_of(x: float) -> int:
    """The bits of a float64 number."""
    return int(struct.unpack("<Q", struct.pack("<d", x))[0])


def of_bits(bits: int) -> float:
    """The float64 number of 64 bits."""
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def nearest(x: float) -> float:
    """The nearest integer, of two the even one."""
    return (x + SHIFT) - SHIFT


def scale(x: float, k: float) -> float:
    """2^k x in two steps."""
    half = nearest(k * 0.5)
    return x * 2.0**half * 2.0 ** (k - half)


def exp_parts(x: float, minus: float = 0.0) -> tuple[float, float]:
    """k and e^r - 1."""
    k = nearest(x * C["kLog2E"])
    return k, exp_rest(((x - k * C["kLn2High"]) - k * C["kLn2Low"]) - minus)


def log_of(k: float, f: float) -> float:
    """log(2^k (1 + f))."""
    return k * C["kLn2High"] + (k * C["kLn2Low"] + log_fraction(f))


def split_binary(x: float) -> tuple[float, float]:
    """k and m with x = 2^k m."""
    m, k = math.frexp(x)  # m in [1/2, 1)
    return (k, m) if m >= C["kSqrtHalf"] else (k - 1, 2 * m)


def gauss_tail(x: float, half: float, w: float, shift: float) -> float:
    """e^-(half x^2) G(w) / (1 + 2 w) 2^shift."""
    leading = of_bits(bits_of(x) & ~0x7FFFFFF)
    k, rest = exp_parts(-half * (leading * leading), half * ((x - leading) * (x + leading)))
    return scale((1.0 + rest) * horner("tail", tail_argument(w)) / (1.0 + (w + w)), k + shift)


# ---- functions of finite numbers -------------------------------------------------------------------------------------


def exp(x: float) -> float:
    k, rest = exp_parts(min(max(x, -746.0), 710.0))
    return scale(1.0 + rest, k)


def expm1(x: float) -> float:
    k, rest = exp_parts(min(max(x, -40.0), 710.0))
    return scale((1.0 - 2.0 ** -min(k, 60.0)) + rest, k)


def tanh(x: float) -> float:
    a = min(abs(x), 22.0)
    e = expm1(a + a)
    return math.copysign(e / (e + 2.0) if a < 0.5 else 1.0 - 2.0 / (e + 2.0), x)


def sigmoid(x: float) -> float:
    t = exp(-abs(x))
    return (t if x < 0 else 1.0) / (1.0 + t)


def log(x: float) -> float:
    if not x > 0:
        return -INF if x == 0 else NAN
    k, m = split_binary(x)
    return log_of(k, m - 1.0)


def log1p(x: float) -> float:
    high = 1.0 + x
    if not high > 0:
        return -INF if high == 0 else NAN
    of_x = high - 1.0
    low = (1.0 - (high - of_x)) + (x - of_x)
    k, m = split_binary(high)
    return log_of(k, (m - 1.0) + low * 2.0 ** -min(k, 100))


def erf(x: float) -> float:
    a = min(abs(x), 28.0)
    return math.copysign(erf_small(a) if a < 0.75 else 1.0 - gauss_tail(a, 1.0, a, 0.0), x)


def erfc(x: float) -> float:
    a = min(abs(x), 28.0)
    if a < 0.75:
        return 1.0 - erf_small(x)
    tail = gauss_tail(a, 1.0, a, 0.0)
    return 2.0 - tail if x < 0 else tail


def normal_cdf(x: float) -> float:
    a = min(abs(x), 39.0)
    w = a * C["kSqrtHalf"]
    if w < 0.75:
        return 0.5 + 0.5 * math.copysign(erf_small(w), x)
    tail = gauss_tail(a, 0.5, w, -1.0)
    return tail if x < 0 else 1.0 - tail


def softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))


def gelu_tanh(x: float) -> float:
    return x * sigmoid(x * (C["kGeluLinear"] + C["kGeluCubic"] * (x * x)))


def selu(x: float) -> float:
    return C["kSeluScale"] * x if x > 0 else C["kSeluNegative"] * expm1(x)


def mish(x: float) -> float:
    w = exp(min(x, 40.0))
    n = w * (w + 2.0)
    return x * (n / (n + 2.0))


def _wave(x: float, turns: int) -> float:
    if abs(x) > 2.0**20:
        return NAN
    shifted = x * C["kTwoOverPi"] + SHIFT
    quadrant, k = bits_of(shifted) + turns, shifted - SHIFT
    a, b = x - k * C["kHalfPi1"], -(k * C["kHalfPi2"])
    high = a + b
    of_b = high - a
    low = (a - (high - of_b)) + (b - of_b)
    r = high + (low - k * C["kHalfPi3"])
    value = cosine(r) if quadrant & 1 else sine(r)
    return -value if quadrant & 2 else value


def sin(x: float) -> float:
    return _wave(x, 0)


def cos(x: float) -> float:
    return _wave(x, 1)


def atan(x: float) -> float:
    a = abs(x)
    if a < 0.4140625:
        return math.copysign(atan_small(a), x)
    high = a > 2.4140625
    t = -1.0 / a if high else (a - 1.0) / (a + 1.0)
    return math.copysign((C["kHalfPi"] if high else C["kQuarterPi"]) + atan_small(t), x)


def power(x: float, n: int) -> float:
    result, square = 1.0, x
    while n > 0:
        result = result * square if n & 1 else result
        square = square * square if n > 1 else square
        n >>= 1
    return result


FUNCTIONS = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "erfc": erfc,
    "normal_cdf": normal_cdf,
    "softplus": softplus,
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * normal_cdf(x),
    "gelu_tanh": gelu_tanh,
    "elu": lambda x: x if x > 0 else ALPHA * expm1(x),
    "selu": selu,
    "celu": lambda x: x if x > 0 else ALPHA * expm1(x / ALPHA),
    "mish": mish,
    "softsign": lambda x: x / (1.0 + abs(x)),
    "hardswish": lambda x: x * (min(max(x + 3.0, 0.0), 6.0) / 6.0),
    "sin": sin,
    "cos": cos,
    "atan": atan,
    "reciprocal": lambda x: 1.0 / x,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1.0 / math.sqrt(x),
    "power": lambda x: power(x, EXPONENT),
}
ALPHA, EXPONENT = 1.375, 7
"""What the tests take for alpha and for the exponent."""
