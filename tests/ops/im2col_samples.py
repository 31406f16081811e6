"""Inputs of ``im2col`` and ``col2im``, for the tests of every op, and how far rounding may move their results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.ops.samples import SHAPES, Sample, Shape, finish, uniform
from zonocuda import reference

# name, size, kernel, stride, padding, dilation, output; padding at the beginning alone decides
GEOMETRIES = (
    ("a line", (9,), (3,), (1,), (1,), (1,), (9,)),
    ("a strided line", (10,), (4,), (3,), (2,), (2,), (3,)),
    ("3x3", (5, 6), (3, 3), (1, 1), (1, 1), (1, 1), (5, 6)),
    ("1x1", (3, 4), (1, 1), (1, 1), (0, 0), (1, 1), (3, 4)),
    ("stride 2 and 3", (7, 8), (3, 2), (2, 3), (1, 0), (1, 1), (4, 3)),
    ("stride beyond the kernel", (7, 8), (2, 1), (3, 4), (0, 0), (1, 1), (2, 2)),
    ("dilation and stride", (9, 8), (3, 3), (2, 3), (2, 2), (3, 2), (4, 3)),
    ("kernel larger than the map", (2, 3), (5, 7), (1, 1), (2, 3), (1, 1), (2, 3)),
    ("cropped", (6, 5), (2, 2), (1, 1), (-2, -1), (1, 1), (3, 2)),
    ("more output than the map reaches", (3, 3), (2, 2), (2, 2), (5, 0), (1, 1), (6, 4)),
    ("a volume", (4, 3, 5), (2, 3, 2), (1, 2, 1), (0, 1, 1), (2, 1, 1), (2, 2, 6)),
    ("no output", (3, 3), (2, 2), (1, 1), (0, 0), (1, 1), (0, 2)),
)


def im2col_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """A shape's features as maps under a kernel of 3 along each axis, and for "matrix" the geometries."""
    geometries = []
    for name, shape in shapes.items():
        size = shape.features or (1,)
        axes = (1,) * len(size)
        geometries.append((name, shape.batch, shape.symbols, size, tuple(3 * a for a in axes), axes, axes, axes, size))
    if "matrix" in shapes:
        geometries += [(name, 2, 3, *rest) for name, *rest in GEOMETRIES]
    for name, images, channels, size, kernel, stride, padding, dilation, output in geometries:
        yield finish(
            name,
            device,
            requires_grad,
            x=uniform(0.1, 1, images, channels, *size, dtype=dtype),
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_size=output,
        )


def im2col_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """No rounding at all."""
    return (torch.zeros((), dtype=torch.float64, device=inputs["x"].device),)


def im2col_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """The same sums, of magnitudes."""
    sizes = {name: value for name, value in inputs.items() if name != "x"}
    return {"x": reference.col2im(cotangents[0].abs(), inputs["x"].shape, **sizes)}
