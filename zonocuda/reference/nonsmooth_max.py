"""Reference twin of :func:`zonocuda.ops.nonsmooth_max`."""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.ties import TieRule, Weights, tie_weights


def nonsmooth_max(x: Tensor, dim: int, ties: TieRule = "first") -> Tensor:
    """The maximum of each column, with the gradient of the mixture that the rule names."""
    columns = x.movedim(dim, -1)
    nan = columns.isnan()
    first_nan = nan & (nan.cumsum(-1) == 1)
    maximum = columns.amax(-1, keepdim=True)
    winners = torch.where(nan.any(-1, keepdim=True), first_nan, columns == maximum)
    return mix_winners(columns, winners, tie_weights(ties))


def mix_winners(x: Tensor, winners: Tensor, weights: Weights) -> Tensor:
    """The value of the first winner along the last dimension, with the gradient of a mixture of all winners.

    Where there is no winner the value is -inf, and there is no gradient.
    """
    count = winners.sum(-1)
    positions = torch.arange(x.shape[-1], device=x.device).expand(x.shape)
    first = torch.where(winners, positions, x.shape[-1]).amin(-1, keepdim=True).clamp(max=x.shape[-1] - 1)
    last = torch.where(winners, positions, -1).amax(-1, keepdim=True).clamp(min=0)
    at_first, at_last = x.gather(-1, first).squeeze(-1), x.gather(-1, last).squeeze(-1)
    parts = [at_first, at_last, torch.where(winners, x, 0).sum(-1) / count.clamp(min=1)]
    used = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight != 0]
    # Rounding must not move the value; but inf - inf is NaN, and there the mixture has the value itself (weights >= 0).
    value = at_first.detach()
    moved = value + sum(weight * (part - part.detach()) for weight, part in used)
    mixture = torch.where(value.isinf(), sum(weight * part for weight, part in used), moved)
    alone = torch.where(count == 1, at_first, mixture)
    return torch.where(count == 0, -torch.inf, alone)
