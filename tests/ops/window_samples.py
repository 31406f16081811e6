"""Inputs of the ops on windowed generators, for the tests of every op: the shapes of samples.py as maps [C, H, W]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from tests.ops.samples import SHAPES, Sample, Shape, finish, uniform

Size = tuple[int, int]
FAR = 2**63 - 1


def map_sizes(shape: Shape) -> tuple[int, int, int]:
    """The features of a shape as channels, height and width."""
    channels, height, width = (*(1,) * (3 - len(shape.features)), *shape.features)
    return channels, height, width


def patches_of(batch: int, symbols: int, channels: int, window: Size, dtype: torch.dtype) -> Tensor:
    """Numbers of both signs, away from 0."""
    size = (batch, symbols, channels, *window)
    return uniform(0.1, 1, *size, dtype=dtype) * (2 * torch.randint(0, 2, size, dtype=dtype) - 1)


def corners_of(symbols: int, window: Size, height: int, width: int) -> Tensor:
    """Corners anywhere between 'the last row and column lie on the map' and 'the first do', mostly inside."""
    axes = [
        torch.randint(-((size - 1) // 2), max(1, length - size // 2), (symbols,))
        for size, length in zip(window, (height, width), strict=True)
    ]
    return torch.stack(axes, dim=1)


def border_corners(window: Size, height: int, width: int) -> Tensor:
    """Inside, across each border and corner of the map, beside it on every side, and as far away as numbers go."""
    axes = [
        [0, -1, 1 - size, -size, length - size, length - 1, length, FAR, -FAR - 1]
        for size, length in zip(window, (height, width), strict=True)
    ]
    return torch.cartesian_prod(*(torch.tensor(axis) for axis in axes))


def _windows(
    shapes: Mapping[str, Shape], dtype: torch.dtype
) -> Iterator[tuple[str, tuple[int, int, int, int], Tensor, Tensor]]:
    """Name, sizes of the maps [B, C, H, W], patches and corners."""
    for name, shape in shapes.items():
        channels, height, width = map_sizes(shape)
        window = (min(2, max(1, height)), min(3, max(1, width)))
        patches = patches_of(shape.batch, shape.symbols, channels, window, dtype)
        yield name, (shape.batch, channels, height, width), patches, corners_of(shape.symbols, window, height, width)
    if "matrix" in shapes:
        for what, window, (height, width) in (
            ("borders", (3, 4), (5, 6)),
            ("1x1 windows", (1, 1), (2, 3)),
            ("windows larger than the map", (5, 7), (2, 3)),
            ("wide windows", (2, 37), (4, 30)),
            ("empty windows", (0, 2), (2, 3)),
            ("a map without rows", (2, 2), (0, 3)),
        ):
            corners = border_corners(window, height, width)
            patches = patches_of(2, len(corners), 3, window, dtype)
            yield what, (2, 3, height, width), patches, corners


def window_radius_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``window_radius`` and of ``window_dense``."""
    for name, (_, _, height, width), patches, corners in _windows(shapes, dtype):
        yield finish(name, device, requires_grad, patches=patches, corners=corners, height=height, width=width)


def window_scale_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``window_scale``."""
    for name, map_size, patches, corners in _windows(shapes, dtype):
        multiplier = uniform(-1, 1, *map_size, dtype=dtype)
        yield finish(name, device, requires_grad, patches=patches, corners=corners, multiplier=multiplier)


# name, input [C, H, W], outputs, kernel, stride, padding, dilation, groups, output
CONVOLUTIONS = (
    ("3x3", (3, 5, 6), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, (5, 6)),
    ("1x1", (2, 3, 4), 3, (1, 1), (1, 1), (0, 0), (1, 1), 1, (3, 4)),
    ("stride 2", (2, 6, 7), 3, (3, 3), (2, 2), (1, 1), (1, 1), 1, (3, 4)),
    ("stride 3 and 2", (2, 8, 7), 3, (5, 3), (3, 2), (2, 0), (1, 1), 1, (3, 3)),
    ("stride beyond the kernel", (2, 7, 8), 3, (2, 1), (3, 4), (0, 0), (1, 1), 1, (2, 2)),
    ("asymmetric padding", (2, 4, 5), 3, (4, 2), (2, 1), (0, 3), (1, 1), 1, (2, 9)),
    ("dilation", (2, 7, 6), 3, (3, 2), (1, 1), (2, 1), (2, 3), 1, (7, 5)),
    ("dilation and stride", (2, 9, 8), 3, (3, 3), (2, 3), (2, 2), (3, 2), 1, (4, 3)),
    ("groups", (4, 4, 4), 6, (3, 3), (1, 1), (1, 1), (1, 1), 2, (4, 4)),
    ("depthwise", (3, 5, 4), 6, (3, 3), (2, 2), (1, 1), (1, 1), 3, (3, 2)),
    ("kernel larger than the map", (2, 2, 3), 3, (5, 7), (1, 1), (2, 3), (1, 1), 1, (2, 3)),
    ("cropped input", (2, 5, 6), 3, (2, 2), (1, 1), (-1, -2), (1, 1), 1, (3, 3)),
)


def diagonal_conv_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``diagonal_conv``: a shape's features under a 3x3 convolution, and for "matrix" the others."""
    convolutions = []
    for name, shape in shapes.items():
        channels, height, width = map_sizes(shape)
        symbols = shape.symbols if prod(shape.features) else 0
        same = ((3, 3), (1, 1), (1, 1), (1, 1), 1, (height, width))
        convolutions.append((name, shape.batch, symbols, (channels, height, width), 4, *same))
    if "matrix" in shapes:
        convolutions += [(name, 2, prod(size), size, *rest) for name, size, *rest in CONVOLUTIONS]
        convolutions.append(("no outputs", 2, 3, (2, 2, 2), 0, (3, 3), (1, 1), (1, 1), (1, 1), 1, (2, 2)))
    for name, batch, symbols, size, outputs, kernel, stride, padding, dilation, groups, output in convolutions:
        features = prod(size)
        index = torch.randperm(features) if symbols == features else torch.randint(0, max(1, features), (symbols,))
        yield finish(
            name,
            device,
            requires_grad,
            coefficients=uniform(0.1, 1, batch, symbols, dtype=dtype),
            index=index,
            weight=uniform(-1, 1, outputs, size[0] // groups, *kernel, dtype=dtype),
            channels=size[0],
            height=size[1],
            width=size[2],
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            out_height=output[0],
            out_width=output[1],
        )
