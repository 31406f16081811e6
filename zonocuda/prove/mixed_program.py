"""A mixed program of a network on a box: a point where rows are least, of which nothing else is believed.

The signs of the U crossing neurons are binary variables d: a >= z, a >= 0, a <= z - l (1 - d), a <= u d, with inputs z
that are linear forms of the input and of the outputs a (:mod:`zonocuda.prove.sign_forms`). What is least is the largest
of the rows of a disjunct. The solver (HiGHS) stops once it takes that for positive, or knows it within a factor of two.
It leaves no proof that could be checked: that it finds no point decides nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np

from zonocuda.prove.sign_forms import Array, SignForms

GAP = 0.99
"""By which the best point and what is proven of others may differ, relative to the former; below 1: of one sign."""


def least_point(forms: SignForms, rows: Sequence[int], seconds: float) -> Array | None:
    """An input ``[N]`` of the box where the largest of some rows is about least, found within so many seconds."""
    optimize, sparse = (importlib.import_module(name) for name in ("scipy.optimize", "scipy.sparse"))  # slow to load
    n, u = forms.inputs, forms.count
    lower, upper = -forms.twice / forms.slope, forms.twice / (1 - forms.slope)
    weight = np.concatenate([forms.weight, np.zeros((u, u + 1))], 1)  # of x, a, d and the largest row
    outputs, active = np.zeros_like(weight), np.zeros_like(weight)
    outputs[:, n : n + u], active[:, n + u : -1] = np.eye(u), np.eye(u)
    found = [forms.row(row) for row in rows]
    largest = np.concatenate([np.stack([w for w, _ in found]), np.zeros((len(rows), u)), -np.ones((len(rows), 1))], 1)
    limits = [
        (weight - outputs, -forms.offset),
        (outputs - weight - lower[:, None] * active, forms.offset - lower),
        (outputs - upper[:, None] * active, np.zeros(u)),
        (largest, -np.array([constant for _, constant in found])),
    ]
    matrix = sparse.csr_array(np.concatenate([rows for rows, _ in limits]))
    cost, integral = np.zeros(n + 2 * u + 1), np.zeros(n + 2 * u + 1)
    cost[-1], integral[n + u : -1] = 1, 1
    result = optimize.milp(
        cost,
        integrality=integral,
        bounds=optimize.Bounds(
            np.concatenate([forms.low, np.zeros(2 * u), [-np.inf]]),
            np.concatenate([forms.high, upper, np.ones(u), [np.inf]]),
        ),
        constraints=optimize.LinearConstraint(matrix, -np.inf, np.concatenate([limit for _, limit in limits])),
        options={"time_limit": seconds, "mip_rel_gap": GAP},
    )
    return None if result.x is None else np.asarray(result.x[:n], dtype=np.float64)
