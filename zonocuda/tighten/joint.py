"""All slopes of a forward sweep, optimised together: every bound of every layer moves with them.

One slope for each neuron and batch element serves all rows. A step sweeps with the slopes as they are, asks a loss of
the output's zonotope for its derivatives there, and carries these back through every intermediate l and u
(:mod:`zonocuda.bounds.forward.adjoint`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.forward.adjoint import Adjoint, Crossed, OutputGradient
from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Dense, Symbols, Zonotope
from zonocuda.graph import Graph
from zonocuda.relaxations import activations, has_rule, rule_of
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.free_slopes import FreeSlopes
from zonocuda.tighten.history import sum_and_smallest

Loss = Callable[[Zonotope], Tensor]
"""What is minimised: a differentiable function of the output's zonotope, one number ``[B]`` for each batch element, or
one for all of them. The zonotope's blocks are dense. Where they are shared out over ranks, all of these call it alike,
and it may use the center, bounds and radii of what it computes, but no generators, of which each rank has others."""

RETREATS = 3
"""How often a search that lost its patience goes on from its best slopes."""

SHORTER = 0.3
"""What the rate is multiplied by then."""


def bounds_of_rows(objective: Tensor, output: Zonotope) -> Tensor:
    """Lower bounds ``[B, R]`` of ``objective . y``, for rows ``[R, outputs]`` and the output's zonotope."""
    return output.reshape(-1).linear(objective).bounds()[0]


def margin(objective: Tensor) -> Loss:
    """The loss of a specification that needs all its rows: minus the smallest lower bound of ``objective . y``,
    for rows ``[R, outputs]``.

    Examples:
        >>> from zonocuda import Zonotope
        >>> loss = margin(torch.tensor([[1.0, -1.0]]))
        >>> loss(Zonotope.from_generators(torch.tensor([[0.5, 0.0]]), torch.tensor([[[0.125, -0.125]]]))).tolist()
        [-0.25]
    """
    return lambda output: -bounds_of_rows(objective, output).amin(1)


@dataclass(frozen=True, eq=False)
class Point:
    """What a sweep with some slopes found.

    Attributes:
        zonotope: what was swept.
        crossed: what it did at every activation, by name.
        output: the zonotope of the output, with dense blocks.
    """

    zonotope: Zonotope
    crossed: Mapping[str, Crossed]
    output: Zonotope


def sweep_to(graph: Graph, zonotope: Zonotope, slopes: Mapping[str, Tensor], memory_budget: int | None = None) -> Point:
    """Sweeps forward, without recording gradients, with slopes that broadcast to ``[B, *features]``; elsewhere with
    the minimum-area ones.

    Raises:
        ValueError: symbols had to be merged to keep to the budget: what was merged has no derivative.
    """
    with torch.no_grad():
        result = sweep(graph, zonotope, Means(memory_budget=memory_budget), slopes=slopes)
        _refuse_coarse(result, memory_budget)
        symbols = {stats.name: sum(stats.symbols.values()) for stats in result.stats}
        crossed = {}
        for name, (lower, upper) in result.intermediate.items():
            given = slopes.get(name)
            rule = rule_of(graph[name])
            slope = rule.initial(lower, upper) if given is None else given.detach().expand(lower.shape)
            crossed[name] = Crossed(rule, lower, upper, slope, symbols[name])
        output = result.output
        assert output is not None, "a sweep that goes forward has a zonotope"
        blocks = tuple(Dense(block.symbols, block.dense(output.features)) for block in output.blocks)
    return Point(zonotope, crossed, replace(output, blocks=blocks))


def slope_gradients(graph: Graph, point: Point, loss: Loss, memory_budget: int | None = None) -> dict[str, Tensor]:
    """The derivatives ``[B, *features]`` of a loss of the output's zonotope in the slopes of every activation, by name.

    What autograd through the whole sweep would return, in the memory of a few symbols (see
    :mod:`zonocuda.bounds.forward.adjoint`). Minimum-area slopes count as slopes that were given, on their kink.

    Args:
        graph: the network.
        point: where: what :func:`sweep_to` returned.
        loss: the function; what it returns for the batch is summed.
        memory_budget: bytes that a chunk of symbols may take.

    Raises:
        ValueError: a loss without derivative, or a budget that one symbol exceeds.
    """
    center = point.output.center.detach().requires_grad_()
    tensors = [block.tensors[0].detach().requires_grad_() for block in point.output.blocks]
    blocks = tuple(Dense(b.symbols, t) for b, t in zip(point.output.blocks, tensors, strict=True))
    with torch.enable_grad():
        value = loss(Zonotope(center, blocks)).sum()
    if not value.requires_grad:
        raise ValueError("slope_gradients: the loss does not depend on the output's zonotope differentiably")
    of_center, *of_blocks = torch.autograd.grad(value, [center, *tensors], materialize_grads=True)
    groups: dict[Symbols | str, Tensor] = {}
    for block, gradient in zip(blocks, of_blocks, strict=True):
        _collect(groups, point, block.symbols, gradient)
    adjoint = Adjoint(graph, point.zonotope, point.crossed, memory_budget)
    return adjoint.slopes(OutputGradient(of_center, groups))


def _collect(groups: dict[Symbols | str, Tensor], point: Point, symbols: Symbols, gradient: Tensor) -> None:
    """Puts the derivatives of a block, or of a part of one whose symbols were cut, to those of its group."""
    given = [block.symbols for block in point.zonotope.blocks]
    offset, root = 0, symbols
    while root not in given and root.parent is not None and root.ranks == root.parent.ranks:  # not beyond a share
        offset, root = offset + root.offset, root.parent
    key = root if root in given else root.origin
    if isinstance(key, str) and key not in point.crossed:
        raise ValueError(f"slope_gradients: the output depends on symbols of {key!r}, which is no activation")
    if key not in groups:
        groups[key] = gradient.new_zeros(len(gradient), root.count, *gradient.shape[2:])
    groups[key][:, offset : offset + symbols.count] = gradient


class JointSearch:
    """The search for slopes of a forward sweep; see :func:`zonocuda.tighten.ascent.climb`.

    Attributes:
        best: ``[B, R]``, the best lower bound of each row.
        intermediate: the best bounds of every activation's input, ``[B, *features]``.
        slopes: ``[B, *features]`` by activation, those of each batch element's smallest loss.
        seconds: time in sweeps and in their backward passes.
    """

    def __init__(
        self,
        graph: Graph,
        zonotope: Zonotope,
        objective: Tensor,
        loss: Loss,
        settings: Ascent,
        *,
        target: float,
        start: Mapping[str, Slopes],
        memory_budget: int | None,
    ) -> None:
        """Begins with the slopes ``start``, and with minimum-area ones elsewhere.

        Raises:
            ValueError: a start for a node that is no activation, for single rows, or one that differs with the sign.
        """
        self.graph, self.zonotope, self.objective, self.loss = graph, zonotope, objective, loss
        self.settings, self.target, self.memory_budget = settings, target, memory_budget
        self.start = {name: _shared(graph, name, slopes) for name, slopes in start.items()}
        self.best = zonotope.center.new_full((len(zonotope.center), len(objective)), -torch.inf)
        self.intermediate: dict[str, Bounds] = {}
        self.slopes: dict[str, Tensor] = {}
        self.seconds = {"sweep": 0.0, "backward": 0.0}
        self._smallest = torch.full_like(self.best[:, 0], torch.inf)
        self._free: dict[str, FreeSlopes] = {}
        self._point: Point | None = None
        self._number = self._retreats = 0
        self.rows = len(objective)
        self.total = self.worst = -math.inf

    def look(self, last: bool) -> bool:
        self._point = point = self._swept(self._moved() or self.start)
        for name, crossed in point.crossed.items():
            low, high = self.intermediate.get(name, (crossed.lower, crossed.upper))
            self.intermediate[name] = torch.fmax(low, crossed.lower), torch.fmin(high, crossed.upper)
        self.best = torch.fmax(self.best, bounds_of_rows(self.objective, point.output))  # a NaN says nothing
        loss = self._checked(point.output).expand_as(self._smallest)
        better, old = loss < self._smallest, self._smallest
        for name, crossed in point.crossed.items():
            chosen = better.reshape(-1, *[1] * (crossed.slope.dim() - 1))
            self.slopes[name] = torch.where(chosen, crossed.slope, self.slopes.get(name, crossed.slope))
        self._smallest = torch.where(better, loss, old)
        gain = torch.where(better, old - loss, torch.zeros_like(loss))
        improved = (gain > self.settings.tolerance * (1e-2 + loss.abs())).any()
        still = (~(self.best > self.target)).any(0).sum()
        numbers = [improved.double(), still.double(), *sum_and_smallest(self.best)]
        gained, rows, self.total, self.worst = self._agreed(torch.stack(numbers)).tolist()  # one transfer
        self.rows = int(rows)
        return bool(gained)

    def clock(self, seconds: float) -> float:
        return float(self._agreed(self.best.new_tensor([seconds], dtype=torch.float64)))

    def _agreed(self, numbers: Tensor) -> Tensor:
        """The numbers, those of rank 0 where the zonotope is shared out: what they decide, all ranks do."""
        ranks = self.zonotope.ranks
        return numbers if ranks is None else ranks.agreed(numbers)[0]

    def move(self, rate: float) -> bool:
        assert self._point is not None, "a look comes first"
        if not self.rows or not activations(self.graph):
            return False
        begin = time.monotonic()
        point, self._point = self._point, None
        gradients = slope_gradients(self.graph, point, self._checked, self.memory_budget)
        if not self._free:
            self._free = {name: _free(crossed) for name, crossed in point.crossed.items()}
        self._number += 1
        for name, free in self._free.items():
            free.step(-gradients[name].reshape(free.value.shape), self._number, rate)
        self.seconds["backward"] += time.monotonic() - begin
        return True

    def retreat(self) -> float:
        self._retreats += 1
        if self._retreats > RETREATS:
            return 0.0
        self._free, self._number = {}, 0
        self._point = self._swept(self.slopes)
        return SHORTER

    def _moved(self) -> dict[str, Tensor]:
        """The slopes as the last step left them; none before the first."""
        shapes = {node.name: self.graph[node.inputs[0]].shape for node in activations(self.graph)}
        return {name: free.value.detach().reshape(-1, *shapes[name]) for name, free in self._free.items()}

    def _swept(self, slopes: Mapping[str, Tensor]) -> Point:
        begin = time.monotonic()
        point = sweep_to(self.graph, self.zonotope, slopes, self.memory_budget)
        self.seconds["sweep"] += time.monotonic() - begin
        return point

    def _checked(self, output: Zonotope) -> Tensor:
        """The loss.

        Raises:
            ValueError: it is of another shape than agreed.
        """
        loss = self.loss(output)
        if not isinstance(loss, Tensor) or loss.shape not in ((), (len(self.best),)):
            got = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"optimize_bounds: the loss must return one number, or one for each of {len(self.best)} batch "
                f"elements, got {got}"
            )
        return loss


def _free(crossed: Crossed) -> FreeSlopes:
    """All slopes of an activation, those of settled neurons too: the bounds move, and may cross zero later."""
    flat, *ends = (
        t.reshape(len(t), 1, -1) for t in (crossed.slope, *(crossed.rule.reach(crossed.lower, crossed.upper) or ()))
    )
    index = torch.arange(flat.shape[2], device=flat.device)
    reach = (ends[0], ends[1]) if ends else None
    return FreeSlopes(crossed.rule, flat, index, 1, flat.shape[2], reach=reach)


def _shared(graph: Graph, name: str, slopes: Slopes) -> Tensor:
    """The one slope ``[B or 1, *features]`` of an activation.

    Raises:
        ValueError: there are several.
    """
    if slopes.negative is None or slopes.nonnegative is not None or slopes.negative.shape[1] != 1:
        raise ValueError(
            f"optimize_bounds: mode='forward' has one slope for all rows and signs, start[{name!r}] has others; pass "
            "Slopes(slope) with a slope [B, 1, *features], such as another call in this mode returns"
        )
    slope, node = slopes.negative.squeeze(1), graph.by_name.get(name)
    known = node is not None and has_rule(node)  # others are for the sweep to refuse
    return (rule_of(graph[name]).project(slope) if known else slope).nan_to_num(0.0)


def _refuse_coarse(result: Sweep, budget: int | None) -> None:
    """Raises ValueError where symbols were merged to save memory: what was merged has no derivative."""
    for step in result.plan:
        if any(action == "box" or action.startswith("merged") for action in step.actions):
            most = "a share of what is free" if budget is None else f"{budget / 2**20:.0f} MiB"
            raise ValueError(
                f"optimize_bounds: mode='forward' needs all generators of node {step.name!r}, which do not fit the "
                f"memory budget ({most}); raise memory_budget, or use mode='dual', which stores none"
            )
