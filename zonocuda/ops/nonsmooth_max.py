"""The maximum along a dimension, with a chosen derivative on ties."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors
from zonocuda.ties import TieRule, tie_weights

_WORD = 32  # winners in one word


def nonsmooth_max(x: Tensor, dim: int, ties: TieRule = "first") -> Tensor:
    """max over the dimension ``dim``; the elements that attain it share the gradient by the rule ``ties``.

    ``first`` is the choice of ``torch.max(x, dim)``, ``even`` that of ``torch.amax``, ``last`` that of
    ``torch.cummax``. Every rule gives a Clarke subgradient of the maximum (Bolte & Pauwels 2020).

    Backward: see :mod:`zonocuda.ties`. The winners are recorded in the forward pass, one bit for each element of x;
    their number, by which an even share is divided, is the number of set bits.

    Args:
        x: at least one dimension; float16, bfloat16, float32 or float64.
        dim: the dimension that vanishes.
        ties: the rule.

    Returns:
        The shape of ``x`` without ``dim``. A NaN is the maximum, and the first NaN the only winner, as in torch.max.

    Raises:
        IndexError: no such dimension.
        ValueError: an unknown rule.
        ArgumentError: an empty dimension, another dtype, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> x = torch.ones(2, requires_grad=True)
        >>> torch.autograd.grad(nonsmooth_max(x, 0, "last"), x)
        (tensor([0., 1.]),)
    """
    check_tensors("nonsmooth_max", x)
    if x.dim() == 0 or not -x.dim() <= dim < x.dim():
        raise IndexError(f"nonsmooth_max: x of shape {list(x.shape)} has no dimension {dim}")
    weights = tie_weights(ties)
    dim %= x.dim()
    outer, inner = x.shape[:dim], x.shape[dim + 1 :]
    flat = x.reshape(prod(outer), x.shape[dim], prod(inner)).contiguous()
    values: Tensor = call("nonsmooth_max", flat, *weights)[0]
    return values.reshape((*outer, *inner))


@fake("nonsmooth_max")
def _fake(x: Tensor, first: float, last: float, even: float) -> tuple[Tensor, Tensor]:
    outer, length, inner = x.shape
    words = (length + _WORD - 1) // _WORD
    return x.new_empty((outer, inner)), x.new_empty((outer, words, inner), dtype=torch.int32)


@fake("_nonsmooth_max_backward")
def _backward_fake(grad: Tensor, winners: Tensor, length: int, first: float, last: float, even: float) -> Tensor:
    return grad.new_empty((grad.shape[0], length, grad.shape[1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.length, ctx.weights = inputs[0].shape[1], inputs[1:]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor, None, None, None]:
    (winners,) = ctx.saved_tensors
    return call("_nonsmooth_max_backward", grad.contiguous(), winners, ctx.length, *ctx.weights), None, None, None


differentiable("nonsmooth_max", _backward, _setup_context)
refuse_double_backward("nonsmooth_max")
batched("nonsmooth_max", (0,), (0, 0))
batched("_nonsmooth_max_backward", (0, 0), (0,))
