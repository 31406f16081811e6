"""Operators of a network that its graph writes with several nodes, whole, for execution alone.

Bounds are of the nodes: affine maps, ReLUs and products that compute the same function of real numbers. In floating
point those would round where the operator itself rounds nothing, or once (:class:`zonocuda.graph.Part`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from zonocuda.graph.ops import Op, Shape


@dataclass(frozen=True, eq=False)
class Extreme(Op):
    """The largest (``sign`` 1) or least (-1) of its inputs, elementwise; they broadcast."""

    sign: int

    def apply(self, *inputs: Tensor) -> Tensor:
        return reduce(torch.maximum if self.sign == 1 else torch.minimum, inputs)


@dataclass(frozen=True, eq=False)
class Extremes(Op):
    """Largest (``sign`` 1) or least (-1) values over windows, along one feature dimension after the other.

    ``axes``: of each dimension its number, and taps: output position i is the extreme of the input positions tap[i].
    """

    axes: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
    sign: int

    def apply(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        for dim, taps in self.axes:
            parts = (x.index_select(dim + 1, torch.tensor(tap, device=x.device)) for tap in taps)
            x = reduce(torch.maximum if self.sign == 1 else torch.minimum, parts)
        return x


@dataclass(frozen=True, eq=False)
class Clip(Op):
    """min(max(x, lower), upper); None and infinite limits are none."""

    lower: Tensor | None
    upper: Tensor | None

    def apply(self, *inputs: Tensor) -> Tensor:
        x = inputs[0] if self.lower is None else torch.maximum(inputs[0], self.lower.to(inputs[0].dtype))
        return x if self.upper is None else torch.minimum(x, self.upper.to(x.dtype))


@dataclass(frozen=True, eq=False)
class Leaky(Op):
    """x where x >= 0, else slope x."""

    slope: Tensor

    def apply(self, *inputs: Tensor) -> Tensor:
        return torch.where(inputs[0] >= 0, inputs[0], inputs[0] * self.slope.to(inputs[0].dtype))


@dataclass(frozen=True, eq=False)
class Absolute(Op):
    """|x|."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0].abs()


@dataclass(frozen=True, eq=False)
class Multiply(Op):
    """x * y; they broadcast."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[1]


@dataclass(frozen=True, eq=False)
class MatrixProduct(Op):
    """x @ y."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0] @ inputs[1]


@dataclass(frozen=True, eq=False)
class Divide(Op):
    """x / y, or ``constant`` / y; for ``is_root`` by the square root of y."""

    constant: Tensor | None
    is_root: bool

    def apply(self, *inputs: Tensor) -> Tensor:
        x = inputs[0] if self.constant is None else self.constant.to(inputs[0].dtype)
        return x / (inputs[-1].sqrt() if self.is_root else inputs[-1])


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """e^x_i / sum_j e^x_j along a feature dimension, or its logarithm."""

    dim: int
    log: bool

    def apply(self, *inputs: Tensor) -> Tensor:
        function = torch.log_softmax if self.log else torch.softmax
        return function(inputs[0], self.dim + 1)


@dataclass(frozen=True, eq=False)
class MaskedSoftmax(Op):
    """The softmax along the last dimension of what is ``allowed``, and 0 elsewhere."""

    allowed: Tensor

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0].masked_fill(~self.allowed, -torch.inf).softmax(-1)


@dataclass(frozen=True, eq=False)
class LogSumExp(Op):
    """log sum e^x over feature dimensions."""

    dims: Shape
    keepdim: bool

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0].logsumexp([d + 1 for d in self.dims], self.keepdim)


@dataclass(frozen=True, eq=False)
class Standardise(Op):
    """d / sqrt(mean d^2 + eps) over feature dimensions, for d = x - mean x, or x where it is not ``centered``."""

    dims: Shape
    eps: float
    centered: bool

    def apply(self, *inputs: Tensor) -> Tensor:
        (x,), dims = inputs, [d + 1 for d in self.dims]
        d = x - x.mean(dims, keepdim=True) if self.centered else x
        return d / (d.square().mean(dims, keepdim=True) + self.eps).sqrt()


@dataclass(frozen=True, eq=False)
class Choice(Op):
    """first where ``condition`` holds, else second; the inputs take the places of those that are None, in order."""

    condition: Tensor
    first: Tensor | None
    second: Tensor | None

    def apply(self, *inputs: Tensor) -> Tensor:
        rest = iter(inputs)
        first, second = (next(rest) if c is None else c.to(inputs[0].dtype) for c in (self.first, self.second))
        return torch.where(self.condition, first, second)
