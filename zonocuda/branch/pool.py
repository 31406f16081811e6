"""The open parts of a search by signs, the worst first."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch

from zonocuda.branch.signs import SignParts


class Pool:
    """Parts in a fixed amount of memory. The worst bound comes first; once half of the memory is full, the best, whose
    descendants are soonest proven."""

    def __init__(self, like: SignParts, memory: int) -> None:
        """For parts like those of ``like``, in at most ``memory`` bytes, but room for these and two more."""
        self.limit = max(len(like) + 2, memory // like.part_bytes)
        self._held = like.at(slice(0)).packed()
        self._used = torch.zeros(0, dtype=torch.bool, device=like.row.device)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def worst(self) -> float:
        """The smallest bound of a part, inf where there is none."""
        return float(self._held.bound[self._used].min()) if self._count else math.inf

    @property
    def parts(self) -> SignParts:
        """All of them, packed."""
        return self._held.at(self._used)

    def has_room(self, count: int) -> bool:
        """Whether so many more fit."""
        return self._count + count <= self.limit

    def push(self, parts: SignParts) -> None:
        """Adds parts, for which there must be room.

        Raises:
            MemoryError: there is none.
        """
        count = len(parts)
        if not self.has_room(count):
            raise MemoryError("pool: the open parts do not fit in the memory budget")
        if not count:
            return
        free = (~self._used).nonzero().squeeze(1)[:count]
        if len(free) < count:
            self._grow(max(count - len(free), min(len(self._used), self.limit - len(self._used))))
            free = (~self._used).nonzero().squeeze(1)[:count]
        packed = parts.packed()
        for f in fields(packed):
            getattr(self._held, f.name)[free] = getattr(packed, f.name)
        self._used[free] = True
        self._count += count

    def pop(self, count: int) -> SignParts:
        """Takes ``count`` parts, or as many as there are."""
        count = min(count, self._count)
        deep = 2 * self._count > self.limit
        nothing = -math.inf if deep else math.inf
        order = torch.where(self._used, self._held.bound.nan_to_num(-math.inf, neginf=torch.finfo().min), nothing)
        index = order.topk(count, largest=deep).indices
        self._used[index] = False
        self._count -= count
        return self._held.at(index).unpacked()

    def _grow(self, count: int) -> None:
        held = {f.name: getattr(self._held, f.name) for f in fields(self._held)}
        grown = {name: torch.cat([t, t.new_zeros(count, *t.shape[1:])]) for name, t in held.items()}
        self._held = replace(self._held, **grown)
        self._used = torch.cat([self._used, self._used.new_zeros(count)])
