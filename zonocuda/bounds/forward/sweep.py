"""The sweep: bounds of every activation's input, by zonotopes forward, by dual passes backward, or both.

Forward, a zonotope goes through every node. Where that would cost more than it is worth, or more memory than there is,
the sweep changes to the dual for the rest of the network: it carries intervals, and bounds by dual passes those neurons
whose sign they leave open. As long as intervals settle no neuron that the zonotope leaves open, both ways give the same
bounds of the open ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import Visit, proceed
from zonocuda.bounds.dual.neurons import EarlyEnd, Relaxed, neuron_bounds
from zonocuda.bounds.forward.extremes import Extremes
from zonocuda.bounds.forward.overflow import anew, lost, told
from zonocuda.bounds.forward.seen import LayerStats, Seen, layer_stats
from zonocuda.bounds.interval import Bounds, all_finite, interval, unsettled
from zonocuda.bounds.plan.ownership import Ownership
from zonocuda.bounds.plan.planner import Direction, Planner, Step, Value, Way
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import Error, ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.transform import transform
from zonocuda.domains import Diagonal, Symbols, Zonotope, memory
from zonocuda.domains.merge import merge_symbols
from zonocuda.graph import Graph, Node, interpret
from zonocuda.relaxations import Band, activations, has_rule, rule_of


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of a sweep.

    Attributes:
        output: the zonotope of the network's output; None where the sweep changed to the dual.
        bounds: interval bounds ``[B, *output features]``, which are the zonotope's where there is one.
        intermediate: bounds (lower, upper), ``[B, *features]``, of the input of every activation, by node name.
        layers: bounds of the value of every node, where they were asked for, by node name.
        stats: one entry for each activation, in order.
        plan: what was decided, and foreseen, at each node.
        errors: where rounding was counted, the errors of the zonotopes of input and output.
    """

    output: Zonotope | None
    bounds: Bounds
    intermediate: Mapping[str, Bounds]
    layers: Mapping[str, Bounds]
    stats: tuple[LayerStats, ...]
    plan: tuple[Step, ...]
    errors: tuple[Error, Error] | None = None


@dataclass(frozen=True)
class Means:
    """By what means a sweep finds its bounds.

    Attributes:
        direction: ``forward`` carries the zonotope to the output; ``dual`` changes to dual passes after the first
            activation's bounds; ``auto`` changes where the rest costs less so, in operations, or where the budget asks
            for it. The dual needs a box: a zonotope with one diagonal block.
        memory_budget: bytes that the generators may take; by default a share of what is free. See
            :mod:`zonocuda.bounds.plan.planner` for what happens where they would not fit.
        on_node: called before each node, of the sweep and of its dual passes; may raise to stop the sweep.
        symbols: how many generators to keep at each of :attr:`zonocuda.graph.Graph.passes`; the least are merged there,
            where no other value has the symbols that then become fresh ones. None: all.
    """

    direction: Direction = "forward"
    memory_budget: int | None = None
    on_node: Visit = proceed
    symbols: int | None = None


def sweep(
    graph: Graph,
    zonotope: Zonotope,
    means: Means | None = None,
    *,
    slopes: Mapping[str, Tensor] | None = None,
    all_layers: bool = False,
    rounding: Rounding | None = None,
) -> Sweep:
    """Bounds the input of every activation for inputs in ``zonotope`` ``[B, *input features]``.

    Args:
        graph: the network, in the zonotope's dtype and on its device.
        zonotope: the set of inputs.
        means: forward or by dual passes, in what memory, and who may stop it; by default those of :class:`Means`.
        slopes: a slope lam for some of the activations, by name, each broadcasting to ``[B, *features]``; the
            minimum-area slope elsewhere.
        all_layers: also bound the value of every node.
        rounding: where given, what rounding costs is part of the bounds of the activations' inputs, which are then
            proven.

    Raises:
        ValueError: a zonotope whose feature shape is not the network's, a slope for a node that is no activation, or
            the direction ``dual`` for a zonotope that is no box.
    """
    if zonotope.features != graph.input_shape:
        raise ValueError(
            f"sweep: the zonotope has features {list(zonotope.features)}, the network's input {list(graph.input_shape)}"
        )
    given, means = dict(slopes or {}), means or Means()
    unknown = set(given) - {node.name for node in activations(graph)}
    if unknown:
        raise ValueError(f"sweep: slopes were given for {sorted(unknown)}, which are no activations of the network")
    with memory.recycled() as pool:
        planner = Planner(graph, zonotope, means.direction, means.memory_budget, pool)
        return _Run(graph, zonotope, planner, means, given, all_layers, rounding).run()


class _Run:
    """One sweep under way."""

    def __init__(
        self,
        graph: Graph,
        zonotope: Zonotope,
        planner: Planner,
        means: Means,
        slopes: Mapping[str, Tensor],
        all_layers: bool,
        rounding: Rounding | None,
    ) -> None:
        self.graph, self.zonotope, self.planner = graph, zonotope, planner
        self.means, self.slopes, self.all_layers = means, slopes, all_layers
        self.ownership = Ownership(graph, enabled=not torch.is_grad_enabled())
        self.alive: dict[str, Value] = {}
        self.intermediate: dict[str, Bounds] = {}
        self.layers: dict[str, Bounds] = {}
        self.stats: list[Seen] = []
        self.counting = None if rounding is None else ForwardErrors(rounding)
        self.errors: dict[str, Error] = {}
        if self.counting is not None:
            self.errors[graph.nodes[0].name] = self.counting.of_box(zonotope)
        self.box = self.bounds(graph.nodes[0].name, zonotope) if planner.is_box else None
        self.ledger = None if rounding is None or self.box is None else Ledger(rounding, self.box, self.intermediate)
        self.extremes = Extremes(graph, self.interval, rounding.rounds if rounding else lambda node: False)
        if self.box is not None:
            self.extremes.begin(graph.nodes[0].name, self.box)

    def run(self) -> Sweep:
        """The sweep."""
        start: Value = self.zonotope
        output = interpret(self.graph, start, self.image, self.observe, self.alive)
        bounds = output.bounds() if isinstance(output, Zonotope) else output
        if isinstance(output, Zonotope) and self.is_lost(output, bounds):
            output, bounds = self.ended(output, bounds)
        if isinstance(output, Zonotope) and output.ranks is not None:
            low, high = output.ranks.agreed(*bounds)
            bounds = low, high
        zonotope = output if isinstance(output, Zonotope) else None
        ends = self.graph.nodes[0].name, self.graph.output
        counted = all(name in self.errors for name in ends)
        errors = (self.errors[ends[0]], self.errors[ends[1]]) if counted else None
        steps = tuple(self.planner.steps)
        return Sweep(zonotope, bounds, self.intermediate, self.layers, layer_stats(self.stats), steps, errors)

    def ended(self, output: Zonotope, found: Bounds) -> tuple[Zonotope, Bounds]:
        """The network's output that overflowed, and bounds of it, with what is known beside."""
        name = self.graph.output
        error = self.errors.get(name)
        if self.counting is not None and error is not None:
            found, error = self.counting.bounds(output, error)
        found = told(found)
        bounds = self.extremes.tightened(name, found)
        output, error = self.anew(output, error, found, bounds)
        if error is not None:
            self.errors[name] = error
        return output, bounds

    def bounds(self, name: str, value: Value) -> Bounds:
        """Bounds of a node's value, proven where rounding is counted."""
        if not isinstance(value, Zonotope):
            return value
        if self.counting is None:
            return value.bounds()
        bounds, self.errors[name] = self.counting.bounds(value, self.errors[name])
        return bounds

    def interval(self, node: Node, ranges: Sequence[Bounds]) -> Bounds:
        """Interval bounds of a node's value, proven where rounding is counted."""
        return interval(node, ranges) if self.counting is None else self.counting.interval(node, ranges)

    def observe(self, node: Node, value: Value) -> None:
        """Notes a node's value."""
        if has_rule(node) and self.extremes.is_needed:
            self.extremes.begin(node.name, rule_of(node).range(*self.intermediate[node.name]))
        elif self.extremes.is_needed:
            self.extremes.pass_on(node)
        if self.all_layers:
            self.layers[node.name] = _bounds(value)

    def image(self, node: Node, values: tuple[Value, ...]) -> Value:
        """The value of a node, on fewer symbols where that is asked for."""
        value, most = self.whole_image(node, values), self.means.symbols
        if most is None or not isinstance(value, Zonotope) or node.name not in self.graph.passes:
            return value
        count = sum(block.symbols.count for block in value.blocks if not isinstance(block, Diagonal))
        if count <= most:
            return value
        self.planner.note(f"merged {count - most} symbols")
        if self.counting is not None:
            self.errors[node.name] = self.counting.merged(self.errors[node.name], value.symbols)
        return merge_symbols(value, count - most)

    def whole_image(self, node: Node, values: tuple[Value, ...]) -> Value:
        """The value of a node."""
        self.means.on_node(node)
        in_place = self.ownership.may_overwrite(node)
        zonotopes = [value for value in values if isinstance(value, Zonotope)]
        if len(zonotopes) == len(values) and not self.planner.is_dual:
            given = [tuple(block.symbols for block in value.blocks) for value in zonotopes]
            values = ()  # the planner may give their memory up
            zonotopes, way = self.planner.prepare(node, zonotopes, in_place, self.alive)
            before = self.errors_before(node, zonotopes, given)
            if way != "dual":
                return self.forward(node, zonotopes, way, in_place, before)
        ranges = tuple(self.bounds(name, v) for name, v in zip(node.inputs, values or zonotopes, strict=True))
        if has_rule(node):
            return self.dual(node, self.extremes.tightened(node.inputs[0], ranges[0]))
        return self.interval(node, ranges)

    def errors_before(
        self, node: Node, values: Sequence[Zonotope], given: Sequence[tuple[Symbols, ...]]
    ) -> list[Error]:
        """Of a node's inputs; none where rounding is not counted.

        Args:
            node: the node.
            values: what the planner made of its inputs: some may have merged symbols, which are fresh ones then. Those
                that were cut are as they were.
            given: the groups of symbols that they had before.
        """
        if self.counting is None:
            return []
        errors: list[Error] = []
        for name, value, groups in zip(node.inputs, values, given, strict=True):
            same = {block.symbols.whole for block in value.blocks} <= {group.whole for group in groups}
            count = sum(group.count for group in groups)
            errors.append(self.errors[name] if same else self.counting.merged(self.errors[name], count))
        return errors

    def boxed(self, node: Node, values: Sequence[Zonotope], before: Sequence[Error]) -> Zonotope:
        """The box of a node's value."""
        if self.counting is None:
            return self.box_of(node, interval(node, [value.bounds() for value in values]))
        ranges = [self.counting.bounds(value, error)[0] for value, error in zip(values, before, strict=True)]
        return self.box_of(node, self.counting.interval(node, ranges))

    def box_of(self, node: Node, bounds: Bounds) -> Zonotope:
        """A node's value, of which bounds are all that is known."""
        box = Zonotope.around(*bounds)
        if self.counting is not None:
            self.errors[node.name] = self.counting.of_box(box)
        return box

    def forward(self, node: Node, values: list[Zonotope], way: Way, in_place: bool, before: Sequence[Error]) -> Value:
        """The zonotope of a node's value; bounds of it where the sweep changes to the dual at this
        activation.

        Args:
            node: the node.
            values: of its inputs.
            way: ``forward``, or ``box`` for the box of that zonotope alone.
            in_place: whether their memory is free.
            before: the errors of the values, where they are counted.
        """
        symbols = sum(value.symbols for value in values)
        if not has_rule(node):
            if way == "box":
                return self.boxed(node, values, before)
            if self.counting is not None:
                self.errors[node.name] = self.counting.image(node, before, symbols)
            return transform(node, values, in_place)
        rule, slope, band = rule_of(node), self.slopes.get(node.name), None
        found, measured = self.measured(values[0], before)
        bounds = self.extremes.tightened(node.inputs[0], found)
        if self.is_lost(values[0], found):
            band = rule.band(*bounds, slope, values[0].symbols)
            values[0], measured = self.anew(values[0], measured, found, bounds, band.slope == 0)
            symbols = values[0].symbols
        elif measured is not None or values[0].ranks is not None:
            band = rule.band(*bounds, slope, values[0].symbols)
            bounds, band = agreed(values[0], bounds, band)
            slope = slope if slope is None or values[0].ranks is None else band.slope
        if self.counting is not None and measured is not None:
            self.errors[node.name] = self.counting.activation(node, measured, bounds, slope, symbols, band)
        self.intermediate[node.name] = bounds
        seen = Seen.of(node, bounds, values[0])
        self.stats.append(seen)
        image = rule.range(*bounds)

        def known(name: str) -> Bounds:
            return image if name == node.name else _bounds(self.alive[name])

        if self.planner.prefers_dual(node, values[0].symbols, seen.unstable, known):
            return image
        if way == "box":
            return self.box_of(node, image)
        band = rule.band(*bounds, slope, values[0].symbols) if band is None else band
        return rule.image(values[0], band, node.name, in_place)

    def measured(self, value: Zonotope, before: Sequence[Error]) -> tuple[Bounds, Error | None]:
        """Bounds of an activation's input, and its error with the size that it turned out to have, where counted."""
        if self.counting is None:
            return self.told(value.bounds()), None
        bounds, error = self.counting.bounds(value, before[0])
        return self.told(bounds), error

    def told(self, bounds: Bounds) -> Bounds:
        """Bounds of a zonotope, with NaN where that overflowed and more may be known."""
        return told(bounds) if self.extremes.is_everywhere else bounds

    def is_lost(self, value: Zonotope, bounds: Bounds) -> bool:
        """Whether a zonotope of these bounds overflowed, and more may be known."""
        return self.extremes.is_everywhere and value.ranks is None and not all_finite(bounds)

    def anew(
        self, value: Zonotope, error: Error | None, found: Bounds, bounds: Bounds, unread: Tensor | None = None
    ) -> tuple[Zonotope, Error | None]:
        """The zonotope with boxes where it was lost, and its error; see :mod:`zonocuda.bounds.forward.overflow`."""
        mask = lost(found)
        result = anew(value, mask, bounds, unread)
        return result, None if error is None or self.counting is None else self.counting.anew(error, result, mask)

    def dual(self, node: Node, known: Bounds) -> Bounds:
        """Interval bounds of an activation's value; the neurons that are not settled get bounds of their own by the
        dual."""
        lower, upper = known
        index = unsettled(node, lower, upper).nonzero().squeeze(1)
        if len(index):
            assert self.box is not None, "the planner changes to the dual for boxes alone"
            relaxed = Relaxed(self.graph, self.box, self.intermediate, self.slopes, self.ledger)
            early = EarlyEnd(keep_best=False) if rule_of(node).has_signs else None  # all that is asked for is a sign
            low, high = neuron_bounds(relaxed, node.inputs[0], index, early=early, on_node=self.means.on_node)
            lower, upper = _replace(lower, index, low), _replace(upper, index, high)
            lower, upper = self.extremes.tightened(node.inputs[0], (lower, upper))
        self.intermediate[node.name] = (lower, upper)
        self.stats.append(Seen.of(node, (lower, upper), None, len(index)))
        return rule_of(node).range(lower, upper)


def agreed(value: Zonotope, bounds: Bounds, band: Band) -> tuple[Bounds, Band]:
    """An activation's bounds and band, those of rank 0 where the zonotope ``value`` is shared out over ranks.

    All ranks' new symbols have to be of one band, which is proven on the bounds of the rank that it is from; and these
    say on every rank what the band does to its errors. What other numbers a rank has, such as a center of another
    processor, is within its own errors.
    """
    if value.ranks is None:
        return bounds, band
    lower, upper, *numbers = value.ranks.agreed(*bounds, *band)
    return (lower, upper), Band(*numbers)


def _bounds(value: Value) -> Bounds:
    return value.bounds() if isinstance(value, Zonotope) else value


def _replace(bound: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """``bound`` ``[B, *features]`` with ``values`` ``[B, K]`` at the flattened places ``index``."""
    return bound.reshape(len(bound), -1).index_copy(1, index, values).reshape(bound.shape)
