"""Nonnegative combinations of a disjunct's rows: what they refute at once, and which are worth a bound.

A point that satisfies rows r_k <= 0 satisfies sum_k w_k r_k <= 0 for any weights w_k >= 0 (and < 0, where a strict row
has a positive weight). So a disjunct is refuted where a combination is never <= 0: in exact arithmetic, where the
outputs cancel (Farkas), and by a bound of the network, for a combination that is one more row. Weights come from linear
programs in floats, and are never believed: they are made rational, and what is concluded of them is computed in
rationals.

Besides the rows, ends of outputs that are attained may be used (:mod:`zonocuda.prove.ends`): l_i - y_i <= 0 and
y_i - u_i <= 0.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.prove.ends import Ends
from zonocuda.specs import LinearConstraint, Region

MAX_ROWS = 200
"""Of a disjunct, for which a linear program is solved."""

MAX_MIXTURES = 64
"""Disjuncts of a region for which a mixture is looked for."""

ROUNDED = 2**20
"""Denominators of weights that are free."""

Row = tuple[LinearConstraint, ...]


@dataclass(frozen=True)
class Combination:
    """Weights of rows of a disjunct, by their places in it, and of outputs whose ends are used.

    Attributes:
        disjunct: its place in the region.
        weights: of rows, positive.
        outputs: what the rows' sum has of an output, in a combination that refutes the disjunct: the weight of
            l_i - y_i, or less the weight of y_i - u_i.
        refutes: whether it does, in exact arithmetic; else it is one more row.
    """

    disjunct: int
    weights: Mapping[int, Fraction]
    outputs: Mapping[int, Fraction]
    refutes: bool


def combined(rows: Row, weights: Mapping[int, Fraction]) -> LinearConstraint:
    """The row sum_k weights[k] rows[k], strict where one with a positive weight is."""
    outputs: dict[int, Fraction] = {}
    inputs: dict[int, Fraction] = {}
    constant = Fraction(0)
    for k, weight in weights.items():
        for total, coefficients in ((outputs, rows[k].outputs), (inputs, rows[k].inputs)):
            for i, c in coefficients.items():
                total[i] = total.get(i, Fraction(0)) + weight * c
        constant += weight * rows[k].constant
    return LinearConstraint(outputs, inputs, constant, any(w > 0 and rows[k].strict for k, w in weights.items()))


def left_open(region: Region, combinations: Sequence[Combination]) -> Region:
    """The region without the disjuncts that combinations refute; others have theirs as one more row."""
    refuted = {one.disjunct for one in combinations if one.refutes}
    added = {one.disjunct: combined(region.disjuncts[one.disjunct], one.weights) for one in combinations}
    kept = ((d, rows) for d, rows in enumerate(region.disjuncts) if d not in refuted)
    return Region(region.box, tuple((*rows, added[d]) if d in added else rows for d, rows in kept))


def contradictions(
    region: Region,
    box: tuple[Sequence[float], Sequence[float]],
    ends: Ends,
    on_disjunct: Callable[[], None],
) -> tuple[Combination, ...]:
    """Combinations that refute disjuncts: of all for which one was found. ``on_disjunct`` is called before each."""
    found = []
    for number, rows in enumerate(region.disjuncts):
        on_disjunct()
        weights = refutation(rows, *box, ends)
        if weights is not None:
            found.append(Combination(number, weights[0], weights[1], refutes=True))
    return tuple(found)


def mixtures(
    values: NDArray[np.float64], disjuncts: Sequence[Sequence[int]], done: Set[int], on_disjunct: Callable[[], None]
) -> tuple[Combination, ...]:
    """Combinations that may be positive where no single row of a disjunct is.

    Args:
        values: ``[samples, rows]``, of a region's rows.
        disjuncts: the rows of each.
        done: disjuncts that need none.
        on_disjunct: called before each of the first MAX_MIXTURES others.
    """
    found = []
    for number in [d for d, rows in enumerate(disjuncts) if len(rows) > 1 and d not in done][:MAX_MIXTURES]:
        on_disjunct()
        weights = mixture(values[:, list(disjuncts[number])])
        if weights is not None:
            found.append(Combination(number, weights, {}, refutes=False))
    return tuple(found)


def refutation(
    rows: Row, lower: Sequence[float], upper: Sequence[float], ends: Ends
) -> tuple[dict[int, Fraction], dict[int, Fraction]] | None:
    """Weights of rows and of ends of outputs whose combination no point of a box satisfies, or None.

    Args:
        rows: a disjunct.
        lower, upper: the box of the inputs, finite.
        ends: of outputs.

    Returns:
        (weights of rows, weights of outputs), exact and not 0, or None.
    """
    if not 0 < len(rows) <= MAX_ROWS:
        return None
    for k, row in enumerate(rows):  # one alone, where that is enough
        alone = {k: Fraction(1)}, dict(row.outputs)
        if refutes(rows, *alone, lower, upper, ends):
            return alone
    named = sorted({i for row in rows for i in row.outputs})
    facts = [fact for i in named if i in ends for fact in _facts(i, *ends[i])]
    every = (*rows, *facts)
    if len(every) == 1:
        return None
    matrix = np.zeros((len(every), len(named)))
    place = {i: c for c, i in enumerate(named)}
    for r, row in enumerate(every):
        for i, coefficient in row.outputs.items():
            matrix[r, place[i]] = _float(coefficient)
    if not np.isfinite(matrix).all():
        return None
    norm = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit = matrix / np.where(norm > 0, norm, 1.0)
    # No weights exist where some direction has a positive product with every row (Gordan): the sum of all, often.
    if len(named) and bool((unit @ unit.sum(0) > 1e-9).all()):
        return None
    for weights in _programs(every, matrix, lower, upper):
        exact = _exactly(every, named, weights)
        if exact is None:
            continue
        of_rows = {c: w for c, w in exact.items() if c < len(rows)}
        found = of_rows, dict(combined(rows, of_rows).outputs)
        if refutes(rows, *found, lower, upper, ends):
            return found
    return None


def _facts(i: int, lower: float, upper: float) -> list[LinearConstraint]:
    """The ends of an output as rows."""
    signs = ((-1, lower), (1, upper))
    return [LinearConstraint({i: Fraction(s)}, {}, -s * Fraction(end), False) for s, end in signs if math.isfinite(end)]


def mixture(values: NDArray[np.float64]) -> dict[int, Fraction] | None:
    """Weights, at least two, whose combination is positive at every sample, where no row alone is; or None.

    Args:
        values: ``[samples, rows]``, of a disjunct.
    """
    if not 2 <= values.shape[1] <= MAX_ROWS or not np.isfinite(values).all() or bool((values.min(0) > 0).any()):
        return None
    scale = np.abs(values).max(0)
    if not bool((scale > 0).all()):
        return None
    found = largest_least(values / scale)
    if found is None or not found[1] > 0:
        return None
    weights = {
        k: Fraction(w / s).limit_denominator(ROUNDED)
        for k, (w, s) in enumerate(zip(found[0].tolist(), scale.tolist(), strict=True))
        if w > 1e-6
    }
    weights = {k: w for k, w in weights.items() if w > 0}
    return weights if len(weights) > 1 else None


def largest_least(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float] | None:
    """Weights w >= 0 of sum 1 for which the least of ``values`` ``[n, rows]`` times w is largest, and that value."""
    samples, rows = values.shape
    # max t, such that sum_k w_k value_k >= t at every sample and sum_k w_k = 1.
    solved = _solve(
        np.append(np.zeros(rows), -1.0),
        np.hstack([-values, np.ones((samples, 1))]),
        np.zeros(samples),
        np.append(np.ones(rows), 0.0)[None],
        np.ones(1),
        [(0, None)] * rows + [(None, None)],
    )
    return None if solved is None else (np.maximum(solved[:-1], 0.0), float(solved[-1]))


# ---- linear programs, whose answers are only suggestions -------------------------------------------------------------


def _programs(rows: Row, matrix: NDArray[np.float64], lower: Sequence[float], upper: Sequence[float]) -> Any:
    """Weights of rows that may refute: of the largest least value, then with strict rows where that is 0."""
    count, named = matrix.shape
    inputs = sorted({j for row in rows for j in row.inputs})
    low, high = np.array([lower[j] for j in inputs]), np.array([upper[j] for j in inputs])
    slope, constant = np.zeros((count, len(inputs))), np.array([_float(row.constant) for row in rows])
    for r, row in enumerate(rows):
        for c, j in enumerate(inputs):
            slope[r, c] = _float(row.inputs.get(j, Fraction(0)))
    gain = np.concatenate([constant, low, -high])  # of weights, and of the positive and negative part of the slopes
    if not np.isfinite(gain).all() or not np.isfinite(slope).all():
        return
    n = len(gain)
    split = np.eye(len(inputs))
    equal = np.vstack(
        [
            np.hstack([matrix.T, np.zeros((named, 2 * len(inputs)))]),
            np.hstack([slope.T, -split, split]),
            np.append(np.ones(count), np.zeros(2 * len(inputs)))[None],
        ]
    )
    right = np.append(np.zeros(named + len(inputs)), 1.0)
    bounds = [(0, None)] * n
    first = _solve(-gain, None, None, equal, right, bounds)
    if first is None:
        return
    yield first[:count]
    strict = np.array([row.strict for row in rows] + [False] * (2 * len(inputs)))
    if strict.any():
        slack = 1e-9 * (1 + float(np.abs(gain).max()))
        second = _solve(-strict.astype(float), -gain[None], np.array([slack]), equal, right, bounds)
        if second is not None:
            yield second[:count]


def _solve(cost: Any, below: Any, limit: Any, equal: Any, right: Any, bounds: Any) -> NDArray[np.float64] | None:
    optimize = importlib.import_module("scipy.optimize")  # takes a while to import: only where it is needed
    result = optimize.linprog(cost, below, limit, equal, right, bounds, method="highs")
    return None if result.x is None or not np.isfinite(result.x).all() else np.asarray(result.x)


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


# ---- exact -----------------------------------------------------------------------------------------------------------


def _exactly(rows: Row, named: Sequence[int], weights: NDArray[np.float64]) -> dict[int, Fraction] | None:
    """Weights near those of a program under which the outputs cancel exactly; None where one would be negative."""
    chosen = np.flatnonzero(weights > 1e-9).tolist()
    columns = [[rows[c].outputs.get(i, Fraction(0)) for i in named] for c in chosen]
    exact = _kernel(columns, [Fraction(float(weights[c])).limit_denominator(ROUNDED) for c in chosen])
    if not all(w >= 0 for w in exact):
        return None
    return {c: w for c, w in zip(chosen, exact, strict=True) if w > 0}


def refutes(
    rows: Row,
    weights: Mapping[int, Fraction],
    outputs: Mapping[int, Fraction],
    lower: Sequence[float],
    upper: Sequence[float],
    ends: Ends,
) -> bool:
    """Whether sum_k weights[k] rows[k], which has ``outputs``, never holds on the box: its least value there, for
    outputs within their ends, is positive, or 0 where it must be negative."""
    total = combined(rows, weights)
    if not weights or not all(w > 0 for w in weights.values()) or dict(total.outputs) != dict(outputs):
        return False
    least = sum((min(c * Fraction(lower[j]), c * Fraction(upper[j])) for j, c in total.inputs.items()), total.constant)
    for i, c in total.outputs.items():
        end = ends.get(i, (-math.inf, math.inf))[0 if c > 0 else 1]
        if not math.isfinite(end):
            return False
        least += c * Fraction(end)
    return least >= 0 if total.strict else least > 0


def _kernel(columns: Sequence[Sequence[Fraction]], wanted: Sequence[Fraction]) -> list[Fraction]:
    """Weights w with sum_c w_c columns[c] = 0: as wanted where they are free, the others follow (Gauss and Jordan)."""
    table = [list(row) for row in zip(*columns, strict=True)]
    pivots: list[int] = []
    for column in range(len(columns)):
        found = next((r for r in range(len(pivots), len(table)) if table[r][column]), None)
        if found is None:
            continue
        top = len(pivots)
        table[top], table[found] = table[found], table[top]
        table[top] = [value / table[top][column] for value in table[top]]
        for r in range(len(table)):
            if r != top and table[r][column]:
                factor = table[r][column]
                table[r] = [a - factor * b for a, b in zip(table[r], table[top], strict=True)]
        pivots.append(column)
    weights = list(wanted)
    free = [c for c in range(len(columns)) if c not in pivots]
    for r, column in enumerate(pivots):
        weights[column] = -sum((table[r][c] * weights[c] for c in free), Fraction(0))
    return weights
