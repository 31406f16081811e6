"""Batches of boxes: the parts of an input box that are still open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Subproblems:
    """Boxes whose union holds every point that is not decided yet.

    Attributes:
        lower, upper: ``[S, N]``, the ends, exact floats.
        bound: ``[S]``, the worst bound of the box that they are parts of; -inf at first.
        depth: ``[S]``, how many splits lie above.
        node: ``[S]``, their numbers in what is written down of the search (:mod:`zonocuda.branch.record`).
        known: ``[S, K]``, what the bound method knows of the box that they are parts of; K may be 0.
    """

    lower: Tensor
    upper: Tensor
    bound: Tensor
    depth: Tensor
    node: Tensor
    known: Tensor

    @staticmethod
    def of(lower: Tensor, upper: Tensor) -> Subproblems:
        """The boxes ``[S, N]`` that a search begins with."""
        bound = torch.full_like(lower[:, 0], -torch.inf)
        node = torch.arange(len(lower), device=lower.device)
        return Subproblems(lower, upper, bound, torch.zeros_like(bound, dtype=torch.int32), node, lower[:, :0])

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def worst(self) -> float:
        """The smallest bound, inf where there is no box."""
        return float(self.bound.min()) if len(self) else math.inf

    @property
    def bytes(self) -> int:
        """Of the memory that holds them, perhaps together with others."""
        return sum(getattr(self, column.name).untyped_storage().nbytes() for column in fields(self))

    @property
    def plain(self) -> Subproblems:
        """The same without what is known of them."""
        return replace(self, known=self.lower[:, :0])

    def copy(self) -> Subproblems:
        """The same in memory of their own."""
        return Subproblems(*(getattr(self, column.name).clone() for column in fields(self)))

    def at(self, index: Tensor | slice) -> Subproblems:
        """Those at an index, of a slice, or where a mask holds."""
        return Subproblems(*(getattr(self, column.name)[index] for column in fields(self)))

    @staticmethod
    def cat(parts: Sequence[Subproblems]) -> Subproblems:
        """All of them."""
        return Subproblems(*(torch.cat([getattr(p, column.name) for p in parts]) for column in fields(Subproblems)))

    def split(self, dimension: Tensor) -> Subproblems:
        """Both halves, which share one float of the coordinate ``dimension`` ``[S]``: first all lower ones."""
        column = dimension.unsqueeze(1)
        middle = middles(self.lower, self.upper).gather(1, column)
        return Subproblems(
            torch.cat([self.lower, self.lower.scatter(1, column, middle)]),
            torch.cat([self.upper.scatter(1, column, middle), self.upper]),
            self.bound.repeat(2),
            self.depth.repeat(2) + 1,
            self.node.repeat(2),
            self.known.repeat(2, 1),
        )


def middles(lower: Tensor, upper: Tensor) -> Tensor:
    """A float of every interval near its middle, ``[S, N]``; strictly between the ends where there is one."""
    return (lower + (upper - lower) / 2).clamp(lower, upper)


def splittable(lower: Tensor, upper: Tensor) -> Tensor:
    """Where a coordinate's middle lies strictly between its ends, ``[S, N]``."""
    middle = middles(lower, upper)
    return (lower < middle) & (middle < upper)
