"""Generators times one factor for each neuron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import (
    call,
    call_in_place,
    check_shapes,
    check_tensors,
    in_place,
    neurons,
    register_in_place,
    rows,
    shaped,
)


def scale(generators: Tensor, multiplier: Tensor) -> Tensor:
    """G'_k = multiplier * G_k for every symbol k.

    Backward: dL/dG_k = multiplier gG_k and dL/dmultiplier = sum_k gG_k G_k, without another temporary of the size of
    the generators.

    Args:
        generators: ``[B, K, *features]``, float32 or float64.
        multiplier: ``[B, *features]``.

    Returns:
        ``[B, K, *features]``.

    Raises:
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.

    Examples:
        >>> scale(torch.ones(1, 2, 3), torch.tensor([[0.0, 0.5, 1.0]]))[0, 1]
        tensor([0.0000, 0.5000, 1.0000])
    """
    check_tensors("scale", generators, multiplier)
    check_shapes("scale", multiplier, generators, "multiplier")
    scaled: Tensor = call("scale", rows(generators), neurons(multiplier))
    return shaped(scaled, generators.shape)


def scale_(generators: Tensor, multiplier: Tensor) -> Tensor:
    """:func:`scale` into the memory of ``generators``, the same numbers bit for bit; it has no derivative.

    Args:
        generators: ``[B, K, *features]``, float32 or float64, contiguous; multiplied in place.
        multiplier: ``[B, *features]``, in other memory.

    Returns:
        ``generators``.

    Raises:
        ValueError: shapes that do not fit, or generators that are not contiguous.
        RuntimeError: an argument requires grad where gradients are recorded.
        ArgumentError: shared memory; another dtype, mixed devices; CUDA tensors in a build without CUDA.

    Examples:
        >>> generators = torch.ones(1, 2, 3)
        >>> _ = scale_(generators, torch.tensor([[0.0, 0.5, 1.0]]))
        >>> generators[0, 1]
        tensor([0.0000, 0.5000, 1.0000])
    """
    check_tensors("scale_", generators, multiplier)
    check_shapes("scale_", multiplier, generators, "multiplier")
    call_in_place("scale_", 1, rows(in_place("scale_", "generators", generators)), neurons(multiplier))
    return generators


@fake("scale")
def _fake(generators: Tensor, multiplier: Tensor) -> Tensor:
    return torch.empty_like(generators)


@fake("_scale_backward")
def _backward_fake(
    grad: Tensor, generators: Tensor, multiplier: Tensor, needs_generators: bool, needs_multiplier: bool
) -> tuple[Tensor, Tensor]:
    batch, symbols, features = generators.shape
    grad_generators = generators.new_empty((batch, symbols, features if needs_generators else 0))
    return grad_generators, torch.empty_like(multiplier)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    needs_generators, needs_multiplier = ctx.needs_input_grad
    generators, multiplier = call(
        "_scale_backward", grad.contiguous(), *ctx.saved_tensors, needs_generators, needs_multiplier
    )
    return generators if needs_generators else None, multiplier if needs_multiplier else None


differentiable("scale", _backward, _setup_context)
refuse_double_backward("scale")
batched("scale", (0, 0), (0,))
batched("_scale_backward", (0,) * 3, (0, 0))


@fake("scale_")
def _in_place_fake(generators: Tensor, multiplier: Tensor) -> None:
    return None


register_in_place("scale_", written=1)
