"""Small chains of layers as matrices, with all that rounding can cost said once for a whole box.

A search of many boxes spends most of its time on counting what rounding costs every one of them. In float64, on a
network of a few hundred neurons, that is little even where it is taken from the magnitudes of the *whole* box and of
paths that never cancel (1e-7 of a bound on ACAS Xu, where float32 would lose all of it): so it is a vector for every
layer, found once, that every box of the search is charged.

Between two activations f the network is affine, z_k = M_k x_{k-1} + b_k, x_k = f(z_k), x_0 in the root box. Held are
M_k and b_k, made from the nodes' constants, with majorants A_k and B_k and a count c of roundings:

    |M* - M| <= gamma_c A,   |b* - b| <= gamma_c B,   |M| <= A,   |b| <= B                           (1)

for those of the real network, M* and b*. g = gamma_n with n = 4 N + 16 L + 4 c + 128 bounds the relative error of any
chain of operations below (N: most terms of a sum, L: layers), with a factor of two to spare and more. Every magnitude
is rounded up by 1 + 2^-20 and by TINY, whose share g TINY is far above what underflow costs.

*Intervals* (:meth:`DenseNetwork.interval`). For l <= x_{k-1} <= u and X_{k-1} >= |x_{k-1}|, in any box inside the root,
M (l + u) / 2 + b -+ (A (u - l) / 2 + d_k) with d_k = g (A_k X_{k-1} + B_k) hold z_k: the rounding of either sum, of
middle and radius, and (1) are at most half of d_k. The root's own intervals have 3 d_k, so that they contain those of
every box in it as computed; they give X_k >= |f(z_k)| and U_k >= |l|, |u| for any bounds of z_k.

*Reduced zonotopes*: for every x_0 of a box there is one e in [-1, 1]^n with |z_k - c - G e| <= r. As computed,
|c| + sum |G| + r <= Z_k with Z_k = A_k Y_{k-1} + B_k, Y_0 = X_0 and Y_k = Z_k + U_k: slopes are at most 1, offsets at
most U_k, and h_k less than what Z_k was rounded up by, as g <= 2^-23. r = A r' + h_k with h_k = 4 g Z_k is enough: the
sums for c and G cost g Z_k at most, (1) as much, the activation before (a product and a sum for each number)
8 u Y_{k-1}, which A takes to less than g Z_k, and sum |G| + r and c -+ that, another g Z_k.

*Dual rows*, |v| <= V in the root's magnitudes, V_{k-1} = V_k A_k since slopes are at most 1. As v . z_k >= s is an
inequality for the v that is held, errors do not compound: a layer costs g V_k (A_k X_{k-1} + B_k), an activation
2 g V_{k-1} U_{k-1} (the image's rounding, the offsets', three roundings of an offset too small), a specification's
rows what they do beside, and the box V_0 X_0 g. The roundings of the constant s, at most 3 L, are each below u times
the sum of all of that, over g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Cast, Gather, Input, Linear, Node, Rearrangement, ScaleShift
from zonocuda.relaxations import Rule, has_rule, rule_of

MOST = 2**20
"""Numbers of all matrices together: beyond them a box costs so much that counting its roundings costs little."""
WIDEST = 2**12
"""Numbers between two operators: matrices of the identity are square, and products of narrow matrices may be."""
TINY = 1e-200
"""Added to all magnitudes."""
LARGEST = 1e60
"""Of magnitudes: no product of two overflows, and with one nothing that underflows becomes TINY."""
_UP = 1 + 2.0**-20
_MOST_UNIT = 2.0**-23
"""Of g: :data:`_UP` has 4 g and the roundings of a sum to cover."""


@dataclass(frozen=True, eq=False)
class Layer:
    """z = M x + b, what rounding costs it, and the activation behind it (None behind the last).

    Attributes:
        name: of the activation.
        weight, offset: M ``[N, N']`` and b ``[N]``.
        size: A.
        reach: A X + B ``[N]``, X that of what comes in.
        grown: h ``[N]``, for zonotopes.
        slack: d ``[N]``, for intervals.
        neuron: ``[N]``, for dual rows that are the neurons themselves.
        most: U ``[N]``.
    """

    name: str
    rule: Rule | None
    weight: Tensor
    offset: Tensor
    size: Tensor
    reach: Tensor
    grown: Tensor
    slack: Tensor
    neuron: Tensor
    most: Tensor


@dataclass(frozen=True, eq=False)
class _Affine:
    """M, b, A, B and c of (1)."""

    weight: Tensor
    offset: Tensor
    size: Tensor
    offset_size: Tensor
    roundings: int

    def then(self, other: _Affine) -> _Affine:
        """Both, one after the other: products and sums of so many terms are some roundings more. What underflows is
        far below u TINY: a product may be zero though none of its factors is, and the next map make it large again."""
        count = self.roundings + other.roundings + len(self.offset) + 4
        return _Affine(
            other.weight @ self.weight,
            other.weight @ self.offset + other.offset,
            _up(other.size @ self.size) + TINY,
            _up(other.size @ self.offset_size + other.offset_size) + TINY,
            count,
        )


def _up(x: Tensor) -> Tensor:
    """A nonnegative expression, rounded up, but for what underflows in it."""
    return x * _UP


@dataclass(frozen=True, eq=False)
class DenseNetwork:
    """The network on one root box.

    Attributes:
        layers: in their order; the last one is the output.
        lower, upper: the root box ``[N_0]``.
        input: X_0.
        unit: g.
    """

    layers: tuple[Layer, ...]
    lower: Tensor
    upper: Tensor
    input: Tensor
    unit: float

    @staticmethod
    def of(rounding: Rounding, box: Bounds) -> DenseNetwork | None:
        """None where it is no small chain whose activations are identity or zero away from 0, in real arithmetic and
        float64, or where magnitudes are too large to say anything."""
        if rounding.dtype is not torch.float64 or rounding.execution is not None:
            return None
        stages = _stages(rounding, box[0])
        if stages is None:
            return None
        lower, upper = (end.reshape(-1) for end in box)
        widest = max(max(one.size.shape) for one, _ in stages)
        count = max(one.roundings for one, _ in stages)
        unit = rounding.gamma(4 * widest + 16 * len(stages) + 4 * count + 128)
        if unit > _MOST_UNIT:
            return None
        first = known = _up(torch.maximum(lower.abs(), upper.abs())) + TINY
        wide = known
        low, high = lower, upper
        layers: list[Layer] = []
        for one, node in stages:
            reach = _up(one.size @ known + one.offset_size) + TINY
            slack = unit * reach
            middle, radius = one.weight @ ((low + high) / 2) + one.offset, one.size @ ((high - low) / 2) + 3 * slack
            low, high = middle - radius, middle + radius
            most = _up(torch.maximum(low.abs(), high.abs())) + TINY
            size = _up(one.size @ wide + one.offset_size) + TINY
            rule = None if node is None else rule_of(node)
            name = "" if node is None else node.name
            own = slack + _rows_slack(layers, one.size, first, unit)
            layers.append(Layer(name, rule, one.weight, one.offset, one.size, reach, 4 * unit * size, slack, own, most))
            if rule is not None:
                low, high = rule.range(low, high)
                known = _up(torch.maximum(low.abs(), high.abs())) + TINY
                wide = _up(size + most)
            if not bool((size <= LARGEST).all() & (own <= LARGEST).all()):
                return None
        return DenseNetwork(tuple(layers), lower, upper, first, unit)

    def to(self, dtype: torch.dtype) -> DenseNetwork:
        """The same numbers in another dtype; what rounding costs there nobody says."""

        def cast(layer: Layer) -> Layer:
            held = {f.name: getattr(layer, f.name) for f in fields(layer)}
            there: dict[str, Any] = {name: x.to(dtype) if isinstance(x, Tensor) else x for name, x in held.items()}
            return Layer(**there)

        ends = self.lower.to(dtype), self.upper.to(dtype), self.input.to(dtype)
        return DenseNetwork(tuple(map(cast, self.layers)), *ends, self.unit)

    def interval(self, layer: Layer, lower: Tensor, upper: Tensor) -> Bounds:
        """Of z, for l, u ``[S, N']`` of what comes in."""
        middle = torch.addmm(layer.offset, (lower + upper) / 2, layer.weight.T)
        radius = torch.addmm(layer.slack, (upper - lower) / 2, layer.size.T)
        return middle - radius, middle + radius

    def slack(self, rows: Rows) -> Tensor:
        """``[R]``: what rounding costs the dual rows of a specification; NaN for one whose numbers no float holds."""
        last = self.layers[-1]
        output, direct = rows.output.abs() + TINY, rows.input.abs()
        own = self.unit * (output @ last.reach + 2 * (direct @ self.input) + 4 * rows.constant.abs())
        return _up(own + _rows_slack(self.layers[:-1], output @ last.size, self.input, self.unit)) + TINY


def _rows_slack(layers: Sequence[Layer], size: Tensor, first: Tensor, unit: float) -> Tensor:
    """``[R]``: what rows of magnitude ``size`` ``[R, N]`` at the output of the last of ``layers`` cost."""
    cost = torch.zeros_like(size[:, 0])
    for layer in reversed(layers):
        cost = cost + size @ (2 * layer.most + layer.reach)
        size = _up(size @ layer.size)
    return _up(unit * (cost + 2 * (size @ first)))


def _stages(rounding: Rounding, like: Tensor) -> list[tuple[_Affine, Node | None]] | None:
    """What lies between the activations, and the activation behind it; None where it is no small chain."""
    graph = rounding.graph
    nodes = graph.nodes
    inputs = prod(graph.input_shape)
    numbers = 0
    stages: list[tuple[_Affine, Node | None]] = []
    current: _Affine | None = None
    before = nodes[0]
    if not isinstance(before.op, Input) or inputs > WIDEST:
        return None
    for node in nodes[1:]:
        width = prod(before.shape)
        if tuple(node.inputs) != (before.name,) or prod(node.shape) > WIDEST:
            return None
        if has_rule(node):
            if not rule_of(node).has_signs:
                return None
            stages.append((_identity(width, like) if current is None else current, node))
            current = None
        elif isinstance(node.op, Linear | ScaleShift | Rearrangement | Gather) and not isinstance(node.op, Cast):
            numbers += width * prod(node.shape)
            if numbers > MOST or node.op.doubt:
                return None
            own = _affine(rounding, node, before, like)
            current = own if current is None else current.then(own)
        else:
            return None
        before = node
    if before.name != graph.output or not inputs:
        return None
    stages.append((_identity(prod(before.shape), like) if current is None else current, None))
    return stages


def _identity(count: int, like: Tensor) -> _Affine:
    eye, zero = torch.eye(count, dtype=like.dtype, device=like.device), like.new_zeros(count)
    return _Affine(eye, zero, eye, zero, 0)


def _affine(rounding: Rounding, node: Node, before: Node, like: Tensor) -> _Affine:
    """One node. Rows of the identity go through its adjoint, and zeros through itself, without rounding: all of these
    operators multiply each number by one constant at most, and add zeros to it."""
    op = node.op
    assert isinstance(op, Linear | ScaleShift | Rearrangement | Gather)
    count = prod(node.shape)
    eye = torch.eye(count, dtype=like.dtype, device=like.device).reshape(count, *node.shape)
    weight = op.adjoint(eye, before.shape).reshape(count, -1)
    offset = op.offset(before.shape, like).reshape(-1) if op.has_offset else like.new_zeros(count)
    return _Affine(weight, offset, weight.abs(), offset.abs(), rounding.extra(node))
