"""Windowed generators times one factor for each neuron."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, call_in_place, check_tensors, in_place, register_in_place


def window_scale(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """G'_k = multiplier * G_k for windowed generators: the multiplier is read at each window's place.

    result[b, k, c, t, u] = multiplier[b, c, y0 + t, x0 + u] patches[b, k, c, t, u], with (y0, x0) = corners[k], and 0
    where that position lies outside the map, whatever the patch holds there.

    Backward: dL/dpatches = multiplier g at their place (0 outside the map) and dL/dmultiplier = sum_k g patches, added
    at their place in an order that depends on the shapes and corners alone.

    Args:
        patches: ``[B, K, C, rows, columns]``, float32 or float64.
        corners: ``[K, 2]`` int64, (y0, x0) of every symbol; negative, or beyond the map, is allowed.
        multiplier: ``[B, C, height, width]``.

    Returns:
        ``[B, K, C, rows, columns]``.

    Raises:
        ArgumentError: shapes, dtypes or devices that do not fit, or CUDA tensors in a build without CUDA.

    Examples:
        >>> patches, corners = torch.ones(1, 1, 1, 1, 2), torch.tensor([[0, 1]])
        >>> window_scale(patches, corners, torch.tensor([[[[0.0, 0.5, 1.0]]]])).flatten()
        tensor([0.5000, 1.0000])
    """
    check_tensors("window_scale", patches, multiplier, corners)
    scaled: Tensor = call("window_scale", patches.contiguous(), corners.contiguous(), multiplier.contiguous())
    return scaled


def window_scale_(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """:func:`window_scale` into the memory of ``patches``, the same numbers bit for bit; it has no derivative.

    Args:
        patches: ``[B, K, C, rows, columns]``, float32 or float64, contiguous; written in place, 0 outside the map.
        corners: ``[K, 2]`` int64.
        multiplier: ``[B, C, height, width]``, in other memory.

    Returns:
        ``patches``.

    Raises:
        ValueError: patches that are not contiguous.
        RuntimeError: an argument requires grad where gradients are recorded.
        ArgumentError: shared memory; shapes, dtypes or devices that do not fit; CUDA tensors in a build without CUDA.

    Examples:
        >>> patches, corners = torch.ones(1, 1, 1, 1, 2), torch.tensor([[0, 1]])
        >>> _ = window_scale_(patches, corners, torch.tensor([[[[0.0, 0.5, 1.0]]]]))
        >>> patches.flatten()
        tensor([0.5000, 1.0000])
    """
    check_tensors("window_scale_", patches, multiplier, corners)
    call_in_place(
        "window_scale_", 1, in_place("window_scale_", "patches", patches), corners.contiguous(), multiplier.contiguous()
    )
    return patches


@fake("window_scale")
def _fake(patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    return torch.empty_like(patches)


@fake("_window_scale_backward")
def _backward_fake(
    grad: Tensor, patches: Tensor, corners: Tensor, multiplier: Tensor, needs_patches: bool, needs_multiplier: bool
) -> tuple[Tensor, Tensor]:
    of_patches, of_multiplier = list(patches.shape), list(multiplier.shape)
    of_patches[-1] = of_patches[-1] if needs_patches else 0
    of_multiplier[-1] = of_multiplier[-1] if needs_multiplier else 0
    return patches.new_empty(of_patches), patches.new_empty(of_multiplier)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs_patches, _, needs_multiplier = ctx.needs_input_grad
    patches, multiplier = call(
        "_window_scale_backward", grad.contiguous(), *ctx.saved_tensors, needs_patches, needs_multiplier
    )
    return patches if needs_patches else None, None, multiplier if needs_multiplier else None


differentiable("window_scale", _backward, _setup_context)
refuse_double_backward("window_scale")
batched("window_scale", (0, None, 0), (0,))
batched("_window_scale_backward", (0, 0, None, 0), (0, 0))


@fake("window_scale_")
def _in_place_fake(patches: Tensor, corners: Tensor, multiplier: Tensor) -> None:
    return None


register_in_place("window_scale_", written=1)
