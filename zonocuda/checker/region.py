"""One region's proof again: bounds of every ReLU's input, then of the rows, by dual passes in ball arithmetic.

A row v is carried from a node to the input (design of CROWN, Zhang et al. 2018). At a ReLU with l <= x <= u, and for
any slope lam in [0, 1],

    lam x <= relu(x) <= lam x + 2 mu,   2 mu = max(-lam l, (1 - lam) u),

so that v relu(x) >= v lam x + min(v, 0) 2 mu for v of either sign. Slopes come from the certificate and may depend on
the sign of v; a neuron that crosses zero and has none takes u / (u - l). (The inequality holds for neurons of known
sign, too.) The bounds l, u are the ones found here, layer by layer; they shrink 2 mu, and nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from flint import arb

from zonocuda.checker.affine import Map, explicit
from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, lower, upper, zeros
from zonocuda.checker.certificate import SLOPE_UNIT, RegionClaim, ReluSlopes
from zonocuda.graph import (
    Add,
    Affine,
    Cast,
    Concat,
    Expand,
    Gather,
    Graph,
    Input,
    Node,
    Rearrangement,
    Relu,
    ScaleShift,
)
from zonocuda.specs import LinearConstraint, Region

BALLS_AT_ONCE = 2**21
"""Of a product: a ball takes about a hundred bytes."""

Ends = tuple[Array, Array]
"""Exact lower and upper bounds ``[N]``."""

Progress = Callable[[str, int, int], None]
"""Called with a phase and how much of it is done: (phase, done, total)."""

Pick = Callable[[str, int], tuple[Array, Array]]
"""For a ReLU and the first row of a chunk: slopes ``[K]`` or ``[R, K]`` where v < 0, and where v >= 0."""


class Maps:
    """The affine operators of a network, made once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        self.size = {node.name: prod(node.shape) for node in graph.nodes}
        self._maps: dict[str, tuple[Map, Map]] = {}

    def of(self, node: Node) -> tuple[Map, Map]:
        """The operator of a node, and its absolute value."""
        if node.name not in self._maps:
            assert isinstance(node.op, Affine)
            one = explicit(node.op, self.nodes[node.inputs[0]].shape, node.shape)
            self._maps[node.name] = one, one.absolute()
        return self._maps[node.name]

    @cached_property
    def rows(self) -> int:
        """How many rows go together."""
        blocks = [b for node in self.graph.nodes if isinstance(node.op, Affine) for b in self.of(node)[0].blocks]
        largest = max([b.inputs.size + b.outputs.size for b in blocks], default=1)
        return max(1, min(64, BALLS_AT_ONCE // max(1, largest)))

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


_FORMATS = {torch.float16: (11, -24, 16), torch.bfloat16: (8, -133, 128), torch.float32: (24, -149, 128)}
"""Binary formats of IEEE 754 and the like: digits p, least positive number 2^q, and all numbers below 2^r."""


def cast_error(op: Cast, low: Array, high: Array) -> Array:
    """How far rounding to the type of a cast may take numbers between ``low`` and ``high``.

    |fl(x) - x| <= 2^-p |x| + 2^(q - 1) for |x| <= 2^r (1 - 2^-p), beyond which nothing is known. To 16-bit types
    conversions may round twice, by way of float32: 2^-12 of that more.
    """
    digits, least, top = _FORMATS[op.target]
    unit, spacing = arb(2) ** -digits, arb(2) ** (least - 1)
    largest = arb(2) ** top * (ONE - unit)
    twice = ONE if digits == 24 else ONE + arb(2) ** -12
    sizes = [abs(a).max(abs(b)) for a, b in zip(low, high, strict=True)]
    return upper(balls((size * unit + spacing) * twice if size <= largest else arb("inf") for size in sizes))


def interval(maps: Maps, node: Node, before: list[Ends]) -> Ends:
    """Bounds of a node's value from those of its inputs."""
    op = node.op
    if isinstance(op, Relu):
        low, high = (balls(ZERO if value <= 0 else value for value in end) for end in before[0])
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


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """A ReLU's bounds; its neurons that are zero; those that take a slope: where the certificate has it, or a default.

    A neuron for which the certificate has a slope takes it even where its sign is known here: so bounds never get
    worse by what this check knows better.
    """

    ends: Ends
    zero: Any
    relaxed: Any
    listed: Any
    default: Mapping[int, float]


class RegionCheck:
    """A region under way."""

    def __init__(
        self, maps: Maps, region: Region, claim: RegionClaim, progress: Progress = lambda phase, done, total: None
    ) -> None:
        """Bounds every ReLU's input; ``progress`` is told how many nodes are done."""
        self.maps, self.claim = maps, claim
        self.box: Ends = balls(region.box.lower.tolist()), balls(region.box.upper.tolist())
        self.middle, self.radius = (self.box[0] + self.box[1]) / 2, (self.box[1] - self.box[0]) / 2
        self.relus: dict[str, _Relaxed] = {}
        self.casts: dict[str, Array] = {}
        self.passes = 0
        self.missed = 0
        ends: dict[str, Ends] = {}
        for done, node in enumerate(maps.graph.nodes):
            progress("check", done, len(maps.graph.nodes))
            ends[node.name] = self._bounds(node, ends)

    # ---- forward: intervals, and passes for what they leave open ----------------------------------------------------

    def _bounds(self, node: Node, ends: dict[str, Ends]) -> Ends:
        if isinstance(node.op, Input):
            return self.box
        before = [ends[name] for name in node.inputs]
        if isinstance(node.op, Relu):
            before = [self._tightened(node, *before[0])]
            self.relus[node.name] = self._relaxed(node.name, before[0])
        if isinstance(node.op, Cast):
            self.casts[node.name] = cast_error(node.op, *before[0])
        return interval(self.maps, node, before)

    def _tightened(self, node: Node, low: Array, high: Array) -> Ends:
        """Bounds of a ReLU's input: of intervals, and of passes for neurons that are open after them, or listed."""
        if self.maps.is_exact(node.inputs[0]):
            return low, high
        low, high = low.copy(), high.copy()
        claim = self.claim.relus[node.name]
        passes: list[Callable[[Any], tuple[Array, Array]]] = [lambda index: self._both(node, index)]
        if claim.refined is not None:
            passes.append(lambda index: self._refined(node, index))
        elif self.claim.second_pass:
            passes.append(lambda index: self._split(node, index))
        for one in passes:
            unsettled = [i for i in range(len(low)) if not (low[i] >= 0 or high[i] <= 0)]
            index = np.union1d(np.array(unsettled, dtype=np.int64), claim.neurons)
            if claim.refined is not None and one is passes[-1]:
                index = np.intersect1d(index, claim.refined.neurons)
            if len(index):
                found = one(index)
                low[index] = [a if not b > a else b for a, b in zip(low[index], found[0], strict=True)]
                high[index] = [a if not b < a else b for a, b in zip(high[index], found[1], strict=True)]
        return low, high

    def _both(self, node: Node, index: Any) -> Ends:
        """Lower and upper bounds by one row for each neuron: one slope serves both signs of v."""

        def pick(name: str, first: int) -> tuple[Array, Array]:
            area = balls(self.claim.relus[name].area)
            return area, area

        return self._carry(node.inputs[0], self._units(node, index), pick)

    def _split(self, node: Node, index: Any) -> Ends:
        """A row for each bound, with the slopes of the second pass."""
        rows = self._units(node, index)
        low, _ = self._carry(node.inputs[0], np.concatenate([rows, -rows]), self._second)
        return low[: len(index)], -low[len(index) :]

    def _refined(self, node: Node, index: Any) -> Ends:
        """A row for each bound, with slopes of its own."""
        refined = self.claim.relus[node.name].refined
        assert refined is not None
        place = np.searchsorted(refined.neurons, index)
        chosen = np.concatenate([place, place + len(refined.neurons)])

        def pick(name: str, first: int) -> tuple[Array, Array]:
            if name not in refined.slopes:
                return self._second(name, first)
            own = refined.slopes[name][chosen[first : first + self.maps.rows]] * SLOPE_UNIT
            return balls(self.claim.relus[name].negative), balls(own.ravel(), own.shape)

        rows = self._units(node, index)
        low, _ = self._carry(node.inputs[0], np.concatenate([rows, -rows]), pick)
        return low[: len(index)], -low[len(index) :]

    def _second(self, name: str, first: int) -> tuple[Array, Array]:
        relu = self.claim.relus[name]
        return balls(relu.negative), balls(relu.nonnegative)

    def _units(self, node: Node, index: Any) -> Array:
        rows = zeros(len(index), self.maps.size[node.inputs[0]])
        rows[np.arange(len(index)), index] = ONE
        return rows

    def _relaxed(self, name: str, ends: Ends) -> _Relaxed:
        """What passes need of a ReLU whose input has the bounds ``ends``."""
        claim: ReluSlopes = self.claim.relus[name]
        low, high = ends
        dead = np.array([bool(value <= 0) for value in high], dtype=bool)
        active = np.array([bool(value >= 0) for value in low], dtype=bool)
        listed = np.full(len(low), -1)
        listed[claim.neurons] = np.arange(len(claim.neurons))
        relaxed = np.flatnonzero((listed >= 0) | ~(dead | active))
        default = {int(j): _slope(float((high[j] / (high[j] - low[j])).mid())) for j in relaxed if listed[j] < 0}
        self.missed += sum(not _within(claim, listed[j], low[j], high[j]) for j in claim.neurons)
        return _Relaxed(ends, np.flatnonzero(dead & (listed < 0)), relaxed, listed, default)

    # ---- backward ---------------------------------------------------------------------------------------------------

    def row_bound(self, row: LinearConstraint, own: Mapping[str, Any] | None) -> Any:
        """An exact lower bound of a row: the best of the passes with the slopes of the certificate."""
        graph, size = self.maps.graph, self.maps.size

        def own_slopes(name: str, first: int) -> tuple[Array, Array]:
            if own is None or name not in own:
                return self._second(name, first)
            return balls(self.claim.relus[name].negative), balls(own[name])

        def area(name: str, first: int) -> tuple[Array, Array]:
            return balls(self.claim.relus[name].area), balls(self.claim.relus[name].area)

        best = None
        for pick in (area, self._second) if own is None else (own_slopes,):
            v, x = zeros(1, size[graph.output]), zeros(1, size[graph.nodes[0].name])
            for i, c in row.outputs.items():
                v[0, i] = ratio(c)
            for j, c in row.inputs.items():
                x[0, j] = ratio(c)
            bound = (self._carry(graph.output, v, pick, x)[0][0] + ratio(row.constant)).lower()
            best = bound if best is None or bound > best else best
        return best

    def _carry(self, name: str, rows: Array, pick: Pick, at_input: Array | None = None) -> Ends:
        """Exact lower and upper bounds of rows ``[R, N]`` of a node; upper ones hold where no slope looks at v."""
        low, high = zeros(len(rows)), zeros(len(rows))
        for first in range(0, len(rows), self.maps.rows):
            part = slice(first, first + self.maps.rows)
            low[part], high[part] = self._chunk(name, rows[part], pick, first, at_input)
        return low, high

    def _chunk(self, name: str, rows: Array, pick: Pick, first: int, at_input: Array | None) -> Ends:
        self.passes += len(rows)
        pending = {name: rows}
        low, high = zeros(len(rows)), zeros(len(rows))

        def send(target: str, v: Array) -> None:
            pending[target] = pending[target] + v if target in pending else v

        source = self.maps.graph.nodes[0].name
        if at_input is not None:
            send(source, at_input)
        for node in reversed(self.maps.graph.nodes):
            if node.name not in pending or isinstance(node.op, Input):
                continue
            v = pending.pop(node.name)
            if isinstance(node.op, Relu):
                image, below, above = self._relu(node.name, v, *pick(node.name, first))
                low, high = low + below, high + above
                send(node.inputs[0], image)
            elif isinstance(node.op, Cast):
                error = np.abs(v) @ self.casts[node.name]
                low, high = low - error, high + error
                send(node.inputs[0], v)
            elif isinstance(node.op, Add):
                send(node.inputs[0], v)
                send(node.inputs[1], v if node.op.sign == 1 else -v)
            elif isinstance(node.op, Concat):
                for target, places in zip(node.inputs, self.maps.parts(node), strict=True):
                    send(target, v[:, places])
            else:
                map_ = self.maps.of(node)[0]
                if map_.bias is not None:
                    constant = v @ map_.bias
                    low, high = low + constant, high + constant
                send(node.inputs[0], map_.adjoint(v))
        if source in pending:
            v = pending[source]
            center, spread = v @ self.middle, np.abs(v) @ self.radius
            low, high = low + center - spread, high + center + spread
        return lower(low), upper(high)

    def _relu(self, name: str, v: Array, negative: Array, nonnegative: Array) -> tuple[Array, Array, Array]:
        """The rows before a ReLU, and the offsets below and above."""
        relu = self.relus[name]
        image, below, above = v.copy(), zeros(len(v)), zeros(len(v))
        image[:, relu.zero] = ZERO
        for r, row in enumerate(v):
            for j in relu.relaxed:
                value, place = row[j], relu.listed[j]
                if value.is_zero():
                    continue
                if place < 0:
                    slope = relu.default[int(j)]
                else:
                    chosen = nonnegative if value.mid() >= 0 else negative
                    slope = chosen[place] if chosen.ndim == 1 else chosen[r, place]
                twice = (-slope * relu.ends[0][j]).max((ONE - slope) * relu.ends[1][j])
                image[r, j] = value * slope
                below[r] += value.min(ZERO) * twice
                above[r] += value.max(ZERO) * twice
        return image, below, above


def _slope(value: float) -> float:
    """A slope: any number in [0, 1] is one, and everything else, NaN among it, is replaced by one."""
    return value if 0 <= value <= 1 else 0.0


def ratio(value: Fraction) -> Any:
    """A rational number."""
    return arb(value.numerator) / value.denominator


def _within(claim: ReluSlopes, k: int, low: Any, high: Any) -> bool:
    """Whether what was found is as good as what is claimed, up to a relative 1e-6 of the claim."""
    size = 1e-6 * max(abs(claim.lower[k]), abs(claim.upper[k]))
    return bool(low >= claim.lower[k] - size) and bool(high <= claim.upper[k] + size)
