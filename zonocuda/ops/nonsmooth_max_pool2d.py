"""Max pooling with a chosen derivative on ties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import call, check_tensors, is_channels_last
from zonocuda.ties import Pair, TieRule, pair, pooled_length, tie_weights

_WORD = 32  # winners in one word


def nonsmooth_max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    ties: TieRule = "first",
    beta: float | None = None,
) -> Tensor:
    """The maximum of each window of an image; the elements that attain it share the gradient by the rule ``ties``.

    Values and winners are those of ``torch.nn.functional.max_pool2d`` bit for bit: padding never wins over a number, a
    NaN wins over everything and the last NaN of a window is its only winner, -inf ties with -inf, +0 ties with -0 (and
    the value is that of the first). With ``ties="first"`` the gradients are torch's on the CPU bit for bit as well:
    where windows overlap, both add to an element in the order of the windows, rounding to the dtype after every
    addition. (torch's CUDA kernels add in float32 or with atomics; ours add as on the CPU.)

    Backward: see :mod:`zonocuda.ties`. The winners are recorded in the forward pass, one bit for each element of a
    window, 32 to a word; their number is the number of set bits. An even share is g divided by that number: a rounded
    1/n would not add up to g. Source of the rules: Boustany 2024.

    Args:
        x: ``[N, C, H, W]`` or ``[C, H, W]``, contiguous or channels-last; float16, bfloat16, float32 or float64.
        kernel_size, stride, padding, dilation: an integer or (y, x), as in torch; the stride is by default the kernel.
        ceil_mode: also a window at the end that begins inside.
        ties: the rule.
        beta: mixes the rules "even" (by beta) and "first" (by 1 - beta).

    Returns:
        ``[N, C, rows, columns]``, in the memory format of ``x``.

    Raises:
        ValueError: sizes that do not fit, an unknown rule.
        ArgumentError: another shape or dtype, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> x = torch.ones(1, 1, 2, 2, requires_grad=True)
        >>> y = nonsmooth_max_pool2d(x, (2, 2), ties="even")
        >>> torch.autograd.grad(y.sum(), x)[0].flatten()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    check_tensors("nonsmooth_max_pool2d", x)
    if x.dim() not in (3, 4):
        raise ArgumentError(f"nonsmooth_max_pool2d: x must have shape [N, C, H, W] or [C, H, W], got {list(x.shape)}")
    kernel, pad, gaps = pair("kernel_size", kernel_size, 1), pair("padding", padding, 0), pair("dilation", dilation, 1)
    step = kernel if stride is None else pair("stride", stride, 1)
    height, width = x.shape[-2:]
    sizes = [
        pooled_length(length, kernel[i], step[i], pad[i], gaps[i], ceil_mode)
        for i, length in enumerate((height, width))
    ]
    arguments = (kernel, step, pad, gaps, sizes, *tie_weights(ties, beta))
    values: Tensor
    if is_channels_last(x):
        values = call("nonsmooth_max_pool2d", x.permute(0, 2, 3, 1), *arguments)[0]
        return values.permute(0, 3, 1, 2)
    planes = x.reshape(x.shape[:-2].numel(), height, width, 1).contiguous()
    values = call("nonsmooth_max_pool2d", planes, *arguments)[0]
    return values.reshape(*x.shape[:-2], *sizes)


@fake("nonsmooth_max_pool2d")
def _fake(
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    output_size: list[int],
    first: float,
    last: float,
    even: float,
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], *output_size, x.shape[3])
    words = (kernel[0] * kernel[1] + _WORD - 1) // _WORD
    return x.new_empty(shape), x.new_empty((words, *shape), dtype=torch.int32)


@fake("_nonsmooth_max_pool2d_backward")
def _backward_fake(
    grad: Tensor,
    winners: Tensor,
    input_size: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    first: float,
    last: float,
    even: float,
) -> Tensor:
    return grad.new_empty((grad.shape[0], *input_size, grad.shape[3]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *ctx.window, _, first, last, even = inputs
    ctx.input_size, ctx.weights = x.shape[1:3], (first, last, even)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
    (winners,) = ctx.saved_tensors
    grad_x = call(
        "_nonsmooth_max_pool2d_backward", grad.contiguous(), winners, ctx.input_size, *ctx.window, *ctx.weights
    )
    return grad_x, *(None,) * 8


differentiable("nonsmooth_max_pool2d", _backward, _setup_context)
refuse_double_backward("nonsmooth_max_pool2d")
batched("nonsmooth_max_pool2d", (0,), (0, 1))
batched("_nonsmooth_max_pool2d_backward", (0, 1), (0,))
