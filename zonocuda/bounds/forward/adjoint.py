"""The derivative of a forward sweep in its slopes, without the sweep's generators: they are made again, few at a time.

A sweep is linear in each symbol's generator but for two things that all symbols share: the bounds l = c - r and
u = c + r of every activation's input, and the band (lam, t, mu) that follows from them
(:class:`zonocuda.relaxations.Band`; t = mu for ReLU). So the backward pass needs no
generator but those of the symbols at hand. With gc and gG the derivatives of a function L of the output's center and
generators, it goes from the output to the input:

* at an activation the symbols that arose there are carried to the output once more, a *chunk* of them at a time, and
  the derivatives back: at every later activation with input generators G_k, for all k of the chunk,

      dL/dG_k = lam gG_k + sign(G_k) (ubar - lbar),     A += sum_k gG_k G_k,

  where lbar and ubar, the derivatives in l and u, are known there already. What arrives is gmu, the derivative in the
  coefficients mu of the new symbols;
* the derivatives of the band follow from A, gc and gmu by its own; they give lbar and ubar, and gc goes on as
  lam gc + lbar + ubar;
* the symbols of the input come last; then every A is complete, and dL/dlam follows from A, gc and gmu.

Every symbol is carried forward once and back once: about three times the work of a sweep, in the memory of one chunk.
Where symbols are shared out over ranks, each carries its own; gmu and A are summed over ranks, and all the rest is done
on each of them.
Where lbar and ubar depend on A (:meth:`zonocuda.relaxations.Rule.wants_all_symbols`), the symbols from before that
activation are carried once more for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.forward.leaf import detached, with_leaf
from zonocuda.bounds.transform import transform
from zonocuda.domains import Block, Dense, Diagonal, Symbols, Zonotope, memory
from zonocuda.domains.hosted import fetched
from zonocuda.graph import Affine, Graph, Input, Node, interpret
from zonocuda.relaxations import Band, Rule, activations, has_rule

COPIES = 3
"""Numbers that a chunk needs for each number of its values: the values, what a layer remembers, and derivatives."""


@dataclass(frozen=True, eq=False)
class Crossed:
    """What the sweep did at an activation.

    Attributes:
        rule: the activation's.
        lower, upper: l and u of its input, ``[B, *features]``.
        slope: the slope that it was given, ``[B, *features]``.
        symbols: how many its input depends on.
    """

    rule: Rule
    lower: Tensor
    upper: Tensor
    slope: Tensor
    symbols: int

    def band(self) -> Band:
        """lam, t and mu."""
        return self.rule.band(self.lower, self.upper, self.slope, self.symbols)

    def derivatives(self, a: Tensor, gc: Tensor, gmu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The derivatives in l, u and the slope, for A = dL/dlam, gc = dL/dt and gmu = dL/dmu of the band."""
        leaves = [t.detach().clone().requires_grad_() for t in (self.lower, self.upper, self.slope)]
        with torch.enable_grad():
            slope, middle, radius = replace(self, lower=leaves[0], upper=leaves[1], slope=leaves[2]).band()
            if middle is radius:
                outputs, given = [slope, radius], [a, gc + gmu]
            else:
                outputs, given = [slope, middle, radius], [a, gc, gmu]
        pairs = [(o, g) for o, g in zip(outputs, given, strict=True) if o.requires_grad]
        lower, upper, slope = torch.autograd.grad(
            [o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True, materialize_grads=True
        )
        return lower, upper, slope

    def wants_all_symbols(self) -> bool:
        """Whether the derivatives in l and u depend on A."""
        return self.rule.wants_all_symbols(self.lower, self.upper, self.slope, self.symbols)


@dataclass(frozen=True, eq=False)
class OutputGradient:
    """The derivatives of a function of the output's zonotope.

    Attributes:
        center: gc, ``[B, *output features]``.
        generators: gG ``[B, K, *output features]``, of the symbols of the input's blocks (by the identity of their
            group) and of those that arose at an activation (by its name); groups without derivative are absent.
    """

    center: Tensor
    generators: Mapping[Symbols | str, Tensor]


def chunk_size(graph: Graph, batch: int, like: Tensor, budget: int | None) -> int:
    """How many symbols go together: as many as keep the caches busy, and no more than a budget of bytes allows.

    Raises:
        ValueError: a budget that one symbol exceeds.
    """
    sizes = [prod(node.shape) * batch * like.element_size() for node in graph.nodes]
    step = memory.chunk_length(max(sizes), like.device)
    if budget is not None:
        needed = COPIES * sum(sizes)
        if needed > budget:
            raise ValueError(
                f"adjoint: the values of one symbol take {needed} bytes and the memory budget leaves {budget}; "
                "raise the budget, or bound fewer inputs at a time"
            )
        step = min(step, budget // needed)
    return step


class Adjoint:
    """The backward pass of one sweep; use once."""

    def __init__(
        self,
        graph: Graph,
        zonotope: Zonotope,
        crossed: Mapping[str, Crossed],
        budget: int | None = None,
    ) -> None:
        """The pass for a sweep of ``zonotope`` through ``graph`` that found ``crossed``.

        Args:
            graph: the network.
            zonotope: what was swept.
            crossed: what the sweep did at every activation, by name.
            budget: bytes that a chunk of symbols may take; by default what keeps the caches busy.
        """
        self.graph, self.zonotope, self.crossed = graph, zonotope, crossed
        self.batch = zonotope.center.shape[0]
        self.step = chunk_size(graph, self.batch, zonotope.center, budget)
        self.bands = {name: one.band() for name, one in crossed.items()}
        self.widths: dict[str, Tensor] = {}  # ubar - lbar of the activations that were passed
        self.a: dict[str, Tensor] = {}
        self.output = OutputGradient(zonotope.center.new_zeros(0), {})
        self.ranks = zonotope.ranks
        self.is_first = self.ranks is None or self.ranks.rank == 0  # who adds what is no rank's own

    def slopes(self, output: OutputGradient) -> dict[str, Tensor]:
        """dL/dlam ``[B, *features]`` of every activation, for derivatives of L at the output."""
        with torch.no_grad():
            self.output = output
            centers = self._centers()
            flow = DualPass(self.graph, self.batch, 1, output.center)
            flow.send(self.graph.output, output.center)
            found: dict[str, tuple[Tensor, Tensor]] = {}  # gc and gmu of every activation

            def activation(node: Node, gc: Tensor) -> Tensor:
                crossed, center = self.crossed[node.name], centers[node.inputs[0]]
                found[node.name] = gc, self._radius_gradient(node)
                gc = crossed.rule.unfold(gc)
                self.a[node.name] = a = gc * center if self.is_first else torch.zeros_like(center)
                if crossed.wants_all_symbols():
                    a = self._complete(node, a)
                lower, upper, _ = crossed.derivatives(a, *found[node.name])
                self.widths[node.name] = upper - lower
                return self.bands[node.name].slope * gc + lower + upper

            flow.run(activation)
            for block in self.zonotope.blocks:
                self._carry(self.graph.nodes[0], block, self.output.generators.get(block.symbols))
            total = {name: self._over_ranks(self.a[name]) for name in found}
            return {name: self.crossed[name].derivatives(total[name], *both)[2] for name, both in found.items()}

    def _centers(self) -> dict[str, Tensor]:
        """The center of every node's zonotope."""
        centers: dict[str, Tensor] = {}

        def step(node: Node, values: tuple[Tensor, ...]) -> Tensor:
            if has_rule(node):
                slope, middle, _ = self.bands[node.name]
                return self.crossed[node.name].rule.fold(slope * values[0]) + middle
            return node.op.apply(*values)

        interpret(self.graph, self.zonotope.center, step, lambda node, value: centers.update({node.name: value}))
        return centers

    def _radius_gradient(self, node: Node) -> Tensor:
        """gmu ``[B, *features]``: the derivative in the coefficients of the symbols that arose at an activation."""
        radius = self.bands[node.name].radius
        block = self.zonotope.fresh(radius, node.name)
        assert isinstance(block, Diagonal)
        gradient = self._carry(node, block, self.output.generators.get(node.name))
        flat = torch.zeros_like(radius).reshape(len(radius), -1)
        return self._over_ranks(flat.index_copy_(1, block.index, gradient).reshape(radius.shape))

    def _over_ranks(self, part: Tensor) -> Tensor:
        """The sum of what each rank's symbols contribute."""
        return part if self.ranks is None else self.ranks.sum(part)

    def _complete(self, node: Node, a: Tensor) -> Tensor:
        """A of an activation from all symbols that reach it, in advance; ``a`` is what the center adds to it."""
        before = {name: t.clone() for name, t in self.a.items()}
        position = self.graph.position[node.name]
        for block in self.zonotope.blocks:
            self._carry(self.graph.nodes[0], block, self.output.generators.get(block.symbols), until=position)
        for earlier in activations(self.graph):
            if self.graph.position[earlier.name] < position:
                block = self.zonotope.fresh(self.bands[earlier.name].radius, earlier.name)
                self._carry(earlier, block, self.output.generators.get(earlier.name), until=position)
        result = self._over_ranks(self.a[node.name])
        self.a = before
        return result

    # ---- symbols -----------------------------------------------------------------------------------------------------

    def _carry(self, origin: Node, block: Block, gradient: Tensor | None, until: int = 0) -> Tensor:
        """Carries the symbols of a block of the node ``origin`` to the output and their derivatives back, adding to A.

        Args:
            origin: the node.
            block: generators of its value.
            gradient: gG ``[B, K, *output features]`` of its symbols; None for zero.
            until: the position of a node behind which nothing is wanted.

        Returns:
            The derivative in a diagonal block's coefficients ``[B, K]``; that of others is not wanted, and is empty.

        Raises:
            ValueError: derivatives of another number of symbols.
        """
        if gradient is not None and gradient.shape[1] != block.symbols.count:
            raise ValueError(
                f"adjoint: derivatives of {gradient.shape[1]} symbols of {origin.name!r}, which has "
                f"{block.symbols.count}; they are not of this sweep"
            )
        parts = [self.zonotope.center.new_zeros(self.batch, 0)]
        for run in runs(block.symbols.count, self.step):
            chunk = fetched(block.narrow(run.start, Symbols(run.stop - run.start, block.symbols.origin)))
            chain = _Chain(self, origin, chunk, wanted=not isinstance(origin.op, Input), until=until)
            parts.append(chain.back(None if gradient is None else gradient[:, run]))
        return torch.cat(parts, 1)


@dataclass(frozen=True, eq=False)
class _Link:
    """A node that a chunk went through: its inputs' generators (leaves), its image's, and what else it depends on.

    ``leaves`` is None where dense generators went through an affine node: its adjoint needs none of them.
    """

    node: Node
    leaves: Sequence[Tensor | None] | None
    image: Zonotope
    multiplier: Tensor | None = None
    radius: Tensor | None = None


class _Chain:
    """One chunk of symbols on its way from its origin to the output, and back.

    Every node is differentiated for itself: what autograd records of it reaches from the node's inputs to its output.
    """

    def __init__(self, adjoint: Adjoint, origin: Node, block: Block, wanted: bool, until: int) -> None:
        self.adjoint, self.origin, self.wanted = adjoint, origin, wanted
        self.links: list[_Link] = []
        self.first = block
        nodes = adjoint.graph.nodes
        self.until = until
        values: dict[str, Zonotope] = {origin.name: self._value(origin, (block,))}
        last_use = adjoint.graph.last_use
        for node in nodes[adjoint.graph.position[origin.name] + 1 :]:
            if any(name in values for name in node.inputs):
                values[node.name] = self._forward(node, values)
                for name in set(node.inputs):
                    if last_use[name] == node.name:
                        values.pop(name, None)
        self.end = values.get(adjoint.graph.output)

    def _value(self, node: Node, blocks: tuple[Block, ...]) -> Zonotope:
        like = self.adjoint.zonotope.center
        return Zonotope(like.new_zeros(self.adjoint.batch, *node.shape), blocks)

    def _forward(self, node: Node, values: Mapping[str, Zonotope]) -> Zonotope:
        """The image of the chunk under a node."""
        if isinstance(node.op, Affine) and isinstance(values[node.inputs[0]].blocks[0], Dense):
            image = transform(node, [values[node.inputs[0]]])
            self.links.append(_Link(node, None, image))
            return image
        inputs, leaves = [], []
        for name in node.inputs:
            value = values.get(name, self._value(self.adjoint.graph[name], ()))
            leaf, value = with_leaf(value)
            inputs.append(value)
            leaves.append(leaf)
        with torch.enable_grad():
            if not has_rule(node):
                link = _Link(node, leaves, transform(node, inputs))
            else:
                (block,) = inputs[0].blocks
                multiplier = self.adjoint.bands[node.name].slope.detach().requires_grad_()
                image = self.adjoint.crossed[node.name].rule.scaled(inputs[0], multiplier)
                start = torch.zeros_like(inputs[0].center)
                radius = block.add_radius(start) if node.name in self.adjoint.widths else None
                link = _Link(node, leaves, image, multiplier, radius)
        self.links.append(link)
        return detached(link.image)

    def back(self, gradient: Tensor | None) -> Tensor:
        """Carries derivatives ``[B, K, *output features]`` back; see :meth:`Adjoint._carry`."""
        gradients: dict[str, Tensor] = {}
        adjoint = self.adjoint
        if gradient is not None and self.end is not None:
            leaf, end = with_leaf(self.end)
            with torch.enable_grad():
                dense = end.blocks[0].dense(end.features)
            if leaf is not None:
                (gradients[adjoint.graph.output],) = torch.autograd.grad(dense, leaf, gradient.reshape(dense.shape))
        position = adjoint.graph.position
        while self.links:
            link = self.links.pop()
            if position[link.node.name] < self.until:
                break
            self._back(link, gradients)
        if not self.wanted:
            return self.first.tensors[0].new_zeros(adjoint.batch, 0)
        result = gradients.get(self.origin.name)
        return torch.zeros_like(self.first.tensors[0]) if result is None else result

    def _back(self, link: _Link, gradients: dict[str, Tensor]) -> None:
        """One node backwards."""
        name = link.node.name
        incoming = gradients.pop(name, None)
        if link.leaves is None:
            if incoming is not None:
                self._pull(link.node, incoming, gradients)
            return
        outputs: list[Tensor] = []
        given: list[Tensor] = []
        if incoming is not None:
            outputs.append(link.image.blocks[0].tensors[0])
            given.append(incoming)
        if link.radius is not None:
            outputs.append(link.radius)
            given.append(self.adjoint.widths[name])
        leaves = [leaf for leaf in link.leaves if leaf is not None]
        if link.multiplier is not None:
            leaves.append(link.multiplier)
        pairs = [(o, g) for o, g in zip(outputs, given, strict=True) if o.requires_grad]
        if not pairs:
            return
        found = list(torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True))
        if link.multiplier is not None:
            a = found.pop()
            if a is not None and name in self.adjoint.a:
                self.adjoint.a[name] += a
        sources = [s for s, leaf in zip(link.node.inputs, link.leaves, strict=True) if leaf is not None]
        for source, gradient in zip(sources, found, strict=True):
            if gradient is not None:
                _add(gradients, source, gradient)

    def _pull(self, node: Node, gradient: Tensor, gradients: dict[str, Tensor]) -> None:
        """The adjoint of an affine node, for derivatives ``[B, K, *features]`` in dense generators."""
        (source,), op = node.inputs, node.op
        assert isinstance(op, Affine)
        shape = self.adjoint.graph[source].shape
        rows = op.adjoint(gradient.reshape(-1, *node.shape), shape)
        _add(gradients, source, rows.reshape(*gradient.shape[:2], *shape))


def _add(gradients: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    present = gradients.get(name)
    gradients[name] = gradient if present is None else present + gradient


def runs(count: int, step: int) -> Iterator[slice]:
    """Slices of ``count`` symbols: of ``step`` each, then of ever smaller powers of two, so that few sizes occur."""
    start = 0
    while start < count:
        left = count - start
        size = step if left >= step else 1 << (left.bit_length() - 1)
        yield slice(start, start + size)
        start += size
