"""A convolution of generators that each touch one neuron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, one_by_one, refuse_double_backward
from zonocuda.ops.library import call, check_tensors
from zonocuda.windows import Pair, window_size


def diagonal_conv(
    coefficients: Tensor,
    index: Tensor,
    weight: Tensor,
    channels: int,
    height: int,
    width: int,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out_height: int,
    out_width: int,
) -> Tensor:
    """W G for a convolution W and generators G_k = coefficients_k e_index[k]: scaled kernels, no convolution.

    Symbol k sits at index[k] = (c height + y) width + x of a map [channels, height, width]. Output i of an axis gets
    the kernel element v with v dilation = y + padding - stride i, if there is one, times the coefficient; the outputs
    are those of c's group. The windowed result has the corners of :func:`zonocuda.windows.diagonal_conv_corners`, and
    rows = ceil(((kernel - 1) dilation + 1) / stride), columns alike. Elements of a patch outside the map are 0, as are
    those that see no kernel element.

    Backward: dL/dcoefficients[b, k] is the sum of g times the kernel element that it sees, over the elements of the
    patch on the map; dL/dweight sums coefficients[b, k] g there over b and k, in an order that depends on the shapes
    and the index alone.

    Args:
        coefficients: ``[B, K]``, float32 or float64.
        index: ``[K]`` int64.
        weight: ``[O, channels / groups, kernel rows, kernel columns]``.
        channels, height, width: the sizes of the input map.
        stride, dilation: (y, x), at least 1.
        padding: (y, x) at the beginning of each axis; what the end needs follows from the sizes of the output.
        groups: divides ``channels`` and ``O``.
        out_height, out_width: the sizes of the output map.

    Returns:
        ``[B, K, O, rows, columns]``, the patches.

    Raises:
        ArgumentError: shapes, sizes, dtypes or devices that do not fit, an index outside the map (on CUDA such a
            symbol's patch is NaN instead), or CUDA tensors in a build without CUDA.

    Examples:
        >>> weight = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2)
        >>> place, no = torch.tensor([0]), (0, 0)
        >>> patches = diagonal_conv(torch.tensor([[0.5]]), place, weight, 1, 2, 2, (1, 1), no, (1, 1), 1, 1, 1)
        >>> patches.shape
        torch.Size([1, 1, 1, 2, 2])
    """
    check_tensors("diagonal_conv", coefficients, weight, index)
    patches: Tensor = call(
        "diagonal_conv",
        coefficients.contiguous(),
        index.contiguous(),
        weight.contiguous(),
        [channels, height, width],
        stride,
        padding,
        dilation,
        groups,
        [out_height, out_width],
    )
    return patches


@fake("diagonal_conv")
def _fake(
    coefficients: Tensor,
    index: Tensor,
    weight: Tensor,
    input_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    output_size: list[int],
) -> Tensor:
    outputs, _, *kernel = weight.shape
    rows, columns = window_size((kernel[0], kernel[1]), (stride[0], stride[1]), (dilation[0], dilation[1]))
    return coefficients.new_empty((*coefficients.shape, outputs, rows, columns))


@fake("_diagonal_conv_backward")
def _backward_fake(
    grad: Tensor,
    coefficients: Tensor,
    index: Tensor,
    weight: Tensor,
    input_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    output_size: list[int],
    needs_weight: bool,
) -> tuple[Tensor, Tensor]:
    *sizes, columns = weight.shape
    return torch.empty_like(coefficients), weight.new_empty((*sizes, columns if needs_weight else 0))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.sizes = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs_coefficients, _, needs_weight, *_ = ctx.needs_input_grad
    coefficients, weight = call(
        "_diagonal_conv_backward", grad.contiguous(), *ctx.saved_tensors, *ctx.sizes, needs_weight
    )
    of_sizes = (None,) * len(ctx.sizes)
    return coefficients if needs_coefficients else None, None, weight if needs_weight else None, *of_sizes


differentiable("diagonal_conv", _backward, _setup_context)
refuse_double_backward("diagonal_conv")
batched("diagonal_conv", (0,), (0,))
one_by_one("_diagonal_conv_backward")  # the gradient of the weight sums over the batch
