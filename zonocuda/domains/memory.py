"""Buffers that one layer's generators leave to the next.

A large block that is fresh from the system costs a page fault for every 4 KiB, several times the arithmetic that fills
it. Inside :func:`recycled` the storage of a block that was released serves the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Of results at a time where a block goes through a layer in chunks of symbols: what the caches hold on a CPU, what
keeps a GPU busy."""

POOL_BYTES = 2**30
"""Free storage that is kept for later blocks, where nobody sets another limit."""


class Pool:
    """Storage that is free, as flat tensors, and where new blocks are to be kept.

    Attributes:
        free: the storage.
        limit: the most bytes of it.
        keeps_on_host: whether blocks are kept in host memory (:mod:`zonocuda.domains.hosted`), behind their device.
    """

    def __init__(self, limit: int) -> None:
        self.free: list[Tensor] = []
        self.limit = limit
        self.keeps_on_host = False

    @property
    def nbytes(self) -> int:
        """Bytes that are held and not in use."""
        return sum(buffer.nbytes for buffer in self.free)

    def take(self, count: int, like: Tensor) -> Tensor:
        """A flat tensor of ``count`` numbers, of the smallest free buffer that holds them and is not twice as large."""
        fitting = [
            (buffer.numel(), i)
            for i, buffer in enumerate(self.free)
            if buffer.dtype == like.dtype and buffer.device == like.device and count <= buffer.numel() <= 2 * count
        ]
        if not fitting:
            return torch.empty(count, dtype=like.dtype, device=like.device)
        return self.free.pop(min(fitting)[1])[:count]

    def give(self, tensor: Tensor) -> None:
        """Takes over the whole storage of ``tensor``, which nobody may read or write any more.

        What exceeds the limit goes back to the system at once, even where a forgotten reference is left.
        """
        storage = tensor.untyped_storage()
        if self.nbytes + storage.nbytes() > self.limit:
            storage.resize_(0)
            return
        flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self.free.append(flat.set_(storage, 0, (storage.nbytes() // tensor.element_size(),), (1,)))

    def clear(self) -> None:
        """Returns all that is free to the system, even where a forgotten reference is left."""
        for buffer in self.free:
            buffer.untyped_storage().resize_(0)
        self.free.clear()


_pool: ContextVar[Pool | None] = ContextVar("zonocuda_pool", default=None)


@contextmanager
def recycled() -> Iterator[Pool]:
    """Storage released inside serves later blocks inside; the rest goes back to the system at the end."""
    pool = Pool(POOL_BYTES)
    token = _pool.set(pool)
    try:
        yield pool
    finally:
        _pool.reset(token)
        pool.clear()


def keeps_on_host() -> bool:
    """Whether the pool in use keeps blocks in host memory."""
    pool = _pool.get()
    return pool is not None and pool.keeps_on_host


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor with the dtype and device of ``like``, from the pool where one is in use."""
    pool = _pool.get()
    if pool is None or like.device.type != "cpu":  # torch recycles the memory of a GPU itself
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    return pool.take(prod(shape), like).reshape(shape)


def release(tensor: Tensor) -> None:
    """Gives the storage of ``tensor`` up, for the pool or the system; nobody may read or write it any more.

    Storage of a GPU goes back to torch, which recycles it. Outside :func:`recycled` nothing happens.
    """
    pool = _pool.get()
    if pool is None:
        return
    if tensor.device.type == "cpu":
        pool.give(tensor)
    else:
        tensor.untyped_storage().resize_(0)


def filled(
    shape: tuple[int, ...], like: Tensor, piece: Callable[[slice], Tensor], row_bytes: int | None = None
) -> Tensor:
    """A tensor ``[B, K, ...]`` of the given shape whose rows ``[:, run]`` are ``piece(run)``.

    A chunk at a time and in recycled memory; one piece while gradients are recorded, and where one is all there is on a
    device, whose memory torch recycles (a copy of it, should it lie in the memory of ``like``). ``row_bytes`` are what
    a piece needs for each of the K rows where that is more than the result takes.
    """
    batch, count, *rest = shape
    step = chunk_length(row_bytes or batch * prod(rest) * like.element_size(), like.device)
    alone = like.device.type != "cpu" and step >= count
    if torch.is_grad_enabled() or alone or prod(shape) == 0:
        only = piece(slice(0, count)).reshape(shape).contiguous()
        shared = alone and only.untyped_storage().data_ptr() == like.untyped_storage().data_ptr()
        return only.clone() if shared else only
    out = empty(shape, like)
    for k in range(0, count, step):
        run = slice(k, min(k + step, count))
        out[:, run] = piece(run)
    return out


def chunk_length(row_bytes: int, device: torch.device) -> int:
    """How many rows of ``row_bytes`` bytes make a chunk."""
    return max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // max(1, row_bytes))
