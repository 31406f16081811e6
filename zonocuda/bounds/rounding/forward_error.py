"""What rounding costs the forward sweep: two numbers for each neuron, carried beside the zonotope.

The *error* e and the *size* s of a node's zonotope (c, G), in the numbers that the sweep actually holds: for every x in
the box there are symbols in [-1, 1], the same at every node, such that the network's value is within e of
c + sum_k eps_k G_k; and |c| + sum_k |G_k| <= s. With r the radius sum_k |G_k|:

* y = A x + b of fan-in n: the computed center is within gamma_{n+1} (|A||c| + |b|) + n eta of A c + b, each generator
  within gamma_n |A||G_k| + n eta of A G_k, so that

      e' = |A| e + gamma_{n+1} (|A| s + |b|) + (K + 1) n eta,   s' = |A| s + |b| + e'.

  Constants with r roundings make n larger by r.
* an activation f on proven l <= x <= u: f(x) lies in lam x + t + [-mu, mu] (:class:`zonocuda.relaxations.Band`). The
  center costs u |lam c| + u |c'|, the generators u |lam| r. With q >= |t| + mu

      e' = |lam| e + u (2 |lam| s + 4 q) + (K + 4) eta,   s' = |lam| s + q + e'.

  Of 4 u q, q alone is needed where the band is proven; a ReLU's t = mu = q / 2 was computed with three roundings, 6 u
  mu (its center and its radius may both be too small). Where f is the identity e and s stay, where it is 0 there are
  none. A function of n numbers sums n products for |lam c|, |lam| e, |lam| s: the center costs gamma_{n+1}, the
  generators gamma_n.
* a sum of two: e' = e_1 + e_2 + u (s_1 + s_2).
* bounds: the computed radius is at least r (1 - gamma_K), over K symbols in any order, on one rank or on many, and l =
  c - r - e rounds once more for each subtraction. (``nextafter`` of c - r alone is short by 7 to 46 units in the last
  place at 1e4 to 1e5 symbols.)

Nonzero s are at least T >= 2 sqrt(eta), so that the underflow of K n products, K n eta, is less than one rounding of s
while K n eta <= u T: it is counted as one, and beyond that nothing is claimed.

The values are the real network's, in which a cast to a narrower type rounds (:class:`zonocuda.graph.Cast`), or those
that a machine computes for it: then every e' grows by the delta of :mod:`zonocuda.bounds.rounding.executed`. Either is
a delta for magnitudes m = s + e of the node's inputs. The bounds, and with them the next magnitudes, are then those of
the rounded values, by induction over the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds, interval, rises
from zonocuda.bounds.rounding.arithmetic import EXTRA, Rounding
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.domains.shares import radius_terms
from zonocuda.graph import Add, Affine, Concat, Node, Rearrangement
from zonocuda.relaxations import Band, rule_of


@dataclass(frozen=True, eq=False)
class Error:
    """e and s of a zonotope, ``[B, *features]`` each."""

    error: Tensor
    size: Tensor


@dataclass(frozen=True, eq=False)
class ForwardErrors:
    """The errors of a sweep in one arithmetic."""

    rounding: Rounding

    def of_box(self, zonotope: Zonotope) -> Error:
        """A zonotope of inputs: no error. For any zonotope, as its numbers are what is asked about."""
        size = zonotope.center.abs() + zonotope.radius()
        return Error(torch.zeros_like(size), self.rounding.above(size, zonotope.symbols + EXTRA))

    def anew(self, error: Error, zonotope: Zonotope, mask: Tensor) -> Error:
        """Of a zonotope that is a box around proven bounds where ``mask`` says so."""
        box = self.of_box(zonotope)
        return Error(error.error.masked_fill(mask, 0), torch.where(mask, box.size, error.size))

    def image(self, node: Node, errors: Sequence[Error], symbols: int) -> Error:
        """A node that is affine in its inputs, computed with ``symbols`` symbols."""
        op, first = node.op, errors[0]
        if isinstance(op, Affine):
            return self._affine(node, op, first, symbols)
        if isinstance(op, Add):
            size = first.size + errors[1].size
            error = first.error + errors[1].error + self._gamma(1, symbols) * size
            executed = self._executed(node, *(e.size + e.error for e in errors))
            return self._grown(error if executed is None else error + executed, size, 7)
        if isinstance(op, Concat):
            return Error(op.apply(*(e.error for e in errors)), op.apply(*(e.size for e in errors)))
        raise NotImplementedError(f"sweep: node {node.name!r} (op {op.kind}) has no error bound")

    def activation(
        self, node: Node, error: Error, bounds: Bounds, slope: Tensor | None, symbols: int, band: Band | None = None
    ) -> Error:
        """An activation on proven bounds, with a slope (None for the minimum-area one), and its band, if known."""
        rule = rule_of(node)
        lam, offset, charged, zero = rule.growth(*bounds, slope, self.rounding, band)
        before, size = (rule.fold(lam * t) for t in (error.error, error.size))
        rounded = self._gamma(rule.terms + 1, rule.terms * symbols) * self.rounding.lift(size + 2 * offset)
        grown = self._grown(before + rounded, size + offset, 5 + rule.terms)
        if rule.terms > 1:
            return grown
        return Error(
            torch.where(charged, grown.error, error.error).masked_fill(zero, 0),
            torch.where(charged, grown.size, error.size).masked_fill(zero, 0),
        )

    def merged_offset(self, error: Error, radius: Tensor) -> Error:
        """After an activation whose new symbols, of coefficients ``radius`` ``[B, *features]``, are part of the error
        instead."""
        lifted = self.rounding.lift(radius)
        return self._grown(error.error + lifted, error.size, 3)

    def merged(self, error: Error, symbols: int) -> Error:
        """The same zonotope after some of ``symbols`` symbols were merged: sums of their magnitudes rounded."""
        return self._grown(error.error + self._gamma(symbols + EXTRA, symbols) * error.size, error.size, 3)

    def bounds(self, zonotope: Zonotope, error: Error) -> tuple[Bounds, Error]:
        """Proven bounds of a node's value, and its error with the size that the zonotope turned out to have.

        Where the zonotope is a point without error, they are that point.
        """
        radius = self.rounding.above(zonotope.radius(), radius_terms(zonotope.blocks) + EXTRA)
        size = torch.minimum(error.size, self.rounding.above(zonotope.center.abs() + radius, EXTRA))
        reach = radius + error.error
        margin = self.rounding.above(reach + (2 * self.rounding.u) * size.masked_fill(reach == 0, 0), EXTRA)
        return (zonotope.center - margin, zonotope.center + margin), Error(error.error, size)

    def rows(self, rows: Rows, x: Zonotope, y: Zonotope, errors: tuple[Error, Error]) -> Tensor:
        """Proven lower bounds ``[B, R]`` of a specification's rows, for zonotopes of the input and of the output.

        Args:
            rows: the specification.
            x, y: the zonotopes.
            errors: theirs.
        """
        lower = rows.image(x, y).bounds()[0]
        terms = rows.output.shape[1] + rows.input.shape[1] + x.symbols + y.symbols + 2 * EXTRA
        gamma = self._gamma(terms, (x.symbols + y.symbols) * terms)
        total = gamma * (rows.constant.abs() + lower.abs())
        execution = self.rounding.execution
        flushed = 0.0 if execution is None else execution.eta  # of an output that underflows
        for weights, error in zip((rows.input, rows.output), errors, strict=True):
            cost = error.error + gamma * error.size + flushed
            total = total + cost.reshape(len(cost), -1) @ weights.abs().T
            if rows.rounded is not None:
                size = (error.size + error.error).reshape(len(cost), -1) @ weights.abs().T
                total = total + (3 * self.rounding.u) * size * rows.rounded
            total = total + 4 * weights.shape[1] * self.rounding.eta
        return lower - total * (1 + 2 * self.rounding.gamma(terms))

    # ---- intervals, where the sweep carries no generators ------------------------------------------------------------

    def interval(self, node: Node, values: Sequence[Bounds]) -> Bounds:
        """Proven bounds of a node's value from proven bounds of its inputs.

        For affine nodes middle and radius are within 4 u of the magnitude m of enclosing the input, so that the image
        errs by gamma_{n+8} (2 |A| m + |b|). Images of the ends x err by as much for m = |x|; an
        executed network has the one margin for both.
        """
        op = node.op
        lower, upper = interval(node, values)
        if isinstance(op, Affine):
            if self._is_computed_exactly(node, op) and not self.rounding.rounds(node):
                return op.apply(values[0][0]), op.apply(values[0][1])
            m = self.rounding.lift(torch.maximum(values[0][0].abs(), values[0][1].abs()))
            terms = self.rounding.terms(node) + self.rounding.extra(node) + 8
            absolute = self.rounding.absolute(node)
            if rises(op) and self.rounding.execution is None:
                ends = (self.rounding.above(absolute.apply(self.rounding.lift(x.abs())), terms) for x in values[0])
                down, up = (self.rounding.above(self.rounding.gamma(terms) * size, EXTRA + 4) for size in ends)
                return lower - down, upper + up
            size = self.rounding.above(absolute.apply(2 * m), terms)
            cost = self.rounding.gamma(terms) * size
            executed = self._executed(node, size / 2, _offset(absolute, m))
            margin = self.rounding.above(cost if executed is None else cost + executed, EXTRA + 4)
            return lower - margin, upper + margin
        if isinstance(op, Add):
            margin = self.rounding.gamma(2) * torch.maximum(lower.abs(), upper.abs())
            sizes = (self.rounding.lift(torch.maximum(low.abs(), high.abs())) for low, high in values)
            executed = self._executed(node, *sizes)
            margin = margin if executed is None else self.rounding.above(margin + executed, EXTRA)
            return lower - margin, upper + margin
        return lower, upper

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _affine(self, node: Node, op: Affine, before: Error, symbols: int) -> Error:
        absolute = self.rounding.absolute(node)
        exact = self._is_computed_exactly(node, op)
        if exact and not self.rounding.rounds(node):
            return Error(op.linear(before.error), absolute.apply(before.size))
        terms = self.rounding.terms(node) + self.rounding.extra(node)
        both = absolute.linear(torch.cat([before.error, before.size]))
        error, size = both.chunk(2)
        offset = _offset(absolute, before.size)
        executed = self._executed(node, self.rounding.lift(size + error), offset)
        if offset is not None:
            size = size + offset
        error, size = (self.rounding.lift(t) for t in (error, size))
        if not exact:
            error = error + self._gamma(terms, symbols * terms) * size
        return self._grown(error if executed is None else error + executed, size, terms + 2 * EXTRA)

    def _executed(self, node: Node, first: Tensor, second: Tensor | None) -> Tensor | None:
        """delta of the network, at a node where it rounds."""
        return self.rounding.delta(node, first, second) if self.rounding.rounds(node) else None

    def _is_computed_exactly(self, node: Node, op: Affine) -> bool:
        """Whether every output is one input, or a constant that the dtype holds."""
        held = isinstance(op, Rearrangement) and self.rounding.roundings[node.name] == 0
        return self.rounding.terms(node) == 0 and (held or not op.has_offset)

    def _grown(self, error: Tensor, size: Tensor, depth: int) -> Error:
        error = self.rounding.above(error, depth)
        return Error(error, self.rounding.above(size + error, depth + 1))

    def _gamma(self, n: int, products: int) -> float:
        """gamma_{n+1}, whose last rounding stands for the underflow of so many products."""
        covered = (products + 8) * self.rounding.eta <= self.rounding.u * self.rounding.floor
        return self.rounding.gamma(n + 1) if covered else math.inf


def _offset(absolute: Affine, x: Tensor) -> Tensor | None:
    """|b|, ``[1, *output features]``, of |A| x + |b|; None where it is zero."""
    return absolute.offset(tuple(x.shape[1:]), x) if absolute.has_offset else None
