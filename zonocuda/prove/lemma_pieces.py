"""Rows of a layer's lemmas that are bounded by themselves, elsewhere perhaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.branch import SignParts


@dataclass(frozen=True, eq=False)
class LemmaPiece:
    """Some rows of a layer, to be bounded by themselves: what comes of it is a function of this alone, but for time.

    Attributes:
        intermediate: bounds ``[1, *features]`` of the input of every activation of the network, in the first dtype.
        name: the layer's activation.
        index: ``[K]``, the neurons that rows are about, of those that are left in it.
        rows: of the ``2 K``, those of this piece.
        roots: the parts that trees of these rows grow from; None where these are what is wanted.
        rounds: splits of each of them.
        written: whether proofs are to be written down.
    """

    intermediate: Mapping[str, Bounds]
    name: str
    index: Tensor
    rows: Tensor
    roots: SignParts | None
    rounds: int
    written: bool


@dataclass(frozen=True, eq=False)
class LemmaTrees:
    """What comes of a piece: parts of its rows, with their bounds.

    Attributes:
        parts: the roots; or leaves, packed, equally many for each row.
        bounds: ``[R, W]``, of the leaves, inf where a place is not taken; ``[R, 1]``, of the roots.
        bounded: parts that were bounded.
    """

    parts: SignParts
    bounds: Tensor
    bounded: int


class Helpers(Protocol):
    """Others who bound pieces."""

    @property
    def count(self) -> int:
        """How many pieces they can be at at once."""

    def __call__(self, pieces: Sequence[LemmaPiece], share: float) -> Iterator[tuple[int, LemmaTrees | None]]:
        """What comes of pieces, with their numbers, as they end; None where it is lost.

        Args:
            pieces: the pieces.
            share: of all time, which may have passed when they end.
        """
