"""Functions that rise from one limit to another, convex before 0 and concave behind it: sigmoid, tanh, erf, arctangent,
softsign.

Their derivatives are even and fall from x = 0 on, so that a line of slope s touches at -t and t, t >= 0, f'(t) = s.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from zonocuda.ops import elementary
from zonocuda.relaxations.curve import CONCAVE, CONVEX, Curve, relative

_LEAST = 1e-300


def _both(touching: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """-t in the first piece, t in the second."""

    def of_piece(slope: Tensor, piece: int) -> Tensor:
        t = touching(slope)
        return t if piece else -t

    return of_piece


def _inverse_cosh(slope: Tensor) -> Tensor:
    """arcosh(1 / sqrt s), for s in (0, 1]."""
    s = slope.clamp(_LEAST, 1.0)
    return (1 - s).sqrt().log1p() - s.log() / 2


def _sigmoid_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(x) sigmoid(-x): 12 units."""
    return relative(elementary(x, "sigmoid") * elementary(-x, "sigmoid"))


def _tanh_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 - tanh^2 = 4 sigmoid(2 x) sigmoid(-2 x)."""
    value, error = _sigmoid_slope(2 * x)
    return 4 * value, 4 * error


def _erf_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """2 / sqrt(pi) e^(-x^2): the rounding of x^2 costs x^2 units; it is 0 beyond |x| = 28 but for e^-784."""
    square = x.clamp(-28.0, 28.0).square()
    value = (2 / math.sqrt(math.pi)) * elementary(-square, "exp")
    return relative(value, value * (1 + square))


def _atan_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(1 / (1 + x.square()))


def _softsign_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(1 / (1 + x.abs()).square())


_BREAKS, _BENDS = (0.0,), (CONVEX, CONCAVE)

SIGMOID = Curve(
    "sigmoid", _sigmoid_slope, _both(lambda s: 2 * _inverse_cosh(4 * s)), (0.0, 0.25), breaks=_BREAKS, bends=_BENDS
)
TANH = Curve("tanh", _tanh_slope, _both(_inverse_cosh), (0.0, 1.0), breaks=_BREAKS, bends=_BENDS)
ERF = Curve(
    "erf",
    _erf_slope,
    _both(lambda s: (-(s * (math.sqrt(math.pi) / 2)).clamp(_LEAST, 1.0).log()).sqrt()),
    (0.0, 2 / math.sqrt(math.pi)),
    breaks=_BREAKS,
    bends=_BENDS,
)
ATAN = Curve(
    "atan",
    _atan_slope,
    _both(lambda s: ((1 - s.clamp(_LEAST, 1.0)) / s.clamp(_LEAST, 1.0)).sqrt()),
    (0.0, 1.0),
    breaks=_BREAKS,
    bends=_BENDS,
)
SOFTSIGN = Curve(
    "softsign",
    _softsign_slope,
    _both(lambda s: (1 - s.clamp(_LEAST, 1.0).sqrt()) / s.clamp(_LEAST, 1.0).sqrt()),
    (0.0, 1.0),
    breaks=_BREAKS,
    bends=_BENDS,
    ends=(-1.0, 1.0),
)

S_SHAPED = {curve.function: curve for curve in (SIGMOID, TANH, ERF, ATAN, SOFTSIGN)}
