"""A network on a box as linear forms in its input and in the outputs of the neurons that may have either sign.

For linear and mixed programs, of which nothing is believed: rounding is not counted.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass, flatten_positions, flatten_rows, unflatten_rows
from zonocuda.bounds.dual.neurons import send_unit_rows
from zonocuda.bounds.dual.signs import SignLayer, SignProblem
from zonocuda.graph import Node

MOST_ENTRIES = 2**21
"""Of the matrix of all neurons' forms: beyond, a program takes longer than the parts it saves."""

Array = NDArray[np.float64]


class SignForms:
    """The inputs z of the U crossing neurons, and rows, as forms in y = (x, a): N inputs and U outputs.

    Attributes:
        problem: the rows and the neurons, on a box.
        inputs, count: N and U.
        weight, offset: z = weight y + offset, ``[U, N + U]`` and ``[U]``.
        low, high: the ends of the box, ``[N]``.
        slope, twice: of the upper lines a <= slope z + twice, ``[U]``.
    """

    def __init__(self, problem: SignProblem) -> None:
        self.problem, self.count, self.inputs = problem, problem.count, problem.box[0].numel()
        found = [self._forms(self._neurons(layer)) for layer in problem.layers if len(layer.index)]
        self.weight = np.concatenate([np.zeros((0, self.inputs + self.count)), *(weight for weight, _ in found)])
        self.offset = np.concatenate([np.zeros(0), *(offset for _, offset in found)])
        self.low, self.high = (_array(end.flatten()) for end in problem.box)
        self.slope, self.twice = (
            np.concatenate([np.zeros(0), *(_array(getattr(layer, name)) for layer in problem.layers)])
            for name in ("slope", "twice")
        )
        self._rows: dict[int, tuple[Array, float]] = {}

    @staticmethod
    def fit(problem: SignProblem) -> bool:
        """Whether the forms of a problem are few and small enough for programs that are worth it."""
        return 0 < problem.count * (problem.box[0].numel() + problem.count) <= MOST_ENTRIES

    def row(self, row: int) -> tuple[Array, float]:
        """One of the problem's rows: its weights ``[N + U]``, and its constant."""
        if row not in self._rows:
            index = torch.tensor([row], device=self.problem.like.device)
            weight, constant = self._forms(self.problem.flow(index, False))
            self._rows[row] = weight[0], float(constant[0])
        return self._rows[row]

    def _neurons(self, layer: SignLayer) -> DualPass:
        """The inputs of the crossing neurons of a layer, as rows of a pass."""
        graph = self.problem.graph
        source = graph[graph[layer.name].inputs[0]]
        flow = DualPass(graph, 1, len(layer.index), self.problem.like)
        position = flatten_positions(source.shape).to(layer.index.device)[layer.index]
        send_unit_rows(flow, source, position, torch.ones_like(layer.slope))
        return flow

    def _forms(self, flow: DualPass) -> tuple[Array, Array]:
        """The R rows of a pass as forms: ``[R, N + U]`` and ``[R]``."""
        layers = {layer.name: layer for layer in self.problem.layers}
        found = {layer.name: self.problem.like.new_zeros(flow.rows, len(layer.index)) for layer in self.problem.layers}

        def activation(node: Node, v: Tensor) -> Tensor:
            layer, matrix = layers[node.name], flatten_rows(v)
            found[node.name] = matrix.index_select(1, layer.index)
            left = matrix.clone() if layer.passing is None else matrix * layer.passing
            return unflatten_rows(left.index_fill_(1, layer.index, 0.0), node.shape)

        with torch.no_grad():
            last = flow.run(activation)
        shape = flow.rows, self.inputs
        first = self.problem.like.new_zeros(shape) if last is None else last.reshape(shape)
        return _array(torch.cat([first, *found.values()], 1)), _array(flow.constant.reshape(-1))


def _array(t: Tensor) -> Array:
    result: Array = t.detach().double().cpu().numpy()
    return result
