"""Boxes whose symbols are contracted, inputs and neurons' errors: an experiment that counts no rounding of its own.

A row that was carried back is row(x) = bound + sum_i |v_i| t_i + sum_j |v_j| g_j: t_i the distance of an input from the
corner, and g_j >= 0 how far relu(z_j) lies from the line that the row took, which is what the error symbol of neuron j
is about. No term is negative. So where the row is at most 0, every g_j <= -bound / |v_j|, whatever the others are.

* v_j > 0, the line below, s z + c: relu(z) - s z <= g + c, so that z lies between -(g + c) / s and (g + c) / (1 - s);
* v_j < 0, the line above, a z + d with the a and d of now: relu(z) lies in a z + [d - g, d], a narrower band.

What holds of a disjunct is what any of its rows says; of a box, the hull over its disjuncts. It goes along with the box
as what is known of its neurons, to its next sweep and to its parts: zonotopes take the narrower band, dual rows with
v_j > 0 the line a z + d - g where that is higher in the middle. A round bounds a box again, with all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.branch import Bounded, worst_bound
from zonocuda.branch.cut import cut
from zonocuda.branch.subproblems import Subproblems
from zonocuda.prove import dense_boxes
from zonocuda.prove.boxes import with_wide
from zonocuda.prove.dense import Layer
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.relaxations import Rule
from zonocuda.verifier import box_methods

SEARCH: Any = import_module("zonocuda.branch.search")
EMPTY = 1.0
"""The bound of a box of which nothing is left."""


class Band(NamedTuple):
    """relu(z) lies in slope z + [low, high], ``[S, N]``."""

    slope: Tensor
    low: Tensor
    high: Tensor

    def at(self, index: Tensor) -> Band:
        """Those of some boxes."""
        return Band(*(side[index] for side in self))


class Step(NamedTuple):
    """A step of dual rows (:class:`zonocuda.prove.dense_boxes._Step`), whose lines below begin at ``lift``."""

    rule: Rule
    alive: Tensor
    lower: Tensor
    upper: Tensor
    slope: Tensor
    weight: Tensor
    offset: Tensor
    slopes: Tensor
    lift: Tensor


PLAIN_STEP = dense_boxes._step
USED: list[list[Band] | None] = [None]
"""The bands, by layer, of the boxes that are bounded now."""


def step(layer: Layer, lower: Tensor, upper: Tensor, before: Sequence[Any]) -> Any:
    """With the lines of the bands in use."""
    plain = PLAIN_STEP(layer, lower, upper, before)
    lift = torch.zeros_like(plain.slope)
    bands = USED[0]
    if bands is None:
        return Step(*plain, lift)
    band = Band(*(side[:, plain.alive] for side in bands[len(before)]))
    middle = (plain.lower + plain.upper).detach() / 2
    crossing = (plain.lower < 0) & (plain.upper > 0)
    use = crossing & (band.slope * middle + band.low > plain.slope * middle)
    slope = torch.where(use, band.slope, plain.slope)
    return Step(*plain._replace(slope=slope), torch.where(use, band.low, lift))


class Passes(dense_boxes._Passes):
    """Sweeps with bands.

    Attributes:
        crossing: of the last rows, v at the output of each step ``[S, R, M]``.
    """

    crossing: list[Tensor]

    def bands(self, known: Tensor | None) -> list[Band] | None:
        """What is known beside the bounds."""
        count = sum(self._sizes)
        if known is None or not known.shape[1]:
            return None
        parts = torch.split(known[:, 2 * count :], self._sizes * 3, 1)
        layers = len(self._sizes)
        return [Band(*(parts[k + side * layers] for side in range(3))) for k in range(layers)]

    @property
    def _sizes(self) -> list[int]:
        return [len(layer.offset) for layer in self.network.layers[:-1]]

    def reduced(self, lower: Tensor, upper: Tensor, known: Tensor | None) -> list[Bounds]:
        USED[0] = bands = self.bands(known)
        own = None if bands is None or known is None else known[:, : 2 * sum(self._sizes)]
        if bands is None:
            return super().reduced(lower, upper, own)
        with ExitStack() as stack:
            left = iter(bands)
            for rule in {type(layer.rule) for layer in self.network.layers[:-1]}:
                plain = rule.band

                def narrower(own: Rule, low: Tensor, high: Tensor, slope: Any, plain: Any = plain) -> Any:
                    found, band = plain(own, low, high, slope), next(left)
                    half = (band.high - band.low) / 2
                    pairs = zip((band.slope, (band.low + band.high) / 2, half), found, strict=True)
                    use = half < found[2]
                    return type(found)(*(torch.where(use, ours, theirs) for ours, theirs in pairs))

                stack.enter_context(patch.object(rule, "band", narrower))
            return super().reduced(lower, upper, own)

    def _dual(
        self,
        steps: Sequence[Any],
        rows: Tensor,
        constant: Tensor,
        lower: Tensor,
        upper: Tensor,
        direct: Tensor | None = None,
    ) -> Bounds:
        v = (rows[:, steps[-1].alive] if steps else rows).expand(len(lower), -1, -1)
        self.crossing = []
        for one in reversed(steps):
            self.crossing.insert(0, v)
            image = one.rule.dual(v, one.lower, one.upper, None, one.slope.unsqueeze(1))
            lifted = (v.clamp(min=0) @ one.lift.unsqueeze(2)).squeeze(2)
            constant = constant + image.low + image.rows @ one.offset + lifted
            v = image.rows @ one.weight
        if direct is not None:
            v = v + direct
        middle, half = ((lower + upper) / 2).unsqueeze(2), ((upper - lower) / 2).unsqueeze(2)
        return constant + (v @ middle - v.abs() @ half).squeeze(2), v


class Contracting(DenseBounder):
    """What is known of a box is what the rows leave of its symbols."""

    with_bands = True

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        for name in ("_passes", "_cheap"):
            plain = getattr(self, name)
            setattr(self, name, Passes(plain.network, plain.rows, plain.on_layer))

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        passes: Any = self._passes
        with torch.no_grad():
            intermediate = passes.reduced(lower, upper, known)
            found = self._said(passes, lower, upper, passes.steps(intermediate))
            left = (~(worst_bound(found.lower, self.rows.disjuncts) > 0)).nonzero().squeeze(1)
            if len(left):
                bands = USED[0] = None if USED[0] is None else [band.at(left) for band in USED[0]]
                low, high = lower[left], upper[left]
                intermediate, steps = passes.refined(low, high, [(a[left], b[left]) for a, b in intermediate])
                own = self._said(passes, low, high, steps)
                told, empty = self.contracted(own.lower, passes.crossing, intermediate, steps, bands)
                own = replace(own, lower=own.lower.masked_fill(empty.unsqueeze(1), EMPTY))
                found = dense_boxes._replaced(found, left, own)
                found = replace(found, known=told.new_zeros(len(lower), told.shape[1]).index_copy(0, left, told))
            return with_wide(found, self.slack.expand(found.lower.shape), lower, upper, self._wide)

    def contracted(
        self,
        bound: Tensor,
        crossing: Sequence[Tensor],
        intermediate: Sequence[Bounds],
        steps: Sequence[Any],
        before: list[Band] | None,
    ) -> tuple[Tensor, Tensor]:
        """What is known of the boxes now ``[S, 5 K]``, and which have no point left where a disjunct may hold."""
        room = (-bound).unsqueeze(2)
        gone = bound > 0
        bounds: list[Bounds] = []
        bands: list[Band] = []
        empty = torch.zeros(len(bound), dtype=torch.bool)
        for number, (v, one, ends) in enumerate(zip(crossing, steps, intermediate, strict=True)):
            low, high = one.lower.unsqueeze(1), one.upper.unsqueeze(1)
            cross = (low < 0) & (high > 0)
            gap = (room / v.abs()).nan_to_num(torch.inf).clamp(min=0)
            s, reach = one.slope.unsqueeze(1), gap + one.lift.unsqueeze(1)
            says = cross & (v > 0) & reach.isfinite()
            floor = self.hull(torch.where(says & (s > 0), -reach / s, low), gone, low)
            ceiling = -self.hull(-torch.where(says & (s < 1), reach / (1 - s), high), gone, -high)
            below, above = torch.maximum(one.lower, floor), torch.minimum(one.upper, ceiling)
            empty |= (below > above).any(1)
            bounds.append(tuple(e.index_copy(1, one.alive, n) for e, n in zip(ends, (below, above), strict=True)))  # type: ignore[arg-type]
            widest = torch.full_like(gap, torch.inf)
            width = -self.hull(-torch.where(cross & (v < 0), gap, widest), gone, -widest[:, :1])
            slope = one.upper / (one.upper - one.lower)
            top = -slope * one.lower
            fresh = Band(torch.where(width.isfinite(), slope, 0.0), top - width, top)
            nothing = torch.zeros_like(ends[0])
            old = Band(nothing, nothing - torch.inf, nothing + torch.inf) if before is None else before[number]
            better = width < (old.high - old.low)[:, one.alive]
            if not self.with_bands:
                better = torch.zeros_like(better)
            sides = (
                o.index_copy(1, one.alive, torch.where(better, n, o[:, one.alive]))
                for o, n in zip(old, fresh, strict=True)
            )
            bands.append(Band(*sides))
        columns = [ends[side] for side in (0, 1) for ends in bounds] + [b[side] for side in range(3) for b in bands]
        return torch.cat(columns, 1), empty

    def hull(self, least: Tensor, gone: Tensor, none: Tensor) -> Tensor:
        """``[S, N]``: the smallest over the disjuncts that are left, of the largest over their rows, ``[S, R, N]``."""
        parts = []
        for rows in self.rows.disjuncts:
            most = least[:, list(rows)].amax(1)
            parts.append(most.masked_fill(gone[:, list(rows)].any(1, keepdim=True), torch.inf))
        found = torch.stack(parts).amin(0)
        return torch.where(found == torch.inf, none.squeeze(1).expand_as(found), found)


def run_with(rounds: int) -> type:
    """A search that bounds open boxes again, so many times, before they are split."""

    class Run(SEARCH._Run):  # type: ignore[misc]
        def split(self, batch: Subproblems) -> None:
            for _ in range(rounds):
                if not len(batch):
                    break
                found = self.bounder.bound(batch.lower, batch.upper, batch.known)
                worst = worst_bound(found.lower, self.disjuncts)
                still = ~(worst > 0)
                known = batch.known if found.known is None else found.known
                batch = replace(batch, known=known, bound=worst).at(still)
                low, high = cut(batch.lower, batch.upper, found.lower[still], found.weight[still], self.disjuncts)
                batch = replace(batch, lower=low, upper=high).at(~(low > high).any(1))
            super().split(batch)

    return Run


@contextmanager
def contracting(rounds: int, with_bands: bool = True) -> Iterator[None]:
    """Searches by boxes of small chains contract symbols; ``with_bands``: those of the lines above, too."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(Contracting, "with_bands", with_bands))
        stack.enter_context(patch.object(dense_boxes, "_step", step))
        stack.enter_context(patch.object(box_methods, "DenseBounder", Contracting))
        stack.enter_context(patch.object(SEARCH, "_Run", run_with(rounds)))
        yield
