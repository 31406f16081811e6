"""Batches of parts of the inputs, on each of which the inputs of some neurons lie between points that were split at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zonocuda.branch.signs import SignParts


@dataclass(frozen=True, eq=False)
class PointParts(SignParts):
    """S parts, each by at most D splits of one of M numbers z at a point t, both sides with the point.

    ``signs`` have no columns here; ``slopes`` are what the bound method makes of them, ``multipliers`` of the splits.

    Attributes:
        neuron: ``[S, D]`` (int64), which number was split, by the order of the splits; 0 beyond ``depth``.
        side: ``[S, D]`` (int8), 1 for the part with z >= t, -1 for that with z <= t; 0 beyond ``depth``.
        point: ``[S, D]``, t.
        points: ``[S, W]``, where to split the numbers of ``wishes``: strictly between their bounds.
        lower, upper: ``[S, M]``, bounds that hold on the part.
    """

    neuron: Tensor
    side: Tensor
    point: Tensor
    points: Tensor
    lower: Tensor
    upper: Tensor

    def split(self, neuron: Tensor) -> PointParts:
        """Both parts of each, where one of its wishes ``[S]`` is split: first those with z >= t."""
        wish = (self.wishes == neuron.unsqueeze(1)).to(torch.uint8).argmax(1, keepdim=True)
        column, point, place = neuron.unsqueeze(1), self.points.gather(1, wish), self.depth.long().unsqueeze(1)
        told = replace(
            self,
            neuron=self.neuron.scatter(1, place, column),
            point=self.point.scatter(1, place, point),
            depth=self.depth + 1,
        )
        halves = []
        for sign in (1, -1):
            before = (self.neuron == column) & (self.side == sign)  # a constraint that the new one takes the place of
            beta = (self.multipliers * before).amax(1, keepdim=True)
            side = self.side.scatter(1, place, torch.full_like(place, sign, dtype=self.side.dtype))
            halves.append(replace(told, side=side, multipliers=self.multipliers.scatter(1, place, beta)))
        above = replace(halves[0], lower=self.lower.scatter(1, column, point))
        below = replace(halves[1], upper=self.upper.scatter(1, column, point))
        both = SignParts.cat([above, below])
        assert isinstance(both, PointParts), "parts of one kind"
        return both

    def packed(self) -> PointParts:
        """The same: bounds are proven, and are kept as they are."""
        return self

    def unpacked(self) -> PointParts:
        """The same."""
        return self

    @property
    def part_bytes(self) -> int:
        """Of one part."""
        size = self.lower.element_size()
        splits, wishes = self.neuron.shape[1], self.wishes.shape[1]
        kept = self.slopes.shape[1] + 2 * self.lower.shape[1]
        return kept * size + splits * (9 + 2 * size) + wishes * (8 + size) + 32
