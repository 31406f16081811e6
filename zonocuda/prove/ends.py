"""Bounds of outputs that are attained: what a ReLU, a limit or a sigmoid leaves of a value, whatever it is.

Bounds with rounding never reach a number that a network attains, such as the 0 of a ReLU: a strict row there needs what
is found here. An end is a number that was found without rounding, or one of 0 and infinity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from zonocuda.graph.whole import Absolute, Extreme, Extremes
from zonocuda.relaxations import Bounds, has_rule, rule_of

FEW = 2**20
"""Roundings of a constant that leave its sign alone: |c - h| <= gamma |h| with gamma < 1."""

Ends = Mapping[int, tuple[float, float]]
"""Lower and upper bounds of flattened outputs, for those where one of them is finite."""


class _UndefinedError(Exception):
    """A function may be asked for what it does not have, and what follows is no number."""


def known_ends(
    graph: Graph, box: tuple[Sequence[float], Sequence[float]] | None = None, executed: torch.dtype | None = None
) -> Ends:
    """Bounds of outputs, over the reals, or as ``executed`` in a dtype, sums in any order.

    ReLUs have theirs, and what is moved keeps them. In a ``box`` of inputs, where numbers that are attained matter, so
    do other activations, and ends go on through sums and products with constants: exactly, and through what would
    round by their signs alone. Rounding is monotone, so that what is executed stays within ends that the dtype holds;
    but of a chain of layers and constants, which may be executed folded into one, the signs alone are used.

    Overflow is another matter: that outputs are numbers at all is for others to see.

    Raises:
        NotImplementedError: a node that is neither affine nor an activation.
    """
    run = _Ends(graph, box, executed)
    try:
        with torch.no_grad():
            lower, upper = (end.flatten().tolist() for end in run.of_output())
    except _UndefinedError:
        return {}
    pairs = enumerate(zip(lower, upper, strict=True))
    return {i: ends for i, ends in pairs if math.isfinite(ends[0]) or math.isfinite(ends[1])}


@dataclass(frozen=True, eq=False)
class _Ends:
    """One pass: ends ``[1, *features]`` of every node's value, in float64."""

    graph: Graph
    box: tuple[Sequence[float], Sequence[float]] | None
    executed: torch.dtype | None

    @property
    def attained(self) -> bool:
        """Whether more than ReLUs matters."""
        return self.box is not None

    def of_output(self) -> Bounds:
        kept = {name for node in self.graph.nodes if node.part is not None for name in node.part.inputs}
        values: dict[str, Bounds] = {}
        chained: set[str] = set()

        def keep(node: Node, ends: Bounds) -> None:
            if node.name in kept:
                values[node.name] = ends

        def visit(node: Node, before: Sequence[Bounds]) -> Bounds:
            moves = isinstance(node.op, Rearrangement | Gather | Expand | Concat)
            executed = self.executed is not None and node.part is None and not has_rule(node)
            folded = executed and any(name in chained for name in node.inputs)
            if folded or (executed and not moves and bool(node.inputs)):
                chained.add(node.name)
            if folded and not moves:
                before = [_signs(ends) for ends in before]
            found = self._of(node, before)
            whole = None if node.part is None else _selected(node.part.whole, [values[n] for n in node.part.inputs])
            if whole is not None:
                found = torch.maximum(found[0], whole[0]), torch.minimum(found[1], whole[1])
            if folded and not moves:
                found = _signs(found)
            return self._held(found, executed)

        ends = _nothing(self.graph.nodes[0])
        if self.box is not None:
            lower, upper = (torch.tensor(end, dtype=torch.float64, device="cpu") for end in self.box)
            ends = lower.reshape(ends[0].shape), upper.reshape(ends[1].shape)
        return interpret(self.graph, self._held(ends, False), visit, keep)

    def _held(self, ends: Bounds, rounds: bool) -> Bounds:
        """What remains of ends where a machine rounds to its dtype, and may flush subnormal numbers to zero."""
        if self.executed is None:
            return ends
        tiny = torch.finfo(self.executed).tiny
        lower, upper = ends
        if rounds:
            held = [end.to(self.executed).double() == end for end in ends]
            signs = _signs(ends)
            lower, upper = torch.where(held[0], lower, signs[0]), torch.where(held[1], upper, signs[1])
        lower = lower.masked_fill((lower > 0) & (lower < tiny), 0)
        return lower, upper.masked_fill((upper < 0) & (upper > -tiny), 0)

    def _of(self, node: Node, before: Sequence[Bounds]) -> Bounds:
        """Ends of a node's value from those of its inputs."""
        op = node.op
        if has_rule(node):
            return self._activation(node, before[0])
        if isinstance(op, Rearrangement | Gather | Expand):
            if not op.roundings and not op.doubt:
                lower, upper = (op.apply(end) for end in before[0])
                return lower, upper
        elif isinstance(op, Concat):
            lowers, uppers = zip(*before, strict=True)
            return op.apply(*lowers), op.apply(*uppers)
        elif isinstance(op, Add):
            first, (c, d) = before
            return _sum(first, (c, d) if op.sign == 1 else (-d, -c))
        elif self.attained and isinstance(op, AveragePool | Reduce):
            return _not_both(*(op.linear((end < 0).double()) == 0 for end in (before[0][0], -before[0][1])))
        elif self.attained and isinstance(op, Linear | Conv | ConvTranspose | ScaleShift) and self._is_known(node):
            return self._weighted(node, op, before[0])
        elif not isinstance(op, Affine):
            raise NotImplementedError(f"ends: node {node.name!r} (op {op.kind}) is not known")
        return _nothing(node)

    def _is_known(self, node: Node) -> bool:
        """Whether an execution has the constants that are held."""
        return self.executed is None or node.name not in self.graph.executed

    def _activation(self, node: Node, before: Bounds) -> Bounds:
        rule = rule_of(node)
        if rule.is_exact or (self.attained and self.executed is None):
            lower, upper = rule.range(*before)
            if rule.is_partial and not bool((lower.isfinite() & ~upper.isnan()).all()):
                raise _UndefinedError
            lower, upper = lower.masked_fill(lower.isnan(), -math.inf), upper.masked_fill(upper.isnan(), math.inf)
        else:
            lower, upper = _nothing(node)
        return lower.clamp(min=0) if rule.is_nonnegative else lower, upper

    def _weighted(self, node: Node, op: Affine, before: Bounds) -> Bounds:
        """A x + b."""
        held = {entry.name: getattr(op, entry.name) for entry in fields(op)}
        constants = {name: value.detach().cpu() for name, value in held.items() if isinstance(value, Tensor)}
        if op.roundings > FEW or op.doubt or not all(bool(value.isfinite().all()) for value in constants.values()):
            return _nothing(node)
        weights = {name: value for name, value in constants.items() if name in ("weight", "scale")}
        offsets = {name: value.double() for name, value in constants.items() if name not in weights}
        lower, upper = before
        known = torch.tensor(not op.roundings)  # whether constants are numbers of the network, and not close to them
        if isinstance(op, ScaleShift):
            scale = weights["scale"].double() if "scale" in weights else torch.ones((), dtype=torch.float64)
            if self.executed is not None:  # (x - a) c + d may be executed as it stands, where x c + (d - a c) is held
                known = known & (scale.abs() == 1)
            linear = _scaled(scale, lower, upper, known)
        else:
            zero = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in offsets.items()}

            def reads(where: Mapping[str, Tensor], x: Tensor) -> Tensor:
                """Whether a sum reads a place of ``x`` with one of the weights that are ``where``."""
                return _with(op, {n: w.float() for n, w in where.items()} | zero).linear(x.float()) > 0

            plus, minus = ({n: s * w > 0 for n, w in weights.items()} for s in (1, -1))
            linear = _not_both(
                ~(reads(plus, lower < 0) | reads(minus, upper > 0)), ~(reads(plus, upper > 0) | reads(minus, lower < 0))
            )
        if not offsets:
            return linear
        none = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
        shift = _with(op, none | offsets).apply(torch.zeros_like(lower))
        signs = _signs((shift, shift))
        return _sum(linear, (torch.where(known, shift, signs[0]), torch.where(known, shift, signs[1])))


def _nothing(node: Node) -> Bounds:
    infinite = torch.full((1, *node.shape), math.inf, dtype=torch.float64, device="cpu")
    return -infinite, infinite


def _not_both(nonnegative: Tensor, nonpositive: Tensor) -> Bounds:
    """0 and infinity, by what is known of signs."""
    infinite = torch.full(nonnegative.shape, math.inf, dtype=torch.float64, device="cpu")
    return (-infinite).masked_fill(nonnegative, 0), infinite.masked_fill(nonpositive, 0)


def _signs(ends: Bounds) -> Bounds:
    """What the signs of ends leave of them."""
    return _not_both(ends[0] >= 0, ends[1] <= 0)


def _sum(first: Bounds, second: Bounds) -> Bounds:
    """Ends of a sum: exact ones, or those of its sign."""
    signs = _not_both((first[0] >= 0) & (second[0] >= 0), (first[1] <= 0) & (second[1] <= 0))
    found = []
    for a, b, sign in zip(first, second, signs, strict=True):
        total = a + b
        back = total - a  # what is lost in a sum of two is a float (Knuth 1969)
        lost = (a - (total - back)) + (b - back)
        found.append(torch.where(total.isfinite() & (lost == 0), total, sign))
    return found[0], found[1]


def _scaled(scale: Tensor, lower: Tensor, upper: Tensor, known: Tensor) -> Bounds:
    """Ends of a product with constants: exact ones, or those of its sign, as where constants are not ``known``."""
    rises, falls = scale > 0, scale < 0
    low, high = torch.where(falls, upper, lower), torch.where(falls, lower, upper)
    signs = _not_both(
        ~(rises & (low < 0)) & ~(falls & (low > 0)),
        ~(rises & (high > 0)) & ~(falls & (high < 0)),
    )
    found = []
    for end, sign in zip((low, high), signs, strict=True):
        product = scale * end
        # Of two numbers of 24 digits the product has 48, if it is not too small.
        is_held = (scale.float() == scale) & (end.float() == end) & (product.abs() > 1e-290)
        is_held = (is_held | (scale.abs() == 1)) & product.isfinite() & known
        found.append(torch.where(is_held, product, sign))
    return found[0], found[1]


def _selected(whole: object, before: Sequence[Bounds]) -> Bounds | None:
    """Ends of maxima, minima and magnitudes, which round nothing; None for other operators."""
    if isinstance(whole, Extreme | Extremes):
        lowers, uppers = zip(*before, strict=True)
        return whole.apply(*lowers), whole.apply(*uppers)
    if isinstance(whole, Absolute):
        ((lower, upper),) = before
        return torch.maximum(lower, -upper).clamp(min=0), torch.maximum(-lower, upper)
    return None


def _with(op: Affine, constants: Mapping[str, Any]) -> Affine:
    """The operator with other constants, exact ones."""
    changed: dict[str, Any] = {**constants, "roundings": 0}
    return replace(op, **changed)
