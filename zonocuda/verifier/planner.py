"""The planner: which way a sweep goes, within a budget of memory.

Before each layer it foresees the bytes that the layer's generators will need. Where they would exceed the budget:

1. generators go through layers in *parts* of their symbols, so that a layer's inputs make room for its outputs;
2. behind a GPU they move to *host memory*, and come back part by part for every layer from there on;
3. ``direction="auto"`` changes to the *dual*, which stores no generators;
4. the least harmful symbols are *merged* into one error for each feature, as many as the budget asks for; where not
   even that is enough, all of them are, behind the layer: its *box*.

Every decision is a :class:`Step` of the result.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Literal

import torch

from zonocuda.domains import Block, Dense, Diagonal, Hosted, Windowed, Zonotope, memory
from zonocuda.domains.blocks import leaves
from zonocuda.domains.merge import merge_symbols
from zonocuda.graph import Add, Concat, Graph, Node, Relu
from zonocuda.verifier.forecast import Part, Work, block_bytes, forecast, on_device, peak_bytes
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.memory_budget import bytes_in_use, host_budget, host_bytes_in_use, memory_budget
from zonocuda.verifier.transform import allocates

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
    """

    name: str
    direction: Literal["forward", "dual"]
    bytes: int
    operations: int
    actions: tuple[str, ...] = ()


class Planner:
    """The decisions of one sweep, in order."""

    def __init__(
        self, graph: Graph, zonotope: Zonotope, direction: Direction, budget: int | None, pool: memory.Pool
    ) -> None:
        """Nothing decided yet.

        Raises:
            ValueError: an unknown direction, a budget that is not positive, or ``dual`` for a zonotope that is no box.
        """
        if direction not in ("auto", "forward", "dual"):
            raise ValueError(f"direction must be auto, forward or dual, got {direction!r}")
        self.is_box = len(zonotope.blocks) == 1 and isinstance(zonotope.blocks[0], Diagonal)
        if direction == "dual" and not self.is_box:
            raise ValueError("direction='dual' needs a box of inputs (a zonotope with one diagonal block)")
        self.graph, self.direction, self.pool = graph, direction, pool
        self.budget = memory_budget(budget, zonotope.center.device)
        self.host_budget = host_budget(zonotope.center.device)
        self._given = {_storage(t) for block in zonotope.blocks for t in block.tensors}
        pool.limit = self.budget // PARTS
        self.position = {node.name: i for i, node in enumerate(graph.nodes)}
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
        zonotopes = list(values)
        actions: list[str] = []

        def cut() -> list[Part]:
            actions.extend(self._cut(node, zonotopes, self._forecast(node, zonotopes, in_place)))
            return self._forecast(node, zonotopes, in_place)

        parts = cut()
        foreseen, excess = self._needed(parts, zonotopes, alive)
        if excess > 0:
            self.pool.clear()
            foreseen, excess = self._needed(parts, zonotopes, alive)
        may_act = not torch.is_grad_enabled()
        if excess > 0 and may_act and self.host_budget and not self.pool.keeps_on_host:
            self._move_to_host(zonotopes, alive)
            actions.append("to host memory")
            parts = cut()
            foreseen, excess = self._needed(parts, zonotopes, alive)
        if excess > 0 and may_act:
            if self.direction == "auto" and self.is_box:
                short = f"{_mib(self.budget + excess)} would exceed the budget of {_mib(self.budget)}"
                self.change_to_dual(node, *actions, short)
                return zonotopes, "dual"
            actions += self._merge(zonotopes, in_place, excess)
            parts = self._forecast(node, zonotopes, in_place)
            foreseen, excess = self._needed(parts, zonotopes, alive)
            if excess > 0 and not isinstance(node.op, Relu):
                actions.append("box")
                box = zonotopes[0].center.element_size() * self.batch * prod(node.shape)
                used = bytes_in_use(_zonotopes(zonotopes, alive), self.pool) + box
                self.steps.append(Step(node.name, "forward", used, 0, tuple(actions)))
                return zonotopes, "box"
        work = sum(part.operations for part in parts)
        self.steps.append(Step(node.name, "forward", foreseen, work, tuple(actions)))
        return zonotopes, "forward"

    def prefers_dual(self, node: Node, symbols: int, unstable: int, known: Callable[[str], Bounds]) -> bool:
        """Whether to change to the dual behind a ReLU that was bounded forward.

        Args:
            node: the ReLU.
            symbols: how many its input depends on.
            unstable: how many of its neurons are open, summed over the batch.
            known: bounds of the value of the ReLU, or of an earlier node that is needed again, by name.
        """
        if not self.is_box or self.direction == "forward" or self.is_settled:
            return False
        if self.direction == "dual":
            self.change_to_dual(node, "asked for")
            return True
        share = unstable / max(1, self.batch * prod(node.shape))
        after = self.position[node.name] + 1
        forward = self.work.forward(after, symbols + int(share * prod(node.shape)), share)
        if not WORTH_ASKING <= forward <= self._ask_below:
            return False
        dual = DUAL_OVERHEAD * self.work.dual(after, known)
        if dual < forward:
            self.change_to_dual(node, f"{dual / 1e9:.3g} instead of {forward / 1e9:.3g} GFLOP expected")
        self.is_settled, self._ask_below = dual > SETTLED * forward, ASK_AGAIN * forward
        return self.is_dual

    def change_to_dual(self, node: Node, *reasons: str) -> None:
        """From here on, no generators."""
        self.is_dual = True
        self.steps.append(Step(node.name, "dual", 0, 0, reasons))

    def _forecast(self, node: Node, values: Sequence[Zonotope], in_place: bool) -> list[Part]:
        return forecast(node, values, in_place, self.pool.keeps_on_host)

    def _needed(
        self, parts: Sequence[Part], values: Sequence[Zonotope], alive: MutableMapping[str, Value]
    ) -> tuple[int, int]:
        """The bytes that the device will need at most, and by how much they, or the host's, exceed their budget."""
        zonotopes = _zonotopes(values, alive)
        foreseen = bytes_in_use(zonotopes, self.pool) + peak_bytes(parts, self.pool)
        on_host = host_bytes_in_use(zonotopes) + sum(part.hosted for part in parts)
        return foreseen, max(foreseen - self.budget, on_host - self.host_budget)

    def _cut(self, node: Node, values: list[Zonotope], parts: Sequence[Part]) -> list[str]:
        """Cuts the symbols of blocks that are large in host memory, or diagonal with images that would be large; and
        the first value into its parts."""
        if isinstance(node.op, Add | Concat) or torch.is_grad_enabled():
            return []
        limit, count = self.budget // PARTS, 0
        grows = allocates(node.op) and not isinstance(node.op, Relu)
        for block, part in zip(values[0].blocks, parts, strict=True):
            if not isinstance(block, Hosted) and not (grows and isinstance(block, Diagonal)):
                continue
            size = max(part.stored, part.hosted, block_bytes(on_device(block)))
            if size > limit and block.symbols.count > 1:
                count += len(block.symbols.cut(max(1, block.symbols.count * limit // size)))
        if (grows or count) and any(block.symbols.parts is not None for block in values[0].blocks):
            values[0] = replace(values[0], blocks=tuple(leaves(values[0].blocks)))
        return [f"{count} parts"] if count else []

    def _move_to_host(self, values: list[Zonotope], alive: MutableMapping[str, Value]) -> None:
        """From here on, blocks are kept in host memory: those of all values go there now, but for the caller's own."""
        self.pool.keeps_on_host = True
        moved: dict[int, Block] = {}
        old: dict[int, torch.Tensor] = {}

        def on_host(block: Block) -> Block:
            if not isinstance(block, Dense | Windowed) or _storage(block.tensors[0]) in self._given:
                return block
            if id(block) not in moved:
                moved[id(block)] = Hosted.store(block)
                old[_storage(block.tensors[0])] = block.tensors[0]
            return moved[id(block)]

        def hosted(value: Zonotope) -> Zonotope:
            return replace(value, blocks=tuple(on_host(block) for block in value.blocks))

        values[:] = [hosted(value) for value in values]
        for name, value in alive.items():
            if isinstance(value, Zonotope):
                alive[name] = hosted(value)
        for tensor in old.values():
            memory.release(tensor)
        self.pool.clear()

    def _merge(self, values: list[Zonotope], in_place: bool, excess: int) -> list[str]:
        """Replaces values by ones of fewer symbols, as many fewer as the budget asks for where that can be."""
        actions: list[str] = []
        for i, value in enumerate(values):
            stored = [block for block in value.blocks if not isinstance(block, Diagonal)]
            symbols = sum(block.symbols.count for block in stored)
            neurons = prod(value.center.shape)
            if symbols <= neurons:
                continue
            each = max(1, sum(block_bytes(on_device(block)) for block in stored) // symbols)
            count = min(symbols, neurons + excess // each + 1)
            values[i] = merge_symbols(value, count, consume=in_place)
            actions.append(f"merged {count} symbols")
        return actions


def _zonotopes(values: Sequence[Zonotope], alive: MutableMapping[str, Value]) -> list[Zonotope]:
    return [*values, *(value for value in alive.values() if isinstance(value, Zonotope))]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
