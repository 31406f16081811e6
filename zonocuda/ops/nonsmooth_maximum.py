"""The larger of two tensors, with a chosen derivative on ties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import differentiable, elementwise, fake, refuse_double_backward
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import call, check_tensors


def nonsmooth_maximum(a: Tensor, b: Tensor, first: float = 0.5) -> Tensor:
    """max(a, b) elementwise; where a = b, ``a`` gets the share ``first`` of the gradient and ``b`` the rest.

    first = 1/2 is torch's choice, 1 and 0 give all to one side; any value of [0, 1] is a Clarke subgradient of the
    maximum (Bolte & Pauwels 2020).

    Backward: the larger one gets g, on a tie a gets first g and b gets (1 - first) g. Which side won is recorded in the
    forward pass, a byte for each element.

    Args:
        a, b: of shapes that broadcast; float16, bfloat16, float32 or float64, the same for both.
        first: the share of a on ties.

    Returns:
        The broadcast shape. A NaN counts as larger than every number, and two of them tie (torch gives both the whole
        gradient there).

    Raises:
        ArgumentError: shapes that do not broadcast, dtypes that differ, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        >>> torch.autograd.grad(nonsmooth_maximum(a, b, 0.25).sum(), (a, b))
        (tensor([0.2500]), tensor([0.7500]))
    """
    check_tensors("nonsmooth_maximum", a, b)
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        raise ArgumentError(
            f"nonsmooth_maximum: a and b must broadcast, got shapes {list(a.shape)} and {list(b.shape)}"
        ) from None
    return call("nonsmooth_maximum", a.contiguous(), b.contiguous(), first)[0]  # type: ignore[no-any-return]


@fake("nonsmooth_maximum")
def _fake(a: Tensor, b: Tensor, first: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(a), torch.empty_like(a, dtype=torch.int8)


@fake("_nonsmooth_maximum_backward")
def _backward_fake(grad: Tensor, sides: Tensor, first: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), torch.empty_like(grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.first = inputs[2]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    (sides,) = ctx.saved_tensors
    grad_a, grad_b = call("_nonsmooth_maximum_backward", grad.contiguous(), sides, ctx.first)
    return grad_a if ctx.needs_input_grad[0] else None, grad_b if ctx.needs_input_grad[1] else None, None


differentiable("nonsmooth_maximum", _backward, _setup_context)
refuse_double_backward("nonsmooth_maximum")
elementwise("nonsmooth_maximum", tensors=2)
elementwise("_nonsmooth_maximum_backward", tensors=2)
