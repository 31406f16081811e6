"""The planner: which way a sweep goes, within a budget of memory.

Before each layer it foresees the bytes that the layer's generators will need. Where they would exceed the budget:

1. generators go through layers in *parts* of their symbols, so that a layer's inputs make room for its outputs;
2. behind a GPU they move to *host memory*, if that has room, and come back part by part for every layer from there on;
3. ``direction="auto"`` changes to the *dual*, which stores no generators;
4. where the symbols are shared out over ranks, the sweep ends with an error: a rank cannot decide alone;
5. the least harmful symbols are *merged* into one error for each feature, as many as the budget asks for; where not
   even that is enough, all of them are, behind the layer: its *box*.

Every decision is a :class:`Step` of the result.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from typing import Literal

import torch

from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.plan.budget import bytes_in_use, host_budget, host_bytes_in_use, memory_budget
from zonocuda.bounds.plan.forecast import Part, Work, block_bytes, forecast, host_peak_bytes, peak_bytes
from zonocuda.bounds.transform import allocates
from zonocuda.domains import Block, Dense, Diagonal, Hosted, Windowed, Zonotope, memory
from zonocuda.domains.blocks import pieces, present, storage_of
from zonocuda.domains.hosted import kept
from zonocuda.domains.merge import merge_symbols
from zonocuda.graph import Add, Concat, Graph, Node
from zonocuda.relaxations import has_rule

Direction = Literal["auto", "forward", "dual"]
Way = Literal["forward", "dual", "box"]
Value = Zonotope | Bounds

PARTS = 16
"""A block's image takes at most the budget divided by this; else the block goes through its layer in parts."""

DUAL_OVERHEAD = 2.0
"""Operations of a dual pass take longer than those of the forward sweep by this factor, about."""

SETTLED = 3
"""Where the dual would cost so many times what the forward sweep does, it is not asked for again."""

ASK_AGAIN = 0.5
"""Else it is asked for again when no more than this share of the forward sweep's operations is left: every answer takes
a sweep of intervals through the rest of the network."""

WORTH_ASKING = 5e7
"""Operations of the rest of a forward sweep below which the dual is not asked for: a fraction of a millisecond."""


@dataclass(frozen=True)
class Step:
    """What was decided for a node.

    Attributes:
        name: the node.
        direction: ``forward`` or ``dual``.
        bytes: the most that the generators were foreseen to take while the node is computed, those of other values
            included; 0 for a change to the dual, which makes none.
        operations: foreseen additions and multiplications of the forward layer.
        actions: what the budget asked for, such as ``4 parts`` or ``merged 120 symbols``; or why the dual.
        host_bytes: the most that the generators were foreseen to take in host memory behind the device.

    What the caller's own generators take is not counted.
    """

    name: str
    direction: Literal["forward", "dual"]
    bytes: int
    operations: int
    actions: tuple[str, ...] = ()
    host_bytes: int = 0


class Planner:
    """The decisions of one sweep, in order."""

    def __init__(
        self, graph: Graph, zonotope: Zonotope, direction: Direction, budget: int | None, pool: memory.Pool
    ) -> None:
        """Nothing decided yet.

        Raises:
            ValueError: an unknown direction, a budget that is not positive, ``dual`` for a zonotope that is no box, or
                another direction than ``forward`` for one that is shared out over ranks.
        """
        self.ranks = zonotope.ranks
        if self.ranks is not None and direction != "forward":
            raise ValueError(
                f"direction={direction!r} needs all symbols in one process, and these are shared out over ranks; pass "
                "direction='forward', or a zonotope that is not shared"
            )
        if direction not in ("auto", "forward", "dual"):
            raise ValueError(f"direction must be auto, forward or dual, got {direction!r}")
        self.is_box = len(zonotope.blocks) == 1 and isinstance(zonotope.blocks[0], Diagonal)
        if direction == "dual" and not self.is_box:
            raise ValueError("direction='dual' needs a box of inputs (a zonotope with one diagonal block)")
        self.graph, self.direction, self.pool = graph, direction, pool
        self.budget = memory_budget(budget, zonotope.center.device)
        self.host_budget = host_budget(zonotope.center.device)
        self._given = {storage_of(t) for block in zonotope.blocks for t in present(block).tensors}
        pool.limit = self.budget // PARTS
        self.work = Work(graph)
        self.batch = zonotope.center.shape[0]
        self.is_dual = self.is_settled = False
        self._ask_below = inf  # operations left of the forward sweep
        self.steps: list[Step] = []

    def prepare(
        self, node: Node, values: Sequence[Zonotope], in_place: bool, alive: MutableMapping[str, Value]
    ) -> tuple[list[Zonotope], Way]:
        """The values that a node is to be computed from, made so that it fits the budget, and the way to do it.

        Args:
            node: the node.
            values: the values of its inputs, which nobody may use after this; what is returned takes their place.
            in_place: their memory is free for the node's value.
            alive: all values that are still needed, by name; where generators move to host memory, they do so there.
        """
        layer = _Layer(node, list(values), in_place, alive)
        need = self._streamed(layer)
        way: Way = "forward"
        if self._excess(need) > 0 and not torch.is_grad_enabled():
            need, way = self._reduced(layer, need)
        if way != "dual":
            self.steps.append(need.step(node.name, layer.actions))
        return layer.values, way

    def _streamed(self, layer: _Layer) -> _Need:
        """What a layer needs after what changes no bound: its blocks in parts, and in host memory."""
        self._cut(layer)
        need = self._needed(layer)
        if self._excess(need) > 0:
            self.pool.clear()
            need = self._needed(layer)
        short = self._excess(need) > 0 and not torch.is_grad_enabled()
        if short and not self.pool.keeps_on_host and self._host_holds(layer):
            self._move_to_host(layer)
            layer.actions.append("to host memory")
            self._cut(layer)
            need = self._needed(layer)
        return need

    def _reduced(self, layer: _Layer, need: _Need) -> tuple[_Need, Way]:
        """What a layer needs, and its way, where that is not enough: the dual, fewer symbols, or the box."""
        if self.ranks is not None:
            raise ValueError(
                f"sweep: this rank's share of the generators takes {_mib(need.bytes)} at node {layer.node.name!r}, and "
                f"the memory budget is {_mib(self.budget)}; start more than {self.ranks.size} ranks, or raise it"
            )
        if self.direction == "auto" and self.is_box:
            short, budget, where = need.bytes, self.budget, ""
            if short <= budget:
                short, budget, where = need.host_bytes, self.host_budget, " of host memory"
            reason = f"{_mib(short)} would exceed the budget of {_mib(budget)}{where}"
            self.change_to_dual(layer.node, *layer.actions, reason, host_bytes=self._host_bytes(layer))
            return need, "dual"
        merging = self._merge(layer, self._excess(need))
        need = self._needed(layer)
        if self._excess(need) <= 0:
            return need.or_more(merging), "forward"
        layer.actions.append("box")
        zonotopes = layer.zonotopes()
        box = zonotopes[0].center.element_size() * self.batch * prod(layer.node.shape)
        fetched = _fetched([block for value in layer.values for block in value.blocks])
        used = bytes_in_use(zonotopes, self.pool, self._given) + fetched + box
        return _Need(used, self._host_bytes(layer), 0).or_more(merging), "box"

    def prefers_dual(
        self, node: Node, symbols: int, unstable: Callable[[], int], known: Callable[[str], Bounds]
    ) -> bool:
        """Whether to change to the dual behind an activation that was bounded forward.

        Args:
            node: the activation.
            symbols: how many its input depends on.
            unstable: how many of its neurons are open, summed over the batch; asked only where that decides.
            known: bounds of the value of the activation, or of an earlier node that is needed again, by name.
        """
        if not self.is_box or self.direction == "forward" or self.is_settled:
            return False
        if self.direction == "dual":
            self.change_to_dual(node, "asked for")
            return True
        share = min(1.0, unstable() / max(1, self.batch * prod(node.shape)))
        after = self.graph.position[node.name] + 1
        forward = self.work.forward(after, symbols + int(share * prod(node.shape)), share)
        if not WORTH_ASKING <= forward <= self._ask_below:
            return False
        dual = DUAL_OVERHEAD * self.work.dual(after, known)
        if dual < forward:
            self.change_to_dual(node, f"{dual / 1e9:.3g} instead of {forward / 1e9:.3g} GFLOP expected")
        self.is_settled, self._ask_below = dual > SETTLED * forward, ASK_AGAIN * forward
        return self.is_dual

    def change_to_dual(self, node: Node, *reasons: str, host_bytes: int = 0) -> None:
        """From here on, no generators."""
        self.is_dual = True
        self.steps.append(Step(node.name, "dual", 0, 0, reasons, host_bytes))

    def note(self, action: str) -> None:
        """Something that was done behind the last node."""
        self.steps[-1] = replace(self.steps[-1], actions=(*self.steps[-1].actions, action))

    def _forecast(self, layer: _Layer) -> list[Part]:
        return forecast(layer.node, layer.values, layer.in_place, self.pool.keeps_on_host)

    def _needed(self, layer: _Layer) -> _Need:
        """What the layer needs at most, with what is in use."""
        parts, zonotopes = self._forecast(layer), layer.zonotopes()
        on_device = bytes_in_use(zonotopes, self.pool, self._given) + peak_bytes(parts, self.pool)
        on_host = self._host_bytes(layer) + host_peak_bytes(parts)
        return _Need(on_device, on_host, sum(part.operations for part in parts))

    def _host_bytes(self, layer: _Layer) -> int:
        """Bytes in use in host memory."""
        return host_bytes_in_use(layer.zonotopes(), self._given)

    def _excess(self, need: _Need) -> int:
        """By how much the device's budget, or its host's, is exceeded."""
        return max(need.bytes - self.budget, need.host_bytes - self.host_budget)

    def _cut(self, layer: _Layer) -> None:
        """Cuts the symbols of blocks that are large in host memory, or diagonal with images that would be large; and
        the first value into its parts, and these again."""
        op = layer.node.op
        if isinstance(op, Add | Concat) or torch.is_grad_enabled():
            return
        grows = allocates(op) and not has_rule(layer.node)
        kinds = (Hosted, Diagonal) if grows else (Hosted,)  # whose parts lie in their memory
        count = 0
        while any(isinstance(block, kinds) for block in layer.values[0].blocks):
            value, parts = layer.values[0], self._forecast(layer)
            for block, part in zip(value.blocks, parts, strict=True):
                if isinstance(block, kinds):
                    count += self._cut_symbols(block, max(part.stored, part.hosted))
            if not any(isinstance(block, kinds) and block.symbols.parts is not None for block in value.blocks):
                break
            cut = (pieces(block) if isinstance(block, kinds) else [block] for block in value.blocks)
            layer.values[0] = replace(value, blocks=tuple(piece for run in cut for piece in run))
        if count:
            layer.actions.append(f"{count} parts")

    def _cut_symbols(self, block: Block, image: int = 0) -> int:
        """Cuts the symbols of a block where it, or its image of so many bytes, takes too much at a time, but not those
        that were cut before; returns how many parts there are."""
        size, limit = max(image, block_bytes(present(block))), self.budget // PARTS
        if size <= limit or block.symbols.count <= 1 or block.symbols.parts is not None:
            return 0
        return len(block.symbols.cut(max(1, block.symbols.count * limit // size)))

    def _host_holds(self, layer: _Layer) -> bool:
        """Whether the host's budget has room for all that would move there."""
        moving = {
            id(block): block_bytes(block)
            for zonotope in layer.zonotopes()
            for block in zonotope.blocks
            if self._moves(block)
        }
        return self.host_budget > 0 and self._host_bytes(layer) + sum(moving.values()) <= self.host_budget

    def _moves(self, block: Block) -> bool:
        """Whether a block is to move to host memory: a large one on the device that is not the caller's own."""
        return isinstance(block, Dense | Windowed) and storage_of(block.tensors[0]) not in self._given

    def _move_to_host(self, layer: _Layer) -> None:
        """From here on, blocks are kept in host memory: those of all values go there now, but for the caller's own."""
        self.pool.keeps_on_host = True
        moved: dict[int, list[Block]] = {}
        old: dict[int, torch.Tensor] = {}

        def on_host(block: Block) -> list[Block]:
            if not self._moves(block):
                return [block]
            if id(block) not in moved:
                for piece in pieces(block):
                    self._cut_symbols(piece)
                moved[id(block)] = [kept(piece) for piece in pieces(block)]
                old[storage_of(block.tensors[0])] = block.tensors[0]
            return moved[id(block)]

        def hosted(value: Zonotope) -> Zonotope:
            return replace(value, blocks=tuple(piece for block in value.blocks for piece in on_host(block)))

        layer.values[:] = [hosted(value) for value in layer.values]
        for name, value in layer.alive.items():
            if isinstance(value, Zonotope):
                layer.alive[name] = hosted(value)
        for tensor in old.values():
            memory.release(tensor)
        self.pool.clear()

    def _merge(self, layer: _Layer, excess: int) -> _Need:
        """Replaces values by ones of fewer symbols, as many fewer as the budget asks for where that can be; returns
        what that needs itself."""
        need = _Need(0, 0, 0)
        for i, value in enumerate(layer.values):
            stored = [block for block in value.blocks if not isinstance(block, Diagonal)]
            symbols = sum(block.symbols.count for block in stored)
            neurons = prod(value.center.shape)
            if symbols <= neurons:
                continue
            each = max(1, sum(block_bytes(present(block)) for block in stored) // symbols)
            count = min(symbols, neurons + excess // each + 1)
            if self._excess(self._merging(layer, stored, symbols - count)) > 0:
                count = symbols
            need = need.or_more(self._merging(layer, stored, symbols - count))
            layer.values[i] = merge_symbols(value, count, consume=layer.in_place)
            layer.actions.append(f"merged {count} symbols")
        return need

    def _merging(self, layer: _Layer, blocks: Sequence[Block], count: int) -> _Need:
        """What it needs to copy ``count`` of the blocks' symbols: one block's after the other, or all beside them."""
        sizes = [block_bytes(present(block)) for block in blocks]
        each = max(-(-size // max(1, block.symbols.count)) for size, block in zip(sizes, blocks, strict=True))
        one = min(count * each, max(sizes))
        copies = one if layer.in_place else min(count * each, sum(sizes))
        on_device = bytes_in_use(layer.zonotopes(), self.pool, self._given) + _fetched(blocks)
        if self.pool.keeps_on_host:
            return _Need(on_device + one, self._host_bytes(layer) + copies, 0)
        return _Need(on_device + copies, self._host_bytes(layer), 0)


@dataclass
class _Layer:
    """A node that is about to be computed; see :meth:`Planner.prepare`."""

    node: Node
    values: list[Zonotope]
    in_place: bool
    alive: MutableMapping[str, Value]
    actions: list[str] = field(default_factory=list)

    def zonotopes(self) -> list[Zonotope]:
        """All zonotopes that are there while it is computed."""
        return [*self.values, *(value for value in self.alive.values() if isinstance(value, Zonotope))]


@dataclass(frozen=True)
class _Need:
    """The most bytes of generators on the device and on its host while a node is computed, and its operations."""

    bytes: int
    host_bytes: int
    operations: int

    def or_more(self, other: _Need) -> _Need:
        """The most of this and what another one needs."""
        return _Need(max(self.bytes, other.bytes), max(self.host_bytes, other.host_bytes), self.operations)

    def step(self, name: str, actions: Sequence[str]) -> Step:
        """The entry of the plan."""
        return Step(name, "forward", self.bytes, self.operations, tuple(actions), self.host_bytes)


def _fetched(blocks: Sequence[Block]) -> int:
    """The most bytes of blocks of the host on the device, one at a time."""
    return max((block_bytes(block.block) for block in blocks if isinstance(block, Hosted)), default=0)


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
