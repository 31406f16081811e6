"""Which rule a smooth function has: one line each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from zonocuda.functions import FunctionName
from zonocuda.graph import Elementary
from zonocuda.relaxations.convex import CONVEX_OR_CONCAVE, ExpRule, ReciprocalRule, power
from zonocuda.relaxations.curve import Curve
from zonocuda.relaxations.gated import GATED, celu, elu
from zonocuda.relaxations.rule import Rule
from zonocuda.relaxations.s_shaped import S_SHAPED, SShapedRule
from zonocuda.relaxations.smooth import SmoothRule
from zonocuda.relaxations.waves import COS, SIN, WaveRule


def _without_parameter(curve: Curve) -> Callable[[float], Rule]:
    return lambda _: SmoothRule(curve)


def _s_shaped(curve: Curve) -> Callable[[float], Rule]:
    return lambda _: SShapedRule(curve)


FUNCTION_RULES: dict[FunctionName, Callable[[float], Rule]] = {
    **{name: _without_parameter(curve) for name, curve in {**CONVEX_OR_CONCAVE, **GATED}.items()},
    **{name: _s_shaped(curve) for name, curve in S_SHAPED.items()},
    "exp": lambda _: ExpRule(),
    "reciprocal": lambda _: ReciprocalRule(),
    "power": lambda n: SmoothRule(power(n)),
    "elu": lambda alpha: SmoothRule(elu(alpha)),
    "celu": lambda alpha: SmoothRule(celu(alpha)),
    "sin": lambda _: WaveRule(SIN),
    "cos": lambda _: WaveRule(COS),
}
"""By the name of a function, its rule, made for its parameter."""


@cache
def _rule(function: FunctionName, parameter: float) -> Rule:
    return FUNCTION_RULES[function](parameter)


def elementary_rule(op: Elementary) -> Rule:
    """The rule of an operator."""
    return _rule(op.function, op.parameter)
