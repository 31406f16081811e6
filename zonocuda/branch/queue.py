"""The open boxes of a search."""

from __future__ import annotations

import math

from zonocuda.branch.subproblems import Subproblems


class Queue:
    """Last in, first out, and among those that came together the least bound first: deep, so that it stays short."""

    def __init__(self) -> None:
        self._chunks: list[Subproblems] = []

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    @property
    def worst(self) -> float:
        """The smallest bound above a box, inf where there is none."""
        return min((chunk.worst for chunk in self._chunks), default=math.inf)

    def push(self, boxes: Subproblems) -> None:
        """Adds boxes."""
        if len(boxes):
            self._chunks.append(boxes.at(boxes.bound.argsort(descending=True, stable=True)))

    @property
    def boxes(self) -> list[Subproblems]:
        """All of them, those that come first last."""
        return list(self._chunks)

    def put_back(self, boxes: Subproblems) -> None:
        """Adds boxes in the order in which they were in another queue."""
        if len(boxes):
            self._chunks.append(boxes)

    def pop(self, count: int) -> Subproblems:
        """Takes ``count`` boxes, or as many as there are."""
        taken: list[Subproblems] = []
        while count and self._chunks:
            chunk = self._chunks.pop()
            keep = max(0, len(chunk) - count)
            if keep:
                self._chunks.append(chunk.at(slice(keep)))
            taken.append(chunk.at(slice(keep, None)))
            count -= len(chunk) - keep
        return Subproblems.cat(taken)
