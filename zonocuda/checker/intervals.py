"""Intervals of a network's values on batches of boxes, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zonocuda.checker import lines
from zonocuda.checker.floats import FloatMap, Floats, U, above
from zonocuda.checker.sets import FloatNet, cast_error
from zonocuda.graph import Add, Affine, Cast, Concat, Input, Node, Relu


def interval(
    net: FloatNet,
    node: Node,
    before: Sequence[tuple[Floats, Floats]],
    lower: Floats,
    upper: Floats,
    sizes: Mapping[str, Floats],
) -> tuple[Floats, Floats]:
    """Bounds ``[S, N]`` of a node's value from those of its inputs; of the input, the boxes ``lower``, ``upper``.

    ``sizes`` bounds the absolute values of all nodes before, where they are a machine's.
    """
    low, high = _real_interval(net, node, before, lower, upper)
    error = net.departure(node, sizes, np.maximum(np.abs(low), np.abs(high)))
    if error is None:
        return low, high
    return np.nextafter(low - error, -np.inf), np.nextafter(high + error, np.inf)


def known_of(
    net: FloatNet, node: Node, found: tuple[Floats, Floats], ends: Callable[[str], tuple[Floats, Floats]]
) -> tuple[Floats, Floats]:
    """Bounds ``[S, N]`` of a node's value, with what is known of an extreme of two, and of a magnitude; ``ends``: of
    those before."""
    low, high = found
    if node.name in net.maps.extremes:
        first, second, larger = net.maps.extremes[node.name]
        (a, b), (c, d) = ends(first), ends(second)
        pick = np.maximum if larger else np.minimum
        return np.maximum(low, pick(a, c)), np.minimum(high, pick(b, d))
    if net.maps.is_magnitude(node):
        a, b = ends(node.inputs[1])
        return np.maximum(low, np.maximum(np.maximum(a, -b), 0)), np.minimum(high, np.maximum(-a, b))
    return low, high


def _real_interval(
    net: FloatNet, node: Node, before: Sequence[tuple[Floats, Floats]], lower: Floats, upper: Floats
) -> tuple[Floats, Floats]:
    op = node.op
    if isinstance(op, Input):
        return lower, upper
    if isinstance(op, Relu):
        low, high = before[0]
        return np.maximum(low, 0), np.maximum(high, 0)
    if isinstance(op, lines.Smooth):
        return lines.interval(op, *before[0])
    if isinstance(op, Add):
        (a, b), (c, d) = before
        low, high = (a + c, b + d) if op.sign == 1 else (a - d, b - c)
        return np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    if isinstance(op, Concat):
        shape = (len(lower), net.size[node.name])
        low, high = np.zeros(shape), np.zeros(shape)
        for places, (a, b) in zip(net.maps.parts(node), before, strict=True):
            low[:, places], high[:, places] = a, b
        return low, high
    if not isinstance(op, Affine):
        raise NotImplementedError(f"zonocuda check: op {op.kind} is not supported")
    low, high = before[0]
    map_: FloatMap = net.affine[node.name]
    middle = low + (high - low) / 2
    radius = above(np.maximum(high - middle, middle - low), 2)
    size = np.maximum(np.abs(low), np.abs(high))
    value = map_.linear(middle) + map_.bias
    error = map_.reach(radius) + map_.error(size) + map_.bias_error + U * np.abs(value)
    if isinstance(op, Cast):
        error = error + cast_error(op, size)
    error = above(error + map_.tiny, 8)
    return np.nextafter(value - error, -np.inf), np.nextafter(value + error, np.inf)
