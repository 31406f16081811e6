"""A line with a kink at 0 and a chosen derivative there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import differentiable, elementwise, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors, dense_layout


def nonsmooth_relu(x: Tensor, left: float = 0.0, at_zero: float = 0.0) -> Tensor:
    """y = x for x > 0 and left x for x < 0, with the derivative ``at_zero`` where x is exactly 0.

    ReLU (left = 0), leaky ReLU (left > 0) and the absolute value (left = -1) are of this form. Every derivative between
    ``left`` and 1 is a Clarke subgradient at 0 (Bolte & Pauwels 2020; Bertoin, Bolte, Gerchinovitz & Pauwels 2021 on
    the choice of ReLU'(0)).

    Backward: g for x > 0 (and for NaN), left g for x < 0, at_zero g for x = 0 of either sign. It is linear in g, and a
    weight of 0 gives 0 whatever g is. 16-bit numbers are multiplied in float32 and rounded once.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        left: the slope on the left.
        at_zero: the derivative at 0.

    Returns:
        The shape, dtype and memory format of ``x``. For left >= 0 a zero keeps its sign, for left < 0 it is +0.

    Raises:
        ArgumentError: another dtype, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(nonsmooth_relu(x, 0.0, 0.5).sum(), x)
        (tensor([0.5000]),)
    """
    check_tensors("nonsmooth_relu", x)
    dense, restore = dense_layout(x)
    return restore(call("nonsmooth_relu", dense, left, at_zero))


@fake("nonsmooth_relu")
def _fake(x: Tensor, left: float, at_zero: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@fake("_nonsmooth_relu_backward")
def _backward_fake(grad: Tensor, x: Tensor, left: float, at_zero: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.left, ctx.at_zero = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (x,) = ctx.saved_tensors
    return call("_nonsmooth_relu_backward", grad.contiguous(), x, ctx.left, ctx.at_zero), None, None


differentiable("nonsmooth_relu", _backward, _setup_context)
refuse_double_backward("nonsmooth_relu")
elementwise("nonsmooth_relu", tensors=1)
elementwise("_nonsmooth_relu_backward", tensors=2)
