"""Where a search by signs of neurons stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zonocuda.branch import SignParts, SignState
from zonocuda.checkpoint import CheckpointError, alike

Stage = Literal["look", "find", "last"]
"""Of a search: a short search is under way, or lemmas, or the search to the end."""


@dataclass(frozen=True, eq=False)
class CourseState:
    """A search by signs of neurons between two batches.

    Attributes:
        intermediate: bounds of the input of every ReLU on the whole box, lemmas included.
        stage: see ``Stage``.
        layer: the last ReLU that the lemmas under way are done with; empty where there is none.
        rounds: of lemmas that are done.
        spent: seconds of the last one, without its searches.
        bounded, depth, lemmas: counted so far; of ``tree`` without its own.
        margin: the worst bound of an open disjunct on the whole box.
        brought: how much nearer to zero short searches brought it.
        tree: what is open; None where no search with these bounds has begun.
    """

    intermediate: Mapping[str, tuple[Tensor, Tensor]]
    stage: str
    layer: str
    rounds: int
    spent: float
    bounded: int
    depth: int
    lemmas: int
    margin: float
    brought: float
    tree: SignState | None


def checked_parts(parts: SignParts, like: SignParts, members: Sequence[Sequence[int]]) -> SignParts:
    """Open parts that were read.

    Args:
        parts: the parts.
        like: some of the search.
        members: the rows of each of its groups.

    Raises:
        CheckpointError: they are none of the search.
    """
    if not alike(parts, like.packed()):
        raise CheckpointError("is damaged: the parts are of another shape")
    pairs = {(row, number) for number, rows in enumerate(members) for row in rows}
    known = set(zip(parts.row.tolist(), parts.group.tolist(), strict=True)) <= pairs
    ranges = (
        (parts.signs, -1, 1),
        (parts.slopes, 0, 1),
        (parts.multipliers, 0, math.inf),
        (parts.wishes, -1, parts.signs.shape[1] - 1),
    )
    if not known or not all(bool(((t >= low) & (t <= high)).all()) for t, low, high in ranges):
        raise CheckpointError("is damaged: the parts are none of the search")
    return parts
