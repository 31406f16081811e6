"""Parts of neuron splitting whose box is cut by what the split neurons say: an experiment that counts no rounding.

On a part where x_j >= 0, and x_j <= a . x + c on the whole box (the root's linear bound), only inputs with
a . x + c >= 0 count: with M the largest a . x + c, and a_i > 0, those with x_i >= u_i - M / a_i; elsewhere likewise.
Two rounds through all split neurons of a part make its box; its bounds are then the least over that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass, flatten_positions, flatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.neurons import send_unit_rows
from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.signs import KnownSigns, Reached, SignProblem
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.interval import Bounds

ROUNDS = 2
EMPTY = 1e3
"""What is added to the bound of a part of which nothing is left."""


class CutProblem(SignProblem):
    """Rows on parts with a box of their own.

    Attributes:
        left, asked: of all parts that were asked for, the sum of the mean shares of a side that are left; their number.
    """

    left, asked = 0.0, 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forms = self._forms(arguments[3])
        low, high = (flatten_rows(end) for end in self.box)
        self.ends = low, high

    def _forms(self, intermediate: Mapping[str, Bounds]) -> tuple[Tensor, Tensor]:
        """For each of the U neurons a and c of its lower bound, then of its negated upper one: ``[2, U, N]``."""
        slopes = {name: one.flat() for name, one in initial_slopes(self.graph, intermediate, "adaptive").items()}
        weights, constants = [], []
        for layer in self.layers:
            source = self.graph[self.graph[layer.name].inputs[0]]
            position = flatten_positions(source.shape)[layer.index].repeat(2)
            signs = self.like.new_ones(len(position))
            signs[len(layer.index) :] = -1
            flow = DualPass(self.graph, 1, len(position), self.like)
            send_unit_rows(flow, source, position, signs)
            lower, weight = RowProblem(flow, self.box, intermediate).bound(lambda node: slopes[node.name])
            rows = flatten_rows(weight) if weight is not None else self.like.new_zeros(len(position), self.like.numel())
            constants.append((lower[0] - self.region.least(rows.unsqueeze(0))[0]).reshape(2, -1))
            weights.append(rows.reshape(2, -1, rows.shape[1]))
        return torch.cat(weights, 1), torch.cat(constants, 1)

    def cut(self, signs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes ``[S, N]`` of parts with signs ``[S, U]``, and whether nothing is left of them."""
        weights, constants = self.forms
        low, high = (end.expand(len(signs), -1).clone() for end in self.ends)
        empty = torch.zeros(len(signs), dtype=torch.bool)
        most = int((signs != 0).sum(1).max()) if signs.numel() else 0
        order = signs.abs().topk(most, 1).indices
        for _ in range(ROUNDS):
            for neuron in order.unbind(1):
                sign = signs.gather(1, neuron.unsqueeze(1)).squeeze(1)
                side = (sign > 0).long()  # -x_j >= a . x + c, so that a . x + c <= 0; else x_j >= a . x + c
                a, c = weights[side, neuron], constants[side, neuron]
                a, c = a * (sign != 0).unsqueeze(1), c * (sign != 0)
                least = (a.clamp(min=0) * low + a.clamp(max=0) * high).sum(1) + c
                empty |= least > 0
                room = (-least).clamp(min=0).unsqueeze(1) / a.abs()
                high = torch.where(a > 0, torch.minimum(high, low + room), high)
                low = torch.where(a < 0, torch.maximum(low, high - room), low)
        return low, high, empty

    def run(
        self, flow: DualPass, known: KnownSigns, slopes: Tensor, multipliers: Tensor, scores: bool = False
    ) -> Reached:
        with torch.no_grad():
            low, high, empty = self.cut(known.sign)
            width = (self.ends[1] - self.ends[0]).clamp(min=1e-30)
            CutProblem.left += float(((high - low) / width)[:, (self.ends[1] > self.ends[0])[0]].mean(1).sum())
            CutProblem.asked += len(low)

        def least(rows: Tensor) -> Tensor:
            return (rows.clamp(min=0) * low + rows.clamp(max=0) * high).sum(2) + EMPTY * empty

        whole = self.region
        self.region = InputSet(self.like, least)
        try:
            return super().run(flow, known, slopes, multipliers, scores)
        finally:
            self.region = whole
