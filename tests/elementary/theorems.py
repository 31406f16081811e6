"""Every error theorem of docs/math.md, derived piece by piece: see :mod:`tests.elementary.rounding`.

Each function of this module returns a bound, for all arguments, of |computed - f| beyond an absolute 2^-1073, in units
of 2^-53 |f|. The pieces cover the reduced arguments; what is exact, and why, is said where ``exactly`` is called, and
in csrc/math.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

from flint import arb

from tests.elementary import model
from tests.elementary.approximation import error as polynomial_error
from tests.elementary.rounding import Computed, exactly, half_ulp, power, span

C = model.C
ABSOLUTE = power(-1073)
UNIT = power(-53)


def pieces(lower: float, upper: float, count: int) -> Iterator[arb]:
    """``count`` balls that cover [lower, upper]."""
    step = (arb(upper) - lower) / count
    for i in range(count):
        yield span(lower + step * i, lower + step * (i + 1))


def binades(upper: float, first: int = 16, lowest: int = -1076) -> Iterator[arb]:
    """Balls that cover [2^lowest, upper]: ``first`` in each of the topmost twelve binades, and two in each below.

    The topmost part of a binade is cut off: what rounds up across its end has a unit in the last place twice as large.
    """
    top, e = arb(upper), 0
    while not power(e - 1) < upper:
        e -= 1
    for i in range(e, lowest, -1):
        fine = [arb(j) / (2 * first) for j in range(first, 2 * first + 1)]
        for a, b in pairwise(fine if i > e - 12 else [arb(0.5), arb(31) / 32, arb(1)]):
            low, high = a * power(i), b * power(i)
            if low < top:
                yield span(low, high.min(top))


def signed(balls: Iterator[arb]) -> Iterator[arb]:
    """Each ball and its opposite."""
    for ball in balls:
        yield ball
        yield -ball


def worst(values: Iterator[arb]) -> arb:
    """The largest; NaN where one is not finite, so that no comparison holds."""
    result = arb(0)
    for value in values:
        if not value.is_finite():
            return arb.nan()
        result = result.max(value)
    return arb(result.upper())


# ---- exp, expm1 ------------------------------------------------------------------------------------------------------

REDUCED = 0.3467  # |r| <= (1/2 + 2^-42) log 2 + 2^-13.9
REDUCTION = power(-80)
"""k kLn2Low is off by its rounding and by that of the constant; k kLn2High and its difference from x are exact."""
MINUS = power(-64)
"""The relative errors of `minus`, which is at most 2^-13."""


def exp_rest(r: arb, error: arb | int) -> Computed:
    """rest, as a value of e^r - 1 for the r that is meant; the computed one is off by ``error``."""
    computed = model.exp_rest(Computed.of(r, error))
    return computed.standing_for(r.expm1(), r * r * polynomial_error("exp_rest"))


def _reductions(r: arb, minus: bool) -> arb:
    """The error of r for k != 0, and of the subtraction of `minus`."""
    first = half_ulp(abs(r) + power(-12)) + MINUS if minus else arb(0)
    return first + half_ulp(abs(r) + REDUCTION) + REDUCTION


def _exp(minus: bool) -> Iterator[arb]:
    for r in pieces(-REDUCED, REDUCED, 400):
        yield (1.0 + exp_rest(r, _reductions(r, minus))).relative(r.exp())


@cache
def exp() -> arb:
    return worst(_exp(False))


@cache
def exp_less() -> arb:
    """e^(x - minus)."""
    return worst(_exp(True))


def _expm1() -> Iterator[arb]:
    for r in signed(binades(REDUCED)):  # k = 0: r = x
        rest = exp_rest(r, 0)
        yield rest.relative(r.expm1(), ABSOLUTE)
    for k in [*range(-58, 0), *range(1, 64)]:
        one = 1.0 - 2.0 ** -min(k, 60)
        exact = 1 - power(-k)
        for r in pieces(-REDUCED, REDUCED, 200 if abs(k) < 3 else 12):
            rest = exp_rest(r, _reductions(r, False))
            total = Computed.of(exact, abs(exact - one)) + rest
            yield total.relative(exact + r.expm1())
    yield 2 + arb(-40).exp() * power(53)  # below -40 the value is the one at -40, which is within two units
    # From k = 64 on the term 2^-k changes nothing but by less than 2^-63.
    yield exp() + power(-9)


@cache
def expm1() -> arb:
    return worst(_expm1())


# ---- log, log1p ------------------------------------------------------------------------------------------------------


def _log_fraction(f: arb, error: arb | int) -> Computed:
    computed = model.log_fraction(Computed.of(f, error))
    s = f / (2 + f)
    return computed.standing_for(f.log1p(), abs(s) * s * s * polynomial_error("log_rest"))


def _log(error: arb | int) -> Iterator[arb]:
    for f in signed(binades(0.41422)):
        if not f < -0.29290:  # sqrt(1/2) - 1
            yield _log_fraction(f, 0).relative(f.log1p(), ABSOLUTE)
    for count, numbers in ((64, [*range(-4, 0), *range(1, 5)]), (6, [*range(-1075, -4), *range(5, 1025)])):
        for f in pieces(-0.29290, 0.41422, count):
            fraction = _log_fraction(f, error)
            for k in numbers:
                yield _log_sum(k, fraction).relative(k * arb(2).log() + f.log1p())


def _log_sum(k: int, fraction: Computed) -> Computed:
    ln2 = arb(2).log()
    low_part = Computed.of(k * (ln2 - C["kLn2High"]), abs(k) * abs(ln2 - C["kLn2High"] - C["kLn2Low"]))
    rounded = Computed.of(low_part.exact, low_part.error + half_ulp(abs(low_part.exact) + low_part.error))
    return C["kLn2High"] * k + (rounded + fraction)


@cache
def log() -> arb:
    return worst(_log(0))


@cache
def log1p() -> arb:
    """For k != 0 the sum (m - 1) + low 2^-k is rounded; for k > 100 it is off by 2^-100 more."""
    return worst(_log(power(-55) + power(-99)))


# ---- tanh, sigmoid ---------------------------------------------------------------------------------------------------


def _tanh() -> Iterator[arb]:
    for a in binades(0.5, lowest=-12):
        e = Computed.of((2 * a).expm1(), expm1() * UNIT * (2 * a).expm1())
        yield (e / (e + 2.0)).relative(a.tanh())
    yield expm1() + 2 + power(-9)  # below 2^-12: that of e, a sum that is 2 (1 + a), a quotient
    for a in pieces(0.5, 22, 400):
        e = Computed.of((2 * a).expm1(), expm1() * UNIT * (2 * a).expm1())
        yield (1.0 - 2.0 / (e + 2.0)).relative(a.tanh())
    yield 2 + 2 * arb(-44).exp() * power(53)  # beyond 22 the value is the one at 22, within two units


@cache
def tanh() -> arb:
    return worst(_tanh())


def _sigmoid() -> Iterator[arb]:
    for a in pieces(0, 40, 800):
        t = Computed.of((-a).exp(), exp() * UNIT * (-a).exp())
        yield (1.0 / (1.0 + t)).relative(1 / (1 + (-a).exp()))
        yield (t / (1.0 + t)).relative(1 / (1 + a.exp()))
    yield exp() + power(-3)  # beyond 40: 1 + t is 1 but for 2^-57, and t / 1 is t


@cache
def sigmoid() -> arb:
    return worst(_sigmoid())


# ---- erf, erfc, normal_cdf -------------------------------------------------------------------------------------------


def _erf_small(x: arb, error: arb | int = 0) -> Computed:
    computed = model.erf_small(Computed.of(x, error))
    return computed.standing_for(x.erf(), abs(x) * polynomial_error("erf_rest"))


def _tail(w: arb, error: arb | int) -> arb:
    """The relative error of gauss_tail at w, in units: e^, G, 1 + 2w, a product and a quotient."""
    argument = model.tail_argument(Computed.of(w, error))
    t = (w - 3) / (w + 3)
    # From 5 on: 2 / (w + sqrt(w^2 + 2)) < sqrt(pi) e^(w^2) erfc(w) <= 1 / w (Abramowitz & Stegun 7.1.13).
    true = (w * w).exp() * w.erfc() * (1 + 2 * w) if w < 5 else span(arb(1), arb("1.3"))
    value = model.horner("tail", Computed.of(t, argument.error))
    value = value.standing_for(true, polynomial_error("tail"))
    scale = 1.0 + exactly(Computed.of(2 * w, 2 * arb(error)))
    units = value.relative(true) + scale.relative(1 + 2 * w) + exp_less() + 2
    return units * (1 + power(-40))


def _outer(error: Callable[[arb], arb | int], lower: float, upper: float) -> Iterator[tuple[arb, arb]]:
    """Pieces of w and the relative error of the tail there."""
    for w in [*pieces(lower, 5, 300), *pieces(5, upper, 100)]:
        yield w, _tail(w, error(w))


def _no_error(w: arb) -> int:
    return 0


def _argument_error(w: arb) -> arb:
    """Of a kSqrtHalf: the product's rounding and the constant's."""
    return half_ulp(w) + w * UNIT


def _less(one: int, units: arb, tail: arb) -> Computed:
    """1 - tail or 2 - tail."""
    return float(one) - Computed.of(tail, units * UNIT * tail + ABSOLUTE)


def _erf() -> Iterator[arb]:
    for x in binades(0.75):
        yield _erf_small(x).relative(x.erf(), ABSOLUTE)
    for w, units in _outer(_no_error, 0.75, 28):
        yield _less(1, units, w.erfc()).relative(w.erf())
    yield arb(2)  # beyond 28 both are 1 up to 2^-1000


@cache
def erf() -> arb:
    return worst(_erf())


def _erfc() -> Iterator[arb]:
    for x in signed(pieces(0, 0.75, 100)):
        yield (1.0 - _erf_small(x)).relative(x.erfc())
    for w, units in _outer(_no_error, 0.75, 28):
        yield units
        yield _less(2, units, w.erfc()).relative((-w).erfc())


@cache
def erfc() -> arb:
    return worst(_erfc())


def _normal_cdf() -> Iterator[arb]:
    for w in signed(pieces(0, 0.7501, 100)):
        inner = _erf_small(w, _argument_error(abs(w)))
        half = exactly(Computed.of(inner.exact / 2, inner.error / 2))
        yield (0.5 + half).relative((-w).erfc() / 2)
    for w, units in _outer(_argument_error, 0.7499, 27.6):
        yield units
        yield _less(1, units, w.erfc() / 2).relative((-w).erfc() / 2)


@cache
def normal_cdf() -> arb:
    return worst(_normal_cdf())


# ---- activations: relative errors of products, quotients and sums of one sign ----------------------------------------

SECOND = 1 + power(-30)
"""What products of errors add."""


def softplus() -> arb:
    """log(1 + t) passes on at most the relative error of t; the sum of two numbers >= 0 the larger of theirs."""
    return (exp() + log1p() + 1) * SECOND


def silu() -> arb:
    return (sigmoid() + 1) * SECOND


def gelu() -> arb:
    return (normal_cdf() + 1) * SECOND


def gelu_tanh() -> arb:
    """Beyond 5 units of y: 1 of x^2, 2 of the cubic constant and its product, 1 of the sum of positive terms, 1 of the
    product with x. sigmoid(y) passes on |y| / (1 + e^y) times them: less than 1 for y >= 0."""
    return (sigmoid() + 1) * SECOND


def elu() -> arb:
    return (expm1() + 1) * SECOND


def selu() -> arb:
    """One for the constant, one for the product."""
    return (expm1() + 2) * SECOND


def celu() -> arb:
    """For t <= 0, e^t - 1 passes on at most the relative error of t."""
    return (expm1() + 2) * SECOND


def mish() -> arb:
    """n = w (w + 2) has at most (2 w + 2) / (w + 2) times the error of w, and 2; n / (n + 2) takes 2 / (n + 2) times
    that, which is largest for w = 0, and 2 more; then the product with x."""
    return (exp() + 5) * SECOND


# ---- sin, cos, atan --------------------------------------------------------------------------------------------------

TURNED = power(-95)
"""The absolute error of r for k != 0, before its last rounding: kHalfPi3, its product with k, and the sum with what the
second difference has lost, all below 2^-48."""
WAVE_ABSOLUTE = power(-90)


def _sine(r: arb, error: arb | int) -> Computed:
    computed = model.sine(Computed.of(r, error))
    return computed.standing_for(r.sin(), abs(r) * r * r * polynomial_error("sin_rest"))


def _cosine(r: arb, error: arb | int) -> Computed:
    computed = model.cosine(Computed.of(r, error))
    return computed.standing_for(r.cos(), (r * r) ** 2 * polynomial_error("cos_rest"))


def _waves() -> Iterator[arb]:
    for r in binades(0.786):
        yield _sine(r, 0).relative(r.sin(), ABSOLUTE)
    for r in binades(0.786, lowest=-110):
        error = half_ulp(r + TURNED) + TURNED
        yield _sine(r, error).relative(r.sin(), WAVE_ABSOLUTE)
        yield _cosine(r, error).relative(r.cos())
    tiny = span(-power(-108), power(-108))
    yield _cosine(tiny, power(-90)).relative(tiny.cos())
    # Below 2^-108 sin(r) itself, its value and their distance are below 2^-94, less than WAVE_ABSOLUTE.


@cache
def sin() -> arb:
    return worst(_waves())


cos = sin


def _atan_small(t: Computed) -> Computed:
    computed = model.atan_small(t)
    return computed.standing_for(t.exact.atan(), abs(t.exact) ** 3 * polynomial_error("atan_rest"))


def _atan() -> Iterator[arb]:
    quarter, half = arb.pi() / 4, arb.pi() / 2
    for a in binades(0.4140625):
        yield _atan_small(Computed.of(a)).relative(a.atan(), ABSOLUTE)
    for a in pieces(0.4140625, 2.4140625, 800):
        x = Computed.of(a)
        turned = _atan_small((x - 1.0) / (x + 1.0))
        yield (Computed.of(quarter, abs(quarter - C["kQuarterPi"])) + turned).relative(a.atan())
    for reciprocal in pieces(0, 1 / 2.4140625, 200):
        t = Computed.of(-reciprocal, half_ulp(reciprocal))
        yield (Computed.of(half, abs(half - C["kHalfPi"])) + _atan_small(t)).relative(half - reciprocal.atan())


@cache
def atan() -> arb:
    return worst(_atan())


THEOREMS: dict[str, Callable[[], arb]] = {
    f.__name__: f
    for f in (
        exp,
        expm1,
        log,
        log1p,
        tanh,
        sigmoid,
        erf,
        erfc,
        normal_cdf,
        softplus,
        silu,
        gelu,
        gelu_tanh,
        elu,
        selu,
        celu,
        mish,
    )
} | {"sin": sin, "cos": sin, "atan": atan}
