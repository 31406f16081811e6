"""A network's operators as sums of balls, made once, and intervals of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property
from math import inf, prod
from typing import Any

import numpy as np
import torch
from flint import arb
from numpy.typing import NDArray

from zonocuda.checker.affine import Map, explicit
from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, lower, upper, zeros
from zonocuda.checker.certificate import Layer
from zonocuda.checker.execution import Execution, sized
from zonocuda.checker.functions import each, least, most
from zonocuda.checker.lines import Smooth
from zonocuda.checker.norms import confined
from zonocuda.checker.products import corners, split
from zonocuda.graph import (
    Add,
    Affine,
    Bilinear,
    Cast,
    Concat,
    Elementwise,
    Expand,
    Gather,
    Graph,
    Input,
    Node,
    Op,
    Rearrangement,
    Relu,
    ScaleShift,
)

BALLS_AT_ONCE = 2**21
"""Of a product: a ball takes about a hundred bytes."""

Ends = tuple[Array, Array]
"""Exact lower and upper bounds ``[N]``."""


def is_activation(op: Op) -> bool:
    """Whether an operator is relaxed: neither affine nor a sum of two."""
    return isinstance(op, Relu | Smooth)


class Maps:
    """The affine operators of a network, made once."""

    def __init__(self, graph: Graph, execution: Execution | None = None) -> None:
        """``execution``: where values are those of a machine, how it computes them."""
        graph = confined(graph)
        self.graph, self.execution = graph, execution
        self.nodes = {node.name: node for node in graph.nodes}
        self.size = {node.name: prod(node.shape) for node in graph.nodes}
        self._maps: dict[str, tuple[Map, Map]] = {}
        self.activations = [node for node in graph.nodes if is_activation(node.op)]

    @property
    def is_piecewise(self) -> bool:
        """Whether all activations are ReLUs."""
        return all(isinstance(node.op, Relu) for node in self.activations)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The activations by name, in order."""
        return {
            node.name: Layer(node.op.kind, self.size[node.inputs[0]], not isinstance(node.op, Elementwise))
            for node in self.activations
        }

    def under(self, execution: Execution | None) -> Maps:
        """The same operators, as a machine executes them."""
        result = Maps(self.graph, execution)
        result._maps = self._maps
        return result

    def of(self, node: Node) -> tuple[Map, Map]:
        """The operator of a node, and its absolute value."""
        if node.name not in self._maps:
            if not isinstance(node.op, Affine):
                raise NotImplementedError(f"zonocuda check: op {node.op.kind} is not supported")
            one = explicit(node.op, self.nodes[node.inputs[0]].shape, node.shape)
            self._maps[node.name] = one, one.absolute()
        return self._maps[node.name]

    @cached_property
    def rows(self) -> int:
        """How many rows go together."""
        blocks = [b for node in self.graph.nodes if isinstance(node.op, Affine) for b in self.of(node)[0].blocks]
        largest = max([b.inputs.size + b.outputs.size for b in blocks], default=1)
        return max(1, min(64, BALLS_AT_ONCE // max(1, largest)))

    @cached_property
    def extremes(self) -> dict[str, tuple[str, str, bool]]:
        """Nodes b + relu(a - b), the larger of a and b, and b - relu(b - a), the smaller: a, b, and which it is."""
        found = {}
        for node in self.graph.nodes:
            if not isinstance(node.op, Add) or not isinstance(self.nodes[node.inputs[1]].op, Relu):
                continue
            inner = self.nodes[self.nodes[node.inputs[1]].inputs[0]]
            if isinstance(inner.op, Add) and inner.op.sign == -1:
                first, second = inner.inputs
                if self.rounds(node) or self.rounds(inner):
                    continue
                if node.op.sign == 1 and node.inputs[0] == second:
                    found[node.name] = first, second, True
                if node.op.sign == -1 and node.inputs[0] == first:
                    found[node.name] = second, first, False
        return found

    def is_magnitude(self, node: Node) -> bool:
        """Whether a node is 2 relu(x) - x."""
        if not isinstance(node.op, Add) or node.op.sign == 1:
            return False
        twice = self.nodes[node.inputs[0]]
        if not isinstance(twice.op, ScaleShift) or twice.op.shift is not None or twice.op.scale is None:
            return False
        positive = self.nodes[twice.inputs[0]]
        if self.rounds(node) or self.rounds(twice):
            return False
        is_two = not twice.op.roundings and not twice.op.doubt and bool((twice.op.scale == 2).all())
        return is_two and isinstance(positive.op, Relu) and positive.inputs[0] == node.inputs[1]

    def rounds(self, node: Node) -> bool:
        """Whether a machine's value may be another than that of the node's operator."""
        execution = self.execution
        return execution is not None and (node.name in execution.shares or node.name in execution.assumed)

    def departure(self, node: Node, size: Callable[[str], Array], own: Ends) -> Array | None:
        """How far it may be ``[N]``, for values of at most the absolute ``size``, and with ``own`` bounds of the
        operator's own; None where it is the same."""
        if self.execution is None or not self.rounds(node):
            return None
        if node.name in self.execution.assumed:
            return balls(self.execution.assumed[node.name].departure(floats_above(sized(*own)).tolist()))
        first = size(node.inputs[0])
        if isinstance(node.op, Add):
            return self.execution.departure(node.name, first, size(node.inputs[1]), size)
        map_, magnitude = self.of(node)
        second = None if map_.bias is None else np.abs(map_.bias)
        return self.execution.departure(node.name, upper(magnitude.linear(first)), second, size)

    def overflow(self, size: Callable[[str], Array]) -> str:
        """Why a machine's values may overflow, for at most the absolute ``size`` of the input and behind ReLUs; empty
        if they do not."""

        def absolute(node: Node, x: Array) -> Array:
            map_, magnitude = self.of(node)
            y = magnitude.linear(x)
            return upper(y if map_.bias is None else y + np.abs(map_.bias))

        name = "" if self.execution is None else self.execution.overflow(size, absolute)
        return f"as executed, values may overflow at {name!r}" if name else ""

    def is_exact(self, name: str) -> bool:
        """Whether intervals lose nothing up to a node: one operator that adds inputs up, between some that do not."""
        node = self.nodes[name]
        while isinstance(node.op, ScaleShift | Rearrangement | Gather | Expand):
            node = self.nodes[node.inputs[0]]
        return isinstance(node.op, Input) or (isinstance(node.op, Affine) and self._is_separable(node.inputs[0]))

    def _is_separable(self, name: str) -> bool:
        """Whether the coordinates of a node's value depend on different inputs."""
        node = self.nodes[name]
        while isinstance(node.op, ScaleShift | Rearrangement):
            node = self.nodes[node.inputs[0]]
        return isinstance(node.op, Input)

    def parts(self, node: Node) -> list[Any]:
        """Of a concatenation: for each input the places that it takes."""
        assert isinstance(node.op, Concat)
        places = np.arange(self.size[node.name]).reshape(node.shape)
        cuts = np.cumsum([self.nodes[name].shape[node.op.dim] for name in node.inputs])[:-1]
        return [part.ravel() for part in np.split(places, cuts, axis=node.op.dim)]


FORMATS = {
    torch.float16: (11, -24, 16),
    torch.bfloat16: (8, -133, 128),
    torch.float32: (24, -149, 128),
    torch.float64: (53, -1074, 1024),
}
"""Binary formats of IEEE 754 and the like: digits p, least positive number 2^q, and all numbers below 2^r."""


def cast_error(op: Cast, low: Array, high: Array) -> Array:
    """How far rounding to the type of a cast may take numbers between ``low`` and ``high``.

    |fl(x) - x| <= 2^-p |x| + 2^(q - 1) for |x| <= 2^r (1 - 2^-p), beyond which nothing is known. To 16-bit types
    conversions may round twice, by way of float32: 2^-12 of that more.
    """
    digits, least, top = FORMATS[op.target]
    unit, spacing = arb(2) ** -digits, arb(2) ** (least - 1)
    largest = arb(2) ** top * (ONE - unit)
    twice = ONE if digits >= 24 else ONE + arb(2) ** -12
    sizes = [abs(a).max(abs(b)) for a, b in zip(low, high, strict=True)]
    return upper(balls((size * unit + spacing) * twice if size <= largest else arb("inf") for size in sizes))


def interval(maps: Maps, node: Node, before: list[Ends]) -> Ends:
    """Bounds of a node's value from those of its inputs."""
    op = node.op
    if isinstance(op, Relu):
        low, high = (balls(ZERO if value <= 0 else value for value in end) for end in before[0])
        return low, high
    if isinstance(op, Elementwise):
        ends = floats_below(before[0][0]), floats_above(before[0][1])
        return balls(each(least, op, 0.0, *ends).tolist()), balls(each(most, op, 0.0, *ends).tolist())
    if isinstance(op, Bilinear):
        (xl, yl), (xu, yu) = (split(end, op.terms) for end in before[0])
        low, high = corners((xl, xu), (yl, yu))
        low, high = lower(low.sum(1)), upper(high.sum(1))
        if op.most < inf:
            low = balls(x if x >= -op.most else arb(-op.most) for x in low)
            high = balls(x if x <= op.most else arb(op.most) for x in high)
        return low, high
    if isinstance(op, Cast):
        low, high = before[0]
        error = cast_error(op, low, high)
        return lower(low - error), upper(high + error)
    if isinstance(op, Affine):
        map_, magnitude = maps.of(node)
        low, high = before[0]
        center, width = map_.linear((low + high) / 2), magnitude.linear((high - low) / 2)
        if map_.bias is not None:
            center = center + map_.bias
        return lower(center - width), upper(center + width)
    if isinstance(op, Add):
        (a, b), (c, d) = before
        return (lower(a + c), upper(b + d)) if op.sign == 1 else (lower(a - d), upper(b - c))
    if isinstance(op, Concat):
        low, high = zeros(maps.size[node.name]), zeros(maps.size[node.name])
        for places, (a, b) in zip(maps.parts(node), before, strict=True):
            low[places], high[places] = a, b
        return low, high
    raise NotImplementedError(f"zonocuda check: op {op.kind} is not supported")


def floats_below(values: Array) -> NDArray[np.float64]:
    """Floats below exact numbers; minus infinity for what is none."""
    return np.array([_float(value, -np.inf) for value in values.ravel()]).reshape(values.shape)


def floats_above(values: Array) -> NDArray[np.float64]:
    """Floats above exact numbers; infinity for what is none."""
    return np.array([_float(value, np.inf) for value in values.ravel()]).reshape(values.shape)


def _float(value: arb, side: float) -> float:
    end = value.upper() if side > 0 else value.lower()
    near = float(end.mid())
    if arb(near) == end:
        return near
    return side if near != near or not end.is_finite() else float(np.nextafter(near, side))


def executed_interval(maps: Maps, node: Node, ends: Mapping[str, Ends]) -> Ends:
    """The same of a node whose inputs have bounds ``ends``, as do the nodes before, of a machine's value."""
    low, high = interval(maps, node, [ends[name] for name in node.inputs])
    error = maps.departure(node, lambda name: sized(*ends[name]), (low, high))
    return (low, high) if error is None else (lower(low - error), upper(high + error))


def of_two(found: Ends, first: Ends, second: Ends, larger: bool) -> Ends:
    """Bounds ``found`` of the larger, or smaller, of two values, which lies between the extremes of their ends."""
    pairs = (zip(*pair, strict=True) for pair in zip(first, second, strict=True))
    known = [[x.max(y) if larger else x.min(y) for x, y in pair] for pair in pairs]
    low = lower(balls(x.max(y) for x, y in zip(found[0], known[0], strict=True)))
    return low, upper(balls(x.min(y) for x, y in zip(found[1], known[1], strict=True)))


def known_of(maps: Maps, node: Node, found: Ends, ends: Mapping[str, Ends]) -> Ends:
    """Bounds of a node's value, with what is known of an extreme of two, and of a magnitude; ``ends``: of those
    before."""
    if node.name in maps.extremes:
        first, second, larger = maps.extremes[node.name]
        return of_two(found, ends[first], ends[second], larger)
    if maps.is_magnitude(node):
        low, high = ends[node.inputs[1]]
        low, high = of_two(found, (low, high), (-high, -low), True)
        return balls(value.max(ZERO) for value in low), high
    return found


def attained(maps: Maps, box: Ends) -> dict[str, Ends]:
    """Bounds of all nodes' values, or a machine's, exact where a sum reads nothing but zeros and its offset and rounds
    nothing, and for magnitudes and extremes: no middle of an interval is rounded."""
    ends = {maps.graph.nodes[0].name: box}
    for node in maps.graph.nodes[1:]:
        before = [ends[name] for name in node.inputs]
        if isinstance(node.op, Affine) and not isinstance(node.op, Cast):
            map_ = maps.of(node)[0]
            low, high = map_.ends(*before[0])
            if map_.bias is not None:
                low, high = low + map_.bias, high + map_.bias
            error = maps.departure(node, lambda name: sized(*ends[name]), (low, high))
            found = (lower(low), upper(high)) if error is None else (lower(low - error), upper(high + error))
        else:
            found = executed_interval(maps, node, ends)
        ends[node.name] = known_of(maps, node, found, ends)
    return ends


def ratio(value: Fraction) -> Any:
    """A rational number."""
    return arb(value.numerator) / value.denominator
