"""Outputs that a network's structure makes nonnegative, whatever its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Graph,
    Linear,
    Node,
    Rearrangement,
    Reduce,
    ScaleShift,
    interpret,
)
from zonocuda.relaxations import has_rule, rule_of

FEW = 2**20
"""Roundings of a constant that leave its sign alone: |c - h| <= gamma |h| with gamma < 1."""


def nonnegative_outputs(graph: Graph) -> frozenset[int]:
    """Flattened outputs that are nonnegative, over the reals and as executed.

    Values of nonnegative activations are; so is what is moved, added, averaged or multiplied by constants that are not
    negative, with an offset that is not: sums of nonnegative terms, in any order and however each is rounded.
    """

    def visit(node: Node, before: Sequence[Tensor]) -> Tensor:
        op = node.op
        if has_rule(node) and rule_of(node).is_nonnegative:
            return torch.ones(1, *node.shape)
        if isinstance(op, Rearrangement | Gather | Expand):
            return op.linear(before[0])
        if isinstance(op, Concat):
            return op.apply(*before)
        if isinstance(op, Add) and op.sign == 1:
            return before[0] * before[1]
        if isinstance(op, AveragePool | Reduce):
            return (op.linear(1 - before[0]) == 0).float()
        if isinstance(op, Linear | Conv | ConvTranspose | ScaleShift) and node.name not in graph.executed:
            return _weighted(op, before[0]).expand(1, *node.shape)
        return torch.zeros(1, *node.shape)

    known = interpret(graph, torch.zeros(1, *graph.input_shape), visit)
    return frozenset((known.flatten() == 1).nonzero().flatten().tolist())


def _weighted(op: Affine, known: Tensor) -> Tensor:
    """Where A x + b is nonnegative: no negative weight, no weight of what may be negative, and no negative offset."""
    held = {entry.name: getattr(op, entry.name) for entry in fields(op)}
    constants = {name: value.detach().cpu() for name, value in held.items() if isinstance(value, Tensor)}
    if op.roundings > FEW or op.doubt or not all(bool(value.isfinite().all()) for value in constants.values()):
        return torch.zeros_like(known)
    weights = {name: value for name, value in constants.items() if name in ("weight", "scale")}
    offsets = {name: value for name, value in constants.items() if name not in weights}
    nothing = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in offsets.items()}
    negative = _with(op, {name: (w < 0).float() for name, w in weights.items()} | nothing)
    nonzero = _with(op, {name: (w != 0).float() for name, w in weights.items()} | nothing)
    none = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    shift = _with(op, none | {name: value.double() for name, value in offsets.items()})
    bad = nonzero.linear(1 - known) + (negative.linear(torch.ones_like(known)) if weights else 0)
    offset = shift.apply(torch.zeros_like(known, dtype=torch.float64)) if offsets else torch.zeros(())
    return ((bad == 0) & (offset >= 0)).float()


def _with(op: Affine, constants: Mapping[str, Any]) -> Affine:
    """The operator with other constants, exact ones."""
    changed: dict[str, Any] = {**constants, "roundings": 0}
    return replace(op, **changed)
