"""Functions with one bend on their domain, or one on each side of 0: exp, softplus, powers, roots, logarithms, 1 / x.

Outside its domain f is NaN, and so are its lines; around a pole they are infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.ops import elementary
from zonocuda.relaxations.curve import CONCAVE, CONVEX, RELATIVE, Curve, Turn, relative
from zonocuda.relaxations.smooth import SmoothRule
from zonocuda.relaxations.starts import Aim


def _exp_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(elementary(x, "exp"))


def _positive(slope: Tensor, t: Tensor) -> Tensor:
    """t where the slope is positive, else infinity: f' falls to 0."""
    return torch.where(slope > 0, t, math.inf)


def _sqrt_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(0.5 / x.sqrt())


def _rsqrt_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(-0.5 / x / x.sqrt())


def _reciprocal_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    return relative(-(1 / x) * (1 / x))


def _reciprocal_touching(slope: Tensor, piece: int) -> Tensor:
    t = torch.where(slope < 0, (-slope).rsqrt(), math.inf)
    return t if piece else -t


EXP = Curve("exp", _exp_slope, lambda s, piece: s.clamp(min=0).log(), (0.0, math.inf))
EXPM1 = Curve("expm1", _exp_slope, lambda s, piece: s.clamp(min=0).log(), (0.0, math.inf))
SOFTPLUS = Curve(
    "softplus",
    lambda x: relative(elementary(x, "sigmoid")),
    lambda s, piece: s.clamp(0, 1).logit(),
    (0.0, 1.0),
)
LOG = Curve("log", lambda x: relative(1 / x), lambda s, piece: _positive(s, 1 / s), (0.0, math.inf), bends=(CONCAVE,))
LOG1P = Curve(
    "log1p",
    lambda x: relative(1 / (1 + x)),
    lambda s, piece: _positive(s, 1 / s - 1),
    (0.0, math.inf),
    bends=(CONCAVE,),
)
SQRT = Curve("sqrt", _sqrt_slope, lambda s, piece: _positive(s, 0.25 / s.square()), (0.0, math.inf), bends=(CONCAVE,))
RSQRT = Curve(
    "rsqrt",
    _rsqrt_slope,
    lambda s, piece: _positive(-s, (-2 * s).clamp(min=0) ** (-2 / 3)),
    (-math.inf, 0.0),
    rises=False,
)
RECIPROCAL = Curve(
    "reciprocal",
    _reciprocal_slope,
    _reciprocal_touching,
    (-math.inf, 0.0),
    breaks=(0.0,),
    bends=(CONCAVE, CONVEX),
    rises=False,
    pole=0.0,
)


class ExpRule(SmoothRule):
    """Lines below e^x that begin at a slope e^t with t < l + 1 are positive on [l, u]."""

    def __init__(self) -> None:
        super().__init__(EXP)

    def _initial(self, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
        found = super()._initial(lower, upper, aim)
        return found if aim == "above" else torch.minimum(found, (lower + 0.95).exp())


class ReciprocalRule(SmoothRule):
    """Lines below 1 / x, x > 0, that touch at t > u / 2 are positive on [l, u]; for x < 0 the same of -1 / -x."""

    def __init__(self) -> None:
        super().__init__(RECIPROCAL)

    def _initial(self, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
        found = super()._initial(lower, upper, aim)
        farthest = torch.maximum(lower.abs(), upper.abs())
        return torch.maximum(found, -((0.505 * farthest) ** -2)) if aim == "area" else found


def power(n: float) -> Curve:
    """x^n for an integer n >= 2: convex, or for odd n concave before 0."""
    exponent = int(n)
    units = 2 * n * 2.0**-52 + RELATIVE

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value = n * elementary(x, "power", n - 1)
        return value, value.abs() * units + 2.0**-1000

    def touching(s: Tensor, piece: int) -> Tensor:
        root = (s.abs() / n) ** (1 / (n - 1))
        if exponent % 2 == 0:
            return root.copysign(s)
        return torch.where(s > 0, root if piece else -root, 0.0)

    if exponent % 2 == 0:
        bounds = (-math.inf, math.inf)
        return Curve("power", slope, touching, bounds, parameter=n, turn=Turn(0.0, 0.0, 0.0))
    bends = (CONCAVE, CONVEX)
    return Curve("power", slope, touching, (0.0, math.inf), breaks=(0.0,), bends=bends, parameter=n)


CONVEX_OR_CONCAVE = {curve.function: curve for curve in (EXP, EXPM1, SOFTPLUS, LOG, LOG1P, SQRT, RSQRT, RECIPROCAL)}
