"""The windows of a convolution as one matrix for all images, and its adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, one_by_one
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import call, check_tensors

Sizes = Sequence[int]


def im2col(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, output_size: Sizes) -> Tensor:
    """The columns that a convolution of ``x`` multiplies its weights with: one for each output of each image.

    columns[(c, v), (n, i)] = x[n, c, stride i + dilation v - padding], with a position i of the output and an element v
    of the kernel on each axis, both in row-major order; 0 where that lies outside the map. A convolution with weights
    ``[O, C, *kernel]`` is the product ``weight.flatten(1) @ columns``, ``[O, N * outputs]``.

    Backward: :func:`col2im`.

    Args:
        x: ``[N, C, *size]`` with one to three axes, float32 or float64.
        kernel, stride, dilation: one number for each axis, at least 1.
        padding: at the beginning of each axis; negative crops. What the end needs follows from the output's size.
        output_size: of each axis.

    Returns:
        ``[C * prod(kernel), N * prod(output_size)]``.

    Raises:
        ArgumentError: sizes or dtypes that do not fit, or a CUDA tensor in a build without CUDA.

    Examples:
        >>> x = torch.arange(3.0).reshape(1, 1, 3)
        >>> im2col(x, (2,), (1,), (0,), (1,), (2,))
        tensor([[0., 1.],
                [1., 2.]])
    """
    check_tensors("im2col", x)
    _check_axes("im2col", x.dim() - 2, kernel, stride, padding, dilation, output_size)
    lists = [_lifted(kernel, 1), _lifted(stride, 1), _lifted(padding, 0), _lifted(dilation, 1), _lifted(output_size, 1)]
    columns: Tensor = call("im2col", _lifted_map(x), *lists)
    return columns


def col2im(
    columns: Tensor,
    input_size: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    output_size: Sizes,
) -> Tensor:
    """The adjoint of :func:`im2col`: every number of the columns added where it came from.

    x[n, c, p] = the sum of columns[(c, v), (n, i)] over stride i + dilation v - padding = p, element after element of
    the kernel: the order depends on nothing else. With ``columns = weight.flatten(1).T @ v`` that is a transposed
    convolution of v.

    Backward: :func:`im2col`.

    Args:
        columns: ``[C * prod(kernel), N * prod(output_size)]``, float32 or float64.
        input_size: ``[N, C, *size]`` of the result.
        kernel, stride, padding, dilation, output_size: see :func:`im2col`.

    Returns:
        A tensor of ``input_size``.

    Raises:
        ArgumentError: sizes or dtypes that do not fit, or a CUDA tensor in a build without CUDA.

    Examples:
        >>> columns = torch.ones(2, 2)
        >>> col2im(columns, (1, 1, 3), (2,), (1,), (0,), (1,), (2,))
        tensor([[[1., 2., 1.]]])
    """
    check_tensors("col2im", columns)
    _check_axes("col2im", len(input_size) - 2, kernel, stride, padding, dilation, output_size)
    lists = [_lifted(kernel, 1), _lifted(stride, 1), _lifted(padding, 0), _lifted(dilation, 1), _lifted(output_size, 1)]
    size = [*input_size[:2], *_lifted(input_size[2:], 1)]
    x: Tensor = call("_im2col_backward", columns.contiguous(), size, *lists)
    return x.reshape(tuple(input_size))


def _check_axes(op: str, axes: int, *lists: Sizes) -> None:
    if not 1 <= axes <= 3 or any(len(sizes) != axes for sizes in lists):
        raise ArgumentError(
            f"{op}: a map must have 1 to 3 axes, and kernel, stride, padding, dilation and output_size a number for "
            f"each, got {axes} axes and {', '.join(str(len(sizes)) for sizes in lists)} numbers"
        )


def _lifted(sizes: Sizes, missing: int) -> list[int]:
    """The numbers of three axes, the first of which may be missing."""
    return [*[missing] * (3 - len(sizes)), *sizes]


def _lifted_map(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], *_lifted(x.shape[2:], 1)).contiguous()


@fake("im2col")
def _fake(
    x: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], output_size: list[int]
) -> Tensor:
    return x.new_empty((x.shape[1] * prod(kernel), x.shape[0] * prod(output_size)))


@fake("_im2col_backward")
def _backward_fake(
    grad: Tensor,
    input_size: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    output_size: list[int],
) -> Tensor:
    return grad.new_empty(input_size)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *sizes = inputs
    ctx.input_size, ctx.sizes = list(x.shape), sizes


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return call("_im2col_backward", grad.contiguous(), ctx.input_size, *ctx.sizes), *(None,) * len(ctx.sizes)


def _setup_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.sizes = inputs[2:]


def _adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return call("im2col", grad.contiguous(), *ctx.sizes), *(None,) * (1 + len(ctx.sizes))


differentiable("im2col", _backward, _setup_context)
differentiable("_im2col_backward", _adjoint_backward, _setup_adjoint)
batched("im2col", (0,), (1,))
one_by_one("_im2col_backward")  # whose batch is part of the size that it is told
