"""Slopes as a certificate has them, and a refinement that keeps them.

Those of single neurons' rows are rounded to 1 / UNIT of their range, and the bounds are computed from the rounded ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact
from zonocuda.bounds.dual.dual_pass import Visit, flatten_positions, flatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.slopes import Slopes, free_neurons
from zonocuda.bounds.dual.stops import Maxima
from zonocuda.bounds.interval import Bounds
from zonocuda.graph import Graph, Node
from zonocuda.prove.certificate import UNIT, ActivationRecord, EndedRows, Ends, OwnSlopes, SidedSlopes
from zonocuda.relaxations import Rule, has_rule, rule_of
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import Layers

MAX_BYTES = 2**26
"""Of all slopes of a certificate."""
MOST = 1e30
"""Of a slope's size."""


class NoCertificateError(Exception):
    """Why a proof has no certificate, in one line."""


def wide(bounds: Bounds) -> Bounds:
    """Bounds in float64."""
    return bounds[0].double(), bounds[1].double()


def recorded(node: Node, first: Bounds, last: Bounds, whole: bool = False) -> ActivationRecord:
    """What all rows share: minimum-area slopes of the first bounds and, for the second pass, slopes of the last ones.

    These are 1 and 0 for neurons that became active and dead, which makes the passes exact there. ``whole``: settled
    neurons are listed, too, but those of one value, and but for products; for bounds by intervals of what reads them.
    """
    rule, index = rule_of(node), free_neurons(node, first)
    if whole and rule.terms == 1:
        low, high = (flatten_rows(end) for end in rule.range(*first))
        index = (~(high <= low)).any(0).nonzero().squeeze(1)
    index = flatten_positions(first[0].shape[1:]).to(index.device)[index].sort().values
    (low, high), (lower, upper) = ([b.flatten()[index] for b in wide(bounds)] for bounds in (first, last))
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


def feeding_maxima(graph: Graph) -> set[str]:
    """The activations whose values reach a maximum through no other one."""
    found: set[str] = set()
    seen: set[str] = set()
    pending = [name for pair in graph.extremes.values() for name in pair[:2]]
    while pending:
        name = pending.pop()
        if has_rule(graph[name]):
            found.add(name)
        elif name not in seen:
            seen.add(name)
            pending.extend(graph[name].inputs)
    return found


def _minimum_area(rule: Rule, lower: Tensor, upper: Tensor) -> Tensor:
    return _admissible(rule, rule.initial(lower.unsqueeze(0), upper.unsqueeze(0)).squeeze(0))


def _admissible(rule: Rule, slope: Tensor) -> Tensor:
    return rule.project(slope.nan_to_num(0.0))


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


def own_slopes(
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


def ends_of(maxima: Maxima) -> dict[str, Ends]:
    """Where rows end, by node."""
    return {
        name: Ends(stop.sign == 1, stop.ends.flatten().nonzero().squeeze(1).int())
        for name, stop in maxima.stops.items()
    }


class Recording(Layers):
    """A refinement whose rows end with slopes that are multiples of 1 / UNIT of their range, and keeps those."""

    def __init__(self, left: Compact, region: InputSet, ascent: Ascent, on_node: Visit) -> None:
        super().__init__(left, region, ascent, on_node)
        self.listed: dict[str, Tensor] = {}
        self.ends: dict[str, Bounds | None] = {}
        self.found: dict[str, list[tuple[Tensor, dict[str, SidedSlopes]]]] = {}
        self.usual: dict[str, tuple[dict[str, Ends], dict[str, Slopes]]] = {}
        self.bytes = 0

    def finish(self, node: Node) -> None:
        super().finish(node)
        self.listed[node.name] = free_neurons(node, self.intermediate[node.name])
        lower, upper = (flatten_rows(b)[0] for b in self.intermediate[node.name])
        self.ends[node.name] = _range(rule_of(node), (lower, upper))

    def ended(self, node: Node, position: Tensor, maxima: Maxima) -> Bounds:
        changed = {name: own for name, own in maxima.usual(self.start).items() if own is not self.start.get(name)}
        self.usual[node.name] = ends, changed = ends_of(maxima), changed
        self.count(4 * sum(len(one.neurons) for one in ends.values()))
        self.count(8 * sum(own.nonnegative.shape[2] for own in changed.values() if own.nonnegative is not None))
        return super().ended(node, position, maxima)

    def ending(self, name: str, records: Sequence[ActivationRecord]) -> EndedRows | None:
        """How the rows of an activation's input went that ended, with slopes in the order of the records."""
        if name not in self.usual:
            return None
        ends, slopes = self.usual[name]
        return EndedRows(ends, own_slopes(self.graph, slopes, records, 0))

    def optimised(self, node: Node, position: Tensor) -> Bounds:
        if not self.ascent.iterations:
            return super().optimised(node, position)
        count = len(position)
        self.count(4 * count * sum(map(len, self.listed.values())))
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

    def count(self, size: int) -> None:
        """Notes so many bytes more.

        Raises:
            NoCertificateError: they are too many.
        """
        self.bytes += size
        if self.bytes > MAX_BYTES:
            raise NoCertificateError(f"slopes for each neuron would take more than {MAX_BYTES >> 20} MiB")

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
