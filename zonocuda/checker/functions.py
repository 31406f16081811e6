"""Functions f of one input in balls: where they bend, and bounds of f(x) - s x on an interval for any slope s.

From their pieces :mod:`zonocuda.checker.pieces` has bounds of f(x) - s x on an interval. About an inflection point that
is no number of this machine lies a piece whose bend is not known, from 2^-40 before a float near it to 2^-40 behind.

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
from functools import cache
from typing import Any

import numpy as np
from flint import arb, arb_series
from numpy.typing import NDArray

from zonocuda.checker.pieces import CONCAVE, CONVEX, STRAIGHT, Formula, Function, Piece, extreme
from zonocuda.checker.steps import STEPS
from zonocuda.graph import Elementwise

SEAM = 2.0**-40
MOST_PIECES = 64
"""Of a wave; on longer intervals -1 <= f <= 1 is all that is used."""


# ---- bounds ----------------------------------------------------------------------------------------------------------


def least(op: Elementwise, slope: float, lower: float, upper: float) -> float:
    """At most f(x) - slope x for every x in [lower, upper]; minus infinity where nothing is known."""
    return extreme(function_of(op), slope, lower, upper, 1)


def most(op: Elementwise, slope: float, lower: float, upper: float) -> float:
    """At least that."""
    return -extreme(function_of(op), slope, lower, upper, -1)


def each(
    bound: Callable[[Elementwise, float, float, float], float], op: Elementwise, slope: Any, lower: Any, upper: Any
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
    if name in STEPS:
        return STEPS[name]
    if name not in _FUNCTIONS:
        raise NotImplementedError(f"zonocuda check: op {name} is not supported")
    return _FUNCTIONS[name](parameter)


def function_of(op: Elementwise) -> Function:
    """The function of an operator.

    Raises:
        NotImplementedError: a function that is not known here.
    """
    return _function(op.function, float(op.parameter))
