"""Operators whose outputs are sums over windows of their input: convolution, its transpose, and average pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.convolution import convolve, convolve_transpose
from zonocuda.graph.ops import Affine, Pads, Shape, flat_pads

_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True, eq=False)
class Conv(Affine):
    """Convolution over 1, 2 or 3 dimensions; ``weight`` is ``[out, in / groups, *kernel]``.

    ``padding`` holds (begin, end) zeros for each spatial dimension.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Shape
    padding: Pads
    dilation: Shape
    groups: int
    has_offset: ClassVar[bool] = True

    def apply(self, *inputs: Tensor) -> Tensor:
        return self._convolve(inputs[0], self.bias)

    def linear(self, x: Tensor) -> Tensor:
        return self._convolve(x, None)

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        begin = [pads[0] for pads in self.padding]
        if any(b != e for b, e in self.padding):
            x, begin = F.pad(x, flat_pads(self.padding)), [0] * len(begin)
        return convolve(x, self.weight, bias, self.stride, begin, self.dilation, self.groups)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        if len(self.stride) == 2:  # several times faster than channels first
            v = v.contiguous(memory_format=torch.channels_last)
        begin = [pads[0] for pads in self.padding]
        rest = [  # of the input, behind what the last window covers
            n + b + e - (m - 1) * s - d * (k - 1) - 1
            for n, m, (b, e), s, d, k in zip(
                shape[1:], v.shape[2:], self.padding, self.stride, self.dilation, self.weight.shape[2:], strict=True
            )
        ]
        if all(b == e for b, e in self.padding) and all(
            0 <= r < max(s, d) for r, s, d in zip(rest, self.stride, self.dilation, strict=True)
        ):
            return convolve_transpose(v, self.weight, self.stride, begin, rest, self.groups, self.dilation)
        full = _spread(v, self.weight, self.stride, self.groups, self.dilation)
        return _window(full, self.padding, shape[1:])


@dataclass(frozen=True, eq=False)
class ConvTranspose(Affine):
    """Transposed convolution; ``weight`` is ``[in, out / groups, *kernel]``.

    The full output, of extent (n - 1) * stride + dilation * (kernel - 1) + 1 in each spatial dimension, is
    extended by ``output_padding`` at its end and cropped by ``padding`` (begin, end).
    """

    weight: Tensor
    bias: Tensor | None
    stride: Shape
    padding: Pads
    output_padding: Shape
    dilation: Shape
    groups: int
    has_offset: ClassVar[bool] = True

    def apply(self, *inputs: Tensor) -> Tensor:
        out = self.linear(inputs[0])
        if self.bias is None:
            return out
        return out + self.bias.reshape(-1, *[1] * len(self.stride))

    def _extent(self, shape: Shape) -> Shape:
        kernel = self.weight.shape[2:]
        return tuple(
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(shape[1:], self.stride, self.dilation, kernel, strict=True)
        )

    def linear(self, x: Tensor) -> Tensor:
        full = _spread(x, self.weight, self.stride, self.groups, self.dilation)
        extent = self._extent(tuple(x.shape[1:]))
        size = [
            n + extra - begin - end
            for n, extra, (begin, end) in zip(extent, self.output_padding, self.padding, strict=True)
        ]
        return _window(full, self.padding, size)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        extent = self._extent(shape)
        before = tuple((begin, 0) for begin, _ in self.padding)
        full = _window(F.pad(v, flat_pads(before)), tuple((0, 0) for _ in extent), extent)
        none = [0] * len(self.stride)
        return convolve(full, self.weight, None, self.stride, none, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class AveragePool(Affine):
    """Mean over windows of ``kernel`` at ``stride`` over the trailing dimensions, without padding."""

    kernel: Shape
    stride: Shape

    def linear(self, x: Tensor) -> Tensor:
        return _AVG_POOL[len(self.kernel)](x, self.kernel, self.stride)

    def adjoint(self, v: Tensor, shape: Shape) -> Tensor:
        channels = shape[0]
        share = v.new_full((channels, 1, *self.kernel), 1.0 / math.prod(self.kernel))
        full = _spread(v, share, self.stride, channels, [1] * len(self.kernel))
        return _window(full, tuple((0, 0) for _ in self.kernel), shape[1:])


def _spread(x: Tensor, weight: Tensor, stride: Shape, groups: int, dilation: Sequence[int]) -> Tensor:
    """The transposed convolution without padding."""
    none = [0] * len(stride)
    return convolve_transpose(x, weight, stride, none, none, groups, dilation)


def _window(full: Tensor, padding: Pads, size: Sequence[int]) -> Tensor:
    """The spatial window of extent ``size`` that begins at ``padding``; zeros beyond the end of ``full``."""
    for axis, ((begin, _), length) in enumerate(zip(padding, size, strict=True)):
        dim = full.dim() - len(size) + axis
        available = max(0, min(full.shape[dim] - begin, length))
        full = full.narrow(dim, min(begin, full.shape[dim]), available)
    missing = [(0, length - n) for n, length in zip(full.shape[full.dim() - len(size) :], size, strict=True)]
    return F.pad(full, flat_pads(missing)) if any(end for _, end in missing) else full
