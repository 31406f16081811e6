"""Batches of parts of the inputs, on each of which some neurons have a known sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

MOST = 6e4
"""Of a multiplier that is kept: what half precision holds."""


@dataclass(frozen=True, eq=False)
class SignParts:
    """S parts, each the inputs where U neurons that may have either sign have those of a row of ``signs``.

    Attributes:
        row: ``[S]`` (int64), the row whose bound the part is to prove.
        group: ``[S]`` (int64), the disjunct that the row belongs to: any of its rows would do.
        signs: ``[S, U]`` (int8): 1 where the neuron is at least 0, -1 where at most 0, 0 where it is not known.
        slopes, multipliers: ``[S, U]``, what the bound method goes on with; it may take any.
        bound: ``[S]``, proven: some row of the group is at least this on the part; -inf at first.
        depth: ``[S]`` (int32), how many splits lie above.
        wishes: ``[S, W]`` (int64), the neurons to split, best first; -1 where there is none.
    """

    row: Tensor
    group: Tensor
    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    bound: Tensor
    depth: Tensor
    wishes: Tensor

    def __len__(self) -> int:
        return len(self.row)

    @property
    def worst(self) -> float:
        """The smallest bound, inf where there is no part."""
        return float(self.bound.min()) if len(self) else math.inf

    def at(self, index: Tensor | slice) -> SignParts:
        """Those at an index, of a slice, or where a mask holds."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @staticmethod
    def cat(parts: Sequence[SignParts]) -> SignParts:
        """All of them, of one kind."""
        return replace(parts[0], **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(parts[0])})

    def split(self, neuron: Tensor) -> SignParts:
        """Both parts of each by the sign of the neuron ``[S]``, 0 belonging to both: first those where it is >= 0."""
        column, one = neuron.unsqueeze(1), self.signs.new_ones(len(self), 1)
        halves = SignParts.cat([self, self])
        signs = torch.cat([self.signs.scatter(1, column, one), self.signs.scatter(1, column, -one)])
        return replace(halves, signs=signs, depth=halves.depth + 1)

    def packed(self) -> SignParts:
        """The same in less memory: slopes and multipliers, of which any will do, in half precision."""
        multipliers = self.multipliers.clamp(max=MOST).half()
        return replace(self, slopes=self.slopes.half(), multipliers=multipliers)

    def unpacked(self) -> SignParts:
        """The inverse of :meth:`packed`, in the dtype of the bounds."""
        return replace(self, slopes=self.slopes.to(self.bound), multipliers=self.multipliers.to(self.bound))

    @property
    def bytes(self) -> int:
        """Of all parts, packed."""
        return len(self) * self.part_bytes

    @property
    def part_bytes(self) -> int:
        """Of one part, packed."""
        return self.signs.shape[1] * 5 + self.wishes.shape[1] * 8 + 32


@dataclass(frozen=True, eq=False)
class SignBounded:
    """What a bound method found.

    Attributes:
        parts: with the slopes and multipliers of the bounds, which are proven and no worse than they were, and wishes.
        points: ``[S, N]``, inputs where the linear bounds of the rows are least.
    """

    parts: SignParts
    points: Tensor


class PartBounder(Protocol):
    """What a search asks of a bound method, for batches of parts."""

    def bound(self, parts: SignParts, thorough: bool = False) -> SignBounded:
        """Proven bounds; ``thorough``: with all its might, as the parts cannot be split."""

    def estimate(self, parts: SignParts) -> Tensor:
        """Cheap bounds ``[S]`` of the rows, which choose what is split and need not be proven."""


class SignBounder(PartBounder, Protocol):
    """A bound method that :func:`zonocuda.branch.deepen` can ask, too."""

    def sketch(self, parts: SignParts) -> SignParts:
        """As :meth:`bound`, but the bounds are guesses at what :meth:`as_it_is` will prove."""

    def as_it_is(self, parts: SignParts) -> SignBounded:
        """Proven bounds with the slopes and multipliers that parts have, and no worse than those that they have."""
