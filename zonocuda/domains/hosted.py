"""Blocks in host memory: a device holds their generators only while it works on them.

What a layer makes of such a block is made on the device, from a copy, and goes back to the host. Nothing in host memory
is ever overwritten, so that values can share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zonocuda.domains import memory
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed

Stored = Dense | Diagonal | Windowed


@dataclass(frozen=True, eq=False)
class Hosted:
    """A dense or windowed block whose generators lie in host memory.

    Attributes:
        block: the block, its numbers in host memory; page-locked behind a GPU, which copies such memory faster.
        device: where its zonotope is computed.
    """

    block: Dense | Windowed
    device: torch.device

    kind = "hosted"

    @staticmethod
    def store(block: Dense | Windowed) -> Hosted:
        """The block with its numbers copied to host memory. Waits for the copy: the block may be freed after it."""
        (numbers,) = block.tensors
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=numbers.device.type == "cuda")
        return Hosted(_with(block, host.copy_(numbers)), numbers.device)

    def fetch(self) -> Dense | Windowed:
        """The block with a copy of its numbers on the device."""
        (numbers,) = self.block.tensors
        return _with(self.block, numbers.to(self.device, non_blocking=True, copy=True))

    @property
    def symbols(self) -> Symbols:
        """The group of symbols."""
        return self.block.symbols

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What holds the generators' numbers on the device: nothing."""
        return ()

    def check(self, center: Tensor) -> None:
        """Raises ValueError unless the generators are of the batch and features of ``center`` ``[B, *features]``."""
        self.block.check(center)

    def radius(self, center: Tensor) -> Tensor:
        """sum_k |G_k|, ``[B, *features]``."""
        return self.fetch().radius(center)

    def scale(self, multiplier: Tensor, in_place: bool = False) -> Hosted:
        """Every generator times ``multiplier`` ``[B, *features]``, in other memory whatever ``in_place`` says."""
        return Hosted.store(self.fetch().scale(multiplier, in_place=not torch.is_grad_enabled()))

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``, on the device."""
        return self.fetch().dense(features)

    def reshape(self, features: tuple[int, ...]) -> Hosted:
        """The features in row-major order under another shape."""
        return replace(self, block=self.block.reshape(features)) if isinstance(self.block, Dense) else self

    def narrow(self, start: int, symbols: Symbols) -> Hosted:
        """The generators of ``symbols.count`` symbols from ``start``, in the same memory."""
        run = slice(start, start + symbols.count)
        if isinstance(self.block, Dense):
            return replace(self, block=Dense(symbols, self.block.generators[:, run]))
        patches, corners = self.block.patches[:, run], self.block.corners[run]
        return replace(self, block=replace(self.block, symbols=symbols, patches=patches, corners=corners))


def fetched(block: Stored | Hosted) -> Stored:
    """The block on its device."""
    return block.fetch() if isinstance(block, Hosted) else block


def kept(block: Stored | Hosted) -> Stored | Hosted:
    """The block where blocks are to be kept: in host memory where the pool in use says so (diagonal ones never)."""
    return Hosted.store(block) if memory.keeps_on_host() and isinstance(block, Dense | Windowed) else block


def through(block: Stored | Hosted, image: Callable[[Stored], Stored]) -> Stored | Hosted:
    """The image of a block, which is made on the device, where blocks are to be kept."""
    return kept(image(fetched(block)))


def _with(block: Dense | Windowed, numbers: Tensor) -> Dense | Windowed:
    return Dense(block.symbols, numbers) if isinstance(block, Dense) else replace(block, patches=numbers)
