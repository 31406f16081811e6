"""One computation on several processes: the *ranks* of a group of :mod:`torch.distributed`, each with a share of it.

All ranks make the same calls in the same order, so that their collectives meet. What only one of them has, such as
generators, is its share; everything else is computed on each rank, and a decision that must be the same everywhere,
or a number that a proof takes to be one, is *agreed*: that of rank 0 counts, whatever another processor would round.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Of what is gathered from all ranks at a time."""


class Ranks:
    """The ranks of a group, and which of them this process is.

    Attributes:
        rank, size: this process's number, from 0, and how many there are.

    Examples:
        A group of one; under torchrun, the name of the backend is enough.

        >>> import torch.distributed as dist
        >>> dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
        >>> Zonotope.from_ball(torch.zeros(1, 3), 1.0).shared(Ranks()).blocks[0].symbols.count
        3
        >>> dist.destroy_process_group()
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """Those of a group; by default of all processes.

        Raises:
            RuntimeError: torch.distributed has not been started.
            ValueError: this process is not one of the group's.
        """
        if not dist.is_available() or not dist.is_initialized():
            raise RuntimeError(
                "Ranks: this process is no rank yet; start it with torchrun and call "
                "torch.distributed.init_process_group('gloo'), or use zonocuda.fleet.run_ranks"
            )
        rank = dist.get_rank(group)
        if rank < 0:
            raise ValueError("Ranks: this process is not in the group")
        self._group: Any = dist.group.WORLD if group is None else group
        self.rank, self.size = rank, dist.get_world_size(group)

    def __eq__(self, other: object) -> bool:
        """Whether they are those of one group."""
        return isinstance(other, Ranks) and self._group is other._group

    def __hash__(self) -> int:
        return id(self._group)

    def __repr__(self) -> str:
        return f"Ranks(rank={self.rank}, size={self.size})"

    def share(self, count: int) -> slice:
        """This rank's run of ``count`` things, of which no rank has two more than another."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks of ``x``, which has one shape on all of them.

        Added in the order of the ranks, with ``size`` - 1 roundings: the same bits everywhere and every time, which a
        library's all-reduce does not promise. Its derivative is that of a function which every rank computes alike:
        the one that arrives, for each rank's part.
        """
        total: Tensor = _Sum.apply(x, self)  # type: ignore[no-untyped-call]
        return total

    def agreed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of rank 0, on all ranks, of the shapes and types that they have on each; one that is given twice
        is sent once."""
        if self.size == 1:
            return tensors
        found: dict[int, Tensor] = {}
        for t in tensors:
            if id(t) not in found:
                found[id(t)] = own = t.detach().clone(memory_format=torch.contiguous_format)
                self._broadcast(own)
        return tuple(found[id(t)] for t in tensors)

    def check(self, caller: str, named: Sequence[tuple[str, str]], device: torch.device) -> None:
        """Compares digests of what the ranks were given.

        Args:
            caller: for the message.
            named: what it is, and a digest of it in hexadecimal digits, in one order on all ranks.
            device: one that the group's backend serves.

        Raises:
            ValueError: one differs.
        """
        numbers = torch.tensor([int(digest[:12], 16) for _, digest in named], dtype=torch.int64, device=device)
        every = torch.stack(self._gathered(numbers))
        for place, (name, _) in enumerate(named):
            if len(set(every[:, place].tolist())) > 1:
                raise ValueError(
                    f"{caller}: the ranks were given different {name}; all of them must make the same call "
                    "(random numbers need one seed)"
                )

    def _total(self, x: Tensor) -> Tensor:
        """:meth:`sum`, without its derivative."""
        if self.size == 1:
            return x.clone()
        flat = x.reshape(-1)
        total = torch.empty(x.shape, dtype=x.dtype, device=x.device).reshape(-1)
        step = max(1, CHUNK_BYTES // (self.size * x.element_size()))
        for first in range(0, prod(x.shape), step):
            parts = self._gathered(flat[first : first + step].contiguous())
            run = total[first : first + step].copy_(parts[0])
            for part in parts[1:]:
                run += part
        return total.reshape(x.shape)

    def _gathered(self, x: Tensor) -> list[Tensor]:
        """Every rank's ``x``."""
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x, group=self._group)
        return parts

    def _broadcast(self, x: Tensor) -> None:
        """Overwrites ``x`` by that of rank 0."""
        dist.broadcast(x, dist.get_global_rank(self._group, 0), group=self._group)


class _Sum(torch.autograd.Function):
    """:meth:`Ranks.sum`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        return ranks._total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
