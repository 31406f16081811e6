"""The certificate of a proof: slopes from which every bound that it rests on can be derived again.

What proved a region decides what is kept. The forward sweep and the plain dual passes use minimum-area and adaptive
slopes of the bounds of every activation's input: these are written down as they were. A proof with refined bounds is
made once more, in float64, with the slopes that will be written (:mod:`zonocuda.prove.recording`). Every bound counts
its own rounding. See docs/certificate.md for the form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zonocuda.bounds.deadline import TimeoutReached
from zonocuda.bounds.dual.dual_pass import Visit
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.dual.stops import Maxima, Stop
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph
from zonocuda.host_memory import is_out_of_memory
from zonocuda.prove.certificate import (
    ActivationRecord,
    Certificate,
    Ends,
    RegionRecord,
    RowRecord,
    SidedSlopes,
)
from zonocuda.prove.combine import Combination
from zonocuda.prove.prover import LADDERS
from zonocuda.prove.recording import NoCertificateError, Recording, ends_of, feeding_maxima, own_slopes, recorded, wide
from zonocuda.prove.regions import Refuted
from zonocuda.prove.stages import Arithmetic, RegionProof
from zonocuda.relaxations import activations, rule_of
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.refine import Layers, refine


def obstacle(network: Graph, is_executed: bool = False) -> str:
    """Why no proof about a network has a certificate: an activation that the checker does not know, or constants that
    it computes itself, where values are those of an execution; else empty."""
    if is_executed and network.executed:
        return "certificates about the execution of a network that computes constants are not supported"
    unknown = next((node for node in activations(network) if not rule_of(node).is_certified), None)
    return "" if unknown is None else f"certificates of op {unknown.op.kind} (node {unknown.name!r}) are not supported"


def add_region(
    certificate: Certificate, make: Callable[[], RegionRecord], combinations: tuple[Combination, ...] = ()
) -> Certificate:
    """The certificate with one region more; without any, and with the reason, where that cannot be.

    Args:
        certificate: of the regions before.
        make: writes down a region's proof, of what combinations leave; may raise NoCertificateError.
        combinations: what they refute, and the rows that they add to the others.
    """
    if certificate.reason:
        return certificate
    try:
        record = replace(make(), combinations=combinations)
    except NoCertificateError as error:
        return replace(certificate, reason=str(error), regions=())
    except TimeoutReached:
        return replace(certificate, reason="the proof left no time to write it down", regions=())
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return replace(certificate, reason="writing the proof down took more memory than there was", regions=())
    return replace(certificate, regions=(*certificate.regions, record))


def region_record(position: int, proof: RegionProof) -> RegionRecord:
    """The certificate of a region's proof, which is complete; raises NoCertificateError.

    ``position`` is that of the region.
    """
    assert proof.sweep is not None, "a proof begins with a sweep"
    assert proof.prover is not None, "and goes on with a prover"
    prover, first = proof.prover, proof.sweep.intermediate
    arithmetic = proof.arithmetic(torch.float64)
    if prover.climbed is None:
        records = _recorded(arithmetic.graph, first, first)
        ended, own, rows = prover.ended, None, []
        for r in _chosen(prover.rows, prover.bounds):
            if ended[r] and own is None:
                intermediate = {name: wide(bounds) for name, bounds in first.items()}
                own = _Ending(
                    arithmetic.graph, intermediate, arithmetic.box(proof.region), arithmetic.rounding, records
                )
            way = (own.slopes, own.ends) if ended[r] and own is not None else (None, {})
            rows.append(_row(prover.rows, r, prover.bounds, prover.slack, *way))
        return RegionRecord(position, False, records, tuple(rows))
    again = _Refined(arithmetic, position, proof)
    for iterations in sorted({rung.intermediate for rung in LADDERS["max"]}):
        record = again.record(iterations) if iterations >= prover.climbed.intermediate else None
        if record is not None:
            return record
    raise NoCertificateError(f"region {position}: the proof was not found again with slopes as they are written")


def leaf_record(refuted: Refuted) -> RegionRecord:
    """The certificate of a region that one pass refutes."""
    return RegionRecord(refuted.position, False, (), (), forest=refuted.forest)


def root_record(position: int, proof: RegionProof) -> tuple[RegionRecord, dict[str, Bounds]]:
    """The bounds of every activation's input on a region's box, written down, and what they are, in float64; without
    any row. Arguments and errors are those of :func:`region_record`."""
    assert proof.prover is not None, "a proof begins with a prover"
    climbed = proof.prover.climbed
    again = _Refined(proof.arithmetic(torch.float64), position, proof)
    records, intermediate = again.layers(climbed.intermediate if climbed else 0)
    return RegionRecord(position, True, records, ()), intermediate


# ---- rows ------------------------------------------------------------------------------------------------------------


def _chosen(rows: Rows, bounds: Tensor) -> list[int]:
    """For every disjunct the row with the largest bound."""
    best = {max(members, key=lambda r: float(bounds[r].nan_to_num(-torch.inf))) for members in rows.disjuncts}
    return sorted(best)


def _row(
    rows: Rows,
    r: int,
    bounds: Tensor,
    slack: Tensor | None,
    slopes: Mapping[str, SidedSlopes] | None,
    ends: Mapping[str, Ends],
) -> RowRecord:
    cost = None if slack is None or bool(slack[r].isnan()) else rows.undo_unit(r, float(slack[r]))
    return RowRecord(r, rows.labels[r], rows.undo_unit(r, float(bounds[r])), cost, slopes, ends)


def _recorded(graph: Graph, first: Mapping[str, Bounds], last: Mapping[str, Bounds]) -> tuple[ActivationRecord, ...]:
    whole = feeding_maxima(graph)
    return tuple(recorded(node, first[node.name], last[node.name], node.name in whole) for node in activations(graph))


class _Ending:
    """How rows go that end at maxima, for bounds ``[1, *features]`` of the activations' inputs."""

    def __init__(
        self,
        graph: Graph,
        intermediate: Mapping[str, Bounds],
        box: Bounds,
        rounding: Rounding,
        records: Sequence[ActivationRecord],
    ) -> None:
        self.maxima = Maxima(graph, intermediate, box, rounding.on(graph))
        start = {name: s.flat() for name, s in initial_slopes(graph, intermediate, "adaptive").items()}
        self.usual = self.maxima.usual(start)
        self.slopes = own_slopes(graph, self.usual, records, 0)
        self.ends = ends_of(self.maxima)


# ---- refined bounds ------------------------------------------------------------------------------------------------


class _Refined:
    """A refined proof, made again."""

    def __init__(self, arithmetic: Arithmetic, position: int, proof: RegionProof) -> None:
        assert proof.sweep is not None
        self.position, self.graph, self.rounding = position, arithmetic.graph, arithmetic.rounding
        self.box = arithmetic.box(proof.region)
        self.rows = arithmetic.rows(proof.region, self.box)
        self.intermediate = {name: wide(bounds) for name, bounds in proof.sweep.intermediate.items()}
        self.on_node: Visit = lambda node: proof.course.deadline.check()

    def layers(self, iterations: int) -> tuple[tuple[ActivationRecord, ...], dict[str, Bounds]]:
        """Bounds of every activation's input, with so many steps for each neuron: written down, and as they are."""
        made: list[Recording] = []

        def make(*arguments: object) -> Layers:
            made.append(Recording(*arguments))  # type: ignore[arg-type]
            return made[0]

        ascent = Ascent(iterations=iterations)
        intermediate = refine(
            self.graph, self.box, self.intermediate, ascent, on_node=self.on_node, rounding=self.rounding, make=make
        ).intermediate
        shown = _recorded(self.graph, self.intermediate, intermediate)
        by_name = {one.name: one for one in shown}
        written = (
            replace(one, refined=made[0].own(one.name, by_name), ended=made[0].ending(one.name, shown)) for one in shown
        )
        return tuple(written), intermediate

    def record(self, iterations: int) -> RegionRecord | None:
        """The proof with so many steps for the bounds of each neuron; None where it is none."""
        shown, intermediate = self.layers(iterations)
        ledger = Ledger(self.rounding.on(self.graph), self.box, intermediate)
        shared = {name: s.flat() for name, s in initial_slopes(self.graph, intermediate, "adaptive").items()}
        ending = _Ending(self.graph, intermediate, self.box, self.rounding, shown)
        problem = self.problem(intermediate, ledger, ending.maxima.stops)
        best, slack = problem.bound(lambda node: shared[node.name])[0].squeeze(0), problem.slack.squeeze(0)
        own: dict[str, Slopes] = {}
        ended = torch.zeros_like(best, dtype=torch.bool)
        if ending.maxima.stops and not all(self.rows.refuted(best)):
            lower = problem.bound(lambda node: ending.usual[node.name], ends=True)[0].squeeze(0)
            ended, best = lower > best, torch.fmax(best, lower)
        if not all(self.rows.refuted(best)):
            search = self.problem(intermediate, ledger)
            found = ascend(search, Ascent(iterations=max(30, 2 * iterations)), shared, wants_slopes=True)
            lower = found.lower.squeeze(0)
            ended, best = ended & ~(lower > best), torch.fmax(best, lower)
            own = {name: s for name, s in found.slopes.items() if s.nonnegative is not None}
            if not all(self.rows.refuted(best)):
                return None
        rows = []
        for r in _chosen(self.rows, best):
            slopes = own_slopes(self.graph, own, shown, r) if own else None
            way = (ending.slopes, ending.ends) if ended[r] else (slopes, {})
            rows.append(_row(self.rows, r, best, slack, *way))
        return RegionRecord(self.position, True, shown, tuple(rows))

    def problem(
        self, intermediate: Mapping[str, Bounds], ledger: Ledger, stops: Mapping[str, Stop] | None = None
    ) -> RowProblem:
        flow = output_rows(self.graph, self.rows, 1, ledger)
        return RowProblem(flow, self.box, intermediate, self.on_node, stops)
