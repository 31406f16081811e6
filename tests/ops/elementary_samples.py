"""Inputs of the elementary functions for the tests of every op, and how far rounding may move their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.ops.nonsmooth_samples import distinct
from tests.ops.samples import SHAPES, Sample, Shape, finish
from zonocuda import reference
from zonocuda.functions import FUNCTIONS, FunctionName

POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")
FEW: tuple[FunctionName, ...] = ("silu", "log")


def elementary_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """All functions on one shape, up to 2.76 and away from kinks at 0 and 3; two of them on the others."""
    for name, shape in shapes.items():
        for function in FUNCTIONS if name == "matrix" else FEW:
            x = distinct(shape.batch, *shape.features, dtype=dtype) * (23 if name == "matrix" else 1)
            x = x.abs() if function in POSITIVE else x
            parameter = {"power": 3.0, "elu": 1.25, "celu": 1.25}.get(function, 1.0)
            yield finish(f"{name}, {function}", device, requires_grad, x=x, function=function, parameter=parameter)


def _value_and_slope(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    x = inputs["x"].detach().requires_grad_()
    with torch.enable_grad():
        y = reference.elementary(x, inputs["function"], inputs["parameter"])
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach().abs(), slope.abs()


def elementary_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """A relative error of x, which torch's own functions have inside, moves f by x f'."""
    value, slope = _value_and_slope(inputs)
    return (value + (inputs["x"] * slope).abs(),)


def elementary_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Derivatives are sums of terms of about the size of 1, f' and x f'."""
    _, slope = _value_and_slope(inputs)
    return {"x": cotangents[0].abs() * (1 + slope + (inputs["x"] * slope).abs())}
