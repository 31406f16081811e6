"""Weights of a disjunct's rows that make the dual bound of their combination large.

For fixed slopes the dual bound of sum_k w_k r_k is a least value of w . r over a convex set of relaxed outcomes:
concave in w and homogeneous, so that its gradient g at any weights gives bound(w) <= g . w for all of them. At every
point x it is at most w . r(x). Cutting planes (Kelley 1960) maximise it over weights of sum 1, in turns with the ascent
of the slopes.

Nothing here is believed: a combination that looks worth it becomes one more row, and its bound is proven as that of
any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.rows import Rows
from zonocuda.prove.combine import MAX_ROWS, ROUNDED, Combination, Row, combined, largest_least
from zonocuda.prove.prover import Prover
from zonocuda.tighten.ascent import Ascent, ascend

MAX_DISJUNCTS = 16
"""Of a region, for which weights are optimised."""

TURNS = 3
"""Of weights and slopes."""

PLANES = 8
"""In one turn."""

CLIMB = Ascent(iterations=10)
"""Of the slopes, in one turn."""

WORTH = 0.1
"""By how much a bound must exceed that of the best row, in its size, where it is not positive."""


def optimised(
    prover: Prover, values: NDArray[np.float64], disjuncts: Sequence[tuple[int, Row]]
) -> tuple[Combination, ...]:
    """Combinations whose dual bounds are positive or exceed those of single rows, for the prover's open disjuncts.

    Args:
        prover: after a dual pass.
        values: ``[points, rows]``, of the prover's rows at points of the box.
        disjuncts: for each of the prover's, its place in the specification's region, and its rows there, which are
            the first ones of the prover's.
    """
    refuted, found = prover.rows.refuted(prover.bounds), []
    left = compact(prover.graph, prover.intermediate)
    open_ = [d for d, ok in enumerate(refuted) if not ok and 1 < len(disjuncts[d][1]) <= MAX_ROWS]
    for d in open_[:MAX_DISJUNCTS]:
        place, rows = disjuncts[d]
        count = len(rows)
        members = list(prover.rows.disjuncts[d])
        own = values[:, members[:count]]
        scale = np.abs(own).max(0)
        if not np.isfinite(own).all() or not bool((scale > 0).all()):
            continue
        best = prover.bounds[members].cpu().numpy()
        known = max(best[:count] / scale)
        slopes = left.narrow_slopes(prover.start(torch.tensor(members[:1], device=prover.best.device)))
        weights, bound = _climbed(prover, left, members[:count], own / scale, scale, slopes)
        if len(members) > count:  # a combination that is there already
            known = max(known, best[-1])
        if weights is None or not (bound > 0 or bound > known + WORTH * abs(known)):
            continue
        units = [prover.rows.unit[r] for r in members[:count]]
        exact = {
            k: Fraction(w / s).limit_denominator(ROUNDED) / units[k]
            for k, (w, s) in enumerate(zip(weights.tolist(), scale.tolist(), strict=True))
            if w > 1e-6
        }
        exact = {k: w for k, w in exact.items() if w > 0}
        total = combined(rows, exact)
        if len(exact) > 1 and any((*total.outputs.values(), *total.inputs.values())):  # a constant needs no bound
            found.append(Combination(place, exact, {}, refutes=False))
    return tuple(found)


def _climbed(
    prover: Prover,
    left: Compact,
    members: Sequence[int],
    values: NDArray[np.float64],
    scale: NDArray[np.float64],
    slopes: Mapping[str, Slopes],
) -> tuple[NDArray[np.float64] | None, float]:
    """The best weights of rows, each divided by its ``scale``, and their bound; None where none has a bound."""
    best, at, now = -np.inf, None, slopes
    for turn in range(TURNS):
        planes = values  # of other slopes no plane holds
        for _ in range(PLANES):
            chosen = largest_least(planes)
            if chosen is None or chosen[1] <= best + 1e-3 * abs(best):
                break
            bound, gradient = _plane(prover, left, members, chosen[0], scale, now)
            if not np.isfinite(bound) or not np.isfinite(gradient).all():
                break
            if bound > best:
                best, at = bound, chosen[0]
            if best > 0:
                return at, best
            planes = np.vstack([planes, gradient])
        if at is None or turn == TURNS - 1:
            break
        problem = _problem(prover, left, members, torch.from_numpy(at / scale))
        climbed = ascend(problem, CLIMB, now, wants_slopes=True)
        best, now = max(best, float(climbed.lower)), {**now, **climbed.slopes}
        if best > 0:
            break
    return at, best


def _plane(
    prover: Prover,
    left: Compact,
    members: Sequence[int],
    weights: NDArray[np.float64],
    scale: NDArray[np.float64],
    slopes: Mapping[str, Slopes],
) -> tuple[float, NDArray[np.float64]]:
    """A combination's bound, and its gradient in the weights of the scaled rows."""
    with torch.enable_grad():
        variable = torch.from_numpy(weights / scale).requires_grad_()
        bound, _ = _problem(prover, left, members, variable).bound(lambda node: slopes[node.name])
        (gradient,) = torch.autograd.grad(bound.sum(), variable)
    return float(bound), gradient.numpy() / scale


def _problem(prover: Prover, left: Compact, members: Sequence[int], weights: Tensor) -> RowProblem:
    """The row that ``weights`` make of rows of the prover, without its rounding."""
    rows, index = prover.rows, list(members)
    given = weights.to(rows.output)
    one = Rows(
        (given @ rows.output[index])[None],
        (given @ rows.input[index])[None],
        (given @ rows.constant[index])[None],
        (Fraction(1),),
        ((0,),),
        ("",),
    )
    return RowProblem(output_rows(left.graph, one, 1), prover.box, left.intermediate, prover.on_node)
