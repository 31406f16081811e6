"""Windowed generators as dense ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import call, check_tensors


def window_dense(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    """The dense generators of windowed ones: every patch at its place on a map of zeros.

    result[b, k, c, y0 + t, x0 + u] = patches[b, k, c, t, u], with (y0, x0) = corners[k], and 0 elsewhere. Elements
    outside the map do not exist. A slice of the symbols (of patches and corners alike) gives that slice of the result.

    Backward: dL/dpatches is the gradient at their place, 0 outside the map.

    Args:
        patches: ``[B, K, C, rows, columns]``, float32 or float64.
        corners: ``[K, 2]`` int64, (y0, x0) of every symbol; negative, or beyond the map, is allowed.
        height, width: the sizes of the map.

    Returns:
        ``[B, K, C, height, width]``.

    Raises:
        ArgumentError: shapes, dtypes or devices that do not fit, or CUDA tensors in a build without CUDA.

    Examples:
        >>> window_dense(torch.ones(1, 1, 1, 2, 2), torch.tensor([[0, 1]]), 2, 3)[0, 0, 0]
        tensor([[0., 1., 1.],
                [0., 1., 1.]])
    """
    check_tensors("window_dense", patches, corners)
    dense: Tensor = call("window_dense", patches.contiguous(), corners.contiguous(), height, width)
    return dense


@fake("window_dense")
def _fake(patches: Tensor, corners: Tensor, height: int, width: int) -> Tensor:
    return patches.new_empty((*patches.shape[:3], height, width))


@fake("_window_dense_backward")
def _backward_fake(grad: Tensor, corners: Tensor, rows: int, columns: int) -> Tensor:
    return grad.new_empty((*grad.shape[:3], rows, columns))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    patches, corners, _, _ = inputs
    ctx.save_for_backward(corners)
    ctx.window = patches.shape[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (corners,) = ctx.saved_tensors
    return call("_window_dense_backward", grad.contiguous(), corners, *ctx.window), None, None, None


differentiable("window_dense", _backward, _setup_context)
refuse_double_backward("window_dense")
batched("window_dense", (0,), (0,))
batched("_window_dense_backward", (0,), (0,))
