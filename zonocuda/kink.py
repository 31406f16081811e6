"""The choice of a derivative where a ReLU slope sits on the kink of its zonotope.

The offset mu(lam) = max(-l lam, u (1 - lam)) / 2 has its minimum, and a kink, at lam* = u / (u - l), which is the usual
initial slope. Its one-sided derivatives there are -u/2 (left) and -l/2 (right); a rule picks
dmu/dlam = -(theta l + (1 - theta) u) / 2 with theta in [0, 1]:

========== ===================== ==================================================================================
rule       theta                 meaning
========== ===================== ==================================================================================
envelope   lam*                  dmu/dlam = 0: the derivative along the minimum-area slopes (the default)
left       0                     the derivative from below
right      1                     the derivative from above
even       1/2                   what autograd makes of ``torch.maximum``
min_norm   clip((u-2A/m)/d,0,1)  the theta that minimises |dL/dlam|; A and m are the incoming gradients (d = u - l)
========== ===================== ==================================================================================
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from zonocuda.roundoff import gamma, unit_roundoff

KinkRule = Literal["envelope", "left", "right", "even", "min_norm"]
KINK_RULES: tuple[KinkRule, ...] = get_args(KinkRule)


def kink_tolerance(dtype: torch.dtype, symbols: int) -> float:
    """How far a slope may be from lam* and still count as on the kink: 4 u + gamma_K / 2.

    u is the unit roundoff of ``dtype``, K = ``symbols`` the number of summands of the radius, and
    gamma_K = K u / (1 - K u) bounds the relative error of that sum in any order: a sum in another order moves lam*,
    which is at most 1, by at most about gamma_K / 2 absolutely, and forming u, d and the quotient adds four roundings.

    Raises:
        ValueError: so many symbols that gamma_K is meaningless (K u >= 1), or a dtype without rounding.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"kink_tolerance: dtype must be a floating-point one, got {dtype}")
    u = unit_roundoff(dtype)
    if symbols * u >= 1:
        raise ValueError(f"kink_tolerance: {symbols} symbols are too many for {dtype}")
    return 4 * u + gamma(symbols, u, limit=1) / 2


def check_tolerance(tolerance: float | None, dtype: torch.dtype, symbols: int) -> float:
    """The given tolerance, or ``kink_tolerance(dtype, symbols)`` for None.

    Raises:
        ValueError: a negative tolerance or NaN, which would put every slope on one side of its kink.
    """
    if tolerance is None:
        return kink_tolerance(dtype, symbols)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    return tolerance


def check_kink(kink: str) -> int:
    """The position of a rule in KINK_RULES, which is its number in the native ops.

    Raises:
        ValueError: an unknown rule.
    """
    if kink not in KINK_RULES:
        raise ValueError(f"kink must be one of {', '.join(KINK_RULES)}, got {kink!r}")
    return KINK_RULES.index(kink)
