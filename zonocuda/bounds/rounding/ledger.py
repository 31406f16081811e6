"""What rounding costs a dual pass.

Invariant, for the rows v and the constant s that a pass holds, in the numbers that it actually holds: the specification
is at least s + sum v . x - E for every x in the box and the values x of the nodes that it gives, in real arithmetic or
as a machine executes it. Every step is an inequality of its own, so errors of v do not compound; each adds to E, where
m bounds |x| at a node:

* y = A x + b, of fan-out n and N outputs, at a row v of y:
  the computed A^T v is within gamma_n |A|^T |v| + n eta of the exact one, elementwise, and the computed v . b within
  gamma_N |v| . |b| + N eta, so E grows by |v| . (gamma_n |A| m + gamma_N |b|) + eta (n sum m + N). (|v| |A|) . m is
  |v| . (|A| m): one vector for all rows. Constants with r roundings make n and N larger by r.
* y = f(x), an activation with l <= x <= u, and lines of the slope lam that the pass holds
  (:class:`zonocuda.relaxations.Lines`): v f(x) >= v lam x + v d in real arithmetic, d being the offset below where
  v >= 0 and that above where v < 0. The image v' = fl(v lam) is charged as its rule says
  (:meth:`zonocuda.relaxations.Rule.image_charge`): gamma_2 |v'| . m + 2 eta sum m, with m >= |x| over the N_c neurons
  that are charged at all. The sum of their v d grows E by gamma_{N_c + 3} of sum |v d|, or of its own magnitude where
  its terms have one sign, + N_c eta: one rounding of each product, those of the sum, and three of an offset 2 mu =
  max(-l lam, u (1 - lam)) of ReLU, computed with no underflow while -l and u are at least 4 eta (it is at least
  min(-l, u) / 2). A stable ReLU has lam = 0 or 1, and neither rounds.
* a row v that ends at a value l <= y <= u (:mod:`zonocuda.bounds.dual.stops`): v y >= v u where v < 0, v l elsewhere.
  The sum of these N products grows E by gamma_{N + 4} of the sum of their magnitudes + N eta.
* a sum of rows that meet at a node: fl(a + b) is within u |fl(a + b)| of a + b; E grows by u |v| . m.
* every new value s of the constant: E grows by u |s|.
* a specification whose numbers the dtype does not hold: E begins with 3 u (|v| . m + |s|).
* the box, whose ends are exact: E grows by gamma_N |v| . m + N eta and u |result|, for N inputs.

* casts (:class:`zonocuda.graph.Cast`): y = x + d with |d| <= delta; E grows by |v| . delta there.
* executed values: y = A x + b + d at an affine node, y = x + z + d at a sum, with |d| <= delta
  (:mod:`zonocuda.bounds.rounding.executed`): E grows by |v| . delta there, and by eta sum |v| for a specification's
  rows at the output. Activations that are exact and operators that move values cost nothing.

m comes from the box, from proven bounds of the activations' inputs, and through affine nodes from |A| m + |b| (+
delta): a node's m depends on earlier nodes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding, counted_products
from zonocuda.graph import Add, Affine, Cast, Concat, Graph, Input, Node, divisor, fan_out
from zonocuda.relaxations import activations, has_rule, rule_of

HEADROOM = 2.0**-36
"""The share of an executed dtype's range that values may take. A batch normalisation may divide by a deviation of at
least 2^-32, or multiply by a weight that it divides by at most 2^32, first: see
:func:`zonocuda.importers.lowering.batch_norm`."""


class Ledger:
    """The charges of the nodes of one network on one box, for all rows.

    Attributes:
        rounding: the arithmetic, and the network.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        intermediate: proven bounds ``[B, *features]`` of the activations' inputs, by name. What is charged for a node
            is found when it is first asked for; bounds that are tightened later leave it valid.
    """

    def __init__(self, rounding: Rounding, box: Bounds, intermediate: Mapping[str, Bounds]) -> None:
        self.rounding, self.box, self.intermediate = rounding, box, intermediate
        self.graph: Graph = rounding.graph
        self.nodes = self.graph.by_name
        self._activations = activations(self.graph)
        self._activation_of = {node.inputs[0]: node for node in self._activations}
        self._magnitudes: dict[str, Tensor] = {}
        self._charges: dict[tuple[str, bool], tuple[Tensor | None, Tensor]] = {}
        self._images: dict[str, tuple[Tensor, Tensor]] = {}
        self._charged: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}
        self.steps = max(prod(node.shape) for node in self.graph.nodes) + 8 * len(self.graph.nodes) + 64

    # ---- charges: what measures a node's rows (None for nothing), and numbers [B, 1] for all of them -----------------

    def charge(self, node: Node, image: bool) -> tuple[Tensor | None, Tensor]:
        """Of rows of an affine node that go to its input; ``image``: and of their being the
        image of an activation's rows."""
        if (node.name, image) not in self._charges:
            self._charges[node.name, image] = self._joint(node) if image else self._affine(node)
        return self._charges[node.name, image]

    def image(self, name: str) -> tuple[Tensor, Tensor]:
        """Of rows at an activation's input being the image of those that it had, where :meth:`is_image` holds."""
        return self.activation(self._activation_of[name])

    def activation(self, node: Node) -> tuple[Tensor, Tensor]:
        """Of the image v' of rows at an activation's input."""
        if node.name not in self._images:
            weights, reach = rule_of(node).image_charge(*self.intermediate[node.name], self.rounding)
            self._images[node.name] = weights, (2 * self.rounding.eta) * _flat(reach).sum(1, keepdim=True)
        return self._images[node.name]

    def sum(self, node: Node) -> Tensor | None:
        """Of rows of a sum of two that go to its terms; None where it is exact."""
        if not self.rounding.rounds(node):
            return None
        if node.name not in self._sums:
            self._sums[node.name] = self.rounding.delta(node, *(self.magnitude(name) for name in node.inputs))
        return self._sums[node.name]

    def overflow(self) -> Node | None:
        """The first node where an executed value, or what is summed for one, may exceed the executed dtype's range, or
        come as close as HEADROOM, in whatever way the chains of :mod:`zonocuda.bounds.rounding.executed` are executed;
        None if there is none, or nothing is executed.

        Found from magnitudes |A| M + |b| that never cancel, from one activation to the next, whose M is that of its
        range, and with M >= 1, so that products of constants are covered. (Where an earlier node overflows, the bounds
        up to it still hold, and it is found.)
        """
        execution = self.rounding.execution
        found: dict[str, Tensor] = {}
        for node in self.graph.nodes if execution is not None else ():
            before = [found[name] for name in node.inputs]
            summed: Tensor | None = None  # of a mean: it is divided afterwards
            if isinstance(node.op, Affine):
                with counted_products([node]):
                    size = self.rounding.absolute(node).apply(before[0])
                size = self.rounding.above(size, self.rounding.terms(node) + self.rounding.extra(node))
                summed = size * divisor(node.op, self.nodes[node.inputs[0]].shape)
            elif isinstance(node.op, Add):
                size = self.rounding.above(before[0] + before[1], 1)
            else:
                size = node.op.apply(*before) if isinstance(node.op, Concat) else self.magnitude(node.name)
            assert execution is not None
            if not bool(((size if summed is None else summed) <= execution.largest * HEADROOM).all()):
                return node
            found[node.name] = (2 * size).clamp(min=1)  # 2: what it may have gained by rounding
        return None

    def too_narrow(self) -> Node | None:
        """The first cast of values that may exceed what its type holds, from magnitudes that never cancel, or None."""
        for node in self.graph.nodes:
            if isinstance(node.op, Cast) and not bool((self.magnitude(node.inputs[0]) <= node.op.largest).all()):
                return node
        return None

    def is_image(self, name: str) -> bool:
        """Whether rows of an affine node that an activation sends are nothing but their image, unless a pass adds
        others: nobody else reads it, and :meth:`charge` can stand for both, with one measure."""
        return self.graph.uses[name] == 1 and isinstance(self.nodes[name].op, Affine)

    def charged(self, node: Node) -> int:
        """N_c of an activation, the largest of the batch."""
        if node.name not in self._charged:  # those before it are asked for next: one transfer from a device
            nodes = [other for other in self._activations if other.name in self.intermediate]
            before = [n for n in nodes[: nodes.index(node) + 1] if n.name not in self._charged]
            masks = [rule_of(n).charged(*self.intermediate[n.name]) for n in before]
            counts = torch.stack([_flat(mask).sum(1).max() for mask in masks]).tolist()
            self._charged.update(zip((n.name for n in before), counts, strict=True))
        return self._charged[node.name]

    def spare(self, name: str) -> float:
        """Underflow of the products that measure a node's rows."""
        return prod(self.nodes[name].shape) * self.rounding.eta

    def close(self, value: Tensor, slack: Tensor) -> Tensor:
        """What to subtract from ``value`` (or add), for all that was charged.

        The sum of nonnegative terms may have been computed too small by ``steps`` roundings; the subtraction rounds.
        """
        total = slack + (2 * self.rounding.u) * value.detach().abs()
        return total * (1 + 2 * self.rounding.gamma(self.steps)) + 8 * self.rounding.eta

    def magnitude(self, name: str) -> Tensor:
        """m, ``[B, *features]``: at least |x| at a node."""
        pending = [name]
        while pending:  # not by recursion: networks may have any number of nodes in a row
            node = self.nodes[pending[-1]]
            before = [] if self._is_bounded(node) else [name for name in node.inputs if name not in self._magnitudes]
            pending += before
            if not before:
                if node.name not in self._magnitudes:
                    self._magnitudes[node.name] = self._magnitude(node)
                pending.pop()
        return self._magnitudes[name]

    def _is_bounded(self, node: Node) -> bool:
        """Whether bounds at hand say how large a node's value is, whatever is before it."""
        known = self._activation_of.get(node.name)
        return has_rule(node) or (known is not None and known.name in self.intermediate)

    # ---- how it is found ---------------------------------------------------------------------------------------------

    def _magnitude(self, node: Node) -> Tensor:
        op, lift = node.op, self.rounding.lift
        if isinstance(op, Input):
            return lift(torch.maximum(self.box[0].abs(), self.box[1].abs()))
        if has_rule(node):
            return lift(rule_of(node).magnitude(*self.intermediate[node.name]))
        if self._is_bounded(node):
            lower, upper = self.intermediate[self._activation_of[node.name].name]
            return lift(torch.maximum(lower.abs(), upper.abs()))
        before = [self.magnitude(name) for name in node.inputs]
        if isinstance(op, Affine):
            return self._with_execution(node, self._linear_size(node), self._offset_size(node))
        if isinstance(op, Add):
            return self._with_execution(node, *before)
        if isinstance(op, Concat):
            return op.apply(*before)
        raise NotImplementedError(f"ledger: node {node.name!r} (op {op.kind}) has no error bound")

    def _joint(self, node: Node) -> tuple[Tensor | None, Tensor]:
        """The charge of an affine node and of the activation behind it."""
        weights, constant = self.charge(node, False)
        more, rest = self.image(node.name)
        return more if weights is None else weights + more, constant + rest

    def _linear_size(self, node: Node) -> Tensor:
        """At least |A| m."""
        rounding = self.rounding
        m = self.magnitude(node.inputs[0])
        with counted_products([node]):
            size = rounding.absolute(node).linear(m)
        return rounding.above(size, rounding.terms(node) + rounding.extra(node))

    def _offset_size(self, node: Node) -> Tensor | None:
        """At least |b|; None for zero."""
        absolute = self.rounding.absolute(node)
        if not absolute.has_offset:
            return None
        offset = absolute.offset(self.nodes[node.inputs[0]].shape, self.box[0])
        return self.rounding.above(offset, 1).expand(len(self.box[0]), *node.shape)

    def _with_execution(self, node: Node, first: Tensor, second: Tensor | None) -> Tensor:
        """The sum of two magnitudes, and how far the network's own value may exceed it."""
        total = first if second is None else first + second
        if self.rounding.rounds(node):
            total = total + self.rounding.delta(node, first, second)
        return self.rounding.above(total, 6)

    def _affine(self, node: Node) -> tuple[Tensor | None, Tensor]:
        op = node.op
        assert isinstance(op, Affine)
        rounding, source = self.rounding, node.inputs[0]
        terms = fan_out(op, self.nodes[source].shape)
        rounds = rounding.rounds(node)
        weights: Tensor | None = None
        constant = self.box[0].new_full((len(self.box[0]), 1), self.spare(node.name))
        size = self._linear_size(node) if terms or rounds else None
        offset = self._offset_size(node)
        if terms and size is not None:
            m = self.magnitude(source)
            weights = rounding.gamma(terms + rounding.extra(node)) * size
            constant = constant + (2 * terms * rounding.eta) * _flat(m).sum(1, keepdim=True)
        if offset is not None:
            outputs = prod(node.shape)
            charge = rounding.gamma(outputs + rounding.extra(node)) * offset
            weights = charge if weights is None else weights + charge
            constant = constant + 2 * outputs * rounding.eta
        if rounds and size is not None:
            delta = rounding.delta(node, size, offset)
            weights = delta if weights is None else weights + delta
        return weights, constant


def _flat(t: Tensor) -> Tensor:
    """``[B, *features]`` as ``[B, N]``."""
    return t.reshape(len(t), -1)
