"""Interval bounds of a zonotope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, check_shapes, check_tensors, neurons, rows, shaped


def concretize(center: Tensor, generators: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest box around the zonotope {c + sum_k eps_k G_k : eps in [-1, 1]^K}.

    lower = c - r and upper = c + r with the radius r = sum_k |G_k|, in one pass over the generators and in round to
    nearest (the result is not rounded outward).

    Backward: dL/dc = dL/dlower + dL/dupper and dL/dG_k = sign(G_k) (dL/dupper - dL/dlower), with sign(0) = 0.

    Args:
        center: ``[B, *features]``, float32 or float64.
        generators: ``[B, K, *features]``.

    Returns:
        ``lower`` and ``upper``, each ``[B, *features]``. NaN in an input gives NaN in its neuron.

    Raises:
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.

    Examples:
        >>> lower, upper = concretize(torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.5, 2.0], [0.25, 0.0]]]))
        >>> lower
        tensor([[ 0.2500, -2.0000]])
    """
    check_tensors("concretize", center, generators)
    check_shapes("concretize", center, generators)
    lower, upper = call("concretize", neurons(center), rows(generators))
    return shaped(lower, center.shape), shaped(upper, center.shape)


@fake("concretize")
def _concretize_fake(center: Tensor, generators: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(center), torch.empty_like(center)


@fake("_concretize_backward")
def _backward_fake(grad_lower: Tensor, grad_upper: Tensor, generators: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad_lower), torch.empty_like(generators)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    _, generators = inputs
    ctx.save_for_backward(generators if ctx.needs_input_grad[1] else None)


def _backward(ctx: Any, grad_lower: Tensor, grad_upper: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (generators,) = ctx.saved_tensors
    if generators is None:
        return grad_lower + grad_upper, None
    grad_center, grad_generators = call(
        "_concretize_backward", grad_lower.contiguous(), grad_upper.contiguous(), generators
    )
    return grad_center, grad_generators


differentiable("concretize", _backward, _setup_context)
refuse_double_backward("concretize")
batched("concretize", (0, 0), (0, 0))
batched("_concretize_backward", (0, 0, 0), (0, 0))
