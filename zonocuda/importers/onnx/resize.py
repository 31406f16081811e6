"""ONNX operators that resize maps by constant scales, as ONNX Runtime computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from zonocuda.importers import resize as maps
from zonocuda.importers.builder import Value
from zonocuda.importers.errors import refuse, refuse_batch
from zonocuda.importers.onnx.node import OnnxNode
from zonocuda.importers.resize import HALF, Position

_ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - HALF),
    "round_prefer_ceil": lambda x: math.floor(x + HALF),
}


def resize(node: OnnxNode) -> Value:
    """Interpolation with nearest, linear or cubic weights, along each dimension by itself."""
    x = node.value(0)
    old = node.full_shape(x)
    if node.opset < 11:
        sizes: list[int] | None = None
        scales: list[Fraction] | None = _scales(node, 1, len(old))
        coordinates, rounding, cubic = "asymmetric", "", Fraction(-3, 4)
    else:
        for position in (1, 2, 3):
            if node.is_value(position):
                refuse(f"its input {position} must be constant")
        coordinates, rounding = node.attribute("coordinate_transformation_mode"), node.attribute("nearest_mode")
        cubic = Fraction(node.attribute("cubic_coeff_a"))
        node.ignore("extrapolation_value")
        _check_plain(node)
        sizes = node.ints(3) if node.has(3) and node.constant(3).size else None
        scales = None if sizes is not None else _scales(node, 2, len(old))
    return _resized(node, x, scales, sizes, coordinates, rounding, cubic)


def upsample(node: OnnxNode) -> Value:
    """Resize's older form: the element before, or linear weights."""
    x = node.value(0)
    rank = node.rank(x)
    if node.opset >= 9:
        scales = _scales(node, 1, rank)
    else:
        stated = node.attribute("scales")
        if stated is None or len(stated) != rank:
            refuse(f"attribute 'scales' {stated} does not fit {rank} dimensions")
        scales = [Fraction(number) for number in stated]
    return _resized(node, x, scales, None, "asymmetric", "", Fraction(0))


def _check_plain(node: OnnxNode) -> None:
    """Refuses what newer operator sets add."""
    if node.attribute("antialias"):
        refuse("attribute 'antialias' = 1 is not supported")
    policy = node.attribute("keep_aspect_ratio_policy")
    if policy not in (None, "stretch"):
        refuse(f"attribute 'keep_aspect_ratio_policy' {policy!r} is not supported; 'stretch' is")
    if node.attribute("axes") is not None:
        refuse("attribute 'axes' is not supported; state scales or sizes of all dimensions")
    if node.attribute("exclude_outside") and node.attribute("mode") == "cubic":
        refuse("attribute 'exclude_outside' = 1 is not supported")


def _scales(node: OnnxNode, position: int, rank: int) -> list[Fraction]:
    array = node.constant(position)
    if array.dtype != np.float32 or array.shape != (rank,) or not bool((np.isfinite(array) & (array > 0)).all()):
        refuse(f"its scales, of shape {array.shape}, must be {rank} positive float32 numbers")
    return [Fraction(float(number)) for number in array]


def _resized(
    node: OnnxNode,
    x: Value,
    scales: Sequence[Fraction] | None,
    sizes: Sequence[int] | None,
    coordinates: str,
    rounding: str,
    cubic: Fraction,
) -> Value:
    old, mode = node.full_shape(x), node.attribute("mode")
    if sizes is None:
        assert scales is not None
        sizes = [math.floor(n * scale) for n, scale in zip(old, scales, strict=True)]
    elif len(sizes) != len(old):
        refuse(f"sizes {list(sizes)} do not fit shape {old}")
    else:
        scales = [Fraction(m, n) for n, m in zip(old, sizes, strict=True)]
    if any(size < 1 for size in sizes):
        refuse(f"its result would be empty, of shape {list(sizes)}")
    first = int(node.builder.batched)
    if sizes[0] != 1 and first:
        refuse_batch("it resizes the batch dimension")
    dims = [d for d in range(first, len(old)) if scales[d] != 1]
    for dim in dims:
        positions = _positions(old[dim], sizes[dim], scales[dim], coordinates)
        name, feature = node.name if dim == dims[-1] else f"{node.name}/{dim}", dim - first
        if mode == "nearest":
            x = maps.nearest(node.builder, name, x, feature, positions, _choice(rounding, scales[dim]))
        elif mode == "linear":
            x = maps.linear(node.builder, name, x, feature, positions)
        elif mode == "cubic":
            x = maps.cubic(node.builder, name, x, feature, positions, cubic)
        else:
            refuse(f"mode {mode!r} is not supported; 'nearest', 'linear' and 'cubic' are")
    return x


def _choice(rounding: str, scale: Fraction) -> Callable[[Fraction], int]:
    """How the nearest element is chosen; older operator sets take the one before, and the one behind to shrink."""
    if not rounding:
        return math.ceil if scale < 1 else math.floor
    if rounding not in _ROUNDINGS:
        refuse(f"nearest_mode {rounding!r} is not supported; supported: {', '.join(_ROUNDINGS)}")
    return _ROUNDINGS[rounding]


def _positions(extent: int, size: int, scale: Fraction, coordinates: str) -> list[Position]:
    """Where the elements of the result lie: the standard's formulas.

    Raises:
        UnsupportedNetworkError: a formula that reads a region of interest, or is not known.
    """

    def centred(i: int) -> Position:
        quotient = (i + HALF) / scale
        return Position(quotient - HALF, (scale, quotient))

    def symmetric(i: int) -> Position:
        adjustment = size / (scale * extent)
        offset = Fraction(extent, 2) * (1 - adjustment)
        inner = centred(i)
        return Position(offset + inner.place, (*inner.steps, inner.place, scale * extent, adjustment, offset))

    def aligned(i: int) -> Position:
        return Position(Fraction(i * (extent - 1), size - 1) if size > 1 else Fraction(0), (scale,))

    formulas: dict[str, Callable[[int], Position]] = {
        "half_pixel": centred,
        "half_pixel_symmetric": symmetric,
        "pytorch_half_pixel": lambda i: centred(i) if size > 1 else Position(Fraction(0)),
        "align_corners": aligned,
        "asymmetric": lambda i: Position(i / scale, (scale,)),
        "tf_half_pixel_for_nn": lambda i: Position((i + HALF) / scale, (scale,)),
    }
    if coordinates not in formulas:
        refuse(
            f"coordinate_transformation_mode {coordinates!r} is not supported; supported: {', '.join(sorted(formulas))}"
        )
    return [formulas[coordinates](i) for i in range(size)]
