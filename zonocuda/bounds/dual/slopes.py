"""Slopes of the dual pass: for each activation one where v < 0 and one where v >= 0, shared by the rows or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import flatten_rows, unflatten_rows
from zonocuda.bounds.interval import Bounds, unsettled
from zonocuda.brief import brief_repr
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import Start, rule_of

STARTS: tuple[Start, ...] = get_args(Start)
"""Slopes to begin with: see :meth:`zonocuda.relaxations.Rule.initial`; where v < 0 those of :meth:`above`."""


@dataclass(frozen=True, eq=False)
class Slopes:
    """The slopes of an activation for the rows of a dual pass, ``[B, R, *features]`` or, shared, ``[B, 1, *features]``.

    Attributes:
        negative: where v < 0; None for the minimum-area slopes of the bounds in use, or, beside others where v >= 0,
            for the rule's own (:meth:`zonocuda.relaxations.Rule.above`).
        nonnegative: where v >= 0; None for those of ``negative``.
    """

    negative: Tensor | None = None
    nonnegative: Tensor | None = None

    __repr__ = brief_repr

    def to(self, dtype: torch.dtype) -> Slopes:
        """The same slopes in a dtype, rounded to nearest: whatever a slope is, its bound holds."""
        return Slopes(*(None if t is None else t.to(dtype) for t in (self.negative, self.nonnegative)))

    def flat(self) -> Slopes:
        """The same slopes as ``[B, R, N]``, in the order of the pass."""
        return Slopes(_flat(self.negative), _flat(self.nonnegative))

    def shaped(self, features: tuple[int, ...]) -> Slopes:
        """The inverse of :meth:`flat`."""
        return Slopes(_shaped(self.negative, features), _shaped(self.nonnegative, features))


def _flat(t: Tensor | None) -> Tensor | None:
    return None if t is None else flatten_rows(t.flatten(0, 1)).reshape(t.shape[0], t.shape[1], -1)


def _shaped(t: Tensor | None, features: tuple[int, ...]) -> Tensor | None:
    return None if t is None else unflatten_rows(t.flatten(0, 1), features).reshape(*t.shape[:2], *features)


def shared(slope: Tensor | Slopes, like: Tensor) -> Slopes:
    """A slope that broadcasts to ``[B, *features]``, like ``like``, as slopes for all rows and both signs."""
    return slope if isinstance(slope, Slopes) else Slopes(slope.expand(like.shape).unsqueeze(1))


def initial_slopes(graph: Graph, intermediate: Mapping[str, Bounds], start: Start) -> dict[str, Slopes]:
    """Slopes to begin with, shared by all rows, for bounds of activations' inputs, by name.

    ``adaptive`` are those of CROWN (Zhang et al. 2018): the slopes of the upper and the lower line that waste least.
    """
    if start == "minimum_area":
        return {name: Slopes() for name in intermediate}
    return {
        name: Slopes(None, rule_of(graph[name]).initial(*bounds, "adaptive").unsqueeze(1))
        for name, bounds in intermediate.items()
    }


def free_neurons(node: Node, bounds: Bounds) -> Tensor:
    """Positions of the neurons of an activation whose slopes are free: those that are not settled in some batch
    element, in the order of the pass; a NaN is not."""
    return unsettled(node, *(flatten_rows(b) for b in bounds)).nonzero().squeeze(1)
