"""A search for counterexamples by linear programs, where several rows have to be at most zero at once.

The largest of the rows is least on a ridge where several of them meet, which steps along a gradient cross to and fro.
A network of ReLUs is linear around a point: of its rows there, e_r + g_r . d, a linear program takes the d in a box
that makes the largest least, which runs along the ridge. The box grows where the network's own rows follow, and shrinks
where they do not. It is a search like any other: what it finds is replayed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph

PROGRAMS = 25
"""Of one point, at most."""
REACH, MOST_REACH, LEAST_REACH = 0.1, 0.3, 1e-4
"""Half-widths of a program's box, in widths of the whole one: the first, the largest, and when to give up."""
GROWTH, SHRINKAGE = 1.5, 0.35


def along_ridge(graph: Graph, rows: Rows, members: Sequence[int], box: Bounds, point: Tensor) -> Tensor:
    """A point where the largest of some rows is no larger than at ``point`` ``[*input features]``, in a box of that
    shape; it ends where all are at most zero."""
    lower, upper = (end.double() for end in box)
    width, reach, chosen = upper - lower, REACH, list(members)
    value, slope = _linear(graph, rows, chosen, point)
    for _ in range(PROGRAMS):
        if value.max() <= 0 or reach < LEAST_REACH:
            break
        low, high = (((end - point) / width.clamp(min=1e-300)).flatten().cpu().numpy() for end in (lower, upper))
        step = _least(value, slope * width.flatten().cpu().numpy(), low.clip(-reach), high.clip(max=reach))
        if step is None:
            break
        moved = point + width * torch.from_numpy(step).to(width).reshape(width.shape)
        moved = torch.clamp(moved.to(point.dtype), *box)
        there = _linear(graph, rows, chosen, moved)
        if there[0].max() < value.max():
            point, (value, slope), reach = moved, there, min(MOST_REACH, GROWTH * reach)
        else:
            reach *= SHRINKAGE
    return point


def _linear(graph: Graph, rows: Rows, members: list[int], point: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Values ``[R]`` of rows at a point, and their gradients ``[R, N]``."""
    with torch.enable_grad():
        x = point.expand(len(members), *point.shape).detach().clone().requires_grad_()
        values = rows.values(x, graph(x))[:, members].diagonal()
        (slope,) = torch.autograd.grad(values.sum(), x)
    return values.detach().double().cpu().numpy(), slope.flatten(1).double().cpu().numpy()


def _least(value: np.ndarray, slope: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """d in [low, high] where the largest of value + slope d is least, or None where the solver finds none."""
    optimize = importlib.import_module("scipy.optimize")  # takes a while to import: only where it is needed
    if not (np.isfinite(value).all() and np.isfinite(slope).all()):
        return None
    count = len(low)
    matrix = np.hstack([slope, -np.ones((len(value), 1))])
    bounds = np.column_stack([np.append(low, -np.inf), np.append(high, np.inf)])
    solved = optimize.linprog(np.append(np.zeros(count), 1.0), matrix, -value, bounds=bounds, method="highs")
    return None if solved.x is None else np.asarray(solved.x[:count])
