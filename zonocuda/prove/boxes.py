"""Bounds of a region's rows on batches of boxes: the bound method of input splitting.

Reduced zonotopes and intervals bound every neuron; dual rows bound those that they leave open in some box of the batch,
and then the region's rows. One pass each: with few inputs, more boxes pay better than better slopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import compact
from zonocuda.bounds.dual.dual_pass import Visit, proceed
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.branch import Bounded
from zonocuda.graph import Graph
from zonocuda.precision import summed_products
from zonocuda.prove.certificate import UNIT
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import activations, rule_of
from zonocuda.tighten.refine import refine_by_rule

SPARE = 1.0
"""Times what an execution costs a row, that a proof to be written down has to spare: others find other magnitudes, and
bounds of neurons that are as much wider."""
BATCH = 512
"""Boxes of a batch, at most."""
BATCH_BYTES = 2**26
"""Of a batch's generators at the widest node, about."""


def batch_of(graph: Graph, rows: int, memory: int = BATCH_BYTES) -> int:
    """How many boxes are bounded together, for so many rows of a property."""
    widest = max(prod(node.shape) for node in graph.nodes)
    return max(1, min(BATCH, min(memory, BATCH_BYTES) // ((prod(graph.input_shape) + rows + 8) * widest * 4)))


class BoxBounder:
    """Proven bounds in one arithmetic; what its rounding alone leaves open goes on to ``wide``, where there is one.

    ``rows`` are shared by all boxes, or ``[S, R, ...]`` for the S boxes of a call. ``on_node`` is called before each
    node of a pass, ``on_bounds`` with the box and the proven bounds of the activations' inputs, before the rows are
    bounded; both may raise. With ``notes`` bounds say which slopes they had where v >= 0, for the neurons of all ReLUs,
    in units of 1 / UNIT.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        rows: Rows,
        wide: Callable[[], BoxBounder] | None = None,
        on_node: Visit = proceed,
        notes: bool = False,
        on_bounds: Callable[[Bounds, Mapping[str, Bounds]], None] = lambda box, intermediate: None,
    ) -> None:
        self.notes, self.on_bounds = notes, on_bounds
        self.arithmetic, self.rows, self._wide, self.on_node = arithmetic, rows, wide, on_node
        self.graph, self.rounding = arithmetic.graph, arithmetic.rounding

    def batch(self, memory: int) -> int:
        """How many boxes are bounded together in so many bytes, about."""
        return batch_of(self.graph, self.rows.count, memory)

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        """Proven bounds of the rows on boxes ``[S, N]``, whose ends are floats of this arithmetic."""
        found, slack = self._bound(lower, upper)
        return found if self._wide is None else with_wide(found, slack, lower, upper, self._wide)

    def _bound(self, lower: Tensor, upper: Tensor) -> tuple[Bounded, Tensor]:
        """Bounds, and what rounding has taken off them."""
        box = self._box(lower, upper)
        with torch.no_grad(), summed_products():
            intermediate = reduced_bounds(self.graph, box, self.rounding)
            intermediate = refine_by_rule(self.graph, box, intermediate, self.on_node, self.rounding)
            self.on_bounds(box, intermediate)
            left = compact(self.graph, intermediate)
            ledger = Ledger(self.rounding.on(left.graph), box, left.intermediate)
            flow = output_rows(left.graph, self.rows, len(lower), ledger)
            problem = RowProblem(flow, box, left.intermediate, self.on_node)
            initial = initial_slopes(self.graph, intermediate, "adaptive")
            slopes = left.narrow_slopes({name: slopes.flat() for name, slopes in initial.items()})
            bounds, weight = problem.bound(lambda node: slopes[node.name])
            if self.notes and self.rounding.execution is not None:
                bounds = bounds - SPARE * problem.slack
            bounds = bounds.masked_fill(~_is_finite(intermediate, len(lower), lower.device).unsqueeze(1), -torch.inf)
        shape = (len(lower), self.rows.count, lower.shape[1])
        weight = lower.new_zeros(shape) if weight is None else weight.reshape(shape)
        return Bounded(bounds, weight, self._noted(initial, len(lower)) if self.notes else None), problem.slack

    def _noted(self, slopes: Mapping[str, Slopes], boxes: int) -> Tensor:
        """``[S, K]`` (uint8): slopes where v >= 0, in the order of the activations and of their features, of those that
        the lines below jump between: others are found again by rule."""
        parts = []
        for node in activations(self.graph):
            if not rule_of(node).has_signs:
                continue
            own = slopes[node.name].nonnegative
            assert own is not None, "adaptive slopes are given"
            parts.append((own * UNIT).round().to(torch.uint8).reshape(len(own), -1).expand(boxes, -1))
        return torch.cat(parts, 1) if parts else torch.zeros(boxes, 0, dtype=torch.uint8)

    def estimate(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Tensor:
        """Bounds ``[S, R]`` from reduced zonotopes alone, whose last rounding is not counted."""
        box = self._box(lower, upper)
        intermediate = reduced_bounds(self.graph, box, self.rounding)
        problem = RowProblem(output_rows(self.graph, self.rows, len(lower)), box, intermediate, self.on_node)
        slopes = {name: one.flat() for name, one in initial_slopes(self.graph, intermediate, "adaptive").items()}
        return problem.bound(lambda node: slopes[node.name])[0]

    def _box(self, lower: Tensor, upper: Tensor) -> Bounds:
        shape = (-1, *self.graph.input_shape)
        return lower.reshape(shape), upper.reshape(shape)


def with_wide(found: Bounded, slack: Tensor, lower: Tensor, upper: Tensor, make: Callable[[], BoxBounder]) -> Bounded:
    """Bounds of which those that are open by no more than their ``slack`` ``[S, R]`` are found again in another
    arithmetic: only as a proof that the row is positive, the weights are those of the narrow bound."""
    near = ((found.lower <= 0) & (found.lower + slack > 0)).any(1).nonzero().squeeze(1)
    if not len(near):
        return found
    wide = make()
    again = wide.bound(*(end[near].to(wide.rows.constant) for end in (lower, upper)))
    better = again.lower
    narrow = found.lower[near]
    proven = torch.where(
        (better > 0) & better.isfinite(), better.to(narrow).clamp(min=torch.finfo(narrow.dtype).tiny), narrow
    )
    notes = found.notes
    if notes is not None and again.notes is not None:
        helped = (better > 0).any(1)
        notes = notes.index_copy(0, near[helped], again.notes[helped])
    return Bounded(found.lower.index_copy(0, near, proven), found.weight, notes)


def _is_finite(intermediate: Mapping[str, Bounds], batch: int, device: torch.device) -> Tensor:
    """``[S]``: whether every neuron's bounds are numbers; the dual pass would take an overflowed bound at its word."""
    finite = torch.ones(batch, dtype=torch.bool, device=device)
    for bounds in intermediate.values():
        for bound in bounds:
            finite &= bound.isfinite().reshape(batch, -1).all(1)
    return finite
