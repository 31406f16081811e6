"""How far two executions of one network may differ: a running error bound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.functions import FunctionName
from zonocuda.graph import (
    Add,
    Affine,
    Bilinear,
    Cast,
    Concat,
    Elementary,
    Expand,
    Gather,
    Node,
    Relu,
    Reshape,
    Staircase,
    Transpose,
    absolute,
    fan_in,
)
from zonocuda.roundoff import gamma, unit_roundoff

EXTRA_ROUNDINGS = 8
"""Roundings of one output besides those of its sum.

Adding the bias (1), alpha and beta of Gemm (2); a scale that was derived and stored rounded (4: sum, root, quotient,
conversion); a division by a count (1). Batch normalisation executed as x * s + (b - mean * s) has seven.
"""

FUNCTION_ROUNDINGS = 64
"""Roundings of 1 + |x| + |f(x)| that stand for a smooth function, executed by whatever formula: no library guarantees
any, and those of ONNX Runtime and torch that were seen are off by less than a tenth of it."""

RELATIVE: tuple[FunctionName, ...] = ("exp", "power", "reciprocal", "sqrt", "rsqrt")
"""Functions whose executions are off by a share of f(x) alone."""

_EXACT = (Reshape, Transpose, Gather, Expand)


@dataclass(frozen=True, eq=False)
class Bounded:
    """Values ``[B, *features]`` in float64, and how far an execution may be from them, elementwise."""

    value: Tensor
    error: Tensor

    @staticmethod
    def exact(value: Tensor) -> Bounded:
        """Values without error."""
        return Bounded(value.double(), torch.zeros_like(value, dtype=torch.float64))


def transfer(node: Node, inputs: tuple[Bounded, ...], dtype: torch.dtype) -> Bounded:
    """The value of a node and the error of its execution in ``dtype``, from those of its inputs.

    With u the unit roundoff, n the number of terms of the longest sum, m = n + EXTRA_ROUNDINGS and
    gamma_m = m u / (1 - m u), an execution of y = A x + b at inputs x + d, |d| <= e, in any order of summation, with
    or without fused multiply-add, is within

        |A| e + gamma_m (|A| (|x| + e) + |b|) + m * tiny

    of A x + b (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); m * tiny is for products that
    underflow or are flushed to zero. max(x, 0) is 1-Lipschitz and keeps e. A sum of two branches adds both errors
    and one rounding. A sum of products of two values changes by at most sum |x| e_y + |y| e_x + e_x e_y. A smooth
    function changes by what e can change it, and is off by FUNCTION_ROUNDINGS; a step by the jumps within that. Moving
    values about is exact, and a cast rounds once, to its own type. Float64 evaluates the bound; its own error, of the
    order of m * 2^-53 relative, is for the caller to cover.
    """
    op = node.op
    if isinstance(op, Cast):
        x = inputs[0]
        return Bounded(x.value, x.error + op.error(x.value.abs() + x.error))
    if isinstance(op, Affine):
        x = inputs[0]
        magnitude = absolute(op)
        value, error = op.apply(x.value), magnitude.linear(x.error)
        if not isinstance(op, _EXACT):
            terms = max(1, fan_in(op, tuple(x.value.shape[1:]))) + EXTRA_ROUNDINGS
            error = error + _rounding(terms, magnitude.apply(x.value.abs() + x.error), dtype)
        return Bounded(value, error)
    if isinstance(op, Relu):
        return Bounded(op.apply(inputs[0].value), inputs[0].error)
    if isinstance(op, Staircase):
        by = 2 * inputs[0].error + torch.finfo(dtype).tiny  # 2: both values count beside a jump as near as float64 errs
        return Bounded(op.apply(inputs[0].value), op.change(inputs[0].value, by))
    if isinstance(op, Elementary):
        x, value = inputs[0], op.apply(inputs[0].value)
        change = op.change(x.value, x.error)
        error = torch.where(change.isnan() & ~value.isnan(), torch.inf, change)  # f ends within what x may be
        size = value.abs() + error if op.function in RELATIVE else 1 + x.value.abs() + value.abs() + error
        return Bounded(value, error + _rounding(FUNCTION_ROUNDINGS, size, dtype))
    if isinstance(op, Add):
        error = inputs[0].error + inputs[1].error
        size = inputs[0].value.abs() + inputs[1].value.abs() + error
        return Bounded(op.apply(inputs[0].value, inputs[1].value), error + _rounding(2, size, dtype))
    if isinstance(op, Bilinear):
        size, value = inputs[0].value.abs(), op.apply(inputs[0].value)
        most = op.apply(size + inputs[0].error)
        return Bounded(value, most - op.apply(size) + _rounding(op.terms + EXTRA_ROUNDINGS, most, dtype))
    if isinstance(op, Concat):
        return Bounded(op.apply(*(x.value for x in inputs)), op.apply(*(x.error for x in inputs)))
    raise NotImplementedError(f"importers.rounding: no error bound for op {op.kind}")


def _rounding(terms: int, size: Tensor, dtype: torch.dtype) -> Tensor:
    info = torch.finfo(dtype)
    return gamma(terms, unit_roundoff(dtype), limit=1) * size + terms * info.tiny
