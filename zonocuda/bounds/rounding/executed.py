"""What a machine makes of a network: how far the values that it computes may be from the network's own formulas.

The network is executed in one dtype, rounding to nearest: every operator as the graph has it, each sum in any order,
with or without fused multiply-add, in that dtype or with more digits before the end, with gradual underflow or with
subnormal numbers flushed to zero (as results and as operands). A runtime may also fold into a linear layer (Conv,
ConvTranspose, Gemm, MatMul, a pool) the constants that follow it, bias, batch normalisation, products, quotients and
sums with constants, and one branch of a residual sum. It may not rewrite sums of products (Winograd's and FFT
convolutions, TF32), nor fold a constant into the layer *behind* it. Square roots and quotients round correctly.

**Theorem.** With u the unit roundoff and gamma_n = n u / (1 - n u), the executed values x~ of all nodes satisfy

    y~ = A x~ + b + d,   |d| <= delta = gamma_p |A| m + gamma_q |b|      where |x~| <= m, at an affine node,
    y~ = x~ + z~ + d,    |d| <= delta = gamma_p m_x + gamma_q m_z        at a sum of two,

and y~ = f(x~) at an activation that is computed exactly, as max(x~, 0); operators that move values round nothing. A
chain is a linear layer with what may be folded into it, each step read by the next alone; a *monomial* enters it as a
product of a weight and an input, as a constant that is added, or as the other branch of a sum. In whatever way the
chain is executed, each monomial meets at most D roundings, D being the fan-in of the layer plus STEPS for every step of
the chain, so that p and q are

* D for what enters the chain at this step;
* STEPS for what comes from earlier steps of the chain. Where the step is folded it rounds only monomials that entered
  before, and their error is part of d there; where it is not, it rounds its operand and its constants alone.

In a folded chain the values between its steps are not computed at all: y~ is then what the equations say it is, and the
last of them is what the machine stores.

STEPS = 16 are, for a batch normalisation that is folded: conversion of the constants (2), eps (1), its sum with the
variance (1), root (1), quotient (1), product with the weight (1), product with the layer's weight (1) and with the
input (1), difference of the means (1), sum of the shifts (1), one term of the sum (1), underflow (2); 2 to spare.

Underflow. Weights and magnitudes that are not zero count as at least T = 2 sqrt(eta), eta being the smallest normal
number (:meth:`zonocuda.bounds.rounding.arithmetic.Rounding.lift`). One operand flushed to zero changes its product with
m by eta m = (T / 4) T m, a relative T / 4 <= u of what is counted for it; n results flushed change a sum by
n eta = n T^2 / 4 <= u T while n T <= 4 u, that is by less than one rounding of a magnitude that is at least T; and
where a magnitude is 0, all that enters is exactly 0. A product of constants that a folded chain flushes is lost whole:
eta times the other factors of its monomial. Scales count as at least F with T F^k >= eta / u, k being the scales of a
chain, so that this is less than one rounding of what its last scale counts. Operators that move values, and the ReLU,
may flush them, too: whoever reads them has counted that as an operand; at the network's output it changes a value by
less than eta.

Operators that are written with several nodes (:class:`zonocuda.graph.Part`): the nodes compute, of the executed
values that they read, what the operator computes without rounding. No machine executes them, and their values are real
numbers, with d = 0, but for the products that the operator rounds: these count PRODUCT roundings at their node (its
own, and one each for either operand and the result being flushed). A chain ends before such an operator, whose operands
are stored, and none begins at it. Maxima and limits of flushed operands are flushed results. A cast among such nodes is
no rounding of the machine, which holds what it would round: d = 0, where no value exceeds the type.

Functions whose error is assumed: y~ = f(x~) is the exact value, and what a machine computes for it is said by the node
behind (:class:`zonocuda.graph.Assumed`), which charges it as a cast its rounding.

Overflow. The theorem holds while no intermediate result exceeds the dtype, which
:meth:`zonocuda.bounds.rounding.ledger.Ledger.overflow` makes sure of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.graph import (
    Add,
    Affine,
    Assumed,
    Cast,
    Concat,
    Expand,
    Gather,
    Graph,
    Input,
    Node,
    Pad,
    Rearrangement,
    ScaleShift,
    fan_in,
)
from zonocuda.relaxations import has_rule, rule_of
from zonocuda.roundoff import gamma, unit_roundoff

STEPS = 16
"""Roundings that one step of a chain adds, beside the terms of its sum."""

PRODUCT = 4
"""Roundings that stand for one product of stored numbers."""


@dataclass(frozen=True, eq=False)
class Execution:
    """A network as executed in one dtype.

    Attributes:
        dtype: float32 or float64.
        roundings: p and q of the theorem, by node; nodes that do not round are not among them.
        scalings: the largest number of products with constants in a chain, beside its layer's.
    """

    dtype: torch.dtype
    roundings: Mapping[str, tuple[int, int]]
    scalings: int = 0

    @staticmethod
    def of(network: Graph, dtype: torch.dtype) -> Execution:
        """The execution of ``network`` in ``dtype``.

        Raises:
            ValueError: the network computes something that no node accounts for, or a cast.
            NotImplementedError: an operator about whose rounding nothing is known.
        """
        if network.unaccounted:
            raise ValueError(f"as executed, the network cannot be proven: {network.unaccounted[0]}; use 'real'")
        cast = next(
            (
                n.name
                for n in network.nodes
                if isinstance(n.op, Cast) and not isinstance(n.op, Assumed) and n.part is None
            ),
            None,
        )
        if cast is not None:
            raise ValueError(
                f"as executed, the network cannot be proven: node {cast!r} changes the precision; use 'real'"
            )
        assumed = {n.inputs[0] for n in network.nodes if isinstance(n.op, Assumed)}
        inside: dict[str, int] = {}  # D so far, of the chain that goes on from the node; 0 where none does
        so_far: dict[str, int] = {}
        for node in network.nodes:
            before = [inside[name] for name in node.inputs]
            so_far[node.name] = _depth(node, network, before, node.name in assumed)
            inside[node.name] = so_far[node.name] if network.uses[node.name] == 1 and node.part is None else 0
        whole = dict(so_far)  # D, of the whole chain
        for node in reversed(network.nodes):
            if node.part is None and (isinstance(node.op, ScaleShift | Add | Concat) or _moves(node)):
                for name in node.inputs:
                    if inside[name]:
                        whole[name] = max(whole[name], whole[node.name])
        mixed = _mixed(network, inside)
        roundings = {}
        for node in network.nodes:
            before = [inside[name] for name in node.inputs]
            if any(name in mixed for name in node.inputs):
                before = [0 for _ in before]
            counts = _roundings(node, whole[node.name], before, dtype)
            if counts is not None:
                roundings[node.name] = counts
        return Execution(dtype, roundings, _scalings(network, inside))

    @property
    def eta(self) -> float:
        """The smallest normal number."""
        return torch.finfo(self.dtype).tiny

    @property
    def least_scale(self) -> float:
        """F, as which a scale counts at least: T F^k >= eta / u for the k scalings of a chain."""
        u = unit_roundoff(self.dtype)
        return float((math.sqrt(self.eta) / (2 * u)) ** (1 / max(1, self.scalings)))

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return torch.finfo(self.dtype).max

    def rounds(self, node: Node) -> bool:
        """Whether delta of an affine node or a sum is not zero."""
        return node.name in self.roundings

    def error(self, node: Node, first: Tensor, second: Tensor | None) -> Tensor:
        """At least delta, but for three roundings of its own computation.

        Args:
            node: a node that rounds.
            first, second: at least |A| m and |b| (None for 0), or the magnitudes of the two terms of a sum; lifted.
        """
        (p, q), u = self.roundings[node.name], unit_roundoff(self.dtype)
        delta = gamma(p, u) * first
        return delta if second is None else delta + gamma(q, u) * second


def _moves(node: Node) -> bool:
    """Whether every output of a node is one of its inputs or a constant."""
    return isinstance(node.op, Rearrangement | Gather | Expand | Concat)


def _mixed(network: Graph, inside: Mapping[str, int]) -> set[str]:
    """Concatenations of values that are in a chain and of some that are not, and what moves their values."""
    mixed: set[str] = set()
    for node in network.nodes:
        parts = [bool(inside[name]) for name in node.inputs]
        if (
            node.part is None
            and _moves(node)
            and (any(name in mixed for name in node.inputs) or (any(parts) and not all(parts)))
        ):
            mixed.add(node.name)
    return mixed


def _scalings(network: Graph, inside: Mapping[str, int]) -> int:
    """The largest number of scales in one chain."""
    counts: dict[str, int] = {}
    for node in network.nodes:
        before = [counts[name] for name in node.inputs if inside[name]]
        own = node.part is None and isinstance(node.op, ScaleShift) and node.op.scale is not None
        goes_on = node.part is None and (isinstance(node.op, ScaleShift | Add) or _moves(node))
        counts[node.name] = int(own) + (max(before, default=0) if goes_on else 0)
    return max(counts.values())


def _depth(node: Node, network: Graph, before: list[int], is_assumed: bool) -> int:
    """D so far, for a node whose inputs are ``before`` in their chains; ``is_assumed``: what it rounds is said behind
    it."""
    if _moves(node):
        return max(before)
    if isinstance(node.op, ScaleShift | Add):
        return max(before) + STEPS
    if isinstance(node.op, Affine):
        return fan_in(node.op, network[node.inputs[0]].shape) + STEPS
    if isinstance(node.op, Input):
        return 0
    if has_rule(node) and (is_assumed or rule_of(node).is_exact):
        return 0
    raise NotImplementedError(
        f"executed: nothing is known about the rounding of node {node.name!r} (op {node.op.kind})"
    )


def _roundings(node: Node, whole: int, before: list[int], dtype: torch.dtype) -> tuple[int, int] | None:
    """p and q of a node of a chain of depth ``whole``, whose inputs are ``before`` in it; None where it is exact."""
    op = node.op
    if node.part is not None:
        return (PRODUCT * node.part.products, 0) if node.part.products else None
    if isinstance(op, Pad):
        held = torch.tensor(op.value, dtype=dtype, device="cpu").item() == op.value
        return None if held else (0, STEPS + whole)
    if isinstance(op, ScaleShift):
        return (STEPS if before[0] else whole), whole
    if isinstance(op, Add):
        first, second = before
        return (STEPS if first and not second else whole), (STEPS if second and not first else whole)
    if isinstance(op, Affine) and not _moves(node):
        return whole, whole
    return None  # what moves values, the input, an exact activation: _depth has refused all others
