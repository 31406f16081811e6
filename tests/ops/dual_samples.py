"""Inputs of ``dual_relu`` and ``dual_split``, and the scales of outputs and gradients: see samples.py and cases.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from tests.ops.samples import SHAPES, Sample, Shape, edge_zonotope, finish, off_kink_slopes, uniform, zonotope


def dual_rows(shape: Shape, dtype: torch.dtype) -> Tensor:
    """Rows ``[B, K, *features]`` of both signs, away from zero."""
    size = (shape.batch, shape.symbols, *shape.features)
    return uniform(0.1, 1, *size, dtype=dtype) * (2 * torch.randint(0, 2, size, dtype=dtype) - 1)


def row_slopes(lower: Tensor, upper: Tensor, count: int) -> Tensor:
    """Slopes off their kinks, ``[B, count, *features]``."""
    size = (lower.shape[0], count, *lower.shape[1:])
    low, high = (t.unsqueeze(1).expand(size).contiguous() for t in (lower, upper))
    return off_kink_slopes(low, high)


def slope_choices(lower: Tensor, upper: Tensor, rows: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Tied, given and shared slopes for the two signs."""
    per_row, shared = (row_slopes(lower, upper, count) for count in (rows, 1))
    yield "tied", {}
    yield "shared", {"negative": shared}
    yield "per row", {"negative": per_row}
    yield "tied and per row", {"nonnegative": per_row}
    yield "tied and shared", {"nonnegative": shared}
    yield "shared and per row", {"negative": shared, "nonnegative": per_row}
    yield "per row and per row", {"negative": 1 - per_row, "nonnegative": per_row}


def dual_relu_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``dual_relu``."""
    for name, shape in shapes.items():
        c, g = zonotope(shape, dtype)
        radius = g.abs().sum(1) if shape.symbols else torch.full_like(c, 0.5)
        bounds = {"lower": c - radius, "upper": c + radius}
        rows = dual_rows(shape, dtype)
        for kind, slopes in slope_choices(bounds["lower"], bounds["upper"], shape.symbols):
            yield finish(f"{name}, {kind}", device, requires_grad, rows=rows, **bounds, **slopes)
    if "vector" not in shapes:
        return
    c, g = edge_zonotope(dtype)
    radius = g.abs().sum(1)
    bounds = {"lower": c - radius, "upper": c + radius}
    rows = torch.tensor([[[1.0] * 7, [-1.0] * 7, [0.0] * 7, [-0.0] * 7]], dtype=dtype)
    for kind, slopes in slope_choices(bounds["lower"], bounds["upper"], 4):
        yield finish(f"edges, {kind}", device, requires_grad, rows=rows, **bounds, **slopes)
    for name, sign in (("all dead", -1), ("all active", 1)):
        shape = SHAPES["vector"]
        g = zonotope(shape, dtype)[1]
        c, radius = sign * (g.abs().sum(1) + 0.5), g.abs().sum(1)
        bounds = {"lower": c - radius, "upper": c + radius}
        for kind, slopes in slope_choices(bounds["lower"], bounds["upper"], shape.symbols):
            yield finish(
                f"{name}, {kind} slope", device, requires_grad, rows=dual_rows(shape, dtype), **bounds, **slopes
            )


def _sizes(inputs: Mapping[str, Any]) -> Tensor:
    """What bounds |l|, |u| and 2 mu, as ``[B, 1, *features]``."""
    return (inputs["lower"].abs() + inputs["upper"].abs()).unsqueeze(1)


def dual_relu_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Scales of the image and of the two sums."""
    rows = inputs["rows"].abs()
    sums = (rows * _sizes(inputs)).flatten(2).sum(2) if rows.dim() > 2 else rows * _sizes(inputs)
    return rows, sums, sums


def dual_relu_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Scales of the gradients: |A| + |m| size for a slope, with A = g v and m = 2 v (a or b)."""
    rows, size = inputs["rows"].abs(), _sizes(inputs)
    image, low, high = (t.abs() for t in cotangents)
    constants = (low + high).reshape(*low.shape, *[1] * (rows.dim() - 2))
    products, m = image * rows, 2 * constants * rows
    scales = {"rows": image + constants * size}
    for side in ("negative", "nonnegative"):
        if side in inputs:
            count = inputs[side].shape[1]
            slope = products + m * size
            scales[side] = slope if count == rows.shape[1] else slope.sum(1, keepdim=True)
    width = (inputs["upper"] - inputs["lower"]).unsqueeze(1)
    tied = "negative" not in inputs
    bounds = (m + (products / torch.where(width > 0, width, 1.0) if tied else 0)).sum(1)
    return {**scales, "lower": bounds, "upper": bounds}


def row_splits(shape: Shape) -> Tensor:
    """Each fifth neuron split to active, each fifth to dead; int8 ``[B, K, *features]``."""
    size = (shape.batch, shape.symbols, *shape.features)
    return torch.tensor([0, 1, 0, -1, 0], dtype=torch.int8)[torch.randperm(prod(size)) % 5].reshape(size)


def row_multipliers(shape: Shape, dtype: torch.dtype) -> Tensor:
    """Multipliers off their kink, one in five of them negative; ``[B, K, *features]``."""
    size = (shape.batch, shape.symbols, *shape.features)
    sign = torch.where(torch.rand(size) < 0.2, -1.0, 1.0).to(dtype)
    return sign * uniform(0.1, 2, *size, dtype=dtype)


def dual_split_samples(
    device: torch.device, dtype: torch.dtype, requires_grad: bool, shapes: Mapping[str, Shape] = SHAPES
) -> Iterator[Sample]:
    """Inputs of ``dual_split``."""
    for name, shape in shapes.items():
        c, g = zonotope(shape, dtype)
        radius = g.abs().sum(1) if shape.symbols else torch.full_like(c, 0.5)
        inputs = {"rows": dual_rows(shape, dtype), "lower": c - radius, "upper": c + radius}
        for kind, slopes in slope_choices(inputs["lower"], inputs["upper"], shape.symbols):
            given = {} if kind == "tied and shared" else {"multipliers": row_multipliers(shape, dtype)}
            yield finish(
                f"{name}, {kind}", device, requires_grad, **inputs, splits=row_splits(shape), **given, **slopes
            )
    if "vector" not in shapes:
        return
    c, g = edge_zonotope(dtype)
    radius = g.abs().sum(1)
    rows = torch.tensor([[[1.0] * 7, [-1.0] * 7, [0.0] * 7, [-0.0] * 7]], dtype=dtype).repeat(1, 3, 1)
    inputs = {"rows": rows, "lower": c - radius, "upper": c + radius}
    splits = torch.tensor([-1, 0, 1], dtype=torch.int8).repeat_interleave(4).reshape(1, 12, 1).expand(1, 12, 7)
    for kind, slopes in slope_choices(inputs["lower"], inputs["upper"], 12):
        beta = torch.arange(-3, 4, dtype=dtype).expand(1, 12, 7)
        yield finish(
            f"edges, {kind}", device, requires_grad, **inputs, splits=splits.contiguous(), multipliers=beta, **slopes
        )


def dual_split_values(inputs: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Scales of the image and of the sum."""
    image, low, _ = dual_relu_values(inputs)
    return image + inputs["multipliers"].abs() if "multipliers" in inputs else image, low


def dual_split_gradients(inputs: Mapping[str, Any], cotangents: Sequence[Tensor]) -> dict[str, Tensor]:
    """Scales of the gradients: those of ``dual_relu``, and the image's for a multiplier."""
    scales = dual_relu_gradients(inputs, [*cotangents, torch.zeros_like(cotangents[1])])
    return {**scales, "multipliers": cotangents[0].abs()} if "multipliers" in inputs else scales
