"""Functions that rise from one limit to another, convex before 0 and concave behind it: sigmoid, tanh, erf, arctangent,
softsign.

Their derivatives are even and fall from x = 0 on, so that a line of slope s touches at -t and t, t >= 0, f'(t) = s.

Slopes to begin with on [l, u], l < 0 < u, need no search. As a line below f gets steeper, the place where it touches
moves from l through the convex part, and from -t jumps to u, where the line through u touches at -t: with its slope, or
that of the chord where -t <= l. A line above f jumps from t to l likewise. The distance of both is least at the first
of the two jumps. What a line below wastes is least where it touches in the middle of [l, u], or jumps across it
(:mod:`zonocuda.relaxations.starts`). t depends on u alone and is looked up in a table: soundness asks nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from zonocuda.ops import elementary
from zonocuda.relaxations.curve import CONCAVE, CONVEX, Curve, relative
from zonocuda.relaxations.smooth import SmoothRule
from zonocuda.relaxations.starts import Aim

_LEAST = 1e-300
_OCTAVES, _STEPS = (-10, 20), 16
"""The table's powers of two, and how many places each has."""


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


class SShapedRule(SmoothRule):
    """The rule of one of these; see the module."""

    def _searched(self, lower: Tensor, upper: Tensor, aim: Aim, found: Tensor, rest: Tensor, chord: Tensor) -> Tensor:
        if not bool(rest.any()):
            return found
        ends = torch.stack([upper, -lower])
        touching = ends * _looked_up(self.curve, ends)
        steepest = torch.where(touching >= ends.flip(0), chord, self.curve.slope(touching))  # before the jumps
        if aim == "area":
            return torch.where(rest, steepest.amin(0), found)
        side = 0 if aim == "below" else 1
        middle = (lower / 2 + upper / 2) * (2 * side - 1)  # how far on the side where the line touches
        touches = middle >= torch.minimum(touching[side], ends[1 - side])
        return torch.where(rest, torch.where(touches, self.curve.slope(middle), steepest[side]), found)


def _looked_up(curve: Curve, x: Tensor) -> Tensor:
    """About t / x, where the line through f(x) touches at -t, x > 0."""
    table = _table(curve).to(x.device)
    place = ((x.log2() - _OCTAVES[0]) * _STEPS).nan_to_num(0.0).clamp(0, len(table) - 1)
    first = place.floor().clamp(max=len(table) - 2)
    index = first.long()
    return torch.lerp(table[index], table[index + 1], place - first)


@cache
def _table(curve: Curve) -> Tensor:
    """t / x at the powers of two, by bisection: f'(t) (x + t) falls below f(x) - f(-t) at t, which lies in [0, x]."""
    first, last = _OCTAVES
    x = 2.0 ** torch.linspace(first, last, (last - first) * _STEPS + 1, dtype=torch.float64, device="cpu")
    low, high = torch.zeros_like(x), torch.ones_like(x)
    for _ in range(40):
        ratio = (low + high) / 2
        t = ratio * x
        before = curve.slope(t) * (x + t) > curve.value(x) - curve.value(-t)
        low, high = torch.where(before, ratio, low), torch.where(before, high, ratio)
    return (low + high) / 2
