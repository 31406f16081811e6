"""The smooth functions that have a rule: domains, intervals to try them on, and their values in ball arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from flint import arb, ctx
from torch import Tensor

from tests.elementary.model import ALPHA
from tests.elementary.oracle import ORACLES
from zonocuda.functions import FunctionName
from zonocuda.graph import Elementary
from zonocuda.ops import elementary
from zonocuda.relaxations import Rule
from zonocuda.relaxations.elementary import elementary_rule

inf = float("inf")


@dataclass(frozen=True)
class Case:
    """A function on (least, most), where it is finite."""

    function: FunctionName
    parameter: float = 1.0
    least: float = -inf
    most: float = inf

    def __str__(self) -> str:
        return self.function if self.parameter == 1 else f"{self.function}-{self.parameter:g}"

    @property
    def op(self) -> Elementary:
        return Elementary(self.function, self.parameter)

    @property
    def rule(self) -> Rule:
        return elementary_rule(self.op)

    def value(self, x: Tensor) -> Tensor:
        """f(x) in float64."""
        return elementary(x, self.function, self.parameter)

    def exact(self, x: float) -> arb:
        """f(x) to 300 bits."""
        return self.of_ball(arb(x))

    def of_ball(self, x: arb) -> arb:
        """A ball around f of a ball, in 300 bits."""
        before = ctx.prec
        ctx.prec = 300
        try:
            return x ** int(self.parameter) if self.function == "power" else ORACLES[self.function](x)
        finally:
            ctx.prec = before


def exact_value(op: Elementary, x: Fraction) -> arb:
    """f(x) to 300 bits."""
    before = ctx.prec
    ctx.prec = 300
    try:
        return Case(op.function, op.parameter).of_ball(arb(x.numerator) / x.denominator)
    finally:
        ctx.prec = before


def as_fraction(x: arb) -> Fraction:
    """The middle of a ball."""
    mantissa, exponent = x.mid().man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


CASES = [
    *(Case(name) for name in ("sigmoid", "tanh", "erf", "atan", "softsign", "softplus", "sin", "cos")),
    *(Case(name) for name in ("gelu", "gelu_tanh", "silu", "mish", "hardswish")),
    *(Case(name, most=80.0) for name in ("exp", "expm1")),
    *(Case(name, ALPHA) for name in ("elu", "celu")),
    *(Case(name, least=0.0) for name in ("log", "sqrt", "rsqrt")),
    Case("log1p", least=-1.0),
    *(Case("reciprocal", least=least, most=most) for least, most in ((0.0, inf), (-inf, 0.0))),
    *(Case("power", n) for n in (2.0, 3.0, 4.0, 7.0)),
]

WIDTHS = (0.0, 1e-9, 1e-4, 0.1, 1.0, 7.0, 100.0, 1e6)


def intervals(case: Case, dtype: torch.dtype, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random intervals of all widths, a number each, one ulp, in the function's domain and in the dtype; many are about
    0 and the places where functions bend."""
    generator = torch.Generator().manual_seed(seed)
    size = len(WIDTHS) * count
    width = torch.tensor(WIDTHS, dtype=torch.float64).repeat(count)
    scale = torch.tensor([0.01, 1.0, 4.0, 30.0], dtype=torch.float64).repeat(size)[:size]
    begin = scale * torch.randn(size, generator=generator, dtype=torch.float64) - width * torch.rand(
        size, generator=generator, dtype=torch.float64
    )
    if case.least > -inf:
        begin = case.least + begin.abs().clamp(min=1e-4)
    end = begin + width
    if case.most < inf:
        end = torch.minimum(end, torch.full_like(end, case.most - 1e-4))
        begin = torch.minimum(begin, end)
    low, high = begin.to(dtype), end.to(dtype)
    ulp = torch.nextafter(low, torch.full_like(low, inf))
    narrow = torch.arange(size) % (2 * len(WIDTHS)) == 0
    return low, torch.maximum(low, torch.where(narrow, ulp, high))


def slopes(case: Case, lower: Tensor, upper: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Slopes to begin with, and random ones between the steepest and beyond."""
    rule = case.rule
    ends = rule.reach(lower, upper)
    above = rule.above(lower, upper)
    assert ends is not None
    assert above is not None
    share = torch.rand(len(lower), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(lower.dtype)
    return {
        "minimum_area": rule.initial(lower, upper),
        "adaptive": rule.initial(lower, upper, "adaptive"),
        "above": above,
        "random": ends[0] + 1.4 * (share - 0.2) * (ends[1] - ends[0]),
        "zero": torch.zeros_like(lower),
    }


def sampled(case: Case, lower: Tensor, upper: Tensor, slope: Tensor, count: int = 801) -> tuple[Tensor, Tensor, Tensor]:
    """Points ``[P, N]`` in float64 among which f - s x is least and largest, about, and these."""
    low, high, s = (t.double() for t in (lower, upper, slope))
    share = torch.linspace(0, 1, count, dtype=torch.float64).unsqueeze(1)
    fine = torch.linspace(0, 1, 33, dtype=torch.float64).unsqueeze(1)
    kept = [torch.stack([low, high])]
    for pick in (torch.argmin, torch.argmax):
        a, b = low, high
        for number in range(4):
            x = torch.minimum(a + (b - a) * (share if number == 0 else fine), b)
            best = pick(case.value(x) - s * x, dim=0)
            step = (b - a) / (len(x) - 1)
            at = x.gather(0, best.unsqueeze(0)).squeeze(0)
            kept.append(at.unsqueeze(0))
            a, b = torch.maximum(at - step, low), torch.minimum(at + step, high)
    points = torch.cat(kept)
    h = case.value(points) - s * points
    return points, h.amin(0), h.amax(0)
