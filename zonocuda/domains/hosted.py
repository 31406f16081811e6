"""Blocks in host memory: a device holds their generators only while it works on them.

What a layer makes of such a block is made on the device, from a copy, and goes back to the host: in place of the block
where its memory is free for it, as it is on a device. The parts of a block that was cut lie in its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from zonocuda.domains import memory
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed

Stored = Dense | Diagonal | Windowed
Kind = TypeVar("Kind", bound=Stored)


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
        host = torch.empty(numbers.shape, dtype=numbers.dtype, device="cpu", pin_memory=numbers.device.type == "cuda")
        return Hosted(_with(block, host.copy_(numbers)), numbers.device)

    def fetch(self) -> Dense | Windowed:
        """The block with a copy of its numbers on the device, contiguous as in-place ops want them."""
        (numbers,) = self.block.tensors
        copy = numbers.to(self.device, non_blocking=True, copy=True, memory_format=torch.contiguous_format)
        return _with(self.block, copy)

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

    def add_radius(self, values: Tensor) -> Tensor:
        """values + sum_k |G_k|, ``[B, *features]``."""
        return self.fetch().add_radius(values)

    def scale(self, multiplier: Tensor, in_place: bool = False) -> Stored | Hosted:
        """Every generator times ``multiplier`` ``[B, *features]``; ``in_place`` overwrites this block."""
        return scaled(self, lambda block, own: block.scale(multiplier, own), in_place)

    def overwritten(self, image: Dense | Windowed) -> Hosted:
        """A block of this one's size and symbols, written into its place in host memory."""
        (numbers,), (new,) = self.block.tensors, image.tensors
        return replace(self, block=_with(image, numbers.copy_(new)))

    def release(self) -> None:
        """Gives the whole storage up, to the system: nobody may read this block, or another that lies in it, again."""
        (numbers,) = self.block.tensors
        numbers.untyped_storage().resize_(0)

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``, on the device."""
        return self.fetch().dense(features)

    def reshape(self, features: tuple[int, ...]) -> Hosted:
        """The features in row-major order under another shape."""
        return replace(self, block=self.block.reshape(features)) if isinstance(self.block, Dense) else self

    def narrow(self, start: int, symbols: Symbols) -> Hosted:
        """The generators of ``symbols.count`` symbols from ``start``, in the same memory."""
        return replace(self, block=run_of(self.block, start, symbols))


def fetched(block: Kind | Hosted) -> Kind | Dense | Windowed:
    """The block on its device."""
    return block.fetch() if isinstance(block, Hosted) else block


def kept(block: Stored | Hosted) -> Stored | Hosted:
    """The block where blocks are to be kept: in host memory where the pool in use says so (diagonal ones never)."""
    return Hosted.store(block) if memory.keeps_on_host() and isinstance(block, Dense | Windowed) else block


def scaled(block: Stored | Hosted, scale: Callable[[Stored, bool], Stored], in_place: bool) -> Stored | Hosted:
    """What elementwise factors make of a block, where blocks are to be kept.

    Args:
        block: the block.
        scale: scales a block on the device, in place where its second argument is true.
        in_place: the result may overwrite the block, in host memory too.
    """
    if not isinstance(block, Hosted):
        return kept(scale(block, in_place))
    image = scale(block.fetch(), not torch.is_grad_enabled())
    return block.overwritten(image) if in_place and isinstance(image, Dense | Windowed) else kept(image)


def run_of(block: Dense | Windowed, start: int, symbols: Symbols) -> Dense | Windowed:
    """The generators of ``symbols.count`` symbols from ``start``, as a block of ``symbols`` in the same memory."""
    run = slice(start, start + symbols.count)
    if isinstance(block, Dense):
        return Dense(symbols, block.generators[:, run])
    return replace(block, symbols=symbols, patches=block.patches[:, run], corners=block.corners[run])


def through(block: Stored | Hosted, image: Callable[[Stored], Stored]) -> Stored | Hosted:
    """The image of a block, which is made on the device, where blocks are to be kept."""
    return kept(image(fetched(block)))


def _with(block: Dense | Windowed, numbers: Tensor) -> Dense | Windowed:
    return Dense(block.symbols, numbers) if isinstance(block, Dense) else replace(block, patches=numbers)
