"""What the rounding of an affine operator depends on: its absolute values, and how many terms its sums have."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from torch import Tensor

from zonocuda.graph.ops import (
    Affine,
    Expand,
    Gather,
    Linear,
    Pad,
    Rearrangement,
    Reduce,
    ScaleShift,
    Shape,
)
from zonocuda.graph.windowed_ops import AveragePool, Conv, ConvTranspose

_KNOWN = (Linear, Conv, ConvTranspose, AveragePool, Reduce, ScaleShift, Rearrangement, Gather, Expand)
"""Operators whose A and b have one number, or a nonnegative one of their own, at every place."""


def absolute(op: Affine) -> Affine:
    """The operator |A| x + |b|.

    Raises:
        NotImplementedError: an operator that is not known here.
    """
    if not isinstance(op, _KNOWN):
        raise NotImplementedError(f"graph.magnitude: no absolute value of op {op.kind}")
    return dataclasses.replace(op, **{name: abs(value) for name, value in constants(op).items()})


def constants(op: Affine) -> dict[str, Any]:
    """The numbers of the network that an operator holds, by field."""
    fields = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    padding = {"value"} if isinstance(op, Pad) else set()
    return {name: value for name, value in fields.items() if isinstance(value, Tensor) or name in padding}


def fan_in(op: Affine, shape: Shape) -> int:
    """Terms of the longest sum of one output of A x, for an input of feature ``shape``; 0 where A x does not round.

    Raises:
        NotImplementedError: an operator that is not known here.
    """
    match op:
        case Linear():
            return op.weight.shape[1]
        case Conv():
            return math.prod(op.weight.shape[1:])
        case ConvTranspose():
            return op.weight.shape[0] // op.groups * _meeting(op.weight.shape[2:], op.stride, op.dilation)
        case AveragePool():
            return math.prod(op.kernel)
        case Reduce():
            return math.prod(shape[dim] for dim in op.dims)
        case ScaleShift():
            return 0 if op.scale is None else 1
        case Rearrangement() | Gather() | Expand():
            return 0
    raise NotImplementedError(f"graph.magnitude: no error bound for op {op.kind}")


def divisor(op: Affine, shape: Shape) -> int:
    """What an execution may divide a sum by, for an input of feature ``shape``: the count of a mean, else 1."""
    return fan_in(op, shape) if isinstance(op, AveragePool) or (isinstance(op, Reduce) and op.mean) else 1


def fan_out(op: Affine, shape: Shape) -> int:
    """Terms of the longest sum of A^T v: how many outputs one input enters; 0 where A^T v does not round.

    An input of a convolution meets, along an axis with kernel k, stride s and dilation d, the kernel positions t with
    d t = j + p mod s: at most ceil(k / (s / gcd(s, d))) of them.

    Raises:
        NotImplementedError: an operator that is not known here.
    """
    match op:
        case Linear():
            return op.weight.shape[0]
        case Conv():
            return op.weight.shape[0] // op.groups * _meeting(op.weight.shape[2:], op.stride, op.dilation)
        case ConvTranspose():
            return math.prod(op.weight.shape[1:])
        case AveragePool():
            return _meeting(op.kernel, op.stride, (1,) * len(op.kernel))
        case Reduce():
            return 1 if op.mean else 0
        case ScaleShift():
            return 0 if op.scale is None else 1
        case Expand():
            copies = math.prod(op.shape) // max(1, math.prod(shape))
            return copies if copies > 1 else 0
        case Gather():
            copies = max(Counter(op.index).values())
            return copies if copies > 1 else 0
        case Rearrangement():
            return 0
    raise NotImplementedError(f"graph.magnitude: no error bound for op {op.kind}")


def _meeting(kernel: Shape, stride: Shape, dilation: Shape) -> int:
    """How many positions of a kernel one input meets."""
    periods = (s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True))
    return math.prod(-(-k // p) for k, p in zip(kernel, periods, strict=True))
