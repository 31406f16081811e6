"""What a search by signs of neurons was closed with: the leaves of its last tree, and of the lemmas before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.interval import Bounds
from zonocuda.branch import SignParts
from zonocuda.graph import Graph
from zonocuda.prove.sign_record import Ints, LemmaProof, SignLeaves, places


@dataclass(eq=False)
class KeptSearch:
    """A search, as far as it is kept.

    Attributes:
        most: bytes that it may take; None keeps nothing.
        is_whole: whether all leaves of the last tree are here: not where a search went on with a state that was read,
            or others closed some of them, or they took too much memory.
        columns: places of the last tree's neurons among those of all activations.
        leaves: of the last tree.
        proofs: of the lemmas.
        bytes: that all of this takes.
    """

    most: int | None = None
    is_whole: bool = field(init=False)
    columns: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    leaves: list[SignLeaves] = field(default_factory=list)
    proofs: list[LemmaProof] = field(default_factory=list)
    bytes: int = 0

    def __post_init__(self) -> None:
        self.is_whole = self.most is not None

    def begin(self, graph: Graph, intermediate: Mapping[str, Bounds], problem: SignProblem) -> None:
        """Another tree begins, of a problem with these bounds."""
        if not self.is_whole:
            return
        self.columns = places(graph, compact(graph, intermediate), problem)
        self.bytes -= sum(leaves.bytes for leaves in self.leaves)
        self.leaves = []

    def closed(self, parts: SignParts) -> None:
        """Leaves of the tree."""
        if self.is_whole:
            self.leaves.append(SignLeaves.of(parts, self.columns))
            self._count(self.leaves[-1])

    def lemma(self, proof: LemmaProof) -> None:
        """A lemma."""
        if self.is_whole:
            self.proofs.append(proof)
            self._count(proof.leaves)

    def _count(self, leaves: SignLeaves) -> None:
        self.bytes += leaves.bytes
        if self.most is not None and self.bytes > self.most:
            self.give_up()

    def give_up(self) -> None:
        """Keeps nothing from now on."""
        self.is_whole, self.leaves, self.proofs = False, [], []
