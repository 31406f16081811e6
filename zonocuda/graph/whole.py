"""Operators of a network that its graph writes with several nodes, whole, for execution alone.

Bounds are of the nodes: affine maps, ReLUs and products that compute the same function of real numbers. In floating
point those would round where the operator itself rounds nothing, or once (:class:`zonocuda.graph.Part`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from zonocuda.graph.ops import Op


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
class Choice(Op):
    """first where ``condition`` holds, else second; the inputs take the places of those that are None, in order."""

    condition: Tensor
    first: Tensor | None
    second: Tensor | None

    def apply(self, *inputs: Tensor) -> Tensor:
        rest = iter(inputs)
        first, second = (next(rest) if c is None else c.to(inputs[0].dtype) for c in (self.first, self.second))
        return torch.where(self.condition, first, second)
