"""Where a search by signs of neurons stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zonocuda.branch import SignState

Stage = Literal["look", "find", "last"]
"""Of a search: a short search is under way, or lemmas, or the search to the end."""


@dataclass(frozen=True, eq=False)
class CourseState:
    """A search by signs of neurons between two batches.

    Attributes:
        inputs: bounds of the input of every ReLU on the whole box, lemmas included.
        stage: see ``Stage``.
        layer: the last ReLU that the lemmas under way are done with; empty where there is none.
        rounds: of lemmas that are done.
        spent: seconds of the last one, without its searches.
        bounded, depth, lemmas: counted so far; of ``tree`` without its own.
        margin: the worst bound of an open disjunct on the whole box.
        brought: how much nearer to zero short searches brought it.
        tree: what is open; None where no search with these bounds has begun.
    """

    inputs: Mapping[str, tuple[Tensor, Tensor]]
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
