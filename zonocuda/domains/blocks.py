"""Blocks: generators that share a group of symbols, stored as their structure allows.

A block stands for K generators over the features of a zonotope, one for each symbol of its group. Two zonotopes depend
on the same symbols exactly where their blocks have the same :class:`Symbols` object; symbol k of a group is generator k
of every block of that group, so adding blocks of one group is exact.

A kind of block defines ``check``, ``radius``, ``scale``, ``dense`` and ``kind``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.domains.backend import kernels


def flat_features(values: Tensor) -> Tensor:
    """``[B, *features]`` as ``[B, N]``, for any number of feature dimensions, none included."""
    return values.reshape(values.shape[0], prod(values.shape[1:]))


class Symbols:
    """A group of ``count`` noise symbols in [-1, 1], known by its identity; ``origin`` says where they arose."""

    __slots__ = ("count", "origin")

    def __init__(self, count: int, origin: str = "") -> None:
        self.count = count
        self.origin = origin

    def __repr__(self) -> str:
        return f"Symbols({self.count}, {self.origin!r}, id={id(self):#x})"


@dataclass(frozen=True, eq=False)
class Dense:
    """A generator matrix: ``generators`` ``[B, K, *features]``."""

    symbols: Symbols
    generators: Tensor

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

    def radius(self, center: Tensor) -> Tensor:
        """sum_k |G_k|, ``[B, *features]``; ``center`` only lends its shape."""
        radius: Tensor = kernels().concretize(torch.zeros_like(center), self.generators)[1]
        return radius

    def scale(self, multiplier: Tensor) -> Dense:
        """Every generator times ``multiplier`` ``[B, *features]``."""
        return Dense(self.symbols, kernels().scale(self.generators, multiplier))

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``."""
        return self.generators

    def map_rows(self, linear: Callable[[Tensor], Tensor]) -> Dense:
        """Every generator through a linear map of ``[B, *features]``."""
        rows = linear(self.generators.flatten(0, 1))
        return Dense(self.symbols, rows.reshape(*self.generators.shape[:2], *rows.shape[1:]))


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Generators that each touch one feature: symbol k has ``coefficients[b, k]`` at the feature ``index[k]``.

    ``coefficients`` is ``[B, K]``; ``index`` is ``[K]`` int64, counts the flattened features, and holds none twice.
    """

    symbols: Symbols
    coefficients: Tensor
    index: Tensor

    kind = "diagonal"

    def __post_init__(self) -> None:
        count = self.symbols.count
        if self.coefficients.dim() != 2 or self.coefficients.shape[1] != count or self.index.shape != (count,):
            raise ValueError(
                f"Diagonal: coefficients must have shape [batch, {count}] and index [{count}], "
                f"got {list(self.coefficients.shape)} and {list(self.index.shape)}"
            )

    def check(self, center: Tensor) -> None:
        """Raises ValueError unless the coefficients are of the batch of ``center`` ``[B, *features]``."""
        if self.coefficients.shape[0] != center.shape[0]:
            raise ValueError(
                f"Diagonal: coefficients of shape {list(self.coefficients.shape)} do not fit a center of shape "
                f"{list(center.shape)}"
            )

    @staticmethod
    def of(values: Tensor, origin: str = "") -> Diagonal:
        """Fresh symbols with the coefficients ``values`` ``[B, *features]``, one for each feature that is not zero in
        every element of the batch (a NaN is not zero)."""
        flat = flat_features(values)
        index = (flat != 0).any(0).nonzero().squeeze(1)
        return Diagonal(Symbols(len(index), origin), flat[:, index], index)

    def radius(self, center: Tensor) -> Tensor:
        """|coefficients| at their features, ``[B, *features]``."""
        flat = flat_features(torch.zeros_like(center))
        return flat.index_add(1, self.index, self.coefficients.abs()).reshape(center.shape)

    def scale(self, multiplier: Tensor) -> Diagonal:
        """Every generator times ``multiplier`` (broadcasts to ``[B, *features]``)."""
        factors = flat_features(multiplier)[:, self.index]
        return Diagonal(self.symbols, self.coefficients * factors, self.index)

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``."""
        rows: Tensor = kernels().error_block(self.coefficients, self.index, features)
        return rows

    def linear(self, weight: Tensor) -> Dense:
        """W G for ``weight`` ``[out, in]``: scaled columns of W."""
        return Dense(self.symbols, kernels().diagonal_linear(self.coefficients, self.index, weight))

    def rearrange(self, linear: Callable[[Tensor], Tensor], features: tuple[int, ...]) -> Diagonal | None:
        """The block after a map that moves every feature to one place; None if it drops one of this block's."""
        tags = torch.arange(1, prod(features) + 1, dtype=torch.float64, device=self.index.device)
        moved = linear(tags.reshape(1, *features)).flatten().long()
        place = torch.full((prod(features) + 1,), -1, dtype=torch.int64, device=self.index.device)
        place[moved] = torch.arange(len(moved), device=self.index.device)
        index = place[self.index + 1]
        return None if bool((index < 0).any()) else Diagonal(self.symbols, self.coefficients, index)


Block = Dense | Diagonal


def add_blocks(a: Block, b: Block, features: tuple[int, ...]) -> Block:
    """The sum of two blocks of one group of symbols; stays diagonal where both are, on the same features."""
    if a.symbols is not b.symbols:
        raise ValueError(f"add_blocks: different symbols {a.symbols} and {b.symbols}")
    if isinstance(a, Diagonal) and isinstance(b, Diagonal) and torch.equal(a.index, b.index):
        return Diagonal(a.symbols, a.coefficients + b.coefficients, a.index)
    return Dense(a.symbols, a.dense(features) + b.dense(features))
