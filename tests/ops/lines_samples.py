"""Inputs of ``dual_lines``, and the scales of its outputs and gradients: see samples.py and cases.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.ops.dual_samples import dual_rows
from tests.ops.samples import SHAPES, Sample, Shape, finish, uniform

KINDS = {"shared": (1, 1, 1, 0), "per row": (2, 2, 2, 2), "mixed": (1, 2, 1, 2), "one slope per row": (2, 1, 2, 0)}
"""Of lower, below, above and upper: absent (0), shared (1), or for each row (2)."""


def lines(shape: Shape, kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Slopes and offsets of both signs, the upper offset above the lower one."""
    names = ("lower", "below", "above", "upper")
    ranges = {"lower": (-1, 1), "below": (-2, 0.5), "above": (0.6, 2), "upper": (-1, 1)}
    counts = {name: (0, 1, shape.symbols)[which] for name, which in zip(names, KINDS[kind], strict=True)}
    present = (name for name, which in zip(names, KINDS[kind], strict=True) if which)
    return {name: uniform(*ranges[name], shape.batch, counts[name], *shape.features, dtype=dtype) for name in present}


def dual_lines_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``dual_lines``."""
    for name, shape in shapes.items():
        for kind in KINDS:
            given = {"rows": dual_rows(shape, dtype), **lines(shape, kind, dtype)}
            yield finish(f"{name}, {kind}", device, requires_grad, **given)
    if "vector" in shapes:
        shape = Shape(1, 4, (5,))
        rows = torch.tensor([[[1.0] * 5, [-1.0] * 5, [0.0] * 5, [-0.0] * 5]], dtype=dtype)
        yield finish("edges, zeros", device, requires_grad, rows=rows, **lines(shape, "mixed", dtype))


def dual_lines_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Scales of the image and of the two sums."""
    rows = inputs["rows"].abs()
    products = rows * (inputs["below"].abs() + inputs["above"].abs())
    sums = products.flatten(2).sum(2) if rows.dim() > 2 else products
    return rows, sums, sums


def dual_lines_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Scales of the gradients: |g v| of the slopes, |(a or b) v| of the offsets, summed over the rows that share."""
    rows = inputs["rows"].abs()
    image, low, high = (t.abs() for t in cotangents)
    constants = (low + high).reshape(*low.shape, *[1] * (rows.dim() - 2))
    scales = {"rows": image + constants * (inputs["below"].abs() + inputs["above"].abs())}
    for name in ("lower", "below", "above", "upper"):
        if name in inputs:
            each = rows * (image if name in ("lower", "upper") else constants)
            scales[name] = each if inputs[name].shape[1] == rows.shape[1] else each.sum(1, keepdim=True)
    return scales
