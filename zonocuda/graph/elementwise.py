"""Functions of one input, applied to each element: smooth ones, with one entry for each, and steps.

What importers read is here beside the operator: the names of a function in ONNX and ATen, where one node without
parameters is the function, and how fast it changes. Its bounds are a rule of :mod:`zonocuda.relaxations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zonocuda.functions import FunctionName
from zonocuda.graph.ops import Cast, Op
from zonocuda.reference import elementary


@dataclass(frozen=True, eq=False)
class Elementwise(Op):
    """y = f(x), elementwise.

    Attributes:
        function: the name of f.
        parameter: a number that f depends on; not all do.
    """

    function: str
    parameter: float = 1.0

    @property
    def kind(self) -> str:
        return self.function

    def change(self, x: Tensor, by: Tensor) -> Tensor:
        """At least |f(x + d) - f(x)| for |d| <= ``by``, but for rounding; for an f that rises or falls everywhere."""
        here = self.apply(x)
        return torch.maximum((self.apply(x - by) - here).abs(), (self.apply(x + by) - here).abs())


StepName = Literal["sign", "floor", "ceil", "round"]

_STEPS: dict[StepName, Callable[[Tensor], Tensor]] = {
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
}


@dataclass(frozen=True, eq=False)
class Staircase(Elementwise):
    """A function that is constant between jumps, and nowhere falls: the sign (0 at 0), or the largest integer below x,
    the least above, or the nearest, of two as near the even one. Its values are computed exactly; NaN gives NaN."""

    function: StepName

    def apply(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return torch.where(x.isnan(), x, _STEPS[self.function](x))


@dataclass(frozen=True, eq=False)
class Elementary(Elementwise):
    """y = f(x), elementwise: one of :data:`zonocuda.functions.FUNCTIONS`, as :func:`zonocuda.ops.elementary` defines
    it.

    Attributes:
        function: the name of f.
        parameter: alpha of ``elu`` and ``celu``, n of ``power``.
        whole: whether it is one operator of the network, by itself, which machines execute as such.
    """

    function: FunctionName
    whole: bool = False

    def apply(self, *inputs: Tensor) -> Tensor:
        return elementary(inputs[0], self.function, self.parameter)

    def change(self, x: Tensor, by: Tensor) -> Tensor:
        """At least |f(x + d) - f(x)| for |d| <= ``by``, but for rounding."""
        entry = ENTRIES[self.function]
        if entry.steepest is not None:
            return entry.steepest(self.parameter) * by
        if self.function == "power":
            size = x.abs()
            return self.apply(size + by) - self.apply(size)
        return super().change(x, by)


@dataclass(frozen=True)
class Entry:
    """What is known of a function.

    Attributes:
        onnx: the ONNX operator that is the function, without attributes; None where there is none.
        aten: the ATen operators that are.
        steepest: at least |f'|, by the parameter; None where there is no such bound: f is monotone then, or a power.
    """

    onnx: str | None
    aten: str
    steepest: Callable[[float], float] | None


def _at_most(bound: float) -> Callable[[float], float]:
    return lambda parameter: bound


ENTRIES: dict[FunctionName, Entry] = {
    "exp": Entry("Exp", "exp.default", None),
    "expm1": Entry(None, "expm1.default", None),
    "log": Entry("Log", "log.default", None),
    "log1p": Entry(None, "log1p.default", None),
    "tanh": Entry("Tanh", "tanh.default", _at_most(1.0)),
    "sigmoid": Entry("Sigmoid", "sigmoid.default", _at_most(0.25)),
    "erf": Entry("Erf", "erf.default special_erf.default", _at_most(1.1284)),
    "softplus": Entry("Softplus", "", _at_most(1.0)),
    "silu": Entry(None, "silu.default", _at_most(1.1)),
    "gelu": Entry(None, "", _at_most(1.13)),
    "gelu_tanh": Entry(None, "", _at_most(1.13)),
    "elu": Entry(None, "", lambda alpha: max(1.0, alpha)),
    "celu": Entry(None, "", _at_most(1.0)),
    "mish": Entry("Mish", "mish.default", _at_most(1.09)),
    "softsign": Entry("Softsign", "", _at_most(1.0)),
    "hardswish": Entry("HardSwish", "hardswish.default", _at_most(1.5)),
    "sin": Entry("Sin", "sin.default", _at_most(1.0)),
    "cos": Entry("Cos", "cos.default", _at_most(1.0)),
    "atan": Entry("Atan", "atan.default", _at_most(1.0)),
    "reciprocal": Entry("Reciprocal", "reciprocal.default", None),
    "sqrt": Entry("Sqrt", "sqrt.default", None),
    "rsqrt": Entry(None, "rsqrt.default", None),
    "power": Entry(None, "", None),
}
"""By name, the functions that have a rule."""


@dataclass(frozen=True, eq=False)
class Assumed(Cast):
    """The executed value of a function of a number x~, for its exact value: y = f(x~) + d, by assumption.

    A machine of the type ``target``, with unit roundoff u and smallest normal number eta, is assumed to compute f
    within ``ulp`` units in the last place of the exact value, the distance between two numbers of the type about it:
    at most 2 u |f| or 2 u eta. It may flush the result, and x~, to zero where they are below eta. So

        |d| <= 2 ulp u |f| + (2 ulp u + 1) eta + F,

    where F bounds |f(x) - f(0)| for |x| < eta: eta max |f'|, or sqrt(eta) of a square root. 1 / x, 1 / sqrt x and log x
    have no value at 0; as they exceed :attr:`largest` wherever |x| < eta, nothing is claimed of values beyond it.
    """

    function: FunctionName = "exp"
    parameter: float = 1.0
    ulp: float = math.inf

    def execute(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    @property
    def largest(self) -> float:
        eta = torch.finfo(self.target).tiny
        poles = {"reciprocal": 1 / eta, "rsqrt": eta**-0.5, "log": -math.log(eta)}
        return poles[self.function] / 2 if self.function in poles else math.inf

    def error(self, size: Tensor) -> Tensor:
        """At least |d| where |f| <= ``size``, but for three roundings of its own."""
        info = torch.finfo(self.target)
        eta = max(info.tiny, torch.finfo(size.dtype).tiny)
        steepest = ENTRIES[self.function].steepest
        flushed = 2.0 * eta if steepest is None else max(1.0, steepest(self.parameter)) * eta
        if self.function == "sqrt":
            flushed = math.sqrt(eta)
        relative = self.ulp * info.eps  # 2 u
        constant = ((relative + 1) * eta + flushed) * (1 + 2.0**-20)
        found = relative * (1 + 2.0**-20) * size + constant
        return found.masked_fill(~(size <= self.largest), math.inf)
