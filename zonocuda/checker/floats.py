"""Affine operators in float64, with bounds of what rounding does, for any order of the sums.

u = 2^-53, gamma_n = n u / (1 - n u). A sum of n products computed in floats, in any order, with or without fused
multiply-add, is within gamma_n sum |a||b| + n 2^-1022 of the exact one (Rump, Verification methods, Acta Numerica 2010;
2^-1022 covers both gradual underflow and results flushed to zero), where nothing overflows; what overflows is infinite
or NaN here, and nothing follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from flint import arb
from numpy.typing import NDArray

from zonocuda.checker.affine import Map, Places
from zonocuda.checker.arithmetic import Array

Floats = NDArray[np.float64]

U = 2.0**-53
TINY = 2.0**-900
"""More than 2^-1022 times every number of operations."""


def gamma(n: int) -> float:
    """A bound of gamma_n, n u <= 1/4: n u / (1 - n u) <= 4/3 n u."""
    if n > 2**50:
        return inf
    return n * 2.0**-52


def above(x: Floats, operations: int) -> Floats:
    """An upper bound of a nonnegative number that was computed as ``x``, from nonnegative ones by sums and products.

    ``operations`` is the most roundings that one summand goes through. The exact number is at most
    (x + underflow) / (1 - u)^n <= (x + underflow)(1 + 2 n u) for n u <= 1/2; three more roundings are those of this
    function.
    """
    return np.asarray(x * (1 + (operations + 8) * 2.0**-52) + TINY)


def held(numbers: Array) -> tuple[Floats, Floats | None]:
    """Floats near balls, and how far the numbers may be from them; None where they are these floats."""
    near = np.array([float(ball.mid()) for ball in numbers.ravel()])
    away = [abs(ball - arb(x)) for ball, x in zip(numbers.ravel(), near.tolist(), strict=True)]
    if all(error.is_zero() for error in away):
        return near.reshape(numbers.shape), None
    errors = np.nextafter(np.array([float(error.upper()) for error in away]), inf)
    return near.reshape(numbers.shape), errors.reshape(numbers.shape)


@dataclass(frozen=True, eq=False)
class _Sums:
    """K ``[m, n]`` (None: 1), |K|, how far the numbers of K may be from it, and the places of its rows and columns."""

    near: Floats | None
    size: Floats | None
    away: Floats | None
    outputs: Places
    inputs: Places


class _Spread:
    """Sums numbers ``[R, M]`` into places: an index ``[size, most]`` of which numbers go to each, and M for none."""

    def __init__(self, places: Places, size: int) -> None:
        targets = np.flatnonzero(places >= 0)
        order = targets[np.argsort(places[targets], kind="stable")]
        counts = np.bincount(places[order], minlength=size)
        self.most = int(counts.max(initial=1))
        starts = np.cumsum(counts) - counts
        self.index = np.full((self.most, size), len(places))
        self.index[np.arange(len(order)) - starts[places[order]], places[order]] = order
        self.is_whole = self.most == 1 and np.array_equal(self.index[0], np.arange(len(places)))

    def __call__(self, values: Floats) -> Floats:
        if self.is_whole:
            return values
        extended = np.concatenate([values, np.zeros((len(values), 1))], axis=1)
        total = extended[:, self.index[0]]
        for index in self.index[1:]:
            total = total + extended[:, index]
        return np.asarray(total)


class FloatMap:
    """An operator y = b + s K x (:class:`zonocuda.checker.affine.Map`) in floats.

    Attributes:
        bias: b ``[out]``, floats.
        bias_error: ``[out]``: how far b may be from them.
        tiny: what may underflow in :meth:`linear`.
        operations: the most roundings that a summand of :meth:`linear` or :meth:`adjoint` goes through.
    """

    def __init__(self, map_: Map) -> None:
        self.sizes = map_.sizes
        self.blocks = []
        for block in map_.blocks:
            near, away = (None, None) if block.matrix is None else held(block.matrix)
            self.blocks.append(_Sums(near, None if near is None else np.abs(near), away, block.outputs, block.inputs))
        self.is_exact = all(block.away is None for block in self.blocks)
        self.scale: Floats | None = None
        self.scale_error: Floats | None = None
        if map_.scale is not None:
            self.scale, self.scale_error = held(map_.scale)
        bias, error = (np.zeros(self.sizes[1]), None) if map_.bias is None else held(map_.bias)
        self.bias, self.bias_error = bias, np.zeros(self.sizes[1]) if error is None else error
        self.tiny = TINY if self.scale is None else TINY * (1 + np.abs(self.scale))
        self._down = _Spread(np.concatenate([b.outputs.ravel() for b in self.blocks]), self.sizes[1])
        self._up = _Spread(np.concatenate([b.inputs.ravel() for b in self.blocks]), self.sizes[0])
        longest = max([1, *(max(b.near.shape) for b in self.blocks if b.near is not None)])
        self.operations = longest + max(self._down.most, self._up.most) + 2

    def linear(self, x: Floats) -> Floats:
        """s K x ``[S, out]`` for ``x`` ``[S, in]``."""
        total = self._product(x, "near")
        return total if self.scale is None else total * self.scale

    def adjoint(self, v: Floats) -> Floats:
        """v s K ``[R, in]`` for ``v`` ``[R, out]``."""
        v = v if self.scale is None else v * self.scale
        extended = np.concatenate([v, np.zeros((len(v), 1))], axis=1)  # place -1
        parts = []
        for block in self.blocks:
            values = v if _is_all(block.outputs, v.shape[1]) else extended[:, block.outputs.ravel()]
            if block.near is not None:
                values = values.reshape(-1, block.near.shape[0]) @ block.near
            parts.append(values.reshape(len(v), -1))
        return self._up(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))

    def reach(self, size: Floats) -> Floats:
        """At least |s| |K| m ``[S, out]`` for ``size`` m ``[S, in]`` >= 0, with the exact s and K."""
        total = above(self._sized(size), self.operations)
        if self.scale is None:
            return total
        scale = np.abs(self.scale) if self.scale_error is None else above(np.abs(self.scale) + self.scale_error, 1)
        return above(total * scale, 1)

    def error(self, size: Floats) -> Floats:
        """What rounding may take off v . y, for each |v_i|, where :meth:`adjoint` carries a row v ``[S, out]``.

        For |x| <= m = ``size``: with A the exact matrix s K, A' the floats, and v' what is computed,
        |v A - v'| m <= sum_i |v_i| (|A - A'| m + gamma |A'| m)_i, beside what underflows. The same bounds |A x - y'|_i
        for y' of :meth:`linear`.
        """
        return above(gamma(self.operations) * self.reach(size) + self._away(size), 4)

    def lost(self, size: Floats) -> Floats:
        """At least what may underflow ``[S]`` on the way of a row through the adjoint, times m."""
        return above((size.sum(1) + self._sized(size).sum(1) + 1) * TINY, sum(self.sizes) + self.operations)

    def _away(self, size: Floats) -> Floats:
        """At least |A - A'| m."""
        if self.is_exact and self.scale_error is None:
            return np.zeros((len(size), self.sizes[1]))
        inexact = (
            np.zeros((len(size), self.sizes[1]))
            if self.is_exact
            else above(self._product(size, "away"), self.operations)
        )
        if self.scale is None:
            return inexact
        total = np.abs(self.scale) * inexact
        if self.scale_error is not None:
            total = total + self.scale_error * above(self._sized(size), self.operations)
        return above(total, 3)

    def _sized(self, size: Floats) -> Floats:
        """(|K'| + |K - K'|) m, as computed."""
        total = self._product(size, "size")
        return total if self.is_exact else total + self._product(size, "away")

    def _product(self, x: Floats, which: str) -> Floats:
        """x times a matrix of every block, summed into the outputs."""
        extended = np.concatenate([x, np.zeros((len(x), 1))], axis=1)
        parts = []
        for block in self.blocks:
            values = x if _is_all(block.inputs, x.shape[1]) else extended[:, block.inputs.ravel()]
            weights = getattr(block, which)
            if weights is not None:
                values = values.reshape(-1, weights.shape[1]) @ weights.T
            elif which == "away":  # exact
                values = np.zeros((len(x), block.outputs.size))
            parts.append(values.reshape(len(x), -1))
        return self._down(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def _is_all(places: Places, size: int) -> bool:
    return places.size == size and np.array_equal(places.ravel(), np.arange(size))
