"""How much memory a run may use."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from zonocuda.domains import Hosted, Zonotope, memory
from zonocuda.domains.blocks import storage_of
from zonocuda.host_memory import free_host_memory

DEFAULT_SHARE = 0.6
"""Of the memory that is free, which a run may use where nobody says how much."""

HOST_SHARE = 0.3
"""Of the free memory of the host, which generators of a GPU may use: page-locked blocks take up to twice their size."""


def memory_budget(given: int | None, device: torch.device) -> int:
    """Bytes that a run may use beyond what is in use now: what is given, or DEFAULT_SHARE of what is free.

    Raises:
        ValueError: a budget that is not positive, or no way to tell what is free.
    """
    if given is not None:
        if not given > 0:
            raise ValueError(f"memory_budget must be a positive number of bytes, got {given}")
        return given
    return int(DEFAULT_SHARE * free_memory(device))


def host_budget(device: torch.device) -> int:
    """Bytes of generators that may lie in host memory behind a device: none behind the CPU, which is the host."""
    return 0 if device.type == "cpu" else int(HOST_SHARE * free_memory(torch.device("cpu")))


def free_memory(device: torch.device) -> int:
    """Bytes free on a device: of a GPU also those that torch keeps for its next tensors; on the CPU what the system, or
    the process's control group, can still give."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = free_host_memory()
    if free is None:
        raise ValueError("memory_budget: this system does not tell how much memory is free; pass a number of bytes")
    return free


def bytes_in_use(zonotopes: Iterable[Zonotope], pool: memory.Pool, given: Collection[int] = ()) -> int:
    """Bytes of the generators of zonotopes and of the pool's free buffers on a device, each storage once; those that
    were ``given`` (see :func:`zonocuda.domains.blocks.storage_of`) are not the run's."""
    held = [*(tensor for z in zonotopes for block in z.blocks for tensor in block.tensors), *pool.free]
    return _bytes(held, given)


def host_bytes_in_use(zonotopes: Iterable[Zonotope], given: Collection[int] = ()) -> int:
    """The same of their generators in host memory behind the device."""
    hosted = (block.block for z in zonotopes for block in z.blocks if isinstance(block, Hosted))
    return _bytes([tensor for block in hosted for tensor in block.tensors], given)


def _bytes(tensors: Iterable[Tensor], given: Collection[int]) -> int:
    storages = {storage_of(t): t.untyped_storage().nbytes() for t in tensors}
    return sum(size for storage, size in storages.items() if storage not in given)
