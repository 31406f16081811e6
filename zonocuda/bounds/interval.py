"""Interval bounds of a node from interval bounds of its inputs: what the sweep carries where it has no generators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from zonocuda.graph import Add, Affine, Concat, Node, Op, Reduce, ScaleShift, absolute
from zonocuda.relaxations import Bounds as Bounds
from zonocuda.relaxations import has_rule, rule_of
from zonocuda.roundoff import outward as outward


def interval(node: Node, values: Sequence[Bounds]) -> Bounds:
    """Bounds of a node's value from those of its inputs.

    Affine nodes: A c + b - |A| r <= A x + b <= A c + b + |A| r where c - r <= x <= c + r; where A >= 0
    (:func:`rises`) the images of the ends, so that a sum of what is not negative, of any size, is not either. Rounding
    is not part of them, neither their own nor that of a cast.

    Raises:
        NotImplementedError: a node that is neither affine nor an activation.
    """
    op = node.op
    if has_rule(node):
        return rule_of(node).range(*values[0])
    if isinstance(op, Affine):
        lower, upper = values[0]
        if rises(op):
            return op.apply(lower), op.apply(upper)
        radius = (upper - lower) / 2
        center = op.apply(lower + radius)
        width = absolute(op).linear(radius)
        return center - width, center + width
    if isinstance(op, Add):
        (a, b), (c, d) = values
        return (a + c, b + d) if op.sign == 1 else (a - d, b - c)
    if isinstance(op, Concat):
        lowers, uppers = zip(*values, strict=True)
        return op.apply(*lowers), op.apply(*uppers)
    raise NotImplementedError(f"interval: node {node.name!r} (op {op.kind}) has no interval transformer")


def rises(op: Op) -> bool:
    """Whether no number of A is negative, by the kind of the operator."""
    return isinstance(op, Reduce) or (isinstance(op, ScaleShift) and op.scale is None)


def middle_and_radius(bounds: Bounds) -> Bounds:
    """(l + u) / 2 and (u - l) / 2, by halves: neither overflows for bounds that are finite."""
    lower, upper = (end / 2 for end in bounds)
    return lower + upper, upper - lower


def unsettled(node: Node, lower: Tensor, upper: Tensor) -> Tensor:
    """Places ``[N]`` of an activation, for bounds ``[B, *features]`` of its input, where in some batch element it is
    more than one line; a NaN is."""
    return (~rule_of(node).settled(lower, upper)).reshape(len(lower), -1).any(0)


def positions(masks: Sequence[Tensor]) -> list[Tensor]:
    """Where each of some masks ``[N]`` is true; a device is waited for twice, however many they are."""
    if not masks:
        return []
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    starts = accumulate((len(mask) for mask in masks), initial=0)
    every = torch.cat(list(masks)).nonzero().squeeze(1)
    return [part - start for part, start in zip(torch.split(every, counts), starts, strict=False)]


def all_finite(bounds: Iterable[Tensor]) -> bool:
    """Whether no number of them is NaN or infinite; a device is waited for once."""
    finite = [bound.isfinite().all() for bound in bounds]
    return not finite or bool(torch.stack(finite).all())
