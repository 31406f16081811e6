"""The linear relaxation of ReLU on given bounds: what every block of a zonotope is scaled by."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule, check_kink, check_tolerance
from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import broadcast_neurons, call, check_tensors, neurons, shaped


class Relaxation(NamedTuple):
    """relu(x) in multiplier * x + offset + [-offset, offset] on the bounds."""

    multiplier: Tensor
    offset: Tensor


def relu_relaxation(
    lower: Tensor,
    upper: Tensor,
    slope: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> Relaxation:
    """The multiplier lam and offset mu of :func:`zonocuda.ops.relu` for bounds ``lower``, ``upper``.

    (lam, mu) is (0, 0) where u <= 0, (1, 0) where l >= 0, and else (lam, max(-l lam, u (1 - lam)) / 2).

    Backward: for incoming gradients A (of lam) and m (of mu) on crossing neurons the formulas of
    :func:`zonocuda.ops.relu`, in which A stands for gc c + sum_k gG_k G_k: applied to all blocks of a zonotope,
    autograd delivers exactly that sum. Zero where the neuron is stable.

    Args:
        lower, upper: bounds ``[B, *features]``, float32 or float64.
        slope: broadcasts to that shape; None for the tied slope u / (u - l).
        kink: the rule on the kink.
        tolerance: what counts as on the kink; by default that of bounds without a sum, ``kink_tolerance(dtype, 0)``.

    Returns:
        ``multiplier`` and ``offset``, each ``[B, *features]``; the offset of a neuron with a NaN bound is NaN.

    Raises:
        ValueError: an unknown rule, or a negative tolerance.
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> multiplier, offset = relu_relaxation(torch.tensor([[-1.0, 1.0]]), torch.tensor([[3.0, 2.0]]))
        >>> multiplier, offset
        (tensor([[0.7500, 1.0000]]), tensor([[0.3750, 0.0000]]))
    """
    check_tensors("relu_relaxation", lower, upper, optional=(slope,))
    given = None if slope is None else broadcast_neurons("relu_relaxation", "slope", slope, lower)
    high = broadcast_neurons("relu_relaxation", "upper", upper, lower)
    within = check_tolerance(tolerance, lower.dtype, 0)
    multiplier, offset = call("relu_relaxation", neurons(lower), high, given, check_kink(kink), within)
    return Relaxation(shaped(multiplier, lower.shape), shaped(offset, lower.shape))


@fake("relu_relaxation")
def _fake(
    lower: Tensor, upper: Tensor, slope: Tensor | None, kink: int, kink_tolerance: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(lower), torch.empty_like(lower)


@fake("_relu_relaxation_backward")
def _backward_fake(
    grad_multiplier: Tensor,
    grad_offset: Tensor,
    lower: Tensor,
    upper: Tensor,
    slope: Tensor | None,
    kink: int,
    kink_tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(lower), torch.empty_like(lower), torch.empty_like(lower)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    lower, upper, slope, ctx.kink, ctx.tolerance = inputs
    ctx.save_for_backward(lower, upper, slope)


def _backward(ctx: Any, grad_multiplier: Tensor, grad_offset: Tensor) -> tuple[Tensor | None, ...]:
    needs_lower, needs_upper, needs_slope, *_ = ctx.needs_input_grad
    slope, lower, upper = call(
        "_relu_relaxation_backward",
        grad_multiplier.contiguous(),
        grad_offset.contiguous(),
        *ctx.saved_tensors,
        ctx.kink,
        ctx.tolerance,
    )
    return (
        lower if needs_lower else None,
        upper if needs_upper else None,
        slope if needs_slope else None,
        None,
        None,
    )


differentiable("relu_relaxation", _backward, _setup_context)
refuse_double_backward("relu_relaxation")
batched("relu_relaxation", (0,) * 3, (0, 0))
batched("_relu_relaxation_backward", (0,) * 5, (0,) * 3)
