"""The radius of windowed generators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors


def window_radius(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """sum_k |G_k| for windowed generators: every patch's absolute values, added at its place on the map.

    G_k is patches[b, k, c, t, u] at position (c, y0 + t, x0 + u) of the map, with (y0, x0) = corners[k], and zero
    elsewhere. Elements outside the map do not exist, whatever the patch holds there. Every sum adds its symbols in an
    order that depends on the shapes and corners alone, and rounds to nearest.

    Backward: dL/dpatches = sign(patches) g at their place, with sign(0) = 0, and 0 outside the map.

    Args:
        patches: ``[B, K, C, rows, columns]``, float32 or float64.
        corners: ``[K, 2]`` int64, (y0, x0) of every symbol; negative, or beyond the map, is allowed.
        height, width: the sizes of the map.

    Returns:
        ``[B, C, height, width]``. NaN in a patch, on the map, gives NaN at its place.

    Raises:
        ArgumentError: shapes, dtypes or devices that do not fit, or CUDA tensors in a build without CUDA.

    Examples:
        >>> patches = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1, 1)
        >>> window_radius(patches, torch.tensor([[0, 0], [0, 0]]), 1, 2)
        tensor([[[[3., 0.]]]])
    """
    check_tensors("window_radius", patches, corners)
    radius: Tensor = call("window_radius", patches.contiguous(), corners.contiguous(), height, width)
    return radius


@fake("window_radius")
def _fake(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    batch, _, channels, _, _ = patches.shape
    return patches.new_empty((batch, channels, height, width))


@fake("_window_radius_backward")
def _backward_fake(grad: Tensor, patches: Tensor, corners: Tensor) -> Tensor:
    return torch.empty_like(patches)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return call("_window_radius_backward", grad.contiguous(), *ctx.saved_tensors), None, None, None


differentiable("window_radius", _backward, _setup_context)
refuse_double_backward("window_radius")
batched("window_radius", (0,), (0,))
batched("_window_radius_backward", (0, 0), (0,))
