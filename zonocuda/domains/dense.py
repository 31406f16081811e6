"""Dense blocks: a generator matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.brief import brief_repr
from zonocuda.domains import memory
from zonocuda.domains.backend import kernels
from zonocuda.domains.symbols import Symbols

READ_CHUNKS = 8
"""Chunks (see :mod:`zonocuda.domains.memory`) of generators that a map reads at a time: torch may copy them."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A generator matrix: ``generators`` ``[B, K, *features]``."""

    symbols: Symbols
    generators: Tensor

    __repr__ = brief_repr

    kind = "dense"

    def __post_init__(self) -> None:
        if self.generators.dim() < 2 or self.generators.shape[1] != self.symbols.count:
            raise ValueError(
                f"Dense: generators must have shape [batch, {self.symbols.count}, *features], "
                f"got {list(self.generators.shape)}"
            )

    def check(self, center: Tensor) -> None:
        """Raises ValueError unless the generators are of the batch and features of ``center`` ``[B, *features]``."""
        batch, _, *features = self.generators.shape
        if (batch, *features) != tuple(center.shape):
            raise ValueError(
                f"Dense: generators of shape {list(self.generators.shape)} do not fit a center of shape "
                f"{list(center.shape)}"
            )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What holds the generators' numbers."""
        return (self.generators,)

    def add_radius(self, values: Tensor) -> Tensor:
        """values + sum_k |G_k|, ``[B, *features]``."""
        total: Tensor = kernels().concretize(values, self.generators)[1]
        return total

    def scale(self, multiplier: Tensor, in_place: bool = False) -> Dense:
        """Every generator times ``multiplier`` ``[B, *features]``; ``in_place`` overwrites this block."""
        if in_place:
            kernels().scale_(self.generators, multiplier)
            return self
        return Dense(self.symbols, kernels().scale(self.generators, multiplier))

    def without(self, mask: Tensor) -> Dense:
        """The same generators, 0 where ``mask`` ``[B, *features]`` says so, NaN or not."""
        return Dense(self.symbols, self.generators.masked_fill(mask.unsqueeze(1), 0))

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``."""
        return self.generators

    def reshape(self, features: tuple[int, ...]) -> Dense:
        """The features under another shape."""
        return Dense(self.symbols, self.generators.reshape(*self.generators.shape[:2], *features))

    def narrow(self, start: int, symbols: Symbols) -> Dense:
        """The generators of ``symbols.count`` symbols from ``start``, as a block of ``symbols`` in its own memory."""
        return Dense(symbols, self.generators[:, start : start + symbols.count].clone())

    def map_rows(self, linear: Callable[[Tensor], Tensor], features: tuple[int, ...] | None = None) -> Dense:
        """Every generator through a linear map of ``[B, *features]``, a chunk of them at a time.

        ``features`` is the shape of its images, which a map that is not told is asked for.
        """
        batch, count, *_ = self.generators.shape
        rows = self.generators.flatten(0, 1)
        shape = tuple(linear(rows[:1]).shape[1:]) if features is None else features
        row_bytes = max(prod(shape), prod(rows.shape[1:]) // READ_CHUNKS) * rows.element_size()
        images = memory.filled((1, len(rows), *shape), rows, lambda run: linear(rows[run]), row_bytes)
        return Dense(self.symbols, images.reshape(batch, count, *shape))

    def linear(self, weight: Tensor) -> Dense:
        """W G on the last feature dimension, for ``weight`` ``[out, in]``."""
        if torch.is_grad_enabled():
            return Dense(self.symbols, F.linear(self.generators, weight))
        shape = (*self.generators.shape[:-1], weight.shape[0])
        out = memory.empty((prod(shape[:-1]), shape[-1]), self.generators)
        torch.mm(self.generators.reshape(-1, weight.shape[1]), weight.T, out=out)
        return Dense(self.symbols, out.reshape(shape))

    def plus(self, other: Tensor, in_place: bool) -> Dense:
        """The sum with generators ``[B, K, *features]`` of the same symbols."""
        if in_place:
            self.generators.add_(other)
            return self
        return Dense(self.symbols, self.generators + other)
