"""A region's searches by splitting, as a verification has them: what they begin or go on with, and where states go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from zonocuda.checkpoint import CheckpointError
from zonocuda.domains import Backend, current_backend
from zonocuda.prove.certificate import RegionRecord
from zonocuda.prove.combine import Combination
from zonocuda.prove.prover import Prover
from zonocuda.prove.recording import NoCertificateError
from zonocuda.prove.stages import RegionProof
from zonocuda.specs import Region
from zonocuda.verifier.attack import Attack
from zonocuda.verifier.box_packets import sharer
from zonocuda.verifier.checkpoint import NeuronState, RegionState
from zonocuda.verifier.falsify import Counterexample
from zonocuda.verifier.ground import Ground
from zonocuda.verifier.lemma_packets import LemmaHelpers
from zonocuda.verifier.neuron_kept import KeptSearch
from zonocuda.verifier.neuron_packets import neuron_sharer
from zonocuda.verifier.neuron_record import MAX_BYTES, record_neurons
from zonocuda.verifier.neuron_search import MEMORY, NeuronCourse, NeuronSearch
from zonocuda.verifier.point_record import record_points
from zonocuda.verifier.point_search import PointCourse
from zonocuda.verifier.result import SplitStats
from zonocuda.verifier.splitting import BOX_MEMORY, RECORD_MEMORY, RegionSearch, box_seconds, end_of, without_signs

if TYPE_CHECKING:
    from zonocuda.verifier.verification import Verification

Record = Callable[[], RegionRecord]
"""Writes a proof down."""


def split_box(run: Verification, position: int, proof: RegionProof) -> tuple[Counterexample | None, SplitStats, Record]:
    """Splits the box until every part is refuted: a counterexample, statistics, and the proof, where one is wanted."""
    known, kept = run.checkpoints.of(position), RegionState(combinations=run.combinations)
    budget = run.course.memory_budget
    executor = run.executor
    with run.checkpoints.searching():
        found, stats, forest = RegionSearch(
            run.subject,
            run.search_graph,
            proof.region,
            position,
            proof.dtypes,
            run.arithmetic,
            lambda: box_seconds(run.split, proof.region, run.subject.graph, run.course.deadline.remaining()),
            record=run.certificate is not None and not run.certificate.reason,
            memory=BOX_MEMORY if budget is None else min(BOX_MEMORY, budget),
            state=None if known is None else known.boxes,
            keep=lambda make: run.checkpoints.offer(position, lambda: replace(kept, boxes=make())),
            stopped=run.checkpoints.is_asked,
            watch=run.course.timeline.watch("input"),
            share=None if executor is None else sharer(executor, lambda search: _ground(run, search, proof.dtypes)),
        ).run()
        if found is None:
            run.checkpoints.settle()
    if forest is None:
        return found, stats, _too_large
    return found, stats, partial(RegionRecord, position, False, (), (), forest=forest)


def _too_large() -> RegionRecord:
    raise NoCertificateError(f"the leaves of a proof by splitting the box take more than {RECORD_MEMORY >> 20} MiB")


def _ground(run: Verification, search: RegionSearch | NeuronSearch, dtypes: Sequence[torch.dtype]) -> Ground:
    """What workers need of a region and its network."""
    backend: Backend = "native" if current_backend() == "native" else "reference"
    subject, replays = run.subject, (run.subject.dtype, run.subject.rounded_box)
    where = search.region, search.position, tuple(dtypes), str(run.device)
    return Ground(subject.graph, *where, backend, run.execution, *replays, search.memory)


def split_neurons(
    run: Verification, position: int, proof: RegionProof, known: NeuronState | None
) -> tuple[Counterexample | None, SplitStats, Record]:
    """Splits neurons until every part is refuted, or goes on with that: by signs, where all activations can be split
    so, else at points."""
    if without_signs(run.subject.graph) is not None:
        return split_points(run, position, proof)
    with run.checkpoints.searching():
        assert proof.prover is not None, "a proof begins with a prover"
        if known is None:
            prover = proof.prover_in(proof.dtypes[0])
            still = [number for number, ok in enumerate(prover.rows.refuted(prover.bounds)) if not ok]
            known = NeuronState(tuple(proof.dtypes), tuple(still), proof.prover.climbed, None)
        else:
            prover = _prover_again(run, proof, known)
        start, kept = known, RegionState(combinations=run.combinations)
        budget = run.course.memory_budget
        search = NeuronSearch(
            proof.region,
            position,
            [run.arithmetic(dtype) for dtype in start.dtypes],
            prover.intermediate,
            start.open,
            Attack(run.subject, run.search_graph, proof.region, position, prover.rows),
            end_of(run.course.deadline.remaining()),
            MEMORY if budget is None else min(MEMORY, budget // 2),
            state=start.course,
            keep=lambda make: run.checkpoints.offer(
                position, lambda: replace(kept, neurons=replace(start, course=make()))
            ),
            stopped=run.checkpoints.is_asked,
            watch=run.course.timeline.watch("neuron"),
            share=None
            if run.executor is None
            else neuron_sharer(run.executor, run.subject, lambda search: _ground(run, search, start.dtypes)),
            leaf=run.leaf,
            kept=KeptSearch(MAX_BYTES if run.certificate is not None and not run.certificate.reason else None),
        )
        if run.executor is not None:
            search = replace(search, helpers=LemmaHelpers(run.executor, _ground(run, search, start.dtypes)))
        course = NeuronCourse(search)
        found, stats = course.run()
        if found is None:
            run.checkpoints.settle()

    def record() -> RegionRecord:
        end = end_of(run.course.deadline.remaining())
        return record_neurons(search, course.rounds, proof, end)

    return found, stats, record


def split_points(
    run: Verification, position: int, proof: RegionProof
) -> tuple[Counterexample | None, SplitStats, Record]:
    """Splits neurons at points until every part is refuted, in the widest dtype. A search that is interrupted begins
    anew, and none is shared out."""
    with run.checkpoints.searching():
        assert proof.prover is not None, "a proof begins with a prover"
        prover = proof.prover_in(proof.dtypes[-1])
        still = [number for number, ok in enumerate(prover.rows.refuted(prover.bounds)) if not ok]
        budget = run.course.memory_budget
        course = PointCourse(
            proof.region,
            position,
            run.arithmetic(proof.dtypes[-1]),
            prover.intermediate,
            tuple(still),
            Attack(run.subject, run.search_graph, proof.region, position, prover.rows),
            end_of(run.course.deadline.remaining()),
            MEMORY if budget is None else min(MEMORY, budget // 2),
            run.checkpoints.is_asked,
            run.course.timeline.watch("neuron"),
        )
        found, stats = course.run()
        if found is None:
            run.checkpoints.settle()

    def record() -> RegionRecord:
        end = end_of(run.course.deadline.remaining())
        return record_points(course, run.arithmetic(torch.float64), end)

    return found, stats, record


def _prover_again(run: Verification, proof: RegionProof, known: NeuronState) -> Prover:
    """The prover that a search was begun with, but for bounds that its state has."""
    groups = len(proof.region.disjuncts)
    if not known.dtypes or not set(known.dtypes) <= set(run.dtypes) or not set(known.open) <= set(range(groups)):
        raise CheckpointError("is damaged: the search is of another kind")
    assert proof.prover is not None
    proof.prover.climbed = known.climbed
    return proof.prover_in(known.dtypes[0])


def read_mixtures(
    combinations: Sequence[Combination], region: Region, refuting: Sequence[Combination]
) -> tuple[Combination, ...]:
    """Of combinations that were read those that add a row to a disjunct, of a region of which others refute some.

    Raises:
        CheckpointError: they are none of the region.
    """
    gone, added = {one.disjunct for one in refuting}, tuple(one for one in combinations if not one.refutes)
    for one in added:
        rows = region.disjuncts[one.disjunct] if 0 <= one.disjunct < len(region.disjuncts) else ()
        if one.disjunct in gone or not one.weights or not all(0 <= k < len(rows) for k in one.weights):
            raise CheckpointError("is damaged: a combination of rows that are not there")
        if not all(weight > 0 for weight in one.weights.values()):
            raise CheckpointError("is damaged: a combination with weights that are not positive")
    return added
