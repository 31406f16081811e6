"""Smooth functions f of one input in balls: where they bend, and bounds of f(x) - s x on an interval for any slope s.

On a piece [a, b] where f is convex, every t in it tells

    f(x) - s x >= f(t) - s t + (f'(t) - s)(x - t) >= f(t) - s t - max((f'(t) - s)+ (t - a), (s - f'(t))+ (b - t)),

and where f is concave or a line the least value is at a or b; the largest value is minus the least one of -f + s x. So
the t where a line of slope s touches f is searched for in floats: it may be any. Values and derivatives are those of
the library Arb (truncated power series), in balls. About an inflection point that is no number of this machine lies a
piece whose bend is not known, from 2^-40 before a float near it to 2^-40 behind: there the mean value theorem bounds f,
with a ball around f'. Intervals of f itself are those for s = 0.

How the functions bend (``tests/check/test_functions.py`` looks at f'' in balls, too). With g the logistic function:

* exp, expm1, softplus (f'' = g (1 - g)), 1 / sqrt, even powers, 1 / x for x > 0 are convex; log, log1p, sqrt are
  concave; odd powers are concave before 0 and convex behind, 1 / x is concave before 0;
* sigmoid (f'' = g' (1 - 2 g)), tanh (-2 f f'), erf (-2 x f'), atan (-2 x f'^2) and softsign (x / (1 + |x|)) are convex
  before 0 and concave behind;
* GELU: f'' = (2 - x^2) phi(x); SiLU: f'' = g' (2 - x tanh(x / 2)), and x tanh(x / 2) rises with |x|: concave, convex
  between two points, concave. So are the form of GELU with tanh and Mish, whose f'' are looked at on [-40, 40]; before,
  and behind, they are 0 or x but for a product of a polynomial and an exponential function, whose largest term decides;
* ELU and CELU (alpha > 0) are convex before 0 and a line behind, Hardswish a line, a parabola and a line;
* sin is convex on [(2 k - 1) pi, 2 k pi], cos pi / 2 before that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from flint import arb, arb_series
from numpy.typing import NDArray

from zonocuda.checker.arithmetic import ONE
from zonocuda.graph import Elementary

CONVEX, STRAIGHT, CONCAVE = 1, 0, -1
SEAM = 2.0**-40
MOST_PIECES = 64
"""Of a wave; on longer intervals -1 <= f <= 1 is all that is used."""
STEPS = 100
"""Of the search for where a line touches, at most."""

Formula = Callable[[Any], Any]
"""f of a ball, or of a power series."""


@dataclass(frozen=True)
class Piece:
    """f on [first, last], with one bend, or None where that is not known; ``slope`` is about f'."""

    first: float
    last: float
    bend: int | None
    value: Formula
    slope: Callable[[float], float]


@dataclass(frozen=True)
class Function:
    """A function: its pieces on [l, u], from left to right and side by side, which cover [l, u] where f is defined on
    all of it; and bounds of f everywhere."""

    pieces: Callable[[float, float], Iterator[Piece]]
    image: tuple[float, float] = (-math.inf, math.inf)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def least(op: Elementary, slope: float, lower: float, upper: float) -> float:
    """At most f(x) - slope x for every x in [lower, upper]; minus infinity where nothing is known."""
    return _extreme(function_of(op), slope, lower, upper, 1)


def most(op: Elementary, slope: float, lower: float, upper: float) -> float:
    """At least that."""
    return -_extreme(function_of(op), slope, lower, upper, -1)


def each(
    bound: Callable[[Elementary, float, float, float], float], op: Elementary, slope: Any, lower: Any, upper: Any
) -> NDArray[np.float64]:
    """:func:`least` or :func:`most` of arrays, which broadcast."""
    arrays = np.broadcast_arrays(np.asarray(slope, np.float64), lower, upper)
    known: dict[tuple[float, float, float], float] = {}
    found = np.empty(arrays[0].size)
    for place, key in enumerate(zip(*(t.ravel().tolist() for t in arrays), strict=True)):
        value = known.get(key)
        if value is None:
            value = known[key] = bound(op, *key)
        found[place] = value
    return found.reshape(arrays[0].shape)


def _extreme(function: Function, slope: float, lower: float, upper: float, sign: int) -> float:
    """At most sign (f(x) - slope x)."""
    everywhere = function.image[0] if sign == 1 else -function.image[1]
    if not (math.isfinite(slope) and -math.inf < lower <= upper < math.inf):
        return everywhere if slope == 0 and lower <= upper else -math.inf
    s, best, reached = arb(slope), None, lower
    for piece in function.pieces(lower, upper):
        a, b = max(lower, piece.first), min(upper, piece.last)
        if a > b:
            continue
        if a > reached:
            return -math.inf
        reached = b
        for value in _candidates(piece, s, slope, a, b, sign):
            best = value if best is None else best.min(value)
    if best is None or reached < upper or not best.is_finite():
        return everywhere if slope == 0 and best is not None and reached >= upper else -math.inf
    found = _down(best)
    return max(found, everywhere) if slope == 0 else found


def _candidates(piece: Piece, s: arb, slope: float, a: float, b: float, sign: int) -> Iterator[arb]:
    """Numbers of which one is at most sign (f(x) - s x) on [a, b]."""

    def at(x: float) -> arb:
        value: arb = (piece.value(arb(x)) - s * x) * sign
        return value

    if piece.bend is None and a < b:
        middle = a / 2 + b / 2
        around = arb(a).union(arb(b))
        yield at(middle) + (_expansion(piece, around)[1] - s) * sign * (around - middle)
    elif piece.bend is None or piece.bend * sign <= 0 or a == b:
        yield at(a)
        if b > a:
            yield at(b)
    else:
        t = _touching(piece, slope, a, b, sign)
        value, derivative = _expansion(piece, arb(t))
        rise, off = (derivative - s) * sign, arb(0)
        if t > a:
            off = off.max(rise * (arb(t) - a))
        if t < b:
            off = off.max(-rise * (arb(b) - t))
        yield (value - s * t) * sign - off


def _expansion(piece: Piece, x: arb) -> tuple[arb, arb]:
    """f and f' at every point of a ball; no numbers where a divisor may be 0, as one that has overflowed."""
    try:
        found = piece.value(arb_series([x, ONE], 2))
    except ValueError:
        return arb("nan"), arb("nan")
    return (found[0], found[1]) if isinstance(found, arb_series) else (arb(found), arb(0))


def _touching(piece: Piece, slope: float, a: float, b: float, sign: int) -> float:
    """About where f' is the slope, on a piece where sign f' rises: by false position (Illinois)."""
    low, high = ((piece.slope(x) - slope) * sign for x in (a, b))
    if not low < 0:
        return a
    if not high > 0:
        return b
    side = 0
    for step in range(STEPS):
        t = b - high * (b - a) / (high - low) if math.isfinite(high - low) and step % 8 < 7 else a / 2 + b / 2
        if not a < t < b:
            return min(max(t, a), b)
        rise = (piece.slope(t) - slope) * sign
        if rise < 0:
            a, low = t, rise
            high = high / 2 if side == -1 else high
            side = -1
        elif rise > 0:
            b, high = t, rise
            low = low / 2 if side == 1 else low
            side = 1
        else:
            return t
        if b - a <= 1e-14 * max(abs(a), abs(b)):
            break
    return a if -low < high else b


def _down(value: arb) -> float:
    """A float below."""
    end = value.lower()
    near = float(end.mid())
    return near if arb(near) <= end else math.nextafter(near, -math.inf)


# ---- the functions ---------------------------------------------------------------------------------------------------


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))


def _gate(x: float) -> float:
    """The logistic function."""
    return 1 / (1 + _exp(-x))


def _silu_slope(x: float) -> float:
    return _gate(x) * (1 + x * _gate(-x))


def _gelu_slope(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2 + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _gelu_tanh(x: Any) -> Any:
    return x / (1 + (-2 * (2 / arb.pi()).sqrt() * (x + x * x * x * arb("0.044715"))).exp())


def _gelu_tanh_slope(x: float) -> float:
    if abs(x) > 30:
        return float(x > 0)
    scale = 2 * math.sqrt(2 / math.pi)
    gate = _gate(scale * x * (1 + 0.044715 * x * x))
    return gate + gate * (1 - gate) * scale * x * (1 + 3 * 0.044715 * x * x)


def _mish(x: Any) -> Any:
    n = x.exp()
    return x * (1 - 2 / (n * (n + 2) + 2))


def _mish_slope(x: float) -> float:
    if x > 40:
        return 1.0
    w = math.exp(max(x, -700.0))
    n = w * (w + 2)
    return n / (n + 2) + x * (2 / (n + 2)) * (1 + n / (n + 2)) * _gate(x)


def _erf_slope(x: float) -> float:
    return 2 / math.sqrt(math.pi) * math.exp(-x * x)


def _over(first: float, last: float, bend: int, value: Formula, slope: Callable[[float], float]) -> Function:
    """One piece; an end that is 0 or -1 belongs to it."""
    piece = Piece(first, last, bend, value, slope)
    return Function(lambda lower, upper: iter((piece,)))


def _bending(
    value: Formula,
    slope: Callable[[float], float],
    breaks: tuple[float, ...],
    bends: tuple[int, ...],
    image: tuple[float, float] = (-math.inf, math.inf),
    is_exact: bool = False,
) -> Function:
    """Pieces between breaks, about which lie seams where the breaks are not exact."""
    width = 0.0 if is_exact else SEAM
    pieces, first = [], -math.inf
    for point, bend in zip((*breaks, math.inf), bends, strict=True):
        pieces.append(Piece(first, point - width, bend, value, slope))
        first = point + width
        if width and point < math.inf:
            pieces.append(Piece(point - width, first, None, value, slope))
    return Function(lambda lower, upper: iter(pieces), image)


def _joined(*pieces: Piece, image: tuple[float, float] = (-math.inf, math.inf)) -> Function:
    return Function(lambda lower, upper: iter(pieces), image)


def _s_shaped(value: Formula, slope: Callable[[float], float], image: tuple[float, float]) -> Function:
    return _bending(value, slope, (0.0,), (CONVEX, CONCAVE), image, is_exact=True)


def _gated(value: Formula, slope: Callable[[float], float], breaks: tuple[float, float]) -> Function:
    return _bending(value, slope, breaks, (CONCAVE, CONVEX, CONCAVE))


def _wave(value: Formula, slope: Callable[[float], float], quarter: int) -> Function:
    """Half waves between points near (k - quarter / 2) pi, with seams about them: convex where k is odd."""

    def pieces(lower: float, upper: float) -> Iterator[Piece]:
        first, last = (end / math.pi + quarter / 2 for end in (lower, upper))
        if last - first > MOST_PIECES or max(-lower, upper) > 2.0**30:
            yield Piece(lower, upper, None, _unit, slope)
            return
        width = 2.0**-50 * (8 + max(-lower, upper))  # far more than what products with pi round
        for k in range(math.floor(first) - 1, math.ceil(last) + 1):
            begin, end = ((n - quarter / 2) * math.pi for n in (k, k + 1))
            yield Piece(begin - width, begin + width, None, value, slope)
            yield Piece(begin + width, end - width, CONVEX if k % 2 else CONCAVE, value, slope)

    return Function(pieces, (-1.0, 1.0))


def _unit(x: Any) -> Any:
    """All that is known of a wave."""
    around = arb(0, 1)
    return arb_series([around, arb(0)], 2) if isinstance(x, arb_series) else around


def _power(n: float) -> Function:
    def slope(x: float) -> float:
        try:
            return n * x ** (int(n) - 1)
        except OverflowError:
            return math.inf if x > 0 or int(n) % 2 else -math.inf

    def value(x: Any) -> Any:
        return x ** int(n)

    if n != int(n) or n < 2:
        raise NotImplementedError(f"zonocuda check: powers of exponent {n} are not supported")
    if int(n) % 2 == 0:
        return _over(-math.inf, math.inf, CONVEX, value, slope)
    return _bending(value, slope, (0.0,), (CONCAVE, CONVEX), is_exact=True)


def _with_line(value: Formula, slope: Callable[[float], float]) -> Function:
    """Convex before 0, x behind."""
    return _joined(
        Piece(-math.inf, 0.0, CONVEX, value, slope), Piece(0.0, math.inf, STRAIGHT, lambda x: x, lambda x: 1.0)
    )


def _elu(alpha: float) -> Function:
    _positive(alpha)
    return _with_line(lambda x: (x.exp() - 1) * arb(alpha), lambda x: alpha * _exp(x))


def _celu(alpha: float) -> Function:
    _positive(alpha)
    return _with_line(lambda x: ((x / arb(alpha)).exp() - 1) * arb(alpha), lambda x: _exp(x / alpha))


def _positive(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise NotImplementedError(f"zonocuda check: alpha {alpha} is not supported")


_TINY = 5e-324
_BEFORE, _BEHIND = (lambda x: x / (1 - x)), (lambda x: x / (1 + x))

_FUNCTIONS: dict[str, Callable[[float], Function]] = {
    "exp": lambda _: _over(-math.inf, math.inf, CONVEX, lambda x: x.exp(), _exp),
    "expm1": lambda _: _over(-math.inf, math.inf, CONVEX, lambda x: x.exp() - 1, _exp),
    "log": lambda _: _over(_TINY, math.inf, CONCAVE, lambda x: x.log(), lambda x: 1 / x),
    "log1p": lambda _: _over(-1 + 2.0**-53, math.inf, CONCAVE, lambda x: (x + 1).log(), lambda x: 1 / (1 + x)),
    "tanh": lambda _: _s_shaped(
        lambda x: 1 - 2 / (1 + (x * 2).exp()), lambda x: 4 * _gate(2 * x) * _gate(-2 * x), (-1.0, 1.0)
    ),
    "sigmoid": lambda _: _s_shaped(lambda x: 1 / (1 + (-x).exp()), lambda x: _gate(x) * _gate(-x), (0.0, 1.0)),
    "erf": lambda _: _s_shaped(lambda x: x.erf(), _erf_slope, (-1.0, 1.0)),
    "atan": lambda _: _s_shaped(lambda x: x.atan(), lambda x: 1 / (1 + x * x), (-1.6, 1.6)),
    "softsign": lambda _: _joined(
        Piece(-math.inf, 0.0, CONVEX, _BEFORE, lambda x: (1 - x) ** -2),
        Piece(0.0, math.inf, CONCAVE, _BEHIND, lambda x: (1 + x) ** -2),
        image=(-1.0, 1.0),
    ),
    "softplus": lambda _: _over(-math.inf, math.inf, CONVEX, lambda x: (1 + x.exp()).log(), _gate),
    "silu": lambda _: _gated(lambda x: x / (1 + (-x).exp()), _silu_slope, (-2.3993572805154675, 2.3993572805154675)),
    "gelu": lambda _: _gated(
        lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2, _gelu_slope, (-math.sqrt(2), math.sqrt(2))
    ),
    "gelu_tanh": lambda _: _gated(_gelu_tanh, _gelu_tanh_slope, (-1.4185040087908283, 1.4185040087908283)),
    "mish": lambda _: _gated(_mish, _mish_slope, (-2.256376396360793, 1.4905711794854284)),
    "elu": _elu,
    "celu": _celu,
    "hardswish": lambda _: _joined(
        Piece(-math.inf, -3.0, STRAIGHT, lambda x: x * 0, lambda x: 0.0),
        Piece(-3.0, 3.0, CONVEX, lambda x: x * (x + 3) / 6, lambda x: (2 * x + 3) / 6),
        Piece(3.0, math.inf, STRAIGHT, lambda x: x, lambda x: 1.0),
    ),
    "sin": lambda _: _wave(lambda x: x.sin(), math.cos, 0),
    "cos": lambda _: _wave(lambda x: x.cos(), lambda x: -math.sin(x), 1),
    "reciprocal": lambda _: _joined(
        Piece(-math.inf, -_TINY, CONCAVE, lambda x: 1 / x, lambda x: -(1 / x) * (1 / x)),
        Piece(_TINY, math.inf, CONVEX, lambda x: 1 / x, lambda x: -(1 / x) * (1 / x)),
    ),
    "sqrt": lambda _: _over(0.0, math.inf, CONCAVE, lambda x: x.sqrt(), lambda x: 0.5 / math.sqrt(max(x, 1e-300))),
    "rsqrt": lambda _: _over(_TINY, math.inf, CONVEX, lambda x: 1 / x.sqrt(), lambda x: -0.5 / x / math.sqrt(x)),
    "power": _power,
}


@cache
def _function(name: str, parameter: float) -> Function:
    if name not in _FUNCTIONS:
        raise NotImplementedError(f"zonocuda check: op {name} is not supported")
    return _FUNCTIONS[name](parameter)


def function_of(op: Elementary) -> Function:
    """The function of an operator.

    Raises:
        NotImplementedError: a function that is not known here.
    """
    return _function(op.function, float(op.parameter))
