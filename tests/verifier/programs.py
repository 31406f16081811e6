"""Linear programs over a network, built from its graph: an oracle for optimised bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import Bounds as Box
from scipy.optimize import LinearConstraint, milp
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.graph import Add, Affine, Concat, Graph, Input, Relu


@dataclass
class _Program:
    """Variables with bounds, and rows a . x = b and a . x <= b."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def variables(self, count: int, lower: float = -np.inf, upper: float = np.inf, whole: int = 0) -> list[int]:
        first = len(self.lower)
        self.lower += [lower] * count
        self.upper += [upper] * count
        self.whole += [whole] * count
        return list(range(first, first + count))

    def between(self, terms: dict[int, float], low: float, high: float) -> None:
        self.rows.append((terms, low, high))

    def minimum(self, objective: dict[int, float]) -> float:
        matrix = np.zeros((len(self.rows), len(self.lower)))
        for i, (terms, _, _) in enumerate(self.rows):
            for j, c in terms.items():
                matrix[i, j] = c
        c = np.zeros(len(self.lower))
        for j, value in objective.items():
            c[j] = value
        constraint = LinearConstraint(matrix, [r[1] for r in self.rows], [r[2] for r in self.rows])
        found = milp(c, constraints=constraint, bounds=Box(self.lower, self.upper), integrality=self.whole)
        assert found.success, found.message
        return float(found.fun)


def minimum(graph: Graph, box: Bounds, inputs: dict[str, Bounds], row: Tensor, exact: bool = False) -> float:
    """The least row . y over the box (both ``[1, ...]``), for given bounds of the ReLUs' inputs.

    Over the triangle relaxation of every crossing ReLU (0 <= y, x <= y, y <= u (x - l) / (u - l)), by a linear program;
    or ``exact``, with a binary variable for each.
    """
    program = _Program()
    values: dict[str, list[int]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Input):
            own = program.variables(box[0].numel())
            for i, low, high in zip(own, box[0].flatten().tolist(), box[1].flatten().tolist(), strict=True):
                program.lower[i], program.upper[i] = low, high
        elif isinstance(node.op, Relu):
            own = [
                _relu(program, x, low, high, exact)
                for x, low, high in zip(
                    values[node.inputs[0]], *(b.flatten().tolist() for b in inputs[node.name]), strict=True
                )
            ]
        elif isinstance(node.op, Affine):
            shape = graph[node.inputs[0]].shape
            size = len(values[node.inputs[0]])
            columns = node.op.linear(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
            offset = node.op.offset(shape, columns).flatten().tolist()
            own = program.variables(columns.shape[1])
            for i, y in enumerate(own):
                terms = {x: -columns[j, i].item() for j, x in enumerate(values[node.inputs[0]]) if columns[j, i] != 0}
                program.between({y: 1.0, **terms}, offset[i], offset[i])
        elif isinstance(node.op, Add):
            left, right = (values[name] for name in node.inputs)
            own = program.variables(len(left))
            for y, a, b in zip(own, left, right, strict=True):
                program.between({y: 1.0, a: -1.0, b: -float(node.op.sign)}, 0.0, 0.0)
        else:
            assert isinstance(node.op, Concat)
            assert node.op.dim == 0
            own = [v for name in node.inputs for v in values[name]]
        values[node.name] = own
    return program.minimum(dict(zip(values[graph.output], row.tolist(), strict=True)))


def _relu(program: _Program, x: int, low: float, high: float, exact: bool) -> int:
    """max(x, 0), or what encloses it."""
    if low >= 0:
        return x
    (y,) = program.variables(1, 0.0, max(high, 0.0))
    if high <= 0:
        return y
    program.between({y: 1.0, x: -1.0}, 0.0, np.inf)
    if exact:
        (active,) = program.variables(1, 0.0, 1.0, whole=1)
        program.between({y: 1.0, x: -1.0, active: -low}, -np.inf, -low)
        program.between({y: 1.0, active: -high}, -np.inf, 0.0)
    else:
        slope = high / (high - low)
        program.between({y: 1.0, x: -slope}, -np.inf, -slope * low)
    return y
