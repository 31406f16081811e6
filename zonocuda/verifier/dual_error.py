"""What rounding costs a dual pass.

Invariant, for the rows v and the constant s that a pass holds, in the numbers that it actually holds: the specification
is at least s + sum v . x - E for every x in the box, in real arithmetic. Every step is an inequality of its own, so
errors of v do not compound; each adds to E, where m bounds |x| at a node:

* y = A x + b, of fan-out n and N outputs, at a row v of y:
  the computed A^T v is within gamma_n |A|^T |v| + n eta of the exact one, elementwise, and the computed v . b within
  gamma_N |v| . |b| + N eta, so E grows by |v| . (gamma_n |A| m + gamma_N |b|) + eta (n sum m + N). (|v| |A|) . m is
  |v| . (|A| m): one vector for all rows. Constants with r roundings make n and N larger by r.
* y = ReLU(x) with l <= x <= u and the slope lam that the pass holds: v relu(x) >= v lam x + min(v, 0) 2 mu in real
  arithmetic. The image v' = fl(v lam) is within u |v lam| + eta of v lam; as (1 - u) |v lam| <= |v'| + eta, within
  gamma_1 (|v'| + eta) + eta. E grows by gamma_2 |v'| . max(-l, u) + 2 eta sum max(-l, u) over crossing neurons; a
  stable one has lam = 0 or 1, and neither rounds. The computed 2 mu is max(-l lam, u (1 - lam)) up to three roundings,
  with no underflow while -l and u are at least 4 eta (it is at least min(-l, u) / 2), so for N_c crossing neurons E
  grows by gamma_{N_c + 3} of the computed |sum min(v, 0) 2 mu| (its terms have one sign) + N_c eta.
* a sum of rows that meet at a node: fl(a + b) is within u |fl(a + b)| of a + b; E grows by u |v| . m.
* every new value s of the constant: E grows by u |s|.
* a specification whose numbers the dtype does not hold: E begins with 3 u (|v| . m + |s|).
* the box, whose ends are exact: E grows by gamma_N |v| . m + N eta and u |result|, for N inputs.

m comes from the box, from proven bounds of the ReLUs' inputs, and through affine nodes from |A| m + |b|: a node's m
depends on earlier nodes alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from zonocuda.graph import Add, Affine, Concat, Graph, Input, Node, Relu, fan_out
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.rounding import EXTRA, Rounding

Measure = Callable[[Tensor], Tensor]
"""For values ``[B, *features]`` of a node, sum_i |v_i| values_i for each of the rows v of that node, ``[B, R]``."""


class Ledger:
    """The charges of the nodes of one network on one box, for all rows.

    Attributes:
        rounding: the arithmetic, and the network.
        box: lower and upper bounds of the input, ``[B, *input features]``.
        inputs: proven bounds ``[B, *features]`` of the input of the ReLUs, by name. What is charged for a node is found
            when it is first asked for; bounds that are tightened later leave it valid.
    """

    def __init__(self, rounding: Rounding, box: Bounds, inputs: Mapping[str, Bounds]) -> None:
        self.rounding, self.box, self.inputs = rounding, box, inputs
        self.graph: Graph = rounding.graph
        self.nodes = {node.name: node for node in self.graph.nodes}
        self._readers = Counter(name for node in self.graph.nodes for name in node.inputs)
        self._readers[self.graph.output] += 1
        self._relu_of = {node.inputs[0]: node for node in self.graph.relus}
        self._magnitudes: dict[str, Tensor] = {}
        self._charges: dict[tuple[str, bool], tuple[Tensor | None, Tensor | float]] = {}
        self._crossing: dict[str, int] = {}
        self.steps = max(prod(node.shape) for node in self.graph.nodes) + 8 * len(self.graph.nodes) + 64

    # ---- what the pass asks for; everything is [B, R], or one number for all rows ------------------------------------

    def at(self, node: Node, measure: Measure, image: bool) -> Tensor | float:
        """For rows v of an affine node that go to its input; ``image``: and for their being the image of a ReLU's."""
        weights, constant = self._charge(node, image)
        return constant if weights is None else measure(weights) + constant

    def at_units(self, node: Node, index: Tensor) -> Tensor:
        """For unit vectors of chosen neurons (flattened positions) of an affine node that go to its input."""
        weights, constant = self._charge(node, False)
        return (constant if weights is None else weights.flatten(1)[:, index] + constant) + self.box[0].new_zeros(())

    def at_relu(self, node: Node, measure: Measure) -> Tensor | float:
        """For the image v' of rows at a ReLU's input."""
        weights, constant = self._relu(node)
        return measure(weights) + constant

    def is_image(self, name: str) -> bool:
        """Whether rows of an affine node that a ReLU has sent are nothing but their image, since nobody else reads it:
        :meth:`at` can then charge for both, with one measure."""
        return self._readers[name] == 1 and isinstance(self.nodes[name].op, Affine)

    def offsets(self, node: Node, size: Tensor) -> Tensor:
        """For sums of min(v, 0) 2 mu (or max) of magnitude ``size`` at a ReLU."""
        if node.name not in self._crossing:
            lower, upper = self.inputs[node.name]
            self._crossing[node.name] = int((~((upper <= 0) | (lower >= 0))).flatten(1).sum(1).max())
        crossing = self._crossing[node.name]
        return self.rounding.gamma(crossing + EXTRA) * size + crossing * self.rounding.eta

    def rounded(self, pending: Mapping[str, Tensor], measure: Callable[[Tensor], Measure], constant: Tensor) -> Tensor:
        """For rows of a specification, by node, and their constants, each number of which was rounded (twice, perhaps,
        on its way to the dtype)."""
        slack = 2 * self.constant(constant)
        for name, v in pending.items():
            slack = slack + 3 * self.rounding.u * measure(v)(self.magnitude(name)) + self._spare(name)
        return slack

    def meeting(self, name: str, measure: Measure) -> Tensor | float:
        """For the computed sum of two rows of a node."""
        return self.rounding.u * measure(self.magnitude(name)) + self._spare(name)

    def end(self, name: str, measure: Measure) -> Tensor | float:
        """For the smallest (or largest) v . x over bounds of a node's value, a sum of N products."""
        terms = prod(self.nodes[name].shape) + EXTRA
        return self.rounding.gamma(terms) * measure(self.magnitude(name)) + self._spare(name)

    def constant(self, value: Tensor) -> Tensor:
        """For a new value of the constant."""
        return self.rounding.u * value.detach().abs()

    def close(self, value: Tensor, slack: Tensor) -> Tensor:
        """What to subtract from ``value`` (or add), for all that was charged.

        The sum of nonnegative terms may have been computed too small by ``steps`` roundings; the subtraction rounds.
        """
        total = slack + (2 * self.rounding.u) * value.detach().abs()
        return total * (1 + 2 * self.rounding.gamma(self.steps)) + 8 * self.rounding.eta

    def magnitude(self, name: str) -> Tensor:
        """m, ``[B, *features]``: at least |x| at a node."""
        if name not in self._magnitudes:
            self._magnitudes[name] = self._magnitude(self.nodes[name])
        return self._magnitudes[name]

    # ---- how it is found ---------------------------------------------------------------------------------------------

    def _magnitude(self, node: Node) -> Tensor:
        op, lift = node.op, self.rounding.lift
        if isinstance(op, Input):
            return lift(torch.maximum(self.box[0].abs(), self.box[1].abs()))
        if isinstance(op, Relu):
            return lift(self.inputs[node.name][1].clamp(min=0))
        known = self._relu_of.get(node.name)
        if known is not None and known.name in self.inputs:
            lower, upper = self.inputs[known.name]
            return lift(torch.maximum(lower.abs(), upper.abs()))
        before = [self.magnitude(name) for name in node.inputs]
        if isinstance(op, Affine):
            grown = self.rounding.absolute(node).apply(before[0])
            return self.rounding.above(grown, self.rounding.terms(node) + self.rounding.extra(node))
        if isinstance(op, Add):
            return self.rounding.above(before[0] + before[1], 1)
        if isinstance(op, Concat):
            return op.apply(*before)
        raise NotImplementedError(f"ledger: node {node.name!r} (op {op.kind}) has no error bound")

    def _charge(self, node: Node, image: bool) -> tuple[Tensor | None, Tensor | float]:
        if (node.name, image) not in self._charges:
            self._charges[node.name, image] = self._joint(node) if image else self._affine(node)
        return self._charges[node.name, image]

    def _joint(self, node: Node) -> tuple[Tensor | None, Tensor | float]:
        """The charge of an affine node and of the ReLU behind it."""
        weights, constant = self._charge(node, False)
        more, rest = self._relu(self._relu_of[node.name])
        return more if weights is None else weights + more, constant + rest

    def _affine(self, node: Node) -> tuple[Tensor | None, Tensor | float]:
        op = node.op
        assert isinstance(op, Affine)
        rounding, source = self.rounding, node.inputs[0]
        terms = fan_out(op, self.nodes[source].shape)
        weights: Tensor | None = None
        constant: Tensor | float = self._spare(node.name)
        depth = rounding.terms(node) + rounding.extra(node)
        absolute = rounding.absolute(node)
        if terms:
            m = self.magnitude(source)
            weights = rounding.gamma(terms + rounding.extra(node)) * rounding.above(absolute.linear(m), depth)
            constant = (2 * terms * rounding.eta) * m.flatten(1).sum(1, keepdim=True)
        if op.has_offset:
            outputs = prod(node.shape)
            offset = absolute.offset(self.nodes[source].shape, self.box[0]).expand(len(self.box[0]), *node.shape)
            charge = rounding.gamma(outputs + rounding.extra(node)) * rounding.above(offset, 1)
            weights = charge if weights is None else weights + charge
            constant = constant + 2 * outputs * rounding.eta
        return weights, constant

    def _relu(self, node: Node) -> tuple[Tensor, Tensor]:
        lower, upper = self.inputs[node.name]
        stable = (upper <= 0) | (lower >= 0)
        reach = torch.maximum(-lower, upper).masked_fill(stable, 0)
        lost = ~stable & (torch.minimum(-lower, upper) < 4 * self.rounding.eta)  # 2 mu may underflow: no claim
        weights = self.rounding.gamma(2) * reach.masked_fill(lost, torch.inf)
        return weights, (2 * self.rounding.eta) * reach.flatten(1).sum(1, keepdim=True)

    def _spare(self, name: str) -> float:
        """Underflow of the products that measure a node's rows."""
        return prod(self.nodes[name].shape) * self.rounding.eta
