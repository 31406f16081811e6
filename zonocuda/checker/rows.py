"""Rows of rational numbers over sets, as they are begun in float64 and in balls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from zonocuda.checker.arithmetic import Array, zeros
from zonocuda.checker.floats import Floats, U, above
from zonocuda.checker.maps import ratio
from zonocuda.checker.sets import FloatNet, Index, Sets
from zonocuda.specs import LinearConstraint

Coefficients = dict[int, Fraction]
"""By place."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row, begun at nodes of the network: exact coefficients by place, and the constant."""

    at: tuple[tuple[str, Coefficients], ...]
    constant: Fraction
    strict: bool = False
    is_claim: bool = True
    """Whether it is claimed to be positive."""

    @staticmethod
    def of(net: FloatNet, row: LinearConstraint) -> Row:
        """A row of the specification."""
        at = ((net.graph.output, dict(row.outputs)), (net.source, dict(row.inputs)))
        return Row(at, row.constant, row.strict)

    def never_holds(self, bound: float) -> bool:
        """Whether it never holds, with a lower bound (or a ball): false for NaN, and for an infinity."""
        return bool(bound > 0 or (self.strict and bound >= 0)) and bool(bound < np.inf)


class Begun:
    """R rows over sets.

    Attributes:
        which: ``[R]``, the set of each.
        coefficients: by node, of each.
        constants: of each; less what a machine may flush at the network's output.
        start: nodes where they begin, and what gives their coefficients there in floats.
    """

    def __init__(self, net: FloatNet, sets: Sets, which: Index, rows: Sequence[Row]) -> None:
        """Adds up what begins at the same node."""
        self.net, self.sets, self.which = net, sets, which
        self.coefficients: list[dict[str, Coefficients]] = []
        self.constants: list[Fraction] = []
        execution = net.maps.execution
        for row in rows:
            at: dict[str, Coefficients] = {}
            for name, coefficients in row.at:
                total = at.setdefault(name, {})
                for j, c in coefficients.items():
                    total[j] = total.get(j, Fraction(0)) + c
            self.coefficients.append(at)
            lost = Fraction(0)
            if execution is not None:
                lost = sum(map(abs, at.get(net.graph.output, {}).values()), lost) * Fraction(execution.eta)
            self.constants.append(row.constant - lost)
        names = dict.fromkeys(name for at in self.coefficients for name, total in at.items() if total)
        self.start = [(name, self._begin(name)) for name in names or {net.graph.output: None}]

    def _begin(self, name: str) -> Callable[[Index], Floats]:
        def rows(index: Index) -> Floats:
            v = np.zeros((len(index), self.net.size[name]))
            for r, row in enumerate(index):
                for j, c in self.coefficients[row].get(name, {}).items():
                    v[r, j] = _near(c)
            return v

        return rows

    def finished(self, least: Floats, carried: Index) -> Floats:
        """Bounds of rows with their constants, from those ``[P]`` of what was carried: of the rows ``carried``."""
        constant = np.array([_near(c) for c in self.constants])
        lost = np.array([_away(c) for c in self.constants])
        for row, at in enumerate(self.coefficients):
            for name, total in at.items():
                for j, c in total.items():
                    if _away(c):
                        size = self.sets.sizes[name]
                        lost[row] += _away(c) * size[self.which[row] if len(size) > 1 else 0, j] * 2
        total = least + constant[carried]
        return np.asarray(np.nextafter(total - above(lost[carried] + U * np.abs(total), 64), -np.inf))

    def exact(self, row: int) -> list[tuple[str, Array]]:
        """One row in balls, as it is begun."""
        result = []
        for name, _ in self.start:
            v = zeros(1, self.net.size[name])
            for j, c in self.coefficients[row].get(name, {}).items():
                v[0, j] = ratio(c)
            result.append((name, v))
        return result


def _near(value: Fraction) -> float:
    """A float near a rational number; NaN beyond their range."""
    try:
        return float(value)
    except OverflowError:
        return np.nan


def _away(value: Fraction) -> float:
    """At least how far it is from it."""
    near = _near(value)
    if near != near:
        return np.inf
    error = abs(value - Fraction(near))
    return float(np.nextafter(float(error), np.inf)) if error else 0.0
