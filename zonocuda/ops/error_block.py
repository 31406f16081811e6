"""Dense generators of symbols that each touch one neuron."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.library import call, refuse_double_backward, require_build_for


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
        RuntimeError: shapes, dtypes or devices that do not fit, an index that is no neuron (on CUDA that symbol's row
            is NaN instead), or CUDA tensors in a build without CUDA.
    """
    require_build_for("error_block", coefficients)
    dense: Tensor = call("error_block", coefficients.contiguous(), index.contiguous(), prod(shape))
    return dense.reshape(*coefficients.shape, *shape)


@torch.library.register_fake("zonocuda::error_block")
def _fake(coefficients: Tensor, index: Tensor, features: int) -> Tensor:
    return coefficients.new_empty((*coefficients.shape, features))


@torch.library.register_fake("zonocuda::_error_block_backward")
def _backward_fake(grad: Tensor, index: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[:2])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
    (index,) = ctx.saved_tensors
    return call("_error_block_backward", grad.contiguous(), index), None, None


torch.library.register_autograd("zonocuda::error_block", _backward, setup_context=_setup_context)
refuse_double_backward("error_block")
