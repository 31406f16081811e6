"""The error of our own arithmetic: round to nearest in one dtype, sums in any order, with or without fused
multiply-add.

With u the unit roundoff and gamma_n = n u / (1 - n u), every computed sum of n products, whatever its order, is

    fl(sum a_i b_i) = sum a_i b_i (1 + theta_i) + eps,   |theta_i| <= gamma_n,   |eps| <= n eta

(Higham, Accuracy and Stability of Numerical Algorithms, 2002, sections 2.1, 3.1 and lemma 3.1). eta bounds what one
product loses to underflow; the smallest normal number stands for it here, far above what gradual underflow needs.
Convolutions obey this only where they sum products: see :func:`zonocuda.precision.summed_products`.

The bounds themselves are computed in the same arithmetic, as expressions without subtraction. Their nonzero operands
are first *lifted* to at least T = 2 sqrt(eta), so that no product of two of them underflows; then an expression is
zero exactly where it is zero by structure, and what is left is a relative error (:meth:`Rounding.above`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from zonocuda.bounds.rounding.executed import Execution
from zonocuda.graph import (
    HOPELESS,
    Add,
    Affine,
    Cast,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Input,
    Node,
    Op,
    Pad,
    ScaleShift,
    absolute,
    fan_in,
)
from zonocuda.precision import summed_products
from zonocuda.relaxations import RULES
from zonocuda.roundoff import gamma, unit_roundoff

EXTRA = 4
"""Roundings of one result beside those of its sum: the bias (1), a mean's 1 / count and its product (2), one spare."""

DOUBT = 16
"""Roundings that stand for constants in doubt: see :class:`Rounding`."""


def convolves(nodes: Iterable[Node]) -> bool:
    """Whether there are convolutions."""
    return any(isinstance(node.op, Conv | ConvTranspose) for node in nodes)


def counted_products(nodes: Iterable[Node]) -> AbstractContextManager[None]:
    """Inside, products of nodes are what they are charged as; whoever charges them enters."""
    return summed_products() if convolves(nodes) else nullcontext()


@dataclass(frozen=True, eq=False)
class Rounding:
    """Arithmetic in one dtype on a network's constants.

    An operator whose constants h are in doubt by E is charged as one with DOUBT roundings more and with h' = |h| + E /
    (DOUBT u) for |h|: gamma_{k + DOUBT} h' is at least gamma_k |h| + E.

    Attributes:
        graph: the network that is computed on, every constant in ``dtype``.
        dtype: float32 or float64.
        roundings: by node, how many roundings of ``dtype`` lie between the network's constants and those of ``graph``.
        execution: where bounds are to hold for the values that a machine computes, how; None for the real network.
    """

    graph: Graph
    dtype: torch.dtype
    roundings: Mapping[str, int]
    execution: Execution | None = None
    _absolute: dict[str, tuple[Op, Affine]] = field(default_factory=dict)

    @staticmethod
    def of(network: Graph, graph: Graph, dtype: torch.dtype, execution: Execution | None = None) -> Rounding:
        """For ``graph``, which is ``network`` with its constants converted to ``dtype``.

        A constant that conversion changed has one rounding more, if it did not leave the dtype's normal range.
        """
        pairs = zip(network.nodes, graph.nodes, strict=True)
        roundings = {old.name: _constant_roundings(old.op, new.op, dtype) for old, new in pairs}
        return Rounding(graph, dtype, roundings, execution)

    def on(self, graph: Graph) -> Rounding:
        """The same for a network whose nodes have constants of the nodes of the same name, perhaps fewer."""
        return replace(self, graph=graph)

    @property
    def u(self) -> float:
        """Unit roundoff."""
        return unit_roundoff(self.dtype)

    @property
    def eta(self) -> float:
        """More than one operation loses to underflow."""
        return torch.finfo(self.dtype).tiny

    def gamma(self, n: int) -> float:
        """At least n u / (1 - n u), see :func:`zonocuda.roundoff.gamma`."""
        return gamma(n, self.u)

    @property
    def floor(self) -> float:
        """T, whose square is 4 eta, for the eta of this arithmetic or of the executed one, whichever is larger."""
        return 2 * math.sqrt(self.eta if self.execution is None else max(self.eta, self.execution.eta))

    def rounds(self, node: Node) -> bool:
        """Whether the network's value at a node can be another than its operator's: at a cast, or as executed."""
        return isinstance(node.op, Cast) or (self.execution is not None and self.execution.rounds(node))

    def delta(self, node: Node, first: Tensor, second: Tensor | None) -> Tensor:
        """At least how much it differs there, but for three roundings of its own computation.

        Args:
            node: a node that rounds.
            first, second: see :meth:`zonocuda.bounds.rounding.executed.Execution.error`; at a cast ``first`` is at
            least |x|.
        """
        if isinstance(node.op, Cast):
            return node.op.error(first)
        assert self.execution is not None
        return self.execution.error(node, first, second)

    def lift(self, x: Tensor) -> Tensor:
        """Nonnegative numbers, those between 0 and T replaced by T; a NaN stays."""
        return x.clamp(min=self.floor).mul_(x > 0)

    def above(self, x: Tensor, n: int) -> Tensor:
        """At least the exact value of a nonnegative expression of lifted operands, computed as ``x`` with at most n
        roundings one on top of the other; lifted.

        Without subtraction and underflow, exact <= x / (1 - u)^n <= x (1 + 2 gamma_n) while n u < 1/8. The roundings of
        this very formula are three more.
        """
        return self.lift(x) * (1 + 2 * self.gamma(n + EXTRA))

    def extra(self, node: Node) -> int:
        """Roundings of an affine node beside those of its sum."""
        return EXTRA + self.roundings[node.name]

    def absolute(self, node: Node) -> Affine:
        """|A| x + |b| of an affine node, lifted; more where its constants are in doubt."""
        assert isinstance(node.op, Affine)
        if self._absolute.get(node.name, (None,))[0] is not node.op:
            whole = absolute(node.op)
            held = {f.name: getattr(whole, f.name) for f in fields(whole)}
            for name, error in whole.doubt.items():
                share = self.lift(self.lift(error) / (DOUBT * self.u)).to(self.dtype)
                held[name] = self.above(held[name] + share, 4)
            lifted: dict[str, Any] = {name: self.lift(t) for name, t in held.items() if isinstance(t, Tensor)}
            if self.execution is not None and isinstance(whole, ScaleShift) and whole.scale is not None:
                lifted["scale"] = lifted["scale"].clamp(min=self.execution.least_scale) * (lifted["scale"] > 0)
            if isinstance(whole, Pad) and whole.value > 0:
                lifted["value"] = max(whole.value, self.floor)
            self._absolute[node.name] = (node.op, replace(whole, **lifted))
        return self._absolute[node.name][1]

    def terms(self, node: Node) -> int:
        """Terms of the longest sum of an affine node's value."""
        assert isinstance(node.op, Affine)
        return fan_in(node.op, self.graph[node.inputs[0]].shape)


def _has_tensors(op: Op) -> bool:
    return any(isinstance(getattr(op, one.name), Tensor) for one in fields(op))


def _constant_roundings(exact: Op, held: Op, dtype: torch.dtype) -> int:
    """Roundings of ``dtype`` between the network's constants and those of ``held``.

    The k of float64 that an importer counted are gamma_k of float64 together: no more than fewer of a wider unit.
    """
    if isinstance(held, Input | Add | Concat) or (type(held) in RULES and not _has_tensors(held)):
        return 0  # no constants
    if not isinstance(held, Affine):
        raise NotImplementedError(f"rounding: nothing is known about the constants of op {held.kind}")
    derived = math.ceil(held.roundings * 2.0**-53 / unit_roundoff(dtype)) + (DOUBT if held.doubt else 0)
    count = derived
    if isinstance(held, Pad) and torch.tensor(held.value, dtype=dtype, device="cpu").item() != held.value:
        if not torch.finfo(dtype).tiny <= abs(held.value) <= torch.finfo(dtype).max:
            return HOPELESS
        count += 1
    for one in fields(exact):
        old, new = getattr(exact, one.name), getattr(held, one.name)
        if not isinstance(new, Tensor) or not new.is_floating_point():
            continue
        if torch.promote_types(old.dtype, new.dtype) == new.dtype and old.is_floating_point():
            continue  # a wider dtype holds everything
        info = torch.finfo(new.dtype)
        wide = old.detach().to(new.device, torch.float64)
        changed = new.detach().double() != wide
        outside = changed & ~((wide.abs() >= info.tiny) & (wide.abs() <= info.max))
        lost, moved = torch.stack([outside.any(), changed.any()]).tolist()  # a device is waited for once
        if lost:
            return HOPELESS
        count = max(count, derived + int(moved))
    return count
