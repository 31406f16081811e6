"""Cheap bounds of every activation's input on batches of boxes: the inputs' symbols, and one error for each neuron.

A value lies in c + sum_k G_k [-1, 1] + [-e, e], k over the inputs. What an activation adds, and what rounding does,
joins e at once (:mod:`zonocuda.checker.floats`). Intervals go along, and both are intersected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zonocuda.checker.floats import Floats, U, above, gamma
from zonocuda.checker.intervals import interval, known_of
from zonocuda.checker.lines import Band, Smooth
from zonocuda.checker.sets import FloatNet, Relaxed, cast_error
from zonocuda.graph import Add, Cast, Concat, Input, Node, Relu

Ends = tuple[Floats, Floats]
Clip = Callable[[Node, Floats, Floats], Ends]
"""Bounds of an activation's input from others that hold, too."""


@dataclass(frozen=True, eq=False)
class _Value:
    """c ``[S, N]``, G ``[S, N0, N]``, e ``[S, N]``, and an interval."""

    center: Floats
    generators: Floats
    error: Floats
    ends: Ends

    @property
    def spread(self) -> Floats:
        """At least sum |G_k|."""
        return above(np.abs(self.generators).sum(1), self.generators.shape[1])

    def bounds(self) -> Ends:
        """Of the zonotope and of the interval, the better ones."""
        radius = above(self.spread + self.error, 2)
        low, high = np.nextafter(self.center - radius, -np.inf), np.nextafter(self.center + radius, np.inf)
        return np.fmax(low, self.ends[0]), np.fmin(high, self.ends[1])


def zonotope_bounds(net: FloatNet, lower: Floats, upper: Floats, clip: Clip) -> dict[str, Ends]:
    """Bounds ``[S, N]`` of every activation's input on boxes ``[S, N0]``, by the activation's name."""
    found: dict[str, Ends] = {}
    values: dict[str, _Value] = {}
    sizes: dict[str, Floats] = {}  # of what a machine rounds
    for node in net.graph.nodes:
        before = [values[name] for name in node.inputs]
        if isinstance(node.op, Smooth):
            low, high = clip(node, *before[0].bounds())
            found[node.name] = low, high
            ends = interval(net, node, [(low, high)], lower, upper, sizes)
            own = _between(before[0], Band.of(node.op, low, high), ends)
            departure = net.departure(node, sizes, np.maximum(np.abs(ends[0]), np.abs(ends[1])))
            lost = own.error if departure is None else above(own.error + departure, 2)
            values[node.name] = replace(own, error=lost)
            continue
        for name, value in zip(node.inputs, before, strict=True):
            if net.maps.execution is not None and name not in sizes:
                sizes[name] = np.maximum(*map(np.abs, value.bounds()))
        ends = interval(net, node, [value.ends for value in before], lower, upper, sizes)
        ends = known_of(net, node, ends, lambda name: values[name].ends)
        departure = net.departure(node, sizes, np.maximum(np.abs(ends[0]), np.abs(ends[1])))
        if isinstance(node.op, Input):
            center = lower + (upper - lower) / 2
            radius = above(np.maximum(upper - center, center - lower), 2)
            generators = np.zeros((*lower.shape, lower.shape[1]))
            places = np.arange(lower.shape[1])
            generators[:, places, places] = radius
            values[node.name] = _Value(center, generators, np.zeros_like(lower), ends)
        elif isinstance(node.op, Relu):
            low, high = clip(node, *before[0].bounds())
            found[node.name] = low, high
            values[node.name] = _rectified(before[0], low, high)
        elif isinstance(node.op, Add):
            values[node.name] = _sum(before[0], before[1], node.op.sign, ends)
        elif isinstance(node.op, Concat):
            values[node.name] = _joined(net, node, before, ends)
        else:
            values[node.name] = _image(net, node, before[0], ends)
        if departure is not None:
            own = values[node.name]
            values[node.name] = replace(own, error=above(own.error + departure, 2))
    return found


def _rectified(x: _Value, low: Floats, high: Floats) -> _Value:
    """lam x <= relu(x) <= lam x + 2 mu, with the slope of the least area."""
    relaxed = Relaxed.of(low, high)
    slope, half = relaxed.slopes.negative, relaxed.twice / 2
    moved = slope * x.center
    center = moved + half
    rounded = U * (np.abs(moved) + np.abs(center) + slope * x.spread)
    error = above(slope * x.error + half + rounded, 6)
    return _Value(center, slope[:, None] * x.generators, error, (np.maximum(low, 0), np.maximum(high, 0)))


def _between(x: _Value, band: Band, ends: Ends) -> _Value:
    """slope x + low <= f <= slope x + high, folded: sums of ``band.operations`` roundings at most."""
    middle = band.low / 2 + band.high / 2
    radius = above(np.maximum(band.high - middle, middle - band.low), 2)
    center = band.fold(band.slope * x.center) + band.total(middle)
    generators = band.fold(band.slope[:, None] * x.generators)
    steep, count = np.abs(band.slope), band.operations
    sizes = band.fold(steep * above(np.abs(x.center) + x.spread, 2)) + band.total(np.abs(middle))
    rounded = gamma(count) * above(sizes, count + 2) + U * np.abs(center)
    error = above(band.fold(steep * x.error) + band.total(radius) + rounded, count + 6)
    return _Value(center, generators, error, ends)


def _sum(x: _Value, y: _Value, sign: int, ends: Ends) -> _Value:
    center, generators = x.center + sign * y.center, x.generators + sign * y.generators
    rounded = U * (np.abs(center) + above(np.abs(generators).sum(1), generators.shape[1]))
    return _Value(center, generators, above(x.error + y.error + rounded, 4), ends)


def _joined(net: FloatNet, node: Node, parts: Sequence[_Value], ends: Ends) -> _Value:
    shape = (len(ends[0]), net.size[node.name])
    center, error = np.zeros(shape), np.zeros(shape)
    generators = np.zeros((shape[0], parts[0].generators.shape[1], shape[1]))
    for places, part in zip(net.maps.parts(node), parts, strict=True):
        center[:, places], error[:, places], generators[:, :, places] = part.center, part.error, part.generators
    return _Value(center, generators, error, ends)


def _image(net: FloatNet, node: Node, x: _Value, ends: Ends) -> _Value:
    map_ = net.affine[node.name]
    center = map_.linear(x.center) + map_.bias
    count, symbols, size = x.generators.shape
    generators = map_.linear(x.generators.reshape(-1, size)).reshape(count, symbols, -1)
    lost = map_.error(above(np.abs(x.center) + x.spread, 2)) + map_.bias_error + U * np.abs(center)
    if isinstance(node.op, Cast):
        low, high = x.bounds()
        lost = lost + cast_error(node.op, np.maximum(np.abs(low), np.abs(high)))
    return _Value(center, generators, above(map_.reach(x.error) + lost + map_.tiny, 8), ends)
