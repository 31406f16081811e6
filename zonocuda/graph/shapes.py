"""The feature shape of an operator's output: by rules, and by torch for what they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from zonocuda.graph.bilinear import Bilinear
from zonocuda.graph.elementwise import Assumed, Elementary, Staircase
from zonocuda.graph.ops import (
    Add,
    Cast,
    Concat,
    Expand,
    Gather,
    Linear,
    Op,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Shape,
    Transpose,
)
from zonocuda.graph.windowed_ops import AveragePool, Conv


def output_shape(op: Op, shapes: Sequence[Shape]) -> Shape:
    """The feature shape of ``op``'s output for inputs of the feature ``shapes``.

    By :func:`rule` where it knows; else as :func:`run_without_data` finds it.

    Raises:
        ValueError: the shapes do not fit, or the batch dimension would change.
    """
    known = rule(op, shapes)
    return run_without_data(op, shapes) if known is None else known


def run_without_data(op: Op, shapes: Sequence[Shape]) -> Shape:
    """The shape that torch finds by running the operator on tensors without data.

    It takes a second the first time: torch loads its symbolic algebra and its compiler for that.

    Raises:
        ValueError: the shapes do not fit, or the batch dimension would change.
    """
    held = {entry.name: getattr(op, entry.name) for entry in fields(op)}
    stand_ins = {name: _without_data(value.shape) for name, value in held.items() if isinstance(value, Tensor)}
    try:
        out = replace(op, **stand_ins).apply(*(_without_data((1, *shape)) for shape in shapes))
    except (RuntimeError, IndexError, ValueError) as error:
        raise ValueError(f"its shapes do not fit: {' '.join(str(error).split())}") from error
    if out.shape[0] != 1:
        raise ValueError(f"it would change the batch dimension from 1 to {out.shape[0]}")
    return tuple(out.shape[1:])


def _without_data(shape: Sequence[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=torch.float32, device="meta")


def rule(op: Op, shapes: Sequence[Shape]) -> Shape | None:
    """The shape, where a rule is sure of it; None for other operators, and wherever something may not fit."""
    found = _RULES.get(type(op))
    if found is None or not shapes or any(extent < 1 for shape in shapes for extent in shape):
        return None
    if len(shapes) > 1 and not isinstance(op, Add | Concat):
        return None
    return found(op, shapes)


def _same(op: Op, shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _add(op: Op, shapes: Sequence[Shape]) -> Shape | None:
    return shapes[0] if len(shapes) == 2 and shapes[0] == shapes[1] else None


def _product(op: Bilinear, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    fits = len(shape) == 1 and op.terms > 0 and shape[0] % (2 * op.terms) == 0
    return (shape[0] // (2 * op.terms),) if fits else None


def _scale_shift(op: ScaleShift, shapes: Sequence[Shape]) -> Shape | None:
    held = [t for t in (op.scale, op.shift) if t is not None]
    return shapes[0] if all(_spreads(t, shapes[0]) for t in held) else None


def _linear(op: Linear, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    if op.weight.dim() != 2 or not shape or shape[-1] != op.weight.shape[1]:
        return None
    out = len(op.weight)
    return (*shape[:-1], out) if op.bias is None or op.bias.shape == (out,) else None


def _conv(op: Conv, shapes: Sequence[Shape]) -> Shape | None:
    (shape,), kernel, out = shapes, op.weight.shape[2:], len(op.weight)
    lengths = {len(kernel), len(op.stride), len(op.padding), len(op.dilation), len(shape) - 1}
    if len(lengths) != 1 or not kernel or min(op.groups, *op.stride, *op.dilation, *kernel) < 1:
        return None
    if shape[0] != op.weight.shape[1] * op.groups or out % op.groups:
        return None
    if min(min(pair) for pair in op.padding) < 0 or not (op.bias is None or op.bias.shape == (out,)):
        return None
    windows = zip(shape[1:], op.padding, op.dilation, kernel, op.stride, strict=True)
    size = [(n + b + e - d * (k - 1) - 1) // s + 1 for n, (b, e), d, k, s in windows]
    return (out, *size) if min(size) > 0 else None


def _average_pool(op: AveragePool, shapes: Sequence[Shape]) -> Shape | None:
    (shape,), axes = shapes, len(op.kernel)
    if len(shape) != axes + 1 or len(op.stride) != axes or min(*op.kernel, *op.stride) < 1:
        return None
    size = [(n - k) // s + 1 for n, k, s in zip(shape[1:], op.kernel, op.stride, strict=True)]
    return (shape[0], *size) if min(size) > 0 else None


def _reduce(op: Reduce, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    if not op.dims or len(set(op.dims)) < len(op.dims) or not all(0 <= d < len(shape) for d in op.dims):
        return None
    kept = [(1 if d in op.dims else n) for d, n in enumerate(shape) if op.keepdim or d not in op.dims]
    return tuple(kept)


def _expand(op: Expand, shapes: Sequence[Shape]) -> Shape | None:
    (shape,), target = shapes, op.shape
    if len(target) < len(shape) or any(n < 1 for n in target):
        return None
    last = target[len(target) - len(shape) :]
    return target if all(n in (1, m) for n, m in zip(shape, last, strict=True)) else None


def _reshape(op: Reshape, shapes: Sequence[Shape]) -> Shape | None:
    fits = all(n > 0 for n in op.shape) and math.prod(op.shape) == math.prod(shapes[0])
    return op.shape if fits else None


def _transpose(op: Transpose, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    if sorted(op.permutation) != list(range(len(shape))):
        return None
    return tuple(shape[d] for d in op.permutation)


def _pad(op: Pad, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    if len(op.pads) != len(shape) or any(min(pair) < 0 for pair in op.pads):
        return None
    return tuple(n + b + e for n, (b, e) in zip(shape, op.pads, strict=True))


def _gather(op: Gather, shapes: Sequence[Shape]) -> Shape | None:
    (shape,) = shapes
    if not 0 <= op.dim < len(shape) or not op.index or not 0 <= min(op.index) <= max(op.index) < shape[op.dim]:
        return None
    return (*shape[: op.dim], len(op.index), *shape[op.dim + 1 :])


def _concat(op: Concat, shapes: Sequence[Shape]) -> Shape | None:
    first, dim = shapes[0], op.dim
    rests = {(*shape[:dim], 0, *shape[dim + 1 :]) for shape in shapes}
    if not 0 <= dim < len(first) or len(rests) > 1 or len({len(shape) for shape in shapes}) > 1:
        return None
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _spreads(t: Tensor, shape: Shape) -> bool:
    """Whether a constant broadcasts to the features of a shape, which stays as it is."""
    if t.dim() > len(shape):
        return False
    last = shape[len(shape) - t.dim() :]
    return all(n in (1, m) for n, m in zip(t.shape, last, strict=True))


_RULES: dict[type[Op], Callable[..., Shape | None]] = {
    Add: _add,
    Assumed: _same,
    AveragePool: _average_pool,
    Cast: _same,
    Concat: _concat,
    Conv: _conv,
    Elementary: _same,
    Expand: _expand,
    Gather: _gather,
    Linear: _linear,
    Pad: _pad,
    Bilinear: _product,
    Reduce: _reduce,
    Relu: _same,
    Reshape: _reshape,
    ScaleShift: _scale_shift,
    Staircase: _same,
    Transpose: _transpose,
}
