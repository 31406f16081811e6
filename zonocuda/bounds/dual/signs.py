"""Dual rows on parts of the inputs where some neurons have one sign.

An activation that is the identity where x_j >= 0 and 0 where x_j <= 0 (:attr:`zonocuda.relaxations.Rule.has_signs`):
on a part where x_j >= 0 any coefficient v' <= v will do, as v x_j >= v' x_j; where x_j <= 0 any v' >= 0 will do, as
0 >= v' x_j. With v' = v - beta, or v' = beta, beta >= 0 is the multiplier of
the constraint; whatever float v' is, it is one of these numbers, so that nothing is lost by rounding.

Everywhere else the pass is that of :mod:`zonocuda.bounds.dual.problem`: bounds l, u of the whole set of inputs hold on
each part, so that all parts are rows of one pass, with one ledger. Where v < 0 a crossing neuron has its minimum-area
slope, the same for all rows; where v >= 0 each row has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zonocuda.bounds.dual.dual_pass import DualPass, Visit, flatten_rows, proceed, unflatten_rows
from zonocuda.bounds.dual.input_set import InputSet
from zonocuda.bounds.dual.slopes import free_neurons
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import activations, rule_of


@dataclass(frozen=True, eq=False)
class SignLayer:
    """An activation, for bounds of its input.

    Attributes:
        name: of the node.
        index: ``[K]``, its crossing neurons, in the order of the pass.
        slope, twice: ``[K]``, the minimum-area slope lam of each, and 2 mu.
        start: ``[K]``, the slope to begin with where v >= 0: 1 or 0, whichever wastes less area.
        passing: ``[N]``, 1 for active neurons and 0 for others; None where all but the crossing ones are active.
    """

    name: str
    index: Tensor
    slope: Tensor
    twice: Tensor
    start: Tensor
    passing: Tensor | None

    @staticmethod
    def of(node: Node, bounds: Bounds) -> SignLayer:
        """For bounds ``[1, *features]``.

        Raises:
            NotImplementedError: an activation that signs tell nothing about.
        """
        rule, index = rule_of(node), free_neurons(node, bounds)
        if not rule.has_signs:
            raise NotImplementedError(f"signs: node {node.name!r} (op {node.op.kind}) cannot be split at 0")
        lower, upper = (flatten_rows(b) for b in bounds)
        ends = lower[:, index], upper[:, index]
        lines = rule.lines(*ends, None)
        start = rule.initial(*ends, "adaptive").nan_to_num(0.0)
        passing = rule.kinds(lower, upper)[1].squeeze(0).to(lower.dtype)
        full = int(passing.sum()) + len(index) == lower.shape[1]
        slope, twice = lines.slope.squeeze(0), lines.above.squeeze(0)
        return SignLayer(node.name, index, slope, twice, start.squeeze(0), None if full else passing)


@dataclass(frozen=True, eq=False)
class KnownSigns:
    """Signs of the crossing neurons on S parts, as numbers that a pass multiplies with: it is made of products and sums
    alone, which take a fraction of the time of selections.

    Attributes:
        sign: ``[S, U]``: 1, -1, and 0 where it is not known.
        free, active: ``[S, U]``, 1 where it is not known, and where it is 1; else 0.
        below: ``[S, U]``, what v' is of v < 0, but for multipliers: lam where the sign is not known, 1 where it is 1,
            0 where it is -1.
    """

    sign: Tensor
    free: Tensor
    active: Tensor
    below: Tensor

    @staticmethod
    def of(sign: Tensor, slope: Tensor) -> KnownSigns:
        """For minimum-area slopes ``[U]``."""
        free, active = 1 - sign.abs(), sign.clamp(min=0)
        return KnownSigns(sign, free, active, torch.addcmul(active, free, slope))

    def at(self, index: Tensor) -> KnownSigns:
        """Those of the parts ``index``."""
        return KnownSigns(self.sign[index], self.free[index], self.active[index], self.below[index])

    def split(self, sizes: list[int]) -> list[KnownSigns]:
        """Those of every layer."""
        columns = (torch.split(t, sizes, 1) for t in (self.sign, self.free, self.active, self.below))
        return [KnownSigns(*ts) for ts in zip(*columns, strict=True)]


class _SignedImage(torch.autograd.Function):
    """Rows ``[S, N]`` from the output to the input of an activation, and what they add to their bounds.

    With b = max(multiplier, 0): where a sign is known, v' = v 1 - b or v' = v 0 + b, the first rounded once, to at
    most v; elsewhere v' = v slope or v lam, whichever v's sign says: the other terms are zero.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, slope: Tensor, multiplier: Tensor, known: KnownSigns, layer: SignLayer
    ) -> tuple[Tensor, Tensor]:
        v = rows.index_select(1, layer.index)
        above = v.clamp(min=0)
        below = v - above  # exact: one of them is zero
        slopes = torch.addcmul(known.active, slope.clamp(0, 1), known.free)
        image = (above * slopes).addcmul_(below, known.below).addcmul_(multiplier.clamp(min=0), known.sign, value=-1)
        low = (below * known.free) @ layer.twice
        out = rows.clone() if layer.passing is None else rows * layer.passing
        out.index_copy_(1, layer.index, image)
        ctx.save_for_backward(above, below, slopes)
        ctx.known, ctx.layer = known, layer
        return out, low

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_low: Tensor) -> tuple[Tensor | None, ...]:
        above, below, slopes = ctx.saved_tensors
        known, layer = ctx.known, ctx.layer
        g = grad.index_select(1, layer.index)
        negative = torch.lt(below, 0, out=torch.empty_like(below))
        held = torch.outer(grad_low, layer.twice).mul_(known.free).addcmul_(known.below - slopes, g)
        grad_v = (slopes * g).addcmul_(held, negative)
        grad_rows = grad.clone() if layer.passing is None else grad * layer.passing
        grad_rows.index_copy_(1, layer.index, grad_v)
        return grad_rows, (g * above).mul_(known.free), (g * known.sign).neg_(), None, None


@dataclass(frozen=True, eq=False)
class Reached:
    """What a pass found.

    Attributes:
        lower: ``[S]``, bounds of the rows, proven where the pass has a ledger.
        slack: ``[S]``, what counting rounding has taken off them.
        scores: ``[S, U]``, what the relaxation of each crossing neuron costs, -1 where its sign is known; empty where
            nobody asked.
        weight: ``[S, N]``, what the rows weigh the input with, in the order of the features; None where they do not.
        crossing: ``[S, K]`` for each layer, v at its crossing neurons, where scores were asked for.
    """

    lower: Tensor
    slack: Tensor
    scores: Tensor
    weight: Tensor | None
    crossing: tuple[Tensor, ...] = ()

    @property
    def sizes(self) -> tuple[float, ...]:
        """How large abs(v) is at the crossing neurons of each layer, sum v^2 / sum abs(v): however many are zero."""
        sums = [(v.square().sum(), v.abs().sum().clamp(min=torch.finfo(v.dtype).tiny)) for v in self.crossing]
        return tuple(float(squares / total) for squares, total in sums)


class SignProblem:
    """Rows to be bounded from below on parts of a box.

    Attributes:
        graph: the network.
        layers: the activations that the rows can reach, in the order of the network.
        count: U, the crossing neurons of all of them.
        box: its ends ``[1, *input features]``.
        like: one of them.
    """

    def __init__(
        self,
        graph: Graph,
        rows: Callable[[Ledger | None], DualPass],
        box: Bounds,
        intermediate: Mapping[str, Bounds],
        ledger: Ledger,
        on_node: Visit = proceed,
    ) -> None:
        """``rows`` makes a pass with the rows ``[1, R]``, which counts rounding where it is given a ledger;
        ``intermediate`` are bounds ``[1, *features]`` of the input of every activation that they can reach."""
        self.graph, self.on_node, self.like, self.box = graph, on_node, box[0], box
        self.region = InputSet.of(box)
        self._flows = {True: rows(ledger), False: rows(None)}
        reached = _before(graph, self._flows[False].pending)
        self.layers = [
            SignLayer.of(node, intermediate[node.name]) for node in activations(graph) if node.name in reached
        ]
        self.sizes = [len(layer.index) for layer in self.layers]
        self.count = sum(self.sizes)
        for flow in self._flows.values():
            flow.run(lambda node, v: None, on_node)

    @property
    def rows(self) -> int:
        """R."""
        return self._flows[False].rows

    def start(self) -> Tensor:
        """``[U]``, slopes to begin with."""
        return torch.cat([self.like.new_zeros(0), *(layer.start for layer in self.layers)])

    def spread(self, values: Tensor, name: str) -> Tensor:
        """Of values ``[U]`` those of one activation's neurons, ``[features]`` in the order of the pass, and zeros."""
        full = values.new_zeros(prod(self.graph[name].shape))
        for layer, part in zip(self.layers, torch.split(values, self.sizes), strict=True):
            if layer.name == name:
                full[layer.index] = part
        return full

    def known(self, signs: Tensor) -> KnownSigns:
        """Signs ``[S, U]``, 1, -1 and 0, as :meth:`run` takes them."""
        slope = torch.cat([self.like.new_zeros(0), *(layer.slope for layer in self.layers)])
        return KnownSigns.of(signs.to(self.like.dtype), slope)

    def flow(self, rows: Tensor, is_proof: bool) -> DualPass:
        """A pass ``[1, S]`` for chosen rows, each as often as wanted, that counts rounding or not."""
        flow = self._flows[is_proof].fork()
        flow.keep(rows)
        return flow

    def run(
        self, flow: DualPass, known: KnownSigns, slopes: Tensor, multipliers: Tensor, scores: bool = False
    ) -> Reached:
        """Bounds of the rows of a pass, which it uses up.

        Args:
            flow: of S rows, from :meth:`flow`.
            known: of the parts.
            slopes: ``[S, U]``, clamped to [0, 1].
            multipliers: ``[S, U]``, clamped to 0 from below; read where there is a sign.
            scores: whether they are wanted.
        """
        given = (torch.split(t, self.sizes, 1) for t in (slopes, multipliers))
        parts = {
            layer.name: (layer, *own) for layer, *own in zip(self.layers, *given, known.split(self.sizes), strict=True)
        }
        found: dict[str, Tensor] = {}

        def activation(node: Node, v: Tensor) -> Tensor:
            layer, slope, multiplier, own = parts[node.name]
            matrix = flatten_rows(v)
            if scores:
                found[node.name] = matrix.index_select(1, layer.index)
            image, low = _SignedImage.apply(matrix, slope, multiplier, own, layer)  # type: ignore[no-untyped-call]
            flow.add(low.unsqueeze(0))
            before = unflatten_rows(image, node.shape)
            flow.tally.activation(node, before, flow.measure(before), low.unsqueeze(0))
            return before

        last, weight = flow.run(activation, self.on_node), None
        value = flow.constant
        if last is not None:
            flow.tally.end(self.graph.nodes[0].name, flow.measure(last))
            value = value + self.region.least(flatten_rows(last).unsqueeze(0))
            weight = last.reshape(len(last), -1)
        lower = flow.tally.below(value)
        empty = slopes[:, :0]
        crossing = tuple(self._crossing(layer, found, slopes) for layer in self.layers) if scores else ()
        cost = self._scores(crossing, known) if scores else empty
        return Reached(lower.squeeze(0), (value - lower).detach().squeeze(0), cost, weight, crossing)

    def _crossing(self, layer: SignLayer, found: Mapping[str, Tensor], like: Tensor) -> Tensor:
        return found[layer.name] if layer.name in found else like.new_zeros(len(like), len(layer.index))

    def _scores(self, crossing: Sequence[Tensor], known: KnownSigns) -> Tensor:
        costs = [v.clamp(max=0) * -layer.twice for v, layer in zip(crossing, self.layers, strict=True)]
        return (torch.cat([known.free[:, :0], *costs], 1) * known.free).sub_(known.sign.abs())


def _before(graph: Graph, pending: Mapping[str, Tensor]) -> set[str]:
    """The nodes that rows of the nodes of ``pending`` can reach, themselves included."""
    reached = set(pending)
    for node in reversed(graph.nodes):
        if node.name in reached:
            reached |= set(node.inputs)
    return reached
