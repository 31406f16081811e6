"""Inputs of the ops with a chosen derivative, for the tests of every op, and how far rounding may move their results.

Random numbers are all different and keep away from 0, so that no difference quotient crosses a kink; the samples named
"edges" are full of zeros and ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.ops.samples import SHAPES, Sample, Shape, finish
from tests.ops.window_samples import map_sizes

Scales = tuple[Tensor, ...]
HALVES = (torch.float16, torch.bfloat16)
ALL_DTYPES = (*HALVES, torch.float32, torch.float64)


def distinct(*size: int, dtype: torch.dtype) -> Tensor:
    """Numbers of both signs, none nearer to 0 or to another than 1/100."""
    count = torch.Size(size).numel()
    magnitudes = (torch.arange(count, dtype=dtype) + 1) / 100
    signs = torch.where(torch.arange(count) % 2 == 0, 1, -1).to(dtype)
    return (magnitudes * signs)[torch.randperm(count)].reshape(size)


def tied(*size: int, dtype: torch.dtype) -> Tensor:
    """Multiples of 1/2 between -1 and 1: many zeros, many ties."""
    return torch.randint(-2, 3, size).to(dtype) / 2


def _tensors(shapes: Mapping[str, Shape], dtype: torch.dtype) -> Iterator[tuple[str, Shape, Any]]:
    for name, shape in shapes.items():
        yield name, shape, distinct
    if "vector" in shapes:
        yield "edges", SHAPES["vector"], tied


def nonsmooth_relu_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """ReLU, leaky ReLU and absolute value."""
    for name, shape, numbers in _tensors(shapes, dtype):
        for what, left, at_zero in (("relu", 0.0, 0.5), ("leaky", 0.125, 1.0), ("abs", -1.0, 0.25)):
            x = numbers(shape.batch, *shape.features, dtype=dtype)
            yield finish(f"{name}, {what}", device, requires_grad, x=x, left=left, at_zero=at_zero)


def nonsmooth_maximum_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """The larger of two, with an uneven share on ties."""
    for name, shape, numbers in _tensors(shapes, dtype):
        both = numbers(2, shape.batch, *shape.features, dtype=dtype)
        yield finish(name, device, requires_grad, a=both[0], b=both[1], first=0.25)


def nonsmooth_max_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """The maximum along a dimension in the middle, and along the last one."""
    for name, shape, numbers in _tensors(shapes, dtype):
        for ties in ("first", "last", "even"):
            x = numbers(shape.batch, 3, *shape.features, dtype=dtype)
            yield finish(f"{name}, {ties}", device, requires_grad, x=x, dim=1, ties=ties)
        rows = numbers(*shape.features, shape.batch, 3, dtype=dtype)
        yield finish(f"{name}, last dimension", device, requires_grad, x=rows, dim=-1, ties="even")


def nonsmooth_max_pool2d_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Windows that overlap, with and without padding."""
    for name, shape, numbers in _tensors(shapes, dtype):
        channels, height, width = map_sizes(shape)
        size = (shape.batch, channels if width else 0, max(1, height), max(1, width))
        kernel = (min(2, size[2]), min(3, size[3]))
        window = {"kernel_size": kernel, "stride": 1, "dilation": 1, "ceil_mode": False}
        for ties, beta in (("first", None), ("last", None), ("even", None), ("first", 0.25)):
            x = numbers(*size, dtype=dtype)
            choice = {**window, "padding": 0, "ties": ties, "beta": beta}
            yield finish(f"{name}, {ties} {beta}", device, requires_grad, x=x, **choice)
        padding = (kernel[0] // 2, kernel[1] // 2)
        x = numbers(*size, dtype=dtype)
        yield finish(f"{name}, padded", device, requires_grad, x=x, **{**window, "padding": padding, "ties": "even"})


def no_rounding(inputs: Mapping[str, Any]) -> Scales:
    """Maxima are not computed with, only chosen."""
    return (torch.zeros((), dtype=torch.float64),)


def nonsmooth_relu_values(inputs: Mapping[str, Any]) -> Scales:
    return (inputs["x"].abs(),)


def nonsmooth_relu_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"x": cotangents[0].abs()}


def nonsmooth_maximum_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"a": cotangents[0].abs(), "b": cotangents[0].abs()}


def nonsmooth_max_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"x": cotangents[0].abs().unsqueeze(inputs["dim"])}


def nonsmooth_max_pool2d_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """An element is in at most as many windows as a window has elements, here, where the stride is 1."""
    rows, columns = inputs["kernel_size"]
    grad = cotangents[0].abs()
    return {"x": rows * columns * (grad.amax() if grad.numel() else grad.new_zeros(()))}
