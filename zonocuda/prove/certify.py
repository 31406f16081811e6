"""The certificate of a proof: slopes from which every bound that it rests on can be derived again.

What proved a region decides what is kept. The forward sweep and the plain dual passes use minimum-area and adaptive
slopes of the bounds of every activation's input: these are written down as they were. A proof with refined bounds is
made once more, in float64, with the slopes that will be written: those of single neurons rounded to 1 / UNIT of their
range, and the bounds computed from the rounded ones. Every bound counts its own rounding. See docs/certificate.md for
the form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zonocuda.bounds.deadline import TimeoutReached
from zonocuda.bounds.dual.compact import Compact
from zonocuda.bounds.dual.dual_pass import Visit, flatten_positions, flatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes, free_neurons, initial_slopes
from zonocuda.bounds.dual.stops import Maxima, Stop
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph, Node
from zonocuda.host_memory import is_out_of_memory
from zonocuda.prove.certificate import (
    UNIT,
    ActivationRecord,
    Certificate,
    Ends,
    OwnSlopes,
    RegionRecord,
    RowRecord,
    SidedSlopes,
)
from zonocuda.prove.combine import Combination
from zonocuda.prove.prover import LADDERS
from zonocuda.prove.regions import Refuted
from zonocuda.prove.stages import Arithmetic, RegionProof
from zonocuda.relaxations import Rule, activations, rule_of
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.refine import Layers, refine

MAX_BYTES = 2**26
"""Of all slopes of a certificate."""
MOST = 1e30
"""Of a slope's size."""


class NoCertificateError(Exception):
    """Why a proof has no certificate, in one line."""


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
    nodes = activations(arithmetic.graph)
    if prover.climbed is None:
        records = tuple(_shared(node, first[node.name], first[node.name]) for node in nodes)
        ended, own, rows = prover.ended, None, []
        for r in _chosen(prover.rows, prover.bounds):
            if ended[r] and own is None:
                intermediate = {name: _wide(bounds) for name, bounds in first.items()}
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


def _wide(bounds: Bounds) -> Bounds:
    return bounds[0].double(), bounds[1].double()


# ---- what all proofs have ------------------------------------------------------------------------------------------


def _shared(node: Node, first: Bounds, last: Bounds) -> ActivationRecord:
    """What all rows share: minimum-area slopes of the first bounds and, for the second pass, slopes of the last ones.

    These are 1 and 0 for neurons that became active and dead, which makes the passes exact there.
    """
    rule, index = rule_of(node), free_neurons(node, first)
    index = flatten_positions(first[0].shape[1:]).to(index.device)[index].sort().values
    (low, high), (lower, upper) = ([b.flatten()[index] for b in _wide(bounds)] for bounds in (first, last))
    adaptive = rule.initial(*last, "adaptive").flatten().double()[index]
    area, negative = (_minimum_area(rule, *ends) for ends in ((low, high), (lower, upper)))
    above = rule.above(lower, upper)
    negative = negative if above is None else _admissible(rule, above)
    nonnegative = torch.where(rule.settled(lower, upper), negative, _admissible(rule, adaptive))
    ends = _range(rule, (lower, upper))
    return ActivationRecord(
        node.name,
        node.op.kind,
        index.int(),
        lower,
        upper,
        area,
        negative,
        nonnegative,
        None,
        *((None, None) if ends is None else ends),
    )


def _minimum_area(rule: Rule, lower: Tensor, upper: Tensor) -> Tensor:
    return _admissible(rule, rule.initial(lower.unsqueeze(0), upper.unsqueeze(0)).squeeze(0))


def _admissible(rule: Rule, slope: Tensor) -> Tensor:
    return rule.project(slope.nan_to_num(0.0))


# ---- slopes in bytes -----------------------------------------------------------------------------------------------


def _range(rule: Rule, bounds: Bounds) -> Bounds | None:
    """What 0 and UNIT units of a slope stand for; None: 0 and 1."""
    ends = rule.reach(*bounds)
    if ends is None:
        return None
    low, high = (end.nan_to_num(0.0, MOST, -MOST).clamp(-MOST, MOST) for end in ends)
    return low, high


def _quantised(slope: Tensor, ends: Bounds | None) -> tuple[Tensor, Tensor]:
    """A slope in units (uint8), and what they stand for."""
    low, width = (0.0, 1.0) if ends is None else (ends[0], ends[1] - ends[0])
    share = ((slope - low) / width).nan_to_num(0.0, 0.0, 0.0)
    units = (share * UNIT).round().clamp(0, UNIT)
    return units.to(torch.uint8), low + units / UNIT * width


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


def _own(
    graph: Graph, own: Mapping[str, Slopes], records: Sequence[ActivationRecord], row: int
) -> dict[str, SidedSlopes]:
    """One row's slopes ``[K]``, in the order of the records."""
    result: dict[str, SidedSlopes] = {}
    for one in records:
        if one.name not in own:
            continue
        node, sides = graph[one.name], {}
        rule, settled = rule_of(node), rule_of(node).settled(one.lower, one.upper)
        order = flatten_positions(graph[node.inputs[0]].shape).argsort().to(settled.device)
        for side in ("nonnegative", "negative"):
            found = getattr(own[one.name], side)
            if found is not None:
                slopes = _admissible(rule, found[0, min(row, found.shape[1] - 1)][order][one.neurons.long()])
                sides[side] = torch.where(settled, getattr(one, side), slopes)
        result[one.name] = SidedSlopes(**sides)
    return result


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
        self.slopes = _own(graph, self.usual, records, 0)
        self.ends = {
            name: Ends(stop.sign == 1, stop.ends.flatten().nonzero().squeeze(1).int())
            for name, stop in self.maxima.stops.items()
        }


# ---- refined bounds ------------------------------------------------------------------------------------------------


class _Recording(Layers):
    """A refinement whose rows end with slopes that are multiples of 1 / UNIT of their range, and keeps those."""

    def __init__(self, left: Compact, region: InputSet, ascent: Ascent, on_node: Visit) -> None:
        super().__init__(left, region, ascent, on_node)
        self.listed: dict[str, Tensor] = {}
        self.ends: dict[str, Bounds | None] = {}
        self.found: dict[str, list[tuple[Tensor, dict[str, SidedSlopes]]]] = {}
        self.bytes = 0

    def finish(self, node: Node) -> None:
        super().finish(node)
        self.listed[node.name] = free_neurons(node, self.intermediate[node.name])
        lower, upper = (flatten_rows(b)[0] for b in self.intermediate[node.name])
        self.ends[node.name] = _range(rule_of(node), (lower, upper))

    def optimised(self, node: Node, position: Tensor) -> Bounds:
        if not self.ascent.iterations:
            return super().optimised(node, position)
        count = len(position)
        self.bytes += 4 * count * sum(map(len, self.listed.values()))
        if self.bytes > MAX_BYTES:
            raise NoCertificateError(f"slopes for each neuron would take more than {MAX_BYTES >> 20} MiB")
        slopes, stored = dict(self.start), {}
        for name, own in self.climb(node, position).items():
            if own.nonnegative is not None and name in self.listed:
                given = {"nonnegative": own.nonnegative, "negative": own.negative}
                sides = {side: _quantised(t, self.ends[name]) for side, t in given.items() if t is not None}
                slopes[name] = Slopes(**{side: held for side, (_, held) in sides.items()})
                stored[name] = SidedSlopes(
                    **{side: units[0, : 2 * count][:, self.listed[name]] for side, (units, _) in sides.items()}
                )
        self.found.setdefault(node.name, []).append((position, stored))
        return self.proven(node, position, slopes)

    def places(self, name: str, index: Tensor) -> Tensor:
        """Places in the flattened features of the whole network for those of an activation of ``left``, in the order of
        the pass."""
        index = flatten_positions(self.intermediate[name][0].shape[1:]).to(index.device)[index]
        kept = self.left.kept.get(name)
        return index if kept is None else kept[index]

    def own(self, name: str, records: Mapping[str, ActivationRecord]) -> OwnSlopes | None:
        """The slopes of an activation's rows, in the order of the records."""
        if name not in self.found:
            return None
        parts = self.found[name]
        flat = torch.cat([position for position, _ in parts])
        kept = self.left.kept.get(name)
        neurons = flat if kept is None else kept[flat]  # rows begin at places in the order of the features
        order = neurons.argsort()
        slopes: dict[str, SidedSlopes] = {}
        for before in parts[0][1]:
            given = records[before]
            ends = None if given.least is None or given.largest is None else (given.least, given.largest)
            columns = torch.searchsorted(given.neurons.long(), self.places(before, self.listed[before]))
            found: dict[str, Tensor] = {}
            for side in ("nonnegative", "negative"):
                held = [getattr(stored[before], side) for _, stored in parts]
                if held[0] is None:
                    continue
                low, high = (torch.cat(halves) for halves in zip(*(t.chunk(2) for t in held), strict=True))
                whole = _quantised(getattr(given, side), ends)[0].repeat(2 * len(order), 1)
                whole[:, columns] = torch.cat([low[order], high[order]])
                found[side] = whole
            slopes[before] = SidedSlopes(**found)
        return OwnSlopes(neurons[order].int(), slopes)


class _Refined:
    """A refined proof, made again."""

    def __init__(self, arithmetic: Arithmetic, position: int, proof: RegionProof) -> None:
        assert proof.sweep is not None
        self.position, self.graph, self.rounding = position, arithmetic.graph, arithmetic.rounding
        self.box = arithmetic.box(proof.region)
        self.rows = arithmetic.rows(proof.region, self.box)
        self.intermediate = {name: _wide(bounds) for name, bounds in proof.sweep.intermediate.items()}
        self.on_node: Visit = lambda node: proof.course.deadline.check()

    def layers(self, iterations: int) -> tuple[tuple[ActivationRecord, ...], dict[str, Bounds]]:
        """Bounds of every activation's input, with so many steps for each neuron: written down, and as they are."""
        made: list[_Recording] = []

        def make(*arguments: object) -> Layers:
            made.append(_Recording(*arguments))  # type: ignore[arg-type]
            return made[0]

        ascent = Ascent(iterations=iterations)
        intermediate = refine(
            self.graph, self.box, self.intermediate, ascent, on_node=self.on_node, rounding=self.rounding, make=make
        ).intermediate
        shown = tuple(
            _shared(node, self.intermediate[node.name], intermediate[node.name]) for node in activations(self.graph)
        )
        by_name = {one.name: one for one in shown}
        return tuple(replace(one, refined=made[0].own(one.name, by_name)) for one in shown), intermediate

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
            slopes = _own(self.graph, own, shown, r) if own else None
            way = (ending.slopes, ending.ends) if ended[r] else (slopes, {})
            rows.append(_row(self.rows, r, best, slack, *way))
        return RegionRecord(self.position, True, shown, tuple(rows))

    def problem(
        self, intermediate: Mapping[str, Bounds], ledger: Ledger, stops: Mapping[str, Stop] | None = None
    ) -> RowProblem:
        flow = output_rows(self.graph, self.rows, 1, ledger)
        return RowProblem(flow, self.box, intermediate, self.on_node, stops)
