"""Rigorous bounds of |P(x) - g(x)| on the whole interval of each polynomial of csrc/math.

P - g is expanded around the middle m of each of many pieces [m - rho, m + rho]: sum |d_i| rho^i bounds it there, with
d_i as balls of Arb.

* All targets but the tail are power series around 0 with known, decreasing coefficients: P minus the first TERMS of
  them is a polynomial, expanded exactly, and what is left is below |a_N| X^N / (1 - X) on |x| <= X < 1.
* The tail G(t) = e^(w^2) erfc(w) (1 + 2 w), w = 3 (1 + t) / (1 - t), is analytic in |t| < 1, which w takes to the right
  half-plane, where |e^(w^2) erfc(w)| = |2/sqrt(pi) int_0^inf e^(-s^2 - 2 w s) ds| <= 1. On the circle |t - m| = delta
  inside, |G| <= M = 1 + 12 / (1 - |m| - delta), so the n-th coefficient is at most M / delta^n (Cauchy).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from flint import arb, arb_poly, arb_series, ctx

from tests.elementary.polynomials import TARGETS, coefficients

TERMS = 80
ORDER = 16  # of the expansions of the tail
BITS = 500


def _sign(k: int) -> int:
    return -1 if k % 2 else 1


SERIES: dict[str, Callable[[int], arb]] = {
    "exp_rest": lambda k: 1 / arb(k + 2).gamma() / (k + 2),
    "log_rest": lambda k: arb(2) / (2 * k + 3),
    "erf_rest": lambda k: _sign(k) * 2 / arb.pi().sqrt() / arb(k + 1).gamma() / (2 * k + 1) - (1 if k == 0 else 0),
    "sin_rest": lambda k: _sign(k + 1) / arb(2 * k + 4).gamma(),
    "cos_rest": lambda k: _sign(k) / arb(2 * k + 5).gamma(),
    "atan_rest": lambda k: _sign(k + 1) / arb(2 * k + 3),
}
"""The coefficients of the targets' power series around 0; from k = 1 on their magnitudes decrease."""


def _size(values: list[arb], rho: arb) -> arb:
    """sum |v_i| rho^i."""
    total = arb(0)
    for value in reversed(values):
        total = total * rho + abs(value)
    return arb(total.upper())


def _pieces(name: str, count: int) -> list[tuple[arb, arb]]:
    """Middles and half-widths that cover the interval."""
    target = TARGETS[name]
    half = (target.upper - target.lower) / (2 * count)
    return [(arb(target.lower + half * (2 * i + 1)), arb(half)) for i in range(count)]


def _series_error(name: str) -> arb:
    largest = max(abs(TARGETS[name].lower), abs(TARGETS[name].upper))
    rest = abs(SERIES[name](TERMS)) * arb(largest) ** TERMS / (1 - arb(largest))
    own = [arb(c) for c in coefficients(name)]
    own += [arb(0)] * (TERMS - len(own))
    difference = arb_poly([c - SERIES[name](k) for k, c in enumerate(own)])
    worst = arb(0)
    for middle, rho in _pieces(name, 64):
        worst = worst.max(_size(difference(arb_poly([middle, 1])).coeffs(), rho))
    return arb((worst + rest).upper())


def _tail_error() -> arb:
    polynomial = arb_poly([arb(c) for c in coefficients("tail")])
    worst, before = arb(0), ctx.cap
    ctx.cap = ORDER
    try:
        for middle, rho in _pieces("tail", 160):
            t = arb_series([middle, 1])
            w = 3 * (1 + t) / (1 - t)
            g = ((w * w).exp() * w.erfc() * (1 + 2 * w)).coeffs()
            p = polynomial(arb_poly([middle, 1])).coeffs()
            assert len(g) == ORDER
            known = [p_i - g_i for p_i, g_i in zip(p, g, strict=False)] + p[ORDER:]
            room = 1 - abs(middle)
            delta = room * 3 / 4
            bound = 1 + 12 / (room - delta)
            ratio = rho / delta
            worst = worst.max(_size(known, rho) + bound * ratio**ORDER / (1 - ratio))
    finally:
        ctx.cap = before
    return arb(worst.upper())


@cache
def error(name: str) -> arb:
    """A bound of |P - g| on the interval of the polynomial."""
    before, ctx.prec = ctx.prec, BITS
    try:
        return _tail_error() if name == "tail" else _series_error(name)
    finally:
        ctx.prec = before
