"""A simple search by splitting neurons of small fully connected networks, which writes its trees down."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zonocuda.graph import Graph, Linear
from zonocuda.prove.certificate import ActivationRecord, Certificate, RegionRecord
from zonocuda.prove.forest import ForestRecord, ForestWriter, LeafRow
from zonocuda.specs import Region

Split = tuple[int, int, bool]
"""A ReLU, a neuron of it, and whether it is active."""


@dataclass
class Bound:
    """A row's bound on a part, with what it was found with."""

    value: float
    positive: list[Tensor]
    negative: list[Tensor]
    betas: Tensor
    scores: list[Tensor] = field(default_factory=list)


class NeuronSearch:
    """Of one network on one box: intervals at the root, slopes and multipliers by ascent in every part."""

    def __init__(self, graph: Graph, region: Region, steps: int = 60) -> None:
        self.graph, self.steps = graph, steps
        ops = [node.op for node in graph.nodes if isinstance(node.op, Linear)]
        self.layers = [(op.weight, torch.zeros(len(op.weight)).double() if op.bias is None else op.bias) for op in ops]
        self.low, self.high = region.box.lower, region.box.upper
        self.ends: list[tuple[Tensor, Tensor]] = []
        low, high = self.low, self.high
        for weight, bias in self.layers[:-1]:
            middle, radius = weight @ ((low + high) / 2) + bias, weight.abs() @ ((high - low) / 2)
            self.ends.append((middle - radius, middle + radius))
            low, high = ((end).clamp(min=0) for end in self.ends[-1])

    def bound(self, layer: int, row: Tensor, constant: float, splits: list[Split]) -> Bound:
        """The best bound of ``row`` of the output of a layer that an ascent finds; slopes are multiples of 1 / 128."""
        ends = [(low.clone(), high.clone()) for low, high in self.ends[:layer]]
        for relu, neuron, active in splits:
            if relu < layer:
                ends[relu][0 if active else 1][neuron] = 0.0
        area = [torch.where(b <= 0, 0, torch.where(a >= 0, 1, b / (b - a))) for a, b in ends]
        positive = [((b >= -a) & (b > 0)).double().requires_grad_() for a, b in ends]
        negative = [a.clone().requires_grad_() for a in area]
        betas = torch.zeros(len(splits), dtype=torch.float64, requires_grad=True)
        choose = torch.optim.Adam([*positive, *negative, betas], lr=0.1)
        best = Bound(-float("inf"), [], [], betas.detach())
        for step in range(self.steps + 1):
            rounded = step == self.steps
            slopes = [[(s * 128).round() / 128 if rounded else s for s in side] for side in (positive, negative)]
            value, scores = self._carry(layer, row, constant, splits, ends, slopes[0], slopes[1], betas)
            if rounded:
                best = Bound(value.item(), *([s.detach() for s in side] for side in slopes), betas.detach(), scores)  # type: ignore[misc]
                break
            choose.zero_grad()
            (-value).backward()  # type: ignore[no-untyped-call]
            choose.step()
            with torch.no_grad():
                for s in (*positive, *negative):
                    s.clamp_(0, 1)
                betas.clamp_(min=0)
        return best

    def _carry(
        self,
        layer: int,
        row: Tensor,
        constant: float,
        splits: list[Split],
        ends: list[tuple[Tensor, Tensor]],
        positive: list[Tensor],
        negative: list[Tensor],
        betas: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        value, v = torch.tensor(constant, dtype=torch.float64), row
        scores: list[Tensor] = []
        for number in range(layer, -1, -1):
            if number < len(self.layers) - 1:
                for place, (relu, neuron, active) in enumerate(splits):
                    if relu == number:
                        unit = torch.zeros(len(self.layers[number][1])).double()
                        unit[neuron] = -1.0 if active else 1.0
                        v = v + betas[place] * unit
            weight, bias = self.layers[number]
            value, v = value + v @ bias, v @ weight
            if number:
                low, high = ends[number - 1]
                slope = torch.where(v >= 0, positive[number - 1], negative[number - 1])
                slope = torch.where(low >= 0, 1.0, torch.where(high <= 0, 0.0, slope))
                offset = torch.where((low < 0) & (high > 0), torch.maximum(-slope * low, (1 - slope) * high), 0.0)
                loss = v.clamp(max=0) * offset
                scores.insert(0, loss.detach())
                value, v = value + loss.sum(), v * slope
        return value + torch.where(v >= 0, v * self.low, v * self.high).sum(), scores

    # ---- trees -------------------------------------------------------------------------------------------------------

    def tree(
        self, writer: ForestWriter, layer: int, row: Tensor, constant: float, splits: list[Split], depth: int
    ) -> float:
        """Writes the tree of a row, with at most ``depth`` more splits; returns the least bound of its leaves."""
        found = self.bound(layer, row, constant, splits)
        if not found.value > 1e-9 and depth and found.scores:
            taken = {split[:2] for split in splits}
            scored = [
                (float(score), relu, neuron)
                for relu, scores in enumerate(found.scores)
                for neuron, score in enumerate(scores)
                if (relu, neuron) not in taken and self.ends[relu][0][neuron] < 0 < self.ends[relu][1][neuron]
            ]
            if scored:
                _, relu, neuron = min(scored)
                writer.neuron_split(relu, neuron)
                parts = ([*splits, (relu, neuron, active)] for active in (False, True))
                return min([self.tree(writer, layer, row, constant, part, depth - 1) for part in parts])
        multipliers = [(place, beta) for place, beta in enumerate(found.betas.tolist()) if beta]
        writer.leaf([LeafRow(slopes=self._table(writer, found), multipliers=multipliers)])
        return found.value

    def _table(self, writer: ForestWriter, found: Bound) -> int:
        """Slopes of all ReLUs; those that the row does not reach are 0."""
        rows = []
        for side in (found.positive, found.negative):
            whole = [torch.zeros(len(low)) for low, _ in self.ends]
            whole[: len(side)] = side
            rows.append((torch.cat(whole) * 128).round().to(torch.uint8).numpy()[None])
        return writer.table(*rows)

    def relus(self) -> tuple[ActivationRecord, ...]:
        """Slopes for the bounds of the whole box."""
        records = []
        for node, (low, high) in zip(self.graph.relus, self.ends, strict=True):
            neurons = ((low < 0) & (high > 0)).nonzero().flatten()
            low, high = low[neurons], high[neurons]
            area = (high / (high - low)).clamp(0, 1)
            adaptive = (high >= -low).double()
            records.append(ActivationRecord(node.name, "Relu", neurons.int(), low, high, area, area, adaptive))
        return tuple(records)


def neuron_proof(
    graph: Graph, region: Region, depth: int = 12, lemmas: int = 0, steps: int = 60
) -> tuple[Certificate, float]:
    """The certificate of a region of one disjunct of one row, and the least bound of its leaves.

    With ``lemmas``, so many neurons of the second ReLU get an upper and a lower bound first, with a split each.
    """
    search, writer = NeuronSearch(graph, region, steps), ForestWriter()
    for neuron in range(lemmas):
        for upper in (False, True):
            row = torch.zeros(len(search.layers[1][1])).double()
            row[neuron] = -1.0 if upper else 1.0
            writer.lemma(1, neuron, upper)
            found = search.tree(writer, 1, row, -1e3, [], 2) + 1e3
            end = search.ends[1][1 if upper else 0]
            end[neuron] = min(float(end[neuron]), -found) if upper else max(float(end[neuron]), found)
    (row_,) = region.disjuncts[0]
    v = torch.zeros(len(search.layers[-1][1])).double()
    for i, c in row_.outputs.items():
        v[i] = float(c)
    writer.tree([0])
    least = search.tree(writer, len(search.layers) - 1, v, float(row_.constant), [], depth)
    record = RegionRecord(0, True, NeuronSearch(graph, region).relus(), (), forest=writer.finish())
    return Certificate("", (record,)), least


def with_forest(certificate: Certificate, forest: ForestRecord) -> Certificate:
    """The certificate with another forest."""
    (record,) = certificate.regions
    return Certificate("", (RegionRecord(0, record.second_pass, record.activations, (), forest=forest),))


def changed(forest: ForestRecord, **arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None) -> ForestRecord:
    """A forest with other arrays."""
    kept = {name: values for name, values in {**forest.arrays, **arrays}.items() if values is not None}
    return ForestRecord(forest.trees, kept, forest.depth)
