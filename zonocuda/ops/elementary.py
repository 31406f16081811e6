"""Elementary functions and smooth activations with a proven error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.functions import FunctionName, RoundingName, function_number, rounding_number
from zonocuda.ops.derivatives import differentiable, elementwise, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors, dense_layout


def elementary(x: Tensor, function: FunctionName, parameter: float = 1.0, rounding: RoundingName = "nearest") -> Tensor:
    """y = f(x) for each element, in float64 of + - * / and sqrt alone: meant for the same bits on every device.

    For every finite x where f(x) is finite, the float64 value y satisfies |y - f(x)| <= c 2^-53 |f(x)| + a, with the c
    and a of docs/math.md for each function. ``down`` and ``up`` move y by that much and round outward:
    ``elementary(x, f, p, "down") <= f(x) <= elementary(x, f, p, "up")`` holds over the reals for float64 and float32
    tensors, also where y has overflowed. ``nearest`` in float32 is the float64 value, rounded once.

    sin and cos are NaN for |x| > 2^20 (their bounds are -1 and 1). NaN gives NaN, a point outside the domain NaN, and a
    pole NaN bounds; at an infinite x the value is the limit or NaN. A zero may lose its sign.

    Backward: the incoming gradient times f'(x), which has no proven error. At a kink f' is that of torch's own
    activation. Where ``rounding`` is not ``nearest`` the gradient is the same.

    ``tests/elementary`` proves c and a. The methods are Cody & Waite's (1980), with polynomials of our own.

    Args:
        x: any shape; float32 or float64.
        function: the name of f, one of :data:`zonocuda.functions.FUNCTIONS`. ``normal_cdf`` is (1 + erf(x / sqrt 2))
            / 2, ``gelu`` x times that, ``gelu_tanh`` torch's approximation of it by a tanh, ``power`` x^n.
        parameter: alpha of ``elu`` and ``celu``, from 2^-500 to 2^500; the exponent n of ``power``, an integer from 1
            to 1024. No other function reads it.
        rounding: ``nearest``, ``down`` or ``up``.

    Returns:
        The shape, dtype and memory format of ``x``.

    Raises:
        ValueError: a function or a rounding of another name.
        ArgumentError: another dtype or parameter, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> x = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> elementary(x, "sigmoid")
        tensor([0.5000, 0.7311], dtype=torch.float64)
    """
    check_tensors("elementary", x)
    dense, restore = dense_layout(x)
    numbers = function_number(function), float(parameter), rounding_number(rounding)
    return restore(call("elementary", dense, *numbers))


@fake("elementary")
def _fake(x: Tensor, function: int, parameter: float, rounding: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@fake("_elementary_backward")
def _backward_fake(grad: Tensor, x: Tensor, function: int, parameter: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.function, ctx.parameter, _ = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return call("_elementary_backward", grad.contiguous(), x, ctx.function, ctx.parameter), None, None, None


differentiable("elementary", _backward, _setup_context)
refuse_double_backward("elementary")
elementwise("elementary", tensors=1)
elementwise("_elementary_backward", tensors=2)
