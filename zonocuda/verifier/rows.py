"""A region's constraints as the rows of matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from zonocuda.domains import Zonotope
from zonocuda.specs import Region


@dataclass(frozen=True, eq=False)
class Rows:
    """The distinct constraints of a region: row r is output[r] . y + input[r] . x + constant[r] (<= 0 is unsafe).

    Attributes:
        output: ``[R, outputs]``.
        input: ``[R, inputs]``.
        constant: ``[R]``.
        disjuncts: for each disjunct, the rows that it needs.
        labels: a name for every row.
    """

    output: Tensor
    input: Tensor
    constant: Tensor
    disjuncts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]

    @property
    def count(self) -> int:
        """R."""
        return self.output.shape[0]

    @staticmethod
    def of(region: Region, inputs: int, outputs: int, like: Tensor) -> Rows:
        """The rows of ``region``, with the dtype and device of ``like``; coefficients rounded to nearest.

        A coefficient beyond the range of the dtype becomes infinite, so that its row is never refuted.
        """
        distinct = {row: None for rows in region.disjuncts for row in rows}
        position = {row: r for r, row in enumerate(distinct)}
        output = torch.zeros(len(distinct), outputs, dtype=torch.float64)
        input_ = torch.zeros(len(distinct), inputs, dtype=torch.float64)
        constant = torch.tensor([_nearest(row.constant) for row in distinct], dtype=torch.float64)
        for row, r in position.items():
            for i, c in row.outputs.items():
                output[r, i] = _nearest(c)
            for j, c in row.inputs.items():
                input_[r, j] = _nearest(c)
        disjuncts = tuple(tuple(position[row] for row in rows) for rows in region.disjuncts)
        return Rows(output.to(like), input_.to(like), constant.to(like), disjuncts, tuple(str(row) for row in distinct))

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """The rows at points: ``[n, R]`` for ``x`` ``[n, *input features]`` and ``y`` ``[n, *output features]``."""
        return y.flatten(1) @ self.output.T + x.flatten(1) @ self.input.T + self.constant

    def image(self, x: Zonotope, y: Zonotope) -> Zonotope:
        """The rows as a zonotope ``[B, R]``; what ``x`` and ``y`` share cancels exactly."""
        flat = y.reshape(self.output.shape[1]).linear(self.output, self.constant)
        if not bool(self.input.any()):
            return flat
        return flat + x.reshape(self.input.shape[1]).linear(self.input)

    def refuted(self, lower: Tensor) -> list[bool]:
        """For each disjunct, whether some row of it has a positive, finite lower bound.

        NaN and infinity come of an overflow and prove nothing. An empty conjunction is satisfied by every output, so it
        is never refuted.
        """
        positive = ((lower > 0) & lower.isfinite()).tolist()
        return [any(positive[r] for r in rows) for rows in self.disjuncts]


def _nearest(value: Fraction) -> float:
    """The nearest float64; infinity beyond its range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
