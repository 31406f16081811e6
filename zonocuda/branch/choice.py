"""Which coordinate of an open box is split.

While most neurons are unstable, the last linear bound says little about which input widens the *intermediate* bounds.
Two rules see it. ``lookahead`` bounds both halves of every coordinate cheaply and takes the split that leaves least
open; ``gradient`` takes the largest share of the bound's derivative in the radii, through all intermediate bounds, at a
fraction of the cost. They fail on different problems: ``alternate`` takes the first on every fourth level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from zonocuda.branch.subproblems import Subproblems, middles

Choice = Literal["alternate", "lookahead", "gradient", "widest"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
Estimate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Cheap bounds ``[S, R]`` of the rows on boxes with ends ``[S, N]`` of which something is known, differentiable in the
ends."""


def worst_bound(lower: Tensor, disjuncts: Sequence[Sequence[int]]) -> Tensor:
    """``[S]``: over the disjuncts, the least of the best bound of their rows; one that is not finite counts as -inf."""
    known = torch.where(lower.isfinite(), lower, -torch.inf)
    return torch.stack([known[:, list(rows)].amax(1) for rows in disjuncts]).amin(0)


def in_parts(estimate: Estimate, count: int) -> Estimate:
    """The same for any number of boxes, so many at a time."""

    def parts(lower: Tensor, upper: Tensor, known: Tensor) -> Tensor:
        runs = [slice(first, first + count) for first in range(0, len(lower), count)]
        return torch.cat([estimate(lower[run], upper[run], known[run]) for run in runs])

    return parts


def without_refuting(batch: Subproblems, disjuncts: Sequence[Sequence[int]], estimate: Estimate) -> Subproblems:
    """The boxes, without (NaN) what is known of those that an estimate refutes with it.

    Where bounds have to do without, such a box is open all the same, and with what is known no split promises more than
    any other.
    """
    if not batch.known.shape[1]:
        return batch
    with torch.no_grad():
        refuted = worst_bound(estimate(batch.lower, batch.upper, batch.known), disjuncts) > 0
    return replace(batch, known=batch.known.masked_fill(refuted.unsqueeze(1), torch.nan))


def dimension_to_split(
    batch: Subproblems, free: Tensor, disjuncts: Sequence[Sequence[int]], estimate: Estimate, choice: Choice
) -> Tensor:
    """A coordinate ``[S]`` for every box, among those that are ``free`` ``[S, N]``, at least one in each box."""
    score = torch.full_like(batch.lower, -torch.inf)
    for rule, mask in _rules(batch, choice):
        index = mask.nonzero().squeeze(1)
        if len(index):
            score[index] = _score(batch.at(index), free[index], disjuncts, estimate, rule)
    score = torch.where(score.isnan(), -torch.inf, score)
    lowest = torch.finfo(score.dtype).min
    return score.clamp(min=lowest).masked_fill(~free, -torch.inf).argmax(1)


def _rules(batch: Subproblems, choice: Choice) -> list[tuple[Choice, Tensor]]:
    """Which rule is for which boxes."""
    if choice != "alternate":
        return [(choice, torch.ones_like(batch.depth, dtype=torch.bool))]
    fourth = batch.depth % 4 == 3
    return [("gradient", ~fourth), ("lookahead", fourth)]


def _score(
    batch: Subproblems, free: Tensor, disjuncts: Sequence[Sequence[int]], estimate: Estimate, rule: Choice
) -> Tensor:
    """``[S, N]``: what a split of each coordinate promises."""
    if rule == "widest":
        return batch.upper - batch.lower
    middle = middles(batch.lower, batch.upper)
    if rule == "gradient":
        with torch.enable_grad():
            radius = torch.where(free, (batch.upper - batch.lower) / 2, 0.0).requires_grad_()
            worst = worst_bound(estimate(middle - radius, middle + radius, batch.known), disjuncts)
            if not worst.requires_grad:  # the rows do not depend on the input
                return radius.detach()
            (slope,) = torch.autograd.grad(worst.sum(), radius)
        return -slope * radius.detach()
    dimensions = free.any(0).nonzero().squeeze(1)
    columns = dimensions.repeat_interleave(len(batch))
    halves = batch.at(torch.arange(len(batch), device=free.device).repeat(len(dimensions))).split(columns)
    with torch.no_grad():
        worst = worst_bound(estimate(halves.lower, halves.upper, halves.known), disjuncts).clamp(max=0)
    left_open = worst.reshape(2, len(dimensions), len(batch)).sum(0).T
    return torch.full_like(batch.lower, -torch.inf).index_copy(1, dimensions, left_open)
