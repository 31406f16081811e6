"""Dense generators of symbols that each touch one neuron."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors


def error_block(coefficients: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Dense rows of a diagonal block: result[b, k] is coefficients[b, k] at the flattened position index[k], else 0.

    Backward: dL/dcoefficients[b, k] is the gradient at that position.

    Args:
        coefficients: ``[B, K]``, float32 or float64.
        index: ``[K]`` int64, the neuron of each symbol.
        shape: the feature shape of the result.

    Returns:
        ``[B, K, *shape]``.

    Raises:
        ArgumentError: shapes, dtypes or devices that do not fit, an index that is no neuron (on CUDA that symbol's row
            is NaN instead), or CUDA tensors in a build without CUDA.

    Examples:
        >>> error_block(torch.tensor([[0.5, 0.25]]), torch.tensor([2, 0]), (3,))
        tensor([[[0.0000, 0.0000, 0.5000],
                 [0.2500, 0.0000, 0.0000]]])
    """
    check_tensors("error_block", coefficients, index)
    dense: Tensor = call("error_block", coefficients.contiguous(), index.contiguous(), prod(shape))
    return dense.reshape(*coefficients.shape, *shape)


@fake("error_block")
def _fake(coefficients: Tensor, index: Tensor, features: int) -> Tensor:
    return coefficients.new_empty((*coefficients.shape, features))


@fake("_error_block_backward")
def _backward_fake(grad: Tensor, index: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[:2])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
    (index,) = ctx.saved_tensors
    return call("_error_block_backward", grad.contiguous(), index), None, None


differentiable("error_block", _backward, _setup_context)
refuse_double_backward("error_block")
batched("error_block", (0,), (0,))
batched("_error_block_backward", (0,), (0,))
