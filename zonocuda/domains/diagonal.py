"""Diagonal blocks: every generator touches one feature, as an input box or the new errors of a ReLU have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from zonocuda.brief import brief_repr
from zonocuda.domains import memory
from zonocuda.domains.backend import kernels
from zonocuda.domains.dense import Dense
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed, is_wide
from zonocuda.windows import diagonal_conv_corners, window_size


def flat_features(values: Tensor) -> Tensor:
    """``[B, *features]`` as ``[B, N]``, for any number of feature dimensions, none included."""
    return values.reshape(values.shape[0], prod(values.shape[1:]))


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Generators that each touch one feature: symbol k has ``coefficients[b, k]`` at the feature ``index[k]``.

    ``coefficients`` is ``[B, K]``; ``index`` is ``[K]`` int64, counts the flattened features, and holds none twice.
    """

    symbols: Symbols
    coefficients: Tensor
    index: Tensor

    __repr__ = brief_repr

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

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What holds the generators' numbers."""
        return (self.coefficients,)

    @staticmethod
    def of(values: Tensor, origin: str = "") -> Diagonal:
        """Fresh symbols with the coefficients ``values`` ``[B, *features]``, one for each feature that is not zero in
        every element of the batch (a NaN is not zero)."""
        flat = flat_features(values)
        index = (flat != 0).any(0).nonzero().squeeze(1)
        return Diagonal(Symbols(len(index), origin), flat[:, index], index)

    def add_radius(self, values: Tensor) -> Tensor:
        """values + |coefficients| at their features, ``[B, *features]``."""
        return flat_features(values).index_add(1, self.index, self.coefficients.abs()).reshape(values.shape)

    def scale(self, multiplier: Tensor, in_place: bool = False) -> Diagonal:
        """Every generator times ``multiplier`` (broadcasts to ``[B, *features]``)."""
        factors = flat_features(multiplier)[:, self.index]
        return Diagonal(self.symbols, self.coefficients * factors, self.index)

    def without(self, mask: Tensor) -> Diagonal:
        """The same generators, 0 where ``mask`` ``[B, *features]`` says so, NaN or not."""
        return Diagonal(self.symbols, self.coefficients.masked_fill(flat_features(mask)[:, self.index], 0), self.index)

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``."""
        shape = (*self.coefficients.shape, *features)
        return memory.filled(
            shape,
            self.coefficients,
            lambda run: kernels().error_block(self.coefficients[:, run], self.index[run], features),
        )

    def narrow(self, start: int, symbols: Symbols) -> Diagonal:
        """The generators of ``symbols.count`` symbols from ``start``, as a block of ``symbols``."""
        end = start + symbols.count
        return Diagonal(symbols, self.coefficients[:, start:end], self.index[start:end])

    def linear(self, weight: Tensor) -> Dense:
        """W G for ``weight`` ``[out, in]``: scaled columns of W."""
        image = memory.filled(
            (*self.coefficients.shape, weight.shape[0]),
            self.coefficients,
            lambda run: kernels().diagonal_linear(self.coefficients[:, run], self.index[run], weight),
        )
        return Dense(self.symbols, image)

    def convolve(self, weight: Tensor, how: Convolution, features: tuple[int, int, int]) -> Windowed | Dense:
        """The block on a map ``features`` after a convolution: scaled kernels."""
        size = how.output_size((features[1], features[2]))
        corners = diagonal_conv_corners(self.index, *features, how.kernel, how.stride, how.begin, how.dilation)
        extent = window_size(how.kernel, how.stride, how.dilation)

        def kernel_patches(run: slice) -> Tensor:
            patches: Tensor = kernels().diagonal_conv(
                self.coefficients[:, run],
                self.index[run],
                weight,
                *features,
                how.stride,
                how.begin,
                how.dilation,
                how.groups,
                *size,
            )
            return patches

        def rows(run: slice) -> Tensor:
            dense: Tensor = kernels().window_dense(kernel_patches(run), corners[run], *size)
            return dense

        shape = (*self.coefficients.shape, weight.shape[0])
        if is_wide(extent, size):
            return Dense(self.symbols, memory.filled((*shape, *size), self.coefficients, rows))
        patches = memory.filled((*shape, *extent), self.coefficients, kernel_patches)
        return Windowed(self.symbols, patches, corners, size)

    def windowed(self, features: tuple[int, int, int]) -> Windowed:
        """The block on a map ``features`` as windows of one position."""
        channels, height, width = features
        position = self.index % (height * width)
        corners = torch.stack([position // width, position % width], 1)
        channel = self.index // (height * width)
        rows = kernels().error_block(self.coefficients, channel, (channels,))
        return Windowed(self.symbols, rows.reshape(*rows.shape, 1, 1), corners, (height, width))

    def rearrange(self, linear: Callable[[Tensor], Tensor], features: tuple[int, ...]) -> Diagonal | None:
        """The block after a map that moves every feature to one place; None if it drops one of this block's."""
        tags = torch.arange(1, prod(features) + 1, dtype=torch.float64, device=self.index.device)
        moved = linear(tags.reshape(1, *features)).flatten().long()
        place = torch.full((prod(features) + 1,), -1, dtype=torch.int64, device=self.index.device)
        place[moved] = torch.arange(len(moved), device=self.index.device)
        index = place[self.index + 1]
        return None if bool((index < 0).any()) else Diagonal(self.symbols, self.coefficients, index)
