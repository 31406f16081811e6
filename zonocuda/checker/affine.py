"""The affine operators of a network as explicit sums, independent of torch's kernels.

Every operator becomes y = b + s * sum_p K x[inputs[p]], summed into the places outputs[p]: one small matrix K (the
weights, for each group), applied at many places. A place -1 is a zero: padding, or what is cropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product as grid
from math import prod

import numpy as np
from flint import arb_mat
from numpy.typing import NDArray

from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, constants, matrix, product, upper, zeros
from zonocuda.graph import (
    Affine,
    AveragePool,
    Cast,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Linear,
    Pad,
    Reduce,
    Reshape,
    ScaleShift,
    Transpose,
)

Places = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """K ``[m, n]`` at P places: from ``inputs`` ``[P, n]`` into ``outputs`` ``[P, m]``. None: K = 1, m = n = 1."""

    matrix: Array | None
    outputs: Places
    inputs: Places

    @cached_property
    def down(self) -> arb_mat | None:
        """K."""
        return None if self.matrix is None else matrix(self.matrix)

    @cached_property
    def up(self) -> arb_mat | None:
        """K^T."""
        return None if self.down is None else self.down.transpose()

    def part(self, sign: int) -> tuple[Block, ...]:
        """With the positive part of ``sign`` K; nothing where there is none."""
        if self.matrix is None:
            return (self,) if sign == 1 else ()
        positive = balls(((sign * value).max(ZERO) for value in self.matrix.ravel()), self.matrix.shape)
        return (replace(self, matrix=positive),)


@dataclass(frozen=True, eq=False)
class Map:
    """An affine operator from ``sizes[0]`` to ``sizes[1]`` numbers.

    Attributes:
        blocks: the sums.
        scale: s ``[out]``, or None for 1.
        bias: b ``[out]``, or None for 0.
        sizes: numbers of inputs and outputs.
    """

    blocks: tuple[Block, ...]
    scale: Array | None
    bias: Array | None
    sizes: tuple[int, int]

    def linear(self, x: Array) -> Array:
        """s * sum K x, for ``x`` ``[in]``."""
        out: Array = _apply([(b.up, b.inputs, b.outputs) for b in self.blocks], x[None], self.sizes[1])[0]
        return out if self.scale is None else out * self.scale

    def adjoint(self, v: Array) -> Array:
        """The rows ``[R, in]`` that have at x the values that ``v`` ``[R, out]`` has at s * sum K x."""
        v = v if self.scale is None else v * self.scale
        return _apply([(b.down, b.outputs, b.inputs) for b in self.blocks], v, self.sizes[0])

    def absolute(self) -> Map:
        """The same sums with |K| and |s|, without b."""
        blocks = tuple(replace(b, matrix=None if b.matrix is None else np.abs(b.matrix)) for b in self.blocks)
        return Map(blocks, None if self.scale is None else np.abs(self.scale), None, self.sizes)

    @cached_property
    def middle(self) -> Map:
        """The operator whose numbers are the middles of the balls; itself where these are exact."""
        if all(t is None or all(value.is_exact() for value in t.ravel()) for t in self._numbers()):
            return self
        blocks = tuple(replace(b, matrix=_middles(b.matrix)) for b in self.blocks)
        return Map(blocks, _middles(self.scale), _middles(self.bias), self.sizes)

    def doubt(self, size: Array) -> Array:
        """How far y may be ``[out]`` from that of :attr:`middle`, for |x| <= ``size`` m ``[in]``.

        With middles K', s' and b': |b - b'| + |s| |K - K'| m + |s - s'| |K'| m.
        """
        radii = tuple(replace(b, matrix=_radii(b.matrix)) for b in self.blocks if b.matrix is not None)
        total = Map(radii, None, None, self.sizes).linear(size)
        if self.scale is not None:
            kept = replace(self.middle.absolute(), scale=None)
            total = np.abs(self.scale) * total + _radii(self.scale) * kept.linear(size)
        return upper(total if self.bias is None else total + _radii(self.bias))

    def _numbers(self) -> tuple[Array | None, ...]:
        return (*(block.matrix for block in self.blocks), self.scale, self.bias)

    def ends(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds ``[out]`` of s * sum K x for ``low`` <= x <= ``high``: each sum of products with the ends that it is
        about, so that it is exact where these are zeros."""
        up, down = (
            Map(tuple(b for block in self.blocks for b in block.part(sign)), None, None, self.sizes) for sign in (1, -1)
        )
        least, most = up.linear(low) - down.linear(high), up.linear(high) - down.linear(low)
        if self.scale is None:
            return least, most
        rises, falls = (balls(value.max(ZERO) for value in s) for s in (self.scale, -self.scale))
        return rises * least - falls * most, rises * most - falls * least


def _apply(blocks: list[tuple[arb_mat | None, Places, Places]], x: Array, size: int) -> Array:
    """x[r, source] times a matrix, summed into the places target: ``[R, size]`` for ``x`` ``[R, N]``."""
    rows = len(x)
    extended = np.concatenate([x, zeros(rows, 1)], axis=1)  # place -1
    out = zeros(rows, size + 1)  # it may be a target, too, once
    for weights, source, target in blocks:
        values = extended[:, source]
        if weights is not None:
            values = product(values.reshape(-1, source.shape[1]), weights).reshape(rows, *target.shape)
        if _distinct(target):
            out[:, target] += values
            continue
        for column, places in enumerate(target.T):
            inside = np.flatnonzero(places >= 0)
            addends = values[:, inside, column]
            if _distinct(places[inside]):
                out[:, places[inside]] += addends
            else:
                for row, some in zip(out, addends, strict=True):
                    np.add.at(row, places[inside], some)
    return out[:, :size]


def _middles(values: Array | None) -> Array | None:
    return None if values is None else balls((value.mid() for value in values.ravel()), values.shape)


def _radii(values: Array) -> Array:
    return balls((value.rad() for value in values.ravel()), values.shape)


def _distinct(places: Places) -> bool:
    return len(np.unique(places)) == places.size


def explicit(op: Affine, shape: Shape, out_shape: Shape) -> Map:
    """An operator on features ``shape``.

    Raises:
        NotImplementedError: an operator that is not known here.
    """
    sizes = prod(shape), prod(out_shape)
    places = np.arange(sizes[0]).reshape(shape)
    results = np.arange(sizes[1]).reshape(out_shape)
    scale = bias = None
    match op:
        case Linear():
            blocks = [
                Block(
                    constants(op, "weight"),
                    results.reshape(-1, op.weight.shape[0]),
                    places.reshape(-1, op.weight.shape[1]),
                )
            ]
            if op.bias is not None:
                bias = np.broadcast_to(constants(op, "bias"), out_shape).reshape(-1)
        case Conv() | ConvTranspose():
            blocks = list(_convolution(op, places, results))
            if op.bias is not None:
                one = constants(op, "bias").reshape(-1, *[1] * (len(out_shape) - 1))
                bias = np.broadcast_to(one, out_shape).reshape(-1)
        case AveragePool():
            spatial = len(op.kernel)
            found = windows(shape[-spatial:], op.kernel, op.stride, (1,) * spatial, ((0, 0),) * spatial)
            inputs = places.reshape(-1, prod(shape[-spatial:]))[:, found].reshape(-1, prod(op.kernel))
            blocks = [Block(_mean(prod(op.kernel)), results.reshape(-1, 1), inputs)]
        case Reduce():
            moved = np.moveaxis(places, op.dims, range(-len(op.dims), 0))
            inputs = moved.reshape(sizes[1], -1)
            blocks = [Block(_mean(inputs.shape[1] if op.mean else 1, inputs.shape[1]), results.reshape(-1, 1), inputs)]
        case ScaleShift():
            blocks = [_moved(places, results)]
            parts = [None if getattr(op, name) is None else constants(op, name) for name in ("scale", "shift")]
            scale, bias = (None if t is None else np.broadcast_to(t, out_shape).reshape(-1) for t in parts)
        case Expand():
            blocks = [_moved(np.broadcast_to(places, out_shape), results)]
        case Reshape() | Cast():  # a cast rounds beside this: see zonocuda.checker.region
            blocks = [_moved(places, results)]
        case Transpose():
            blocks = [_moved(places.transpose(op.permutation), results)]
        case Gather():
            blocks = [_moved(places.take(op.index, axis=op.dim), results)]
        case Pad():
            padded = _padded(places, op.pads)
            blocks = [_moved(padded, results)]
            value = constants(op, "value").item()
            bias = balls(value if place < 0 else 0.0 for place in padded.ravel())
        case _:
            raise NotImplementedError(f"zonocuda check: op {op.kind} is not supported")
    assert all(len(b.inputs) == len(b.outputs) for b in blocks)
    return Map(tuple(blocks), scale, bias, sizes)


def _moved(source: Places, results: Places) -> Block:
    return Block(None, results.reshape(-1, 1), source.reshape(-1, 1))


def _mean(count: int, terms: int | None = None) -> Array:
    """``[1, terms]`` of 1 / count."""
    return balls([ONE / count] * (terms or count), (1, -1))


def _padded(places: Places, pads: tuple[tuple[int, int], ...]) -> Places:
    """Places with -1 around them; a negative number of pads cuts."""
    grown = np.pad(places, [(max(b, 0), max(e, 0)) for b, e in pads], constant_values=-1)
    return grown[tuple(slice(max(-b, 0), n - max(-e, 0)) for n, (b, e) in zip(grown.shape, pads, strict=True))]


def windows(extent: Shape, kernel: Shape, stride: Shape, dilation: Shape, pads: tuple[tuple[int, int], ...]) -> Places:
    """Places ``[windows, positions of the kernel]`` in a flat map of that extent; -1 outside of it."""
    padded = _padded(np.arange(prod(extent)).reshape(extent), pads)
    axes = list(zip(padded.shape, kernel, stride, dilation, strict=True))
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes]
    columns = []
    for offset in grid(*map(range, kernel)):
        cut = tuple(
            slice(t * d, t * d + (c - 1) * s + 1, s) for t, c, (_, _, s, d) in zip(offset, counts, axes, strict=True)
        )
        columns.append(padded[cut].ravel())
    return np.stack(columns, axis=1)


def _convolution(op: Conv | ConvTranspose, places: Places, results: Places) -> Iterator[Block]:
    """One block for each group. A transposed convolution scatters where a convolution gathers."""
    weight = constants(op, "weight")
    kernel = tuple(op.weight.shape[2:])
    narrow, wide = (results, places) if isinstance(op, Conv) else (places, results)
    pads = op.padding
    if isinstance(op, ConvTranspose):  # the window that reads what lies behind the last one does not exist
        extent = wide.shape[1:]
        full = [
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(narrow.shape[1:], op.stride, op.dilation, kernel, strict=True)
        ]
        pads = tuple((b, f - b - n) for f, n, (b, _) in zip(full, extent, op.padding, strict=True))
    found = windows(wide.shape[1:], kernel, op.stride, op.dilation, pads)  # [P, positions]
    each_narrow, each_wide = (t.shape[0] // op.groups for t in (narrow, wide))
    for g in range(op.groups):
        flat = _padded(wide[g * each_wide : (g + 1) * each_wide].reshape(each_wide, -1), ((0, 0), (0, 1)))
        gathered = flat[:, found].transpose(1, 0, 2).reshape(len(found), -1)  # -1 is the last column
        ends = narrow[g * each_narrow : (g + 1) * each_narrow].reshape(each_narrow, -1).T
        matrix = weight[g * each_narrow : (g + 1) * each_narrow].reshape(each_narrow, -1)
        if isinstance(op, Conv):
            yield Block(matrix, ends, gathered)
        else:
            yield Block(matrix.T, gathered, ends)
