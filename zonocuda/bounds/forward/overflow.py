"""Zonotopes whose numbers overflowed: what intervals know of a value takes their place.

e^x of an x that may be large is infinite in every dtype, and so are the numbers of a zonotope behind it, or NaN. What
reads it may have bounds all the same (:class:`zonocuda.bounds.forward.extremes.Extremes`): the share of a softmax lies
between 0 and 1. From there a zonotope begins anew, of a box.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Dense, Diagonal, Zonotope


def lost(bounds: Bounds) -> Tensor:
    """Where a zonotope with these bounds tells nothing."""
    return ~(bounds[0].isfinite() & bounds[1].isfinite())


def told(bounds: Bounds) -> Bounds:
    """Bounds of a zonotope, NaN where it tells nothing: an infinite center is no lower bound."""
    mask = lost(bounds)
    return bounds[0].masked_fill(mask, math.nan), bounds[1].masked_fill(mask, math.nan)


def anew(value: Zonotope, mask: Tensor, bounds: Bounds, unread: Tensor | None = None) -> Zonotope:
    """The zonotope, but the box of its bounds on fresh symbols where ``mask`` says so; a box everywhere where
    generators are windows of a map, or in host memory.

    Args:
        value: the zonotope.
        mask: ``[B, *features]``.
        bounds: of all its values.
        unread: where all that reads the value multiplies it by 0, so that it may be any number there; not where its
            bounds are NaN.
    """
    lower, upper = bounds
    if not all(isinstance(block, Dense | Diagonal) for block in value.blocks):
        mask = torch.ones_like(mask)
    used = mask if unread is None else mask & ~(unread & ~(lower.isnan() | upper.isnan()))
    box = Zonotope.around(torch.where(used, lower, 0.0), torch.where(used, upper, 0.0))
    blocks = [block.without(mask) for block in value.blocks if isinstance(block, Dense | Diagonal)]
    return Zonotope(torch.where(mask, box.center, value.center), (*blocks, *box.blocks))
