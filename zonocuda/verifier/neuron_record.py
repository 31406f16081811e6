"""A proof by splitting neurons, written down: found once more, with what a certificate can hold.

The search that found it rests on bounds of many stages, in two dtypes; their slopes are not kept. So the bounds of the
whole box are made again in float64, with slopes in units of 1 / UNIT, as for a proof with refined bounds
(:mod:`zonocuda.prove.certify`); from these a search begins anew, whose slopes are of the same kind, after one round of
lemmas, so that each follows from the bounds of the whole box and from those of layers before.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.dual_pass import flatten_positions
from zonocuda.bounds.dual.slopes import free_neurons
from zonocuda.bounds.interval import Bounds, outward
from zonocuda.branch import SearchStopped, SignOutcome, SignParts
from zonocuda.prove.certificate import RegionRecord
from zonocuda.prove.certify import NoCertificateError, root_record
from zonocuda.prove.forest import ForestRecord
from zonocuda.prove.sign_bounds import SignBounds
from zonocuda.prove.sign_merge import lightened, merged
from zonocuda.prove.sign_record import LemmaProof, SignLeaves, TreeWriter, firsts, places
from zonocuda.prove.stages import RegionProof
from zonocuda.prove.timeline import unwatched
from zonocuda.relaxations import activations
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.neuron_search import BATCH, EFFORTS, NeuronCourse, NeuronSearch

MAX_BYTES = 2**29
"""Of the leaves that are kept."""
HAIR = 2.0**-30
"""Of a neuron's bounds, what is taken for rounding."""


def record_neurons(search: NeuronSearch, rounds: int, proof: RegionProof, end: float) -> RegionRecord:
    """The proof that a search found, as it is written down.

    Args:
        search: one that ended with a proof.
        rounds: of lemmas that it took.
        proof: of the same region, which was left open before.
        end: when to stop, by :func:`time.monotonic`.

    Raises:
        NoCertificateError: the proof was not found again, or takes too much memory.
    """
    root, inputs = root_record(search.position, proof)
    narrow = {name: _likely(bounds, search.arithmetics[0].dtype) for name, bounds in inputs.items()}
    groups = range(len(proof.region.disjuncts))
    again = replace(search, inputs=narrow, open=groups, attack=lambda points: None, end=end, state=None)
    course = RecordedCourse(replace(again, keep=lambda make: None, watch=unwatched), rounds)
    _, stats = course.run()
    if not stats.is_proven:
        if time.monotonic() >= end:
            raise NoCertificateError("the proof by splitting neurons left no time to write it down")
        raise NoCertificateError(
            f"region {search.position}: the proof by splitting neurons was not found again, with slopes as written"
        )
    return replace(root, forest=course.forest())


def _likely(bounds: Bounds, dtype: torch.dtype) -> Bounds:
    """Bounds that a checker will find, to search with: a little wider, for its rounding is another; 0 where they exceed
    it by rounding alone, as at the ReLU of another ReLU, where slopes would stand for nothing.

    No verdict rests on them: a verdict was found before, and what is written down is derived anew by who checks it.
    """
    lower, upper = bounds
    hair = HAIR * (upper - lower)
    lower = torch.where((lower < 0) & (lower >= -hair), 0.0, lower)
    upper = torch.where((upper > 0) & (upper <= hair), 0.0, upper)
    return outward(lower, torch.float32, False).to(dtype), outward(upper, torch.float32, True).to(dtype)


class RecordedCourse(NeuronCourse):
    """A search that keeps what its last tree, and the lemmas before it, were closed with."""

    written = True

    def __init__(self, search: NeuronSearch, rounds: int) -> None:
        """``rounds``: of lemmas that another search took; the last one is all that is made again."""
        super().__init__(search)
        self.again = rounds
        self.leaves: list[SignLeaves] = []
        self.proofs: list[LemmaProof] = []
        self.bytes = 0

    def begins(self, bounder: SignBounds, done: SignParts) -> None:
        """Keeps the leaves that are refuted at once."""
        graph = self.search.arithmetics[0].graph
        self.columns = places(graph, compact(graph, self.inputs), bounder.problem)
        self.bounder = bounder
        self.leaves = []
        self.closed(done)

    def closed(self, parts: SignParts) -> None:
        """Keeps leaves."""
        leaves = SignLeaves.of(parts, self.columns)
        self.leaves.append(leaves)
        self.count(leaves)

    def lemma(self, proof: LemmaProof) -> None:
        """Keeps a lemma."""
        self.proofs.append(proof)
        self.count(proof.leaves)

    def count(self, leaves: SignLeaves) -> None:
        """Takes note of the memory that leaves take."""
        self.bytes += leaves.bytes
        if self.bytes > MAX_BYTES:
            raise NoCertificateError(f"the leaves of a proof by splitting neurons take more than {MAX_BYTES >> 20} MiB")

    def look_and_learn(self) -> SignOutcome[Counterexample]:
        """Lemmas as in the last round of the other search, if it took any, and one search."""
        if self.again:
            self.find(EFFORTS[self.again - 1])
        return self.look()

    def proves(self, leaves: SignLeaves) -> NDArray[np.bool_]:
        """Which leaves their rows refute; none once time is up."""
        runs = [slice(first, first + BATCH) for first in range(0, len(leaves.row), BATCH)]
        parts = leaves.parts(self.bounder.problem.like)
        try:
            found = [self.bounder.proves(parts.at(run)).cpu().numpy() for run in runs]
        except SearchStopped:
            return np.zeros(len(leaves.row), dtype=bool)
        return np.concatenate(found)

    def forest(self) -> ForestRecord:
        """All trees, once the search has ended with a proof."""
        arithmetic = self.search.arithmetics[0]
        first = firsts(arithmetic.graph)
        crossing = [
            flatten_positions(node.shape).numpy()[free_neurons(node, self.search.inputs[node.name]).cpu().numpy()]
            + first[node.name]
            for node in activations(arithmetic.graph)
        ]
        writer = TreeWriter(arithmetic.graph, np.sort(np.concatenate(crossing)))
        for proof in self.proofs:
            writer.lemma(proof)
        rows = arithmetic.rows(self.search.region, self.box)
        leaves = SignLeaves.cat(self.leaves)
        units = [rows.undo_unit(row, 1.0) for row in range(rows.count)]
        for group, members in enumerate(rows.disjuncts):
            own = merged(leaves.at(np.flatnonzero(leaves.group == group)), self.proves)
            own = lightened(own, self.proves)
            writer.tree(group, own, {row: (place, units[row]) for place, row in enumerate(members)})
        return writer.writer.finish()
