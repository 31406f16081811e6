"""Bounds of a region's rows on batches of boxes, for small chains of layers (:mod:`zonocuda.prove.dense`).

The same bounds as those of :class:`zonocuda.prove.boxes.BoxBounder`, at a fraction of the operations: reduced zonotopes
and intervals, dual rows for the neurons that these leave open in some box of the batch, dual rows of the region. Boxes
that the region's rows refute before the neurons' rows leave first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.branch import Bounded, worst_bound
from zonocuda.prove.boxes import BATCH, BoxBounder, with_wide
from zonocuda.prove.certificate import UNIT
from zonocuda.prove.dense import DenseNetwork, Layer
from zonocuda.relaxations import Rule


class DenseBounder:
    """Proven bounds in float64; what is open by no more than rounding goes on to ``wide``.

    ``on_layer`` is called before each layer, and may raise. With ``notes`` bounds say which slopes they had, as
    :class:`zonocuda.prove.boxes.BoxBounder` does, and no box leaves early: who checks them has the neurons' rows, and
    better bounds of neurons may make those of the region's rows worse by chance. What was known of a larger box is not
    checked, either, and serves estimates alone.
    """

    def __init__(
        self,
        network: DenseNetwork,
        rows: Rows,
        wide: Callable[[], BoxBounder],
        on_layer: Callable[[], None] = lambda: None,
        notes: bool = False,
    ) -> None:
        self.rows, self.notes, self._wide = rows, notes, wide
        self.slack = network.slack(rows)
        self._passes = _Passes(network, rows, on_layer)
        single = {name: getattr(rows, name).float() for name in ("output", "input", "constant")}
        self._cheap = _Passes(network.to(torch.float32), replace(rows, **single), on_layer)

    def batch(self, memory: int) -> int:
        """How many boxes are bounded together in so many bytes, about: rows of all neurons of a layer, a few times."""
        widest = max(len(layer.offset) for layer in self._passes.network.layers)
        return max(1, min(BATCH, memory // (64 * widest * (widest + self.rows.count))))

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        """Proven bounds of the rows on boxes ``[S, N]`` inside the root, with ``known`` bounds ``[S, 2 K]`` of all K
        neurons before activations, first lower ones, that hold there (``[S, 0]``: none); with notes these are left
        aside. What comes back says them anew."""
        passes = self._passes
        with torch.no_grad():
            intermediate = passes.reduced(lower, upper, None if self.notes else known)
            if self.notes:
                found = self._refined(lower, upper, intermediate)
            else:
                found = self._said(passes, lower, upper, passes.steps(intermediate))
                left = (~(worst_bound(found.lower, self.rows.disjuncts) > 0)).nonzero().squeeze(1)
                if len(left):
                    open_ = [(below[left], above[left]) for below, above in intermediate]
                    found = _replaced(found, left, self._refined(lower[left], upper[left], open_))
            return with_wide(found, self.slack.expand(found.lower.shape), lower, upper, self._wide)

    def intermediate(self, lower: Tensor, upper: Tensor) -> list[Bounds]:
        """Proven bounds ``[S, N]`` of the input of every activation."""
        with torch.no_grad():
            return self._passes.refined(lower, upper, self._passes.reduced(lower, upper, None))[0]

    def estimate(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Tensor:
        """Bounds ``[S, R]`` from reduced zonotopes alone, in float32. Their derivatives in the ends are those of the
        zonotopes, where what is known is better, too."""
        cheap = self._cheap
        low, high = lower.float(), upper.float()
        intermediate = cheap.reduced(low, high, None if known is None else known.float())
        return cheap.region(low, high, cheap.steps(intermediate))[0].to(lower)

    def _refined(self, lower: Tensor, upper: Tensor, intermediate: list[Bounds]) -> Bounded:
        """With all passes."""
        better, steps = self._passes.refined(lower, upper, intermediate)
        known = torch.cat([bounds[side] for side in (0, 1) for bounds in better], 1) if better else None
        return replace(self._said(self._passes, lower, upper, steps), known=known)

    def _said(self, passes: _Passes, lower: Tensor, upper: Tensor, steps: Sequence[_Step]) -> Bounded:
        bound, weight = passes.region(lower, upper, steps)
        return Bounded(bound - self.slack, weight, self._noted(steps, len(lower)) if self.notes else None)

    def _noted(self, steps: Sequence[_Step], boxes: int) -> Tensor:
        """``[S, K]`` (uint8)."""
        if not steps:
            return torch.zeros(boxes, 0, dtype=torch.uint8, device=self.slack.device)
        return (torch.cat([step.slopes for step in steps], 1) * UNIT).round().to(torch.uint8)


class _Passes:
    """Zonotopes and dual rows in the dtype of ``network``."""

    def __init__(self, network: DenseNetwork, rows: Rows, on_layer: Callable[[], None]) -> None:
        self.network, self.rows, self.on_layer = network, rows, on_layer

    def reduced(self, lower: Tensor, upper: Tensor, known: Tensor | None) -> list[Bounds]:
        """Of every activation's input."""
        low, high = lower, upper
        center, half = (lower + upper) / 2, (upper - lower) / 2
        found: list[Bounds] = []
        generators = error = half
        for layer, given in zip(self.network.layers[:-1], self._known(known), strict=True):
            self.on_layer()
            if found:
                generators = generators @ layer.weight.T
                error = torch.addmm(layer.grown, error, layer.size.T)
            else:
                generators, error = half.unsqueeze(2) * layer.weight.T, layer.grown
            center = torch.addmm(layer.offset, center, layer.weight.T)
            radius = generators.abs().sum(1) + error
            floor, ceiling = self.network.interval(layer, low, high)
            bounds = torch.fmax(center - radius, floor), torch.fmin(center + radius, ceiling)
            for floor, ceiling in given:
                bounds = _raised(bounds[0], floor), -_raised(-bounds[1], -ceiling)
            found.append(bounds)
            rule = _rule(layer)
            slope, middle, radius = rule.band(*bounds, None)
            low, high = rule.range(*bounds)
            center = torch.addcmul(middle, slope, center)
            generators, error = generators * slope.unsqueeze(1), torch.addcmul(radius, slope, error)
        return found

    def _known(self, known: Tensor | None) -> list[tuple[Bounds, ...]]:
        """By layer, what is known of it."""
        layers = self.network.layers[:-1]
        if known is None or not known.shape[1]:
            return [()] * len(layers)
        parts = torch.split(known, [len(layer.offset) for layer in layers] * 2, 1)
        return [((parts[k], parts[len(layers) + k]),) for k in range(len(layers))]

    def refined(self, lower: Tensor, upper: Tensor, intermediate: list[Bounds]) -> tuple[list[Bounds], list[_Step]]:
        """The same, tightened by dual rows, layer by layer; and what dual rows of later layers go through."""
        found, steps = intermediate[:1], self.steps(intermediate[:1])
        for layer, (low, high) in zip(self.network.layers[1:-1], intermediate[1:], strict=True):
            self.on_layer()
            index = _somewhere(~_rule(layer).settled(low, high))
            if len(index):
                own, offset = layer.weight[index], layer.offset[index]
                bound, _ = self._dual(steps, torch.cat([own, -own]), torch.cat([offset, -offset]), lower, upper)
                bound = bound - layer.neuron[index].repeat(2)
                below, above = bound[:, : len(index)], -bound[:, len(index) :]
                low = low.index_copy(1, index, torch.fmax(low[:, index], below))
                high = high.index_copy(1, index, torch.fmin(high[:, index], above))
            found.append((low, high))
            steps.append(_step(layer, low, high, steps))
        return found, steps

    def steps(self, intermediate: Sequence[Bounds]) -> list[_Step]:
        """What dual rows go through."""
        steps: list[_Step] = []
        for layer, bounds in zip(self.network.layers[:-1], intermediate, strict=False):
            steps.append(_step(layer, *bounds, steps))
        return steps

    def region(self, lower: Tensor, upper: Tensor, steps: Sequence[_Step]) -> Bounds:
        """Of the region's rows: bounds ``[S, R]``, but for rounding, and weights ``[S, R, N_0]``."""
        rows, last = self.rows, self.network.layers[-1]
        constant = rows.constant + rows.output @ last.offset
        return self._dual(
            steps, rows.output @ last.weight, constant, lower, upper, rows.input if rows.has_input else None
        )

    def _dual(
        self,
        steps: Sequence[_Step],
        rows: Tensor,
        constant: Tensor,
        lower: Tensor,
        upper: Tensor,
        direct: Tensor | None = None,
    ) -> Bounds:
        """Rows ``[R, N]`` at the output of the last step: their bounds ``[S, R]``, and weights ``[S, R, N_0]``."""
        v = (rows[:, steps[-1].alive] if steps else rows).expand(len(lower), -1, -1)
        for step in reversed(steps):
            image = step.rule.dual(v, step.lower, step.upper, None, step.slope.unsqueeze(1))
            constant = constant + image.low + image.rows @ step.offset
            v = image.rows @ step.weight
        if direct is not None:
            v = v + direct
        middle, half = ((lower + upper) / 2).unsqueeze(2), ((upper - lower) / 2).unsqueeze(2)
        return constant + (v @ middle - v.abs() @ half).squeeze(2), v


class _Step(NamedTuple):
    """How dual rows go through an activation and the affine map before it, on a batch of boxes: only through neurons
    ``alive`` that are not zero in all of them.

    Attributes:
        lower, upper, slope: ``[S, M]``, bounds, and slopes where v >= 0.
        weight, offset: ``[M, M']`` and ``[M]``.
        slopes: those of all neurons, ``[S, N]``.
    """

    rule: Rule
    alive: Tensor
    lower: Tensor
    upper: Tensor
    slope: Tensor
    weight: Tensor
    offset: Tensor
    slopes: Tensor


def _step(layer: Layer, lower: Tensor, upper: Tensor, before: Sequence[_Step]) -> _Step:
    rule = _rule(layer)
    alive = _somewhere(~rule.zero(lower, upper))
    slopes = rule.initial(lower.detach(), upper.detach(), "adaptive")
    weight = layer.weight[alive]
    if before:
        weight = weight[:, before[-1].alive]
    return _Step(rule, alive, lower[:, alive], upper[:, alive], slopes[:, alive], weight, layer.offset[alive], slopes)


def _somewhere(mask: Tensor) -> Tensor:
    """Where a mask ``[S, N]`` holds in some row, one place at least; all places where the host would have to wait."""
    if mask.device.type != "cpu":
        return torch.arange(mask.shape[1], device=mask.device)
    index = mask.any(0).nonzero().squeeze(1)
    return index if len(index) else index.new_zeros(1)


def _raised(bound: Tensor, known: Tensor) -> Tensor:
    """The larger of two lower bounds, with the derivative of the first."""
    better = torch.fmax(bound.detach(), known)
    return better + (bound - bound.detach()) if bound.requires_grad else better


def _rule(layer: Layer) -> Rule:
    assert layer.rule is not None, "the last layer has no activation"
    return layer.rule


def _replaced(found: Bounded, index: Tensor, better: Bounded) -> Bounded:
    """``found`` with what is ``better`` at an index of boxes, of others without what is known."""
    known = better.known
    return replace(
        found,
        lower=found.lower.index_copy(0, index, better.lower),
        weight=found.weight.index_copy(0, index, better.weight),
        known=None if known is None else known.new_zeros(len(found.lower), known.shape[1]).index_copy(0, index, known),
    )
