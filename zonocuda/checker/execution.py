"""How far the values that a machine computes may be from a network's formulas, derived here once more.

The machine rounds to nearest in one type, sums in any order, with or without fused multiply-add or more digits before
the end of a sum, and may flush subnormal numbers, as operands and as results. It may fold into a linear layer what
follows it: constants, batch normalisations, one branch of a sum. So a *chain* is a linear layer and the elementwise
sums and products that follow, each the only reader of the one before; its last value is a sum of monomials, each of
constants and at most one number that the machine holds. In whatever way the chain is executed, a monomial meets at most
D roundings: the terms of the layer's sum, and STEPS for the layer and for every step (of a batch normalisation:
conversions 2, eps 1, its sum with the variance 1, root 1, quotient 1, products with the weight, with the layer's
weight and with the input 3, difference of means 1, sum of shifts 1, one term of the sum 1, a variance or eps that is
flushed 2; 2 to spare). With u the type's unit roundoff and gamma_n = n u / (1 - n u), Higham, Accuracy and Stability of
Numerical Algorithms, lemma 3.1: a monomial is computed with a relative error of gamma_D at most. It is charged where it
enters the chain, D of the whole chain; a later step, where it is no part of the layer's sum, rounds its operand and its
constants alone, STEPS for the one. So

    y~ = A x~ + b + d,   |d| <= gamma_p |A| |x~| + gamma_q |b| + flushed,

with p = D where x~ enters the chain at this node and STEPS where it comes from the node before in the chain, q = D; at
a sum of two likewise with the two terms. Where a concatenation has joined values of the chain with numbers that are
held, all that meets them next enters there, D: a machine may begin a layer's sum with it.

*Flushed.* An operation whose result, or one of whose operands, is flushed is off by eta at most, the smallest normal
number, times what the monomials that it is part of are multiplied with otherwise: by constants, with 2^32 for every
batch normalisation, which may divide by a deviation (its importer makes sure that it is at least 2^-32) before or after
it multiplies, and by one number of those that enter the chain. M monomials meet at most 3 D of these events each, which
are charged at every node of the chain, as they add up to there: 4 M D eta G max(1, |x~|), G the product of the largest
constants, 4 for 3 (1 + gamma_D).

Nodes that together are one operator of the network (:class:`zonocuda.graph.Part`) are no operations of the machine, but
for PRODUCTS roundings of each product that the operator rounds, and flushes of it. They and ReLUs read numbers that are
held; what they leave unflushed is flushed where it is read, or at the output, by less than eta. Steps (sign, floor,
ceil, round) have values that no type rounds; of a number that may be flushed first, both values are counted
(:mod:`zonocuda.checker.steps`).

*Assumed.* Of a function f that the network executes as one operator, the certificate may assume that a machine is
within k units in the last place of f(x~): at most k 2 u max(|f|, eta), as numbers of the type between 2^e and 2^(e + 1)
lie 2 u 2^e apart. x~ and the result may be flushed: eta for the one, and for the other what f can change between 0 and
eta. That is at most 2 eta (all |f'| are at most 2 there, but 1 + alpha of an ELU), or sqrt(eta) for a square root; 1 /
x, 1 / sqrt(x) and log x have no value at 0, but are larger than 1 / eta, 1 / sqrt(eta) and -log eta on the way there,
and of values above half of these nothing is known.

All this holds while nothing overflows: see :meth:`Execution.overflow`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor

from zonocuda.checker.arithmetic import ONE, ZERO, Array, balls, upper
from zonocuda.checker.certificate import CertificateError
from zonocuda.graph import (
    Add,
    Affine,
    Cast,
    Concat,
    Elementary,
    Expand,
    Gather,
    Graph,
    Input,
    Node,
    Pad,
    Rearrangement,
    Relu,
    ScaleShift,
    Staircase,
    divisor,
    fan_in,
)
from zonocuda.specs import Box

STEPS = 16
PRODUCTS = 4
DIVISION = 2.0**32
"""What a batch normalisation may multiply with, or divide by, at most, before it does the opposite."""
HEADROOM = 2.0**-36
"""Of the type's range, what values may take: DIVISION, and 16 for what they gain by rounding."""

SEMANTICS = {"real": None, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Share:
    """What one node rounds and flushes.

    Attributes:
        first, second: p and q; of a sum, those of its terms.
        flushed: a factor of the largest number that enters, or 1.
        sources: the nodes whose numbers enter its chain.
    """

    first: int
    second: int
    flushed: float
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Assumption:
    """What a machine is assumed to be off by, of values of at most the absolute ``most``: unit |f| + rest."""

    unit: float
    rest: float
    most: float

    @staticmethod
    def of(op: Elementary, ulp: float, u: float, eta: float) -> Assumption:
        """Of a function, for units in the last place."""
        unit = ulp * 2 * u
        steep = 1 + op.parameter if op.function == "elu" else 2.0
        flushed = math.sqrt(eta) if op.function == "sqrt" else steep * eta
        poles = {"reciprocal": 1 / eta, "rsqrt": 1 / math.sqrt(eta), "log": -math.log(eta)}
        return Assumption(_above(unit), _above((unit + 1) * eta + flushed), poles.get(op.function, inf) / 2)

    def departure(self, sizes: Iterable[float]) -> list[float]:
        """Of values of these absolute sizes."""
        return [_above(self.unit * size + self.rest) if size <= self.most else inf for size in sizes]


@dataclass(frozen=True)
class _Link:
    """A node's value as part of a chain, up to there.

    Attributes:
        depth: D so far; 0 for a number that is held.
        is_inside: whether all of it comes from the chain.
        monomials: M.
        gain: G.
        sources: see Share.
    """

    depth: int
    is_inside: bool
    monomials: int
    gain: float
    sources: tuple[str, ...]


class Execution:
    """A network as it is executed in ``dtype``.

    Attributes:
        u, eta: unit roundoff and smallest normal number.
        shares: by node; others round nothing, but for functions.
        assumed: by function, what it is assumed to be off by.
        ulp: by the name of a function, the units in the last place that the certificate assumes.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype, ulp: Mapping[str, float] = MappingProxyType({})) -> None:
        """Derives what every node rounds.

        Raises:
            CertificateError: a network about whose execution nothing is known here.
        """
        info = torch.finfo(dtype)
        self.graph, self.dtype, self.ulp = graph, dtype, ulp
        self.assumed: dict[str, Assumption] = {}
        self.u, self.eta, self.largest = info.eps / 2, info.tiny, info.max
        if graph.unaccounted:
            raise CertificateError(f"as executed, nothing is known: {graph.unaccounted[0]}")
        if graph.executed:
            raise CertificateError("the network computes constants in its own precision: use semantics 'real'")
        if wider := graph.wider(dtype):
            raise CertificateError(f"as executed in {self.name}, node {wider!r} is another: it holds more digits")
        links: dict[str, _Link] = {}
        for node in graph.nodes:
            links[node.name] = self._link(node, [links[name] for name in node.inputs])
        whole = {name: link.depth for name, link in links.items()}
        for node in reversed(graph.nodes):
            if _goes_on(node):
                for name in node.inputs:
                    if self._reads_chain(name, links[name]):
                        whole[name] = max(whole[name], whole[node.name])
        found = {node.name: self._share(node, links, whole[node.name]) for node in graph.nodes}
        self.shares: Mapping[str, Share] = {name: share for name, share in found.items() if share is not None}

    @property
    def name(self) -> str:
        """Of the type."""
        return str(self.dtype).removeprefix("torch.")

    # ---- chains -----------------------------------------------------------------------------------------------------

    def _reads_chain(self, name: str, link: _Link) -> bool:
        """Whether a reader of a node may be folded with it."""
        return link.depth > 0 and self.graph.uses[name] == 1 and self.graph[name].part is None

    def _link(self, node: Node, before: list[_Link]) -> _Link:
        op = node.op
        if isinstance(op, Input | Relu | Staircase):
            return _Link(0, False, 1, 1.0, (node.name,))
        if isinstance(op, Elementary) and op.whole and op.function in self.ulp and node.part is None:
            self.assumed[node.name] = Assumption.of(op, self.ulp[op.function], self.u, self.eta)
            return _Link(0, False, 1, 1.0, (node.name,))
        if isinstance(op, Cast):
            raise CertificateError(f"as executed, the cast {node.name!r} is not checked")
        if not isinstance(op, Affine | Add | Concat):
            raise CertificateError(f"as executed, nothing is known of op {op.kind}")
        pairs = list(zip(node.inputs, before, strict=True))
        goes_on = _goes_on(node)
        known = [
            link if goes_on and self._reads_chain(name, link) else _Link(0, False, 1, 1.0, (name,))
            for name, link in pairs
        ]
        depth = max(link.depth for link in known)
        inside = all(link.is_inside for link in known)
        gain = _above(max(link.gain for link in known) * _largest(op))
        sources = tuple(dict.fromkeys(name for link in known for name in link.sources))
        most = max(link.monomials for link in known)
        if _moves(op):
            return _Link(depth, inside, most + 1, gain, sources)
        if isinstance(op, Add):
            return _Link(depth + STEPS, True, sum(link.monomials for link in known), gain, sources)
        if isinstance(op, ScaleShift):
            return _Link(depth + STEPS, True, most + 1, _above(gain * DIVISION), sources)
        assert isinstance(op, Affine), "a concatenation moves"
        terms = fan_in(op, self.graph[node.inputs[0]].shape)
        return _Link(terms + STEPS, True, terms + 1, gain, sources)

    def _share(self, node: Node, links: Mapping[str, _Link], whole: int) -> Share | None:
        op, link = node.op, links[node.name]
        if isinstance(op, Input | Relu | Staircase | Elementary):
            return None
        if node.part is not None:
            if not node.part.products:
                return None
            count = PRODUCTS * node.part.products
            return Share(count, count, _above(4.0 * count * self.eta * _largest(op)), node.inputs)
        whole = max(whole, STEPS)
        flushed = _above(4.0 * link.monomials * whole * self.eta * link.gain)
        if isinstance(op, Pad):
            held = torch.tensor(op.value, dtype=self.dtype, device="cpu").item() == op.value
            return None if held else Share(0, whole + STEPS, flushed, link.sources)
        if _moves(op):
            return None
        goes_on = [self._reads_chain(name, links[name]) for name in node.inputs]
        mixed = any(on and not links[name].is_inside for on, name in zip(goes_on, node.inputs, strict=True))
        inside = [on and not mixed for on in goes_on]  # a branch of a sum may be folded into what is mixed
        if isinstance(op, Add):
            first, second = inside
            counts = STEPS if first and not second else whole, STEPS if second and not first else whole
            return Share(*counts, flushed, link.sources)
        return Share(STEPS if isinstance(op, ScaleShift) and inside[0] else whole, whole, flushed, link.sources)

    # ---- what it costs ----------------------------------------------------------------------------------------------

    def departure(self, name: str, first: Array, second: Array | None, size: Callable[[str], Array]) -> Array:
        """At least |d| ``[N]`` of a node that has a share.

        Args:
            name: the node.
            first, second: at least |A| |x~| and |b|, or the sizes of both terms of a sum.
            size: at least |x~| of a node.
        """
        share = self.shares[name]
        most = ONE
        for source in share.sources:
            most = most.max(_most(size(source)))
        total = first * self._gamma(share.first) + arb(share.flushed) * most
        return upper(total if second is None else total + second * self._gamma(share.second))

    def gamma(self, n: int) -> float:
        """A bound of gamma_n; infinite beyond n u = 1/2."""
        return _above(n * self.u / (1 - n * self.u)) if n * self.u <= 0.5 else inf

    def _gamma(self, n: int) -> Any:
        return arb(self.gamma(n))

    def stored(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds of outputs whose values lie between ``low`` and ``high`` before the machine may flush them."""
        eta = arb(self.eta)
        lows = balls(value if value >= eta else value.min(ZERO) for value in low)
        return lows, balls(value if value <= -eta else value.max(ZERO) for value in high)

    def overflow(self, size: Callable[[str], Array], absolute: Callable[[Node, Array], Array]) -> str:
        """The first node where a value, or what is summed for it, may leave the type's range; empty if there is none.

        Sizes |A| M + |b|, which nothing cancels, from one ReLU to the next, with M >= 1 so that products of constants
        are among them, twice what they are for what rounding adds. A mean may be summed before it is divided. Up to the
        first such node nothing overflows, and bounds hold.

        Args:
            size: at least the absolute values ``[N]`` of the input, and of an activation's output.
            absolute: |A| M + |b| of an affine node.
        """
        found: dict[str, Array] = {}
        largest = arb(self.largest * HEADROOM)
        for node in self.graph.nodes:
            before = [found[name] for name in node.inputs]
            if isinstance(node.op, Input | Relu | Staircase | Elementary):
                value = size(node.name)
            elif isinstance(node.op, Affine):
                value = absolute(node, before[0]) * divisor(node.op, self.graph[node.inputs[0]].shape)
            elif isinstance(node.op, Add):
                value = before[0] + before[1]
            else:  # parts of one order or another: the largest counts for all
                value = np.concatenate(before)
                value = balls([_most(value)] * len(value))
            if not all(number <= largest for number in value):
                return node.name
            found[node.name] = balls((number * 2).max(ONE) for number in value)
        return ""


def executed(semantics: str, graph: Graph, ulp: Mapping[str, float] = MappingProxyType({})) -> Execution | None:
    """The execution that a verdict's ``semantics`` name, with what it assumes of functions; None for real numbers.

    Raises:
        CertificateError: about whose execution nothing is known here.
    """
    dtype = SEMANTICS[semantics]
    return None if dtype is None else Execution(graph, dtype, ulp)


def box_of(box: Box, execution: Execution | None) -> tuple[Tensor, Tensor]:
    """The box ``[N]`` that a proof is about, float64: for float32 the one whose numbers are rounded to it."""
    if execution is not None and execution.dtype == torch.float32:
        return box.float32_lower.double(), box.float32_upper.double()
    return box.lower.double(), box.upper.double()


def sized(low: Array, high: Array) -> Array:
    """At least the absolute values of numbers between ``low`` and ``high``."""
    return upper(balls(abs(a).max(abs(b)) for a, b in zip(low, high, strict=True)))


def _most(values: Array) -> Any:
    """At least all numbers of some, not none; a NaN where one is."""
    most = values[0]
    for value in values[1:]:
        most = most.max(value)
    return most


def _moves(op: object) -> bool:
    """Whether every output is one of the inputs, or a constant."""
    return isinstance(op, Rearrangement | Gather | Expand | Concat)


def _goes_on(node: Node) -> bool:
    """Whether a node may be a step of a chain."""
    return node.part is None and (isinstance(node.op, ScaleShift | Add) or _moves(node.op))


def _above(value: float) -> float:
    """More than a product or quotient of a few nonnegative floats that was computed as ``value``."""
    return value * (1 + 2.0**-40)


def _largest(op: object) -> float:
    """At least 1, and the size of every constant of an operator.

    Of a number held as h, |c| <= 2 |h| + E while its roundings are at most 2^50.
    """
    if not isinstance(op, Affine):
        return 1.0
    if op.roundings > 2**50:
        return inf
    most = 1.0
    for name, value in vars(op).items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            most = max(most, 2 * float(value.detach().abs().max()))
        elif isinstance(op, Pad) and name == "value":
            most = max(most, 2 * abs(float(value)))
    for error in op.doubt.values():
        most += float(torch.as_tensor(error).detach().abs().max())
    return most if math.isfinite(most) else inf
