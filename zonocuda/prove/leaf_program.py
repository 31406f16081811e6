"""Linear programs of parts of a search by signs: an oracle for slopes and multipliers, of which nothing is believed.

With fixed bounds l, u of the crossing neurons, the best bound of a row on a part, over all slopes and multipliers, is
the dual of a linear program in the input x and the outputs a of the crossing neurons, whose inputs z are linear forms
of both (:mod:`zonocuda.prove.sign_forms`):

    least  r(x, a)   where x is in the box, a >= z, a >= 0,
                     a <= lam z + 2 mu  where the sign is not known,  a = z >= 0 or a = 0 >= z where it is.

A known sign is asked for at a price, M (a - z) where z >= 0 and M a where z <= 0: every x of the box has a point, so
that there is always one to try as a counterexample; and a part that holds no x has a bound that grows with M. The
multipliers of a >= z, a >= 0 and of the upper line, p, q and t, are those of the pass: v = p + q - t at the neuron's
output, so that the slope is p / (p + q) where no sign is known, and the multiplier of a sign is q (active) or p (dead).

Programs are solved (HiGHS) in float64, rounding uncounted: their slopes and multipliers go through the same proof as
any others, and their points are executed as any others are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.branch import SignBounded, SignParts, refuted
from zonocuda.prove.sign_forms import Array, SignForms

PRICES = (10.0, 1e3, 1e5)
"""Of known signs, one after the other while they are broken, in units of the rows at their neuron."""
TINY = 1e-9
"""Of multipliers in their units, and of broken signs, what counts as none."""
ITERATIONS, SECONDS = 20_000, 5.0
"""Of a program, at most."""
FEW = 20
"""Neurons without a known sign, in parts that get a program; others get one where no neuron is left to split."""
LUCK, PATIENCE = 0.25, 16
"""Share of these programs that should refute their part, for more of them; so many are tried in any case."""


@dataclass(frozen=True, eq=False)
class LeafPoint:
    """What a program found.

    Attributes:
        value: of the row, with the price of broken signs.
        broken: by how much a known sign is broken, at most.
        x: ``[N]``, where.
        slopes, multipliers: ``[U]``.
    """

    value: float
    broken: float
    x: Array
    slopes: Array
    multipliers: Array


def solve(
    forms: SignForms, row: int, signs: NDArray[np.int8], slopes: Array, units: Array, price: float
) -> LeafPoint | None:
    """The program of a part, or None where the solver does not end with an answer.

    Args:
        forms: of the problem.
        row: that is bounded.
        signs: ``[U]``, the known ones.
        slopes: ``[U]``, for neurons that the row does not depend on.
        units: ``[U]``, positive: how large rows are at each neuron.
        price: of broken signs, in these units.
    """
    optimize, sparse = (importlib.import_module(name) for name in ("scipy.optimize", "scipy.sparse"))  # slow to load
    n, known, active = forms.inputs, signs != 0, signs > 0
    free = np.flatnonzero(~known)
    cost, constant = forms.row(row)
    paid = np.where(known, price * units, 0.0)
    taken = np.where(active, paid, 0.0)
    cost = cost - taken @ forms.weight
    cost[n:] += paid
    outputs = np.concatenate([np.zeros((forms.count, n)), np.eye(forms.count)], 1)
    above = outputs[free] - forms.slope[free, None] * forms.weight[free]
    result = optimize.linprog(
        cost,
        sparse.csr_array(np.concatenate([forms.weight - outputs, above])),
        np.concatenate([-forms.offset, forms.twice[free] + forms.slope[free] * forms.offset[free]]),
        bounds=np.stack(
            [np.append(forms.low, np.zeros(forms.count)), np.append(forms.high, [np.inf] * forms.count)], 1
        ),
        method="highs",
        options={"maxiter": ITERATIONS, "time_limit": SECONDS},
    )
    if result.status != 0:
        return None
    p = np.maximum(-result.ineqlin.marginals[: forms.count], 0.0)
    q = np.maximum(result.lower.marginals[n:], 0.0)
    both, least = p + q, TINY * units
    slopes = np.where(~known & (both > least), p / np.maximum(both, least), slopes)
    multipliers = np.where(known, np.where(active, q, p), 0.0)
    z, a = forms.weight @ result.x + forms.offset, result.x[n:]
    broken = float(np.where(known, np.where(active, a - z, a), 0.0).max(initial=0.0))
    value = float(result.fun) + constant - float(taken @ forms.offset)
    return LeafPoint(value, broken, result.x[:n], slopes, multipliers)


class LeafOracle:
    """Better slopes and multipliers for parts that are open, where programs are small and seem worth it."""

    def __init__(self, problem: SignProblem, units: Tensor, prove: Callable[[SignParts], SignBounded]) -> None:
        """``units``: ``[U]``, how large rows are at each neuron; ``prove``: proven bounds of parts, with the slopes and
        multipliers that they have, as far as these can be kept."""
        self.problem, self.units, self.prove = problem, units, prove
        self.solved = self.refuted = 0

    @cached_property
    def forms(self) -> SignForms:
        """Of the problem."""
        return SignForms(self.problem)

    def improve(self, found: SignBounded, thorough: bool) -> SignBounded:
        """Parts and points that were found, the open ones perhaps with better slopes, multipliers, bounds and points.

        Args:
            found: parts that were bounded.
            thorough: whether all open ones are to have a program, as they cannot be split.
        """
        parts, points = found.parts, found.points
        is_open = ~refuted(parts.bound)
        if not thorough:
            lucky = self.refuted >= LUCK * (self.solved - PATIENCE)
            is_open &= ((parts.signs == 0).sum(1) <= FEW) & lucky
        index = is_open.nonzero().squeeze(1).tolist()
        if not index or not SignForms.fit(self.problem):
            return found
        better, where, points = [], [], points.clone()
        for k in index:
            self.problem.on_node(self.problem.graph.nodes[0])  # may stop the search
            one = self.program(parts.at(slice(k, k + 1)))
            if one is None:
                continue
            points[k] = torch.from_numpy(one.x).to(points)
            if one.value > 0:
                better.append(_with(parts.at(slice(k, k + 1)), one))
                where.append(k)
        self.solved += len(index)
        if better:
            parts = self._replaced(parts, torch.tensor(where, device=points.device), self.prove(SignParts.cat(better)))
        return SignBounded(parts, points)

    def program(self, part: SignParts) -> LeafPoint | None:
        """Of one part, at the least price at which its signs are kept, or that refutes it."""
        signs, slopes = part.signs[0].cpu().numpy(), part.slopes[0].double().cpu().numpy()
        units, found = self.units.double().cpu().numpy(), None
        for price in PRICES:
            found = solve(self.forms, int(part.row[0]), signs, slopes, np.maximum(units, TINY), price)
            if found is None or found.value > 0 or found.broken <= TINY:
                break
        return found

    def _replaced(self, parts: SignParts, index: Tensor, proven: SignBounded) -> SignParts:
        """Parts, of which some were bounded again, with what is better."""
        new = proven.parts
        helped = new.bound > parts.bound[index]
        self.refuted += int(refuted(new.bound).sum())
        index, new = index[helped], new.at(helped)
        names = ("slopes", "multipliers", "bound", "wishes")
        return replace(parts, **{n: getattr(parts, n).index_copy(0, index, getattr(new, n)) for n in names})


def _with(part: SignParts, found: LeafPoint) -> SignParts:
    """A part with the slopes and multipliers of its program, not bounded yet."""
    slopes, multipliers = (torch.from_numpy(t).to(part.slopes).unsqueeze(0) for t in (found.slopes, found.multipliers))
    bound = torch.full_like(part.bound, -torch.inf)
    return replace(part, slopes=slopes.clamp(0, 1), multipliers=multipliers.clamp(min=0), bound=bound)
