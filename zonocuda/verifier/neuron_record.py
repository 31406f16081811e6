"""A proof by splitting neurons, written down: found once more, with what a certificate can hold.

The search that found it rests on bounds of many stages, in two dtypes; their slopes are not kept. So the bounds of the
whole box are made again in float64, with slopes in units of 1 / UNIT, as for a proof with refined bounds
(:mod:`zonocuda.prove.certify`); from these, lemmas and leaves of the search are bounded once more, with slopes of the
same kind, and what that leaves open is searched. Where its leaves were not kept, a search begins anew, after one round
of lemmas. Each follows from the bounds of the whole box and from those of layers before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.dual_pass import flatten_positions
from zonocuda.bounds.dual.slopes import free_neurons
from zonocuda.bounds.interval import Bounds, outward
from zonocuda.branch import SearchStopped, SignOutcome, SignParts, SignSearch, refuted
from zonocuda.prove.certificate import RegionRecord
from zonocuda.prove.certify import root_record
from zonocuda.prove.forest import ForestRecord
from zonocuda.prove.lemma_replay import replay_lemmas
from zonocuda.prove.recording import NoCertificateError
from zonocuda.prove.sign_bounds import ROOT, SignBounds
from zonocuda.prove.sign_merge import lightened, merged
from zonocuda.prove.sign_record import SignLeaves, TreeWriter, firsts, known_signs, places, start_units
from zonocuda.prove.stages import RegionProof
from zonocuda.prove.timeline import unwatched
from zonocuda.relaxations import activations
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.neuron_kept import KeptSearch
from zonocuda.verifier.neuron_search import BATCH, EFFORTS, NeuronCourse, NeuronSearch

MAX_BYTES = 2**29
"""Of the leaves that are kept."""
HAIR = 2.0**-30
"""Of a neuron's bounds, what is taken for rounding."""


def record_neurons(search: NeuronSearch, rounds: int, proof: RegionProof, end: float) -> RegionRecord:
    """The proof that a search found, as it is written down.

    Args:
        search: one that ended with a proof, with what was kept of it.
        rounds: of lemmas that it took.
        proof: of the same region, which was left open before.
        end: when to stop, by :func:`time.monotonic`.

    Raises:
        NoCertificateError: the proof was not found again, or takes too much memory.
    """
    root, intermediate = root_record(search.position, proof)
    narrow = {name: _likely(bounds, search.arithmetics[0].dtype) for name, bounds in intermediate.items()}
    groups = range(len(proof.region.disjuncts))
    again = replace(search, intermediate=narrow, open=groups, attack=lambda points: None, end=end, state=None)
    course = RecordedCourse(replace(again, keep=lambda make: None, watch=unwatched), rounds, search.open)
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


def runs_of(parts: SignParts) -> list[SignParts]:
    """Parts in batches."""
    return [parts.at(slice(first, first + BATCH)) for first in range(0, len(parts), BATCH)]


class _Written(KeptSearch):
    """A search of which nothing may be lost."""

    def give_up(self) -> None:
        """Raises NoCertificateError: it takes too much memory."""
        raise NoCertificateError(f"the leaves of a proof by splitting neurons take more than {MAX_BYTES >> 20} MiB")


class RecordedCourse(NeuronCourse):
    """A search that keeps what its last tree, and the lemmas before it, were closed with."""

    written = True

    def __init__(self, search: NeuronSearch, rounds: int, groups: Sequence[int]) -> None:
        """``search`` has what was kept of another one, which is bounded once more and not searched; ``rounds`` of
        lemmas it took, of which the last one is all that is made again where nothing was kept; ``groups`` are the
        disjuncts of it, by its own numbers."""
        self.kept = _Written(MAX_BYTES)
        super().__init__(replace(search, kept=self.kept))
        self.again, self.before, self.groups = rounds, search.kept, np.array(groups, np.int64)

    def begins(self, bounder: SignBounds, done: SignParts) -> None:
        """Keeps the leaves that are refuted at once."""
        self.bounder = bounder
        super().begins(bounder, done)

    def look_and_learn(self) -> SignOutcome[Counterexample]:
        """The lemmas of the other search, or others as in its last round, if it took any, and one search."""
        if self.before.proofs:
            arithmetics = self.search.arithmetics
            boxes = [arithmetic.box(self.search.region) for arithmetic in arithmetics]
            proofs = self.before.proofs
            self.intermediate = replay_lemmas(
                arithmetics, boxes, self.intermediate, proofs, self.on_node, self.kept.lemma
            )
        elif self.again:
            self.find(EFFORTS[self.again - 1])
        return self.look()

    def plant(self) -> SignSearch[Counterexample]:
        """A search that begins with the leaves of the other one."""
        if not self.before.leaves:
            return super().plant()
        bounder = self.rows_on(self.intermediate)
        graph, every = self.search.arithmetics[0].graph, self.roots(bounder, ROOT)
        leaves = SignLeaves.cat(self.before.leaves)
        columns = places(graph, compact(graph, self.intermediate), bounder.problem)
        own = leaves.onto(columns, start_units(bounder.problem), known_signs(graph, self.intermediate))
        own = replace(own, group=self.groups[own.group])
        parts = [bounder.as_it_is(run) for run in runs_of(own.parts(bounder.problem.like))]
        others = ~torch.isin(every.group, torch.from_numpy(self.groups).to(every.group))
        first = SignParts.cat([every.at(others), *(one.parts for one in parts)])
        done = refuted(first.bound)
        self.begins(bounder, first.at(done))
        left = [bounder.bound(run).parts for run in runs_of(first.at(~done))]
        roots = SignParts.cat([first.at(slice(0)), *left])
        done = refuted(roots.bound)
        self.closed(roots.at(done))
        roots = roots.at(~done)
        self.margin, self.counted = roots.worst, 0
        return SignSearch(roots, self.members, bounder, self.search.attack, self.settings, self.closed)

    def proves(self, leaves: SignLeaves, tree: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which leaves their rows refute; none once time is up."""
        runs = runs_of(leaves.parts(self.bounder.problem.like))
        try:
            found = [self.bounder.proves(run).cpu().numpy() for run in runs]
        except SearchStopped:
            return np.zeros(len(leaves.row), dtype=bool)
        return np.concatenate(found)

    def forest(self) -> ForestRecord:
        """All trees, once the search has ended with a proof."""
        arithmetic = self.search.arithmetics[0]
        first = firsts(arithmetic.graph)
        crossing = [
            flatten_positions(node.shape).numpy()[free_neurons(node, self.search.intermediate[node.name]).cpu().numpy()]
            + first[node.name]
            for node in activations(arithmetic.graph)
        ]
        writer = TreeWriter(arithmetic.graph, np.sort(np.concatenate(crossing)))
        for proof in self.kept.proofs:
            writer.lemma(proof)
        rows = arithmetic.rows(self.search.region, self.box)
        leaves = SignLeaves.cat(self.kept.leaves)
        units = [rows.undo_unit(row, 1.0) for row in range(rows.count)]
        trees = [leaves.at(np.flatnonzero(leaves.group == group)) for group in range(len(rows.disjuncts))]
        for group, (own, members) in enumerate(zip(merged(trees, self.proves), rows.disjuncts, strict=True)):
            own = lightened(own, self.proves)
            writer.tree(group, own, {row: (place, units[row]) for place, row in enumerate(members)})
        return writer.writer.finish()
