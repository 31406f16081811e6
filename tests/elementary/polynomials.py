"""The constants and polynomials of csrc/math: coefficients near the best ones for their degree.

    python -m tests.elementary.polynomials

writes csrc/math/constants.h. Each polynomial interpolates its target at the Chebyshev nodes of an interval, in
arithmetic of 400 bits, and its coefficients are rounded to float64. Nothing of a proof rests on how they were found:
:mod:`tests.elementary.approximation` bounds the error of the rounded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flint import arb, arb_mat, ctx, fmpq

HEADER = Path(__file__).parents[2] / "csrc" / "math" / "constants.h"
BITS = 400


@dataclass(frozen=True)
class Target:
    """What a polynomial approximates, on which interval, to which degree.

    Attributes:
        meaning: one line for the header.
        function: the target at a ball that does not contain 0.
    """

    meaning: str
    function: Callable[[arb], arb]
    lower: fmpq
    upper: fmpq
    degree: int


def _odd(f: Callable[[arb], arb]) -> Callable[[arb], arb]:
    """g with f(x) = x g(x^2)."""
    return lambda z: f(z.sqrt()) / z.sqrt()


def tail_argument(w: arb) -> arb:
    """t = (w - 3) / (w + 3), which takes [0.75, 28] to [-0.6, 0.807]."""
    return (w - 3) / (w + 3)


def _tail(t: arb) -> arb:
    w = 3 * (1 + t) / (1 - t)
    return (w * w).exp() * w.erfc() * (1 + 2 * w)


TARGETS = {
    "exp_rest": Target(
        "(e^r - 1 - r) / r^2 on |r| <= 0.3467",
        lambda r: (r.expm1() - r) / (r * r),
        fmpq(-3467, 10000),
        fmpq(3468, 10000),
        10,
    ),
    "log_rest": Target(
        "(2 atanh(s) / s - 2) / s^2 in z = s^2 on |s| <= 0.1717",
        lambda z: (2 * _odd(arb.atanh)(z) - 2) / z,
        fmpq(0),
        fmpq(1717**2, 10**8),
        7,
    ),
    "erf_rest": Target(
        "erf(x) / x - 1 in z = x^2 on |x| <= 0.7503", lambda z: _odd(arb.erf)(z) - 1, fmpq(0), fmpq(563, 1000), 11
    ),
    "tail": Target(
        "e^(w^2) erfc(w) (1 + 2 w) in t = (w - 3) / (w + 3) on 0.74 <= w <= 28.1",
        _tail,
        fmpq(74 - 300, 74 + 300),
        fmpq(281 - 30, 281 + 30),
        19,
    ),
    "sin_rest": Target(
        "(sin(r) / r - 1) / r^2 in z = r^2 on |r| <= 0.786",
        lambda z: (_odd(arb.sin)(z) - 1) / z,
        fmpq(0),
        fmpq(786**2, 10**6),
        6,
    ),
    "cos_rest": Target(
        "(cos(r) - 1 + r^2 / 2) / r^4 in z = r^2 on |r| <= 0.786",
        lambda z: (z.sqrt().cos() - 1 + z / 2) / (z * z),
        fmpq(0),
        fmpq(786**2, 10**6),
        5,
    ),
    "atan_rest": Target(
        "(atan(t) / t - 1) / t^2 in z = t^2 on |t| <= 0.4144",
        lambda z: (_odd(arb.atan)(z) - 1) / z,
        fmpq(0),
        fmpq(4144**2, 10**8),
        12,
    ),
}


@cache
def coefficients(name: str) -> tuple[float, ...]:
    """The coefficients of a polynomial in float64, of the lowest degree first."""
    target = TARGETS[name]
    before, ctx.prec = ctx.prec, BITS
    try:
        count = target.degree + 1
        middle, half = arb(target.lower + target.upper) / 2, arb(target.upper - target.lower) / 2
        nodes = [middle + half * arb.cos_pi_fmpq(fmpq(2 * i + 1, 2 * count)) for i in range(count)]
        matrix = arb_mat([[node**j for j in range(count)] for node in nodes])
        values = arb_mat([[target.function(node)] for node in nodes])
        solution = matrix.solve(values)
        return tuple(float(solution[j, 0].mid()) for j in range(count))
    finally:
        ctx.prec = before


def _parts(exact: arb, *units: int) -> list[float]:
    """Numbers that add up to nearly ``exact``: multiples of 2^-unit, rounded down, and what is left, rounded."""
    parts = []
    for unit in units:
        part = float((exact * arb(2) ** unit).floor().unique_fmpz() or 0) * 2.0**-unit
        parts.append(part)
        exact = exact - part
    return [*parts, float(exact.mid())]


@cache
def constants() -> dict[str, float]:
    """The constants in float64, by their names in C++."""
    before, ctx.prec = ctx.prec, BITS
    try:
        ln2, half_pi, beta = arb(2).log(), arb.pi() / 2, 2 * (2 / arb.pi()).sqrt()
        alpha, scale = arb("1.6732632423543772848170429916717"), arb("1.0507009873554804934193349852946")
        high, low = _parts(ln2, 40)
        first, second, third = _parts(half_pi, 32, 65)
        exact = {
            "kLog2E": 1 / ln2,
            "kTwoOverPi": 1 / half_pi,
            "kQuarterPi": half_pi / 2,
            "kHalfPi": half_pi,
            "kSqrtHalf": arb(0.5).sqrt(),
            "kTwoOverSqrtPi": 2 / arb.pi().sqrt(),
            "kNormalDensity": 1 / (2 * arb.pi()).sqrt(),
            "kGeluLinear": beta,
            "kGeluCubic": beta * arb("0.044715"),
            "kSeluScale": scale,
            "kSeluNegative": scale * alpha,
        }
        parts = {"kLn2High": high, "kLn2Low": low, "kHalfPi1": first, "kHalfPi2": second, "kHalfPi3": third}
        return parts | {name: float(value.mid()) for name, value in exact.items()}
    finally:
        ctx.prec = before


def header() -> str:
    """The text of csrc/math/constants.h."""
    lines = [
        "// Written by python -m tests.elementary.polynomials. The errors of these polynomials are proven by",
        "// tests/elementary/approximation.py.",
        "#pragma once",
        "",
        '#include "hostdevice.h"',
        "",
        "namespace zonocuda {",
        "",
        "/// c0 + x (c1 + x (c2 + ...)), by Horner's rule.",
        "template <class... C>",
        "ZONOCUDA_HD double horner(double x, double first, C... rest) {",
        "  if constexpr (sizeof...(rest) == 0) {",
        "    return first;",
        "  } else {",
        "    return first + x * horner(x, rest...);",
        "  }",
        "}",
    ]
    meanings = {
        "kLn2High": "40 bits of log 2, so that k times it is exact for |k| < 2^13; kLn2Low: what is left",
        "kHalfPi1": "33 bits of pi / 2, then 33 more, then what is left: k times the first two is exact for k < 2^20",
        "kGeluLinear": "2 sqrt(2 / pi); kGeluCubic: 0.044715 times that",
        "kSeluScale": "as torch.nn.SELU has it; kSeluNegative: times its alpha",
    }
    lines.append("")
    for name, value in constants().items():
        lines += [f"/// {meanings[name]}."] if name in meanings else []
        lines.append(f"constexpr double {name} = {value.hex()};")
    for name, target in TARGETS.items():
        numbers = [f"{c.hex()}" for c in coefficients(name)]
        body = ",\n                ".join(numbers)
        lines += [
            "",
            "// clang-format off",
            f"/// {target.meaning}.",
            f"ZONOCUDA_HD double {name}_polynomial(double x) {{",
            f"  return horner(x, {body});",
            "}",
            "// clang-format on",
        ]
    return "\n".join([*lines, "", "}  // namespace zonocuda", ""])


if __name__ == "__main__":
    HEADER.write_text(header())
