"""A linear layer on generators that each touch one neuron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, one_by_one, refuse_double_backward
from zonocuda.ops.library import call, check_tensors


def diagonal_linear(coefficients: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """W G for generators G_k = coefficients_k e_index[k]: scaled columns of W, no matrix product.

    result[b, k, :] = coefficients[b, k] * weight[:, index[k]].

    Backward: dL/dcoefficients[b, k] = sum_m g[b, k, m] weight[m, index[k]] and
    dL/dweight[m, index[k]] += sum_b coefficients[b, k] g[b, k, m].

    Args:
        coefficients: ``[B, K]``, float32 or float64.
        index: ``[K]`` int64, the neuron of each symbol.
        weight: ``[out, in]``.

    Returns:
        ``[B, K, out]``.

    Raises:
        ArgumentError: shapes, dtypes or devices that do not fit, an index outside ``[0, in)`` (on CUDA, where reading
            it back would stall the device, such a symbol is NaN in the result instead), or CUDA tensors in a build
            without CUDA.

    Examples:
        >>> weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> diagonal_linear(torch.tensor([[0.5]]), torch.tensor([1]), weight)
        tensor([[[1., 2.]]])
    """
    check_tensors("diagonal_linear", coefficients, weight, index)
    result: Tensor = call("diagonal_linear", coefficients.contiguous(), index.contiguous(), weight.contiguous())
    return result


@fake("diagonal_linear")
def _fake(coefficients: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    return coefficients.new_empty((*coefficients.shape, weight.shape[0]))


@fake("_diagonal_linear_backward")
def _backward_fake(
    grad: Tensor, coefficients: Tensor, index: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    out, features = weight.shape
    return torch.empty_like(coefficients), weight.new_empty((out, features if needs_weight else 0))


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs_coefficients, _, needs_weight = ctx.needs_input_grad
    coefficients, weight = call("_diagonal_linear_backward", grad.contiguous(), *ctx.saved_tensors, needs_weight)
    return coefficients if needs_coefficients else None, None, weight if needs_weight else None


differentiable("diagonal_linear", _backward, _setup_context)
refuse_double_backward("diagonal_linear")
batched("diagonal_linear", (0,), (0,))
one_by_one("_diagonal_linear_backward")  # the gradient of the weight sums over the batch
