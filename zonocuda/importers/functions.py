"""Functions of one input as both importers write them, and those that exporters write with several nodes.

Products of a value with a function of itself are recognised, so that they become one function of it:

    x * x                                        x^2
    x * sigmoid(x), x * tanh(softplus(x))        SiLU, Mish
    x / (|x| + 1)                                softsign
    a x * b (1 + erf(s x))                       (2 a b / k) gelu(k x), k = sqrt(2) s

The last is exact whatever number a file has for 1 / sqrt(2), as GELU is x (1 + erf(x / sqrt 2)) / 2.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from zonocuda.functions import FunctionName
from zonocuda.graph import Elementary, Relu, ScaleShift, Staircase
from zonocuda.graph.elementwise import StepName
from zonocuda.graph.whole import Absolute
from zonocuda.importers.builder import GraphBuilder, Value
from zonocuda.importers.errors import refuse
from zonocuda.importers.lowering import derived, scale_shift

LARGEST_POWER = 1024
_ALPHAS = 2.0**-500, 2.0**500


def elementary(
    builder: GraphBuilder, name: str, x: Value, function: FunctionName, parameter: float = 1.0, whole: bool = False
) -> Value:
    """f(x), elementwise; ``whole``: as one operator of the network, by itself."""
    return builder.emit(name, Elementary(function, parameter, whole), x)


def step(builder: GraphBuilder, name: str, x: Value, function: StepName) -> Value:
    """Sign, floor, ceil or round, elementwise."""
    return builder.emit(name, Staircase(function), x)


def elu(builder: GraphBuilder, name: str, x: Value, alpha: float, scale: float = 1.0) -> Value:
    """scale * (x where x >= 0, else alpha (e^x - 1))."""
    own = name if scale == 1 else f"{name}/elu"
    out = _with_alpha(builder, own, x, "elu", alpha, scale == 1)
    return out if scale == 1 else scale_shift(builder, name, out, _number(scale), None)


def celu(builder: GraphBuilder, name: str, x: Value, alpha: float) -> Value:
    """x where x >= 0, else alpha (e^(x / alpha) - 1)."""
    return _with_alpha(builder, name, x, "celu", alpha, True)


def _with_alpha(builder: GraphBuilder, name: str, x: Value, function: FunctionName, alpha: float, whole: bool) -> Value:
    if alpha == 0 and function == "elu":
        return builder.emit(name, Relu(), x)
    if not _ALPHAS[0] <= alpha <= _ALPHAS[1]:
        refuse(f"its alpha must be positive, got {alpha:.6g}")
    return elementary(builder, name, x, function, alpha, whole)


def gelu(builder: GraphBuilder, name: str, x: Value, approximate: str) -> Value:
    """x Phi(x), or its approximation by a tanh."""
    if approximate not in ("none", "tanh"):
        refuse(f"approximate={approximate!r} is not supported")
    return elementary(builder, name, x, "gelu" if approximate == "none" else "gelu_tanh", whole=True)


def power(builder: GraphBuilder, name: str, x: Value, exponent: float) -> Value:
    """x^exponent, for a constant exponent: 1/2, -1/2, -1, or an integer from 1 on."""
    if exponent == 1:
        return x
    roots: dict[float, FunctionName] = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent in roots:
        return elementary(builder, name, x, roots[exponent], whole=True)
    if not 2 <= exponent <= LARGEST_POWER or exponent != int(exponent):
        refuse(f"an exponent of {exponent:.6g} is not supported; 1/2, -1/2, -1 and integers from 1 to 1024 are")
    return elementary(builder, name, x, "power", float(exponent), True)


def softplus(builder: GraphBuilder, name: str, x: Value, beta: float, threshold: float) -> Value:
    """log(1 + e^(beta x)) / beta; torch returns x itself where beta x > threshold, which has to be what rounding makes
    of it: log(1 + e^-t) is less than e^-t."""
    if not beta > 0:
        refuse(f"its beta must be positive, got {beta:.6g}")
    if not math.exp(min(-threshold, 1.0)) <= torch.finfo(x.dtype).eps * max(1.0, threshold):
        refuse(f"it jumps at its threshold of {threshold:.6g}, by more than {x.dtype} rounds; use a larger one")
    if beta == 1:
        return elementary(builder, name, x, "softplus", whole=True)
    inner = scale_shift(builder, f"{name}/beta", x, _number(beta), None)
    out = elementary(builder, f"{name}/softplus", inner, "softplus")
    return scale_shift(builder, name, out, derived(_number(1 / beta)), None, roundings=1)


# ---- recognised ------------------------------------------------------------------------------------------------------


def recognised_product(builder: GraphBuilder, name: str, a: Value, b: Value) -> Value | None:
    """The function of one value that a product of two is; None where it is none that is known."""
    if a.node == b.node:
        return elementary(builder, name, a, "power", 2.0)
    for x, gate in ((a, b), (b, a)):
        if _is_function(builder, gate, "sigmoid") and builder.before(gate).node == x.node:
            return elementary(builder, name, x, "silu")
        if _is_function(builder, gate, "tanh"):
            inner = builder.before(gate)
            if _is_function(builder, inner, "softplus") and builder.before(inner).node == x.node:
                return elementary(builder, name, x, "mish")
        found = _gelu_of(builder, name, x, gate)
        if found is not None:
            return found
    return None


def recognised_quotient(builder: GraphBuilder, name: str, a: Value, b: Value) -> Value | None:
    """The same of a / b."""
    line = _line(builder, b)
    if line is None or line[1:] != (1.0, 1.0, 0):
        return None
    part = builder.node(line[0]).part
    absolute = part is not None and isinstance(part.whole, Absolute) and part.inputs == (a.node,)
    return elementary(builder, name, a, "softsign") if absolute else None


def _gelu_of(builder: GraphBuilder, name: str, x: Value, gate: Value) -> Value | None:
    """a x * b (1 + erf(s x)) as (2 a b / k) gelu(k x); a and s have the roundings of their nodes."""
    outer = _line(builder, gate)
    if outer is None or outer[1] != outer[2] or outer[3] or not _is_function(builder, outer[0], "erf"):
        return None  # with roundings the two could be two numbers
    inner = _line(builder, builder.before(outer[0])) or (builder.before(outer[0]), 1.0, 0.0, 0)
    own = _line(builder, x)
    if own is None or own[0].node != inner[0].node:
        own = (x, 1.0, 0.0, 0)
    if own[0].node != inner[0].node or own[2] or inner[2] or not inner[1] > 0 or own[1] == 0 or outer[1] == 0:
        return None
    wide, outside = math.sqrt(2) * inner[1], 2 * own[1] * outer[1]
    if not all(sys.float_info.min <= abs(number) < math.inf for number in (wide, outside, outside / wide)):
        return None  # no count of roundings covers what underflows
    roundings = own[3] + inner[3] + 8
    stretched = scale_shift(builder, f"{name}/inner", own[0], _number(wide), None, roundings)
    bent = elementary(builder, f"{name}/gelu", stretched, "gelu")
    return scale_shift(builder, name, bent, _number(outside / wide), None, roundings)


def _is_function(builder: GraphBuilder, value: Value, function: FunctionName) -> bool:
    op = builder.node(value).op
    return isinstance(op, Elementary) and op.function == function


def _line(builder: GraphBuilder, value: Value) -> tuple[Value, float, float, int] | None:
    """x, scale, shift and roundings of a value that is scale x + shift with two numbers; None where it is not."""
    op = builder.node(value).op
    if not isinstance(op, ScaleShift) or op.doubt or builder.node(value).part is not None:
        return None
    scale, shift = (_same_everywhere(t, none) for t, none in ((op.scale, 1.0), (op.shift, 0.0)))
    if scale is None or shift is None:
        return None
    return builder.before(value), scale, shift, op.roundings


def _same_everywhere(constant: Tensor | None, none: float) -> float | None:
    """The number that a constant has in every place."""
    if constant is None:
        return none
    first = constant.detach().double().reshape(-1)[0]
    return float(first) if bool((constant.detach().double() == first).all()) else None


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")
