"""Functions of a gate: GELU in both forms, SiLU, Mish, Hardswish; and those with an exponential before 0: ELU, CELU.

x times a function that rises from 0 to 1 is concave, then convex, then concave; f' falls from 0 to its least value at
the first inflection point, rises to its largest at the second, and falls to 1. There is no formula for the t with
f'(t) = s: a table gives it, and a few steps of the secant method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from zonocuda.ops import elementary
from zonocuda.relaxations.curve import ABSOLUTE, CONCAVE, CONVEX, RELATIVE, STRAIGHT, Curve, Turn, relative

Derivative = Callable[[Tensor], tuple[Tensor, Tensor]]

BLUR = 2.0**-98
"""Inflection points are those of float64 within 2^-50, and |f'''| < 1 there: M delta <= 2^-100."""
FAR = 40.0
"""Beyond -FAR and FAR every gate is 0 or 1, but for e^-40 or less."""
LARGEST_SLOPE = 3e38
"""That float32 holds; lines need not be steeper."""
NODES = 512
STEPS = 3


# ---- derivatives, with their errors --------------------------------------------------------------------------------


def _silu_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(x) (1 + x sigmoid(-x)); beyond |x| = 750 it is 0 or 1 but for e^-740."""
    x = x.clamp(-750.0, 750.0)
    gate, rest = elementary(x, "sigmoid"), x * elementary(-x, "sigmoid")
    return relative(gate * (1 + rest), gate * (1 + rest.abs()))


def _gelu_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """Phi(x) + x phi(x): the rounding of x^2 / 2 costs x^2 units of phi. Beyond |x| = 40 it is 0 or 1 but for
    e^-790."""
    x = x.clamp(-FAR, FAR)
    gate, square = elementary(x, "normal_cdf"), x.square()
    rest = x * elementary(-0.5 * square, "exp") / math.sqrt(2 * math.pi)
    return relative(gate + rest, gate + rest.abs() * (1 + square))


def _gelu_tanh_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """s(y) + x y' s(y) s(-y), with s the sigmoid and y = 2 sqrt(2 / pi) (x + 0.044715 x^3).

    y is within 8 units of |y|, which costs s(y) s(-y) |y| of them in s(y), and |y| of them in s(y) s(-y). Beyond |x| =
    30 (|y| > 1900) f' is 0 or 1 but for e^-1800.
    """
    x = x.clamp(-30.0, 30.0)
    scale, square = 2 * math.sqrt(2 / math.pi), x.square()
    y = scale * x * (1 + 0.044715 * square)
    inner = scale * x * (1 + 3 * 0.044715 * square)
    gate = elementary(y, "sigmoid")
    both = gate * elementary(-y, "sigmoid")
    size = gate + inner.abs() * both + y.abs() * both * (1 + inner.abs())
    return relative(gate + inner * both, size)


def _mish_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """g + x (1 - g^2) sigmoid(x) with g = tanh(log(1 + w)) = n / (n + 2), n = w (w + 2), w = e^x.

    1 - g = 2 / (n + 2). Beyond x = 40 f' is 1 but for e^-70, far less than RELATIVE; before -750, 0 but for e^-740.
    """
    x = x.clamp(-750.0, FAR)
    w = elementary(x, "exp")
    n = w * (w + 2)
    gate = n / (n + 2)
    rest = x * (2 / (n + 2)) * (1 + gate) * elementary(x, "sigmoid")
    return relative(gate + rest, gate + rest.abs())


# ---- where a line touches ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """t with f'(t) = s on one piece where f' is monotone: nodes t, close to each other at inflection points, and f'
    there, ascending."""

    nodes: Tensor
    slopes: Tensor

    @staticmethod
    def of(derivative: Derivative, nodes: Tensor) -> _Piece:
        slopes = derivative(nodes)[0]
        if bool(slopes[0] > slopes[-1]):
            nodes, slopes = nodes.flip(0), slopes.flip(0)
        return _Piece(nodes.contiguous(), slopes.cummax(0).values.contiguous())

    def touching(self, derivative: Derivative, slope: Tensor, steps: int) -> Tensor:
        """About t; where no t has the slope, the end that is nearest to it."""
        cell = torch.searchsorted(self.slopes, slope.contiguous()).clamp(1, NODES)
        left, right = self.nodes[cell - 1], self.nodes[cell]
        low, high = self.slopes[cell - 1], self.slopes[cell]
        pace = (right - left) / (high - low).clamp(min=1e-300)
        first, last = torch.minimum(left, right), torch.maximum(left, right)
        t = torch.minimum(torch.maximum(left + (slope - low) * pace, first), last)
        before, there = left, low
        for _ in range(steps):  # the secant method, within the cell
            here = derivative(t)[0]
            rise = here - there
            pace = torch.where(rise == 0, pace, (t - before) / torch.where(rise == 0, 1.0, rise))
            before, there = t, here
            t = torch.minimum(torch.maximum(t + (slope - here) * pace, first), last)
        return t


@cache
def _pieces(derivative: Derivative, breaks: tuple[float, float], device: torch.device) -> tuple[_Piece, ...]:
    share = torch.linspace(0, 1, NODES + 1, dtype=torch.float64, device=device)
    between = breaks[0] + (breaks[1] - breaks[0]) * (1 - (math.pi * share).cos()) / 2
    outer = share.square()
    nodes = (breaks[0] - (FAR + breaks[0]) * outer, between, breaks[1] + (FAR - breaks[1]) * outer)
    with torch.no_grad():
        return tuple(_Piece.of(derivative, each) for each in nodes)


def _touching(derivative: Derivative, breaks: tuple[float, float], steps: int) -> Callable[[Tensor, int], Tensor]:
    """In the pieces that have no end, no t has the slope beyond that at infinity, 0 or 1: there it is at infinity."""

    def of_piece(slope: Tensor, piece: int) -> Tensor:
        t = _pieces(derivative, breaks, slope.device)[piece].touching(derivative, slope, steps)
        if piece == 1:
            return t
        return torch.where(slope >= 0, -math.inf, t) if piece == 0 else torch.where(slope <= 1, math.inf, t)

    return of_piece


def _gated(
    function: str, derivative: Derivative, breaks: tuple[float, float], limits: tuple[float, float], turn: Turn
) -> Curve:
    return Curve(
        function,  # type: ignore[arg-type]
        derivative,
        _touching(derivative, breaks, STEPS),
        limits,
        breaks=breaks,
        bends=(CONCAVE, CONVEX, CONCAVE),
        blur=BLUR,
        rough=_touching(derivative, breaks, 0),
        turn=turn,
        ends=(0.0, None),
    )


_SILU, _GELU, _GELU_TANH = 2.3993572805154675, math.sqrt(2), 1.4185040087908283

GELU = _gated(
    "gelu",
    _gelu_slope,
    (-_GELU, _GELU),
    (-0.12891, 1.12891),
    Turn(-0.7517915247, -0.7517915246, -0.16997120747990370),
)
GELU_TANH = _gated(
    "gelu_tanh",
    _gelu_tanh_slope,
    (-_GELU_TANH, _GELU_TANH),
    (-0.129, 1.129),
    Turn(-0.7524614221, -0.7524614220, -0.17004075057125409),
)
SILU = _gated(
    "silu",
    _silu_slope,
    (-_SILU, _SILU),
    (-0.09984, 1.09984),
    Turn(-1.2784645428, -1.2784645427, -0.27846454276107383),
)
MISH = _gated(
    "mish",
    _mish_slope,
    (-2.256376396360793, 1.4905711794854284),
    (-0.11253, 1.0885),
    Turn(-1.1924312146, -1.1924312145, -0.30884341301725044),
)

HARDSWISH = Curve(
    "hardswish",
    lambda x: ((2 * x + 3) / 6, torch.full_like(x, 2.0**-46)),
    lambda s, piece: 3 * s - 1.5,
    (-0.5, 1.5),
    breaks=(-3.0, 3.0),
    bends=(STRAIGHT, CONVEX, STRAIGHT),
    turn=Turn(-1.5, -1.5, -0.375),
    ends=(0.0, None),
    zero_to=-3.0,
    same_from=3.0,
)
"""x max(0, min(6, x + 3)) / 6: 0, a parabola, and x."""

GATED = {curve.function: curve for curve in (GELU, GELU_TANH, SILU, MISH, HARDSWISH)}


def elu(alpha: float) -> Curve:
    """x where x >= 0, else alpha (e^x - 1)."""

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        return relative(alpha * elementary(x.clamp(max=0.0), "exp"))

    return Curve(
        "elu",
        slope,
        lambda s, piece: (s / alpha).clamp(min=0).log(),
        (0.0, min(max(1.0, alpha), LARGEST_SLOPE)),
        breaks=(0.0,),
        bends=(CONVEX, STRAIGHT),
        parameter=alpha,
        same_from=0.0,
    )


def celu(alpha: float) -> Curve:
    """x where x >= 0, else alpha (e^(x / alpha) - 1): the rounding of x / alpha costs |x / alpha| units."""

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        z = (x / alpha).clamp(-750.0, 0.0)
        value = elementary(z, "exp")
        return value, value * (1 + z.abs()) * RELATIVE + ABSOLUTE

    return Curve(
        "celu",
        slope,
        lambda s, piece: alpha * s.clamp(0, 1).log(),
        (0.0, 1.0),
        breaks=(0.0,),
        bends=(CONVEX, STRAIGHT),
        parameter=alpha,
        same_from=0.0,
    )
