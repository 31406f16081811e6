"""The planner: which way a sweep goes, within a budget of memory.

Before each layer it foresees the bytes that the layer's generators will need. Where they would exceed the budget:

1. generators go through layers in *parts* of their symbols, so that a layer's inputs make room for its outputs;
2. ``direction="auto"`` changes to the *dual*, which stores no generators;
3. the least harmful symbols are *merged* into one error for each feature, as many as the budget asks for; where not
   even that is enough, all of them are, behind the layer: its *box*.

Every decision is a :class:`Step` of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch

from zonocuda.domains import Diagonal, Zonotope, memory
from zonocuda.domains.blocks import leaves
from zonocuda.domains.merge import merge_symbols
from zonocuda.graph import Graph, Node, Relu
from zonocuda.verifier.forecast import Part, Work, block_bytes, forecast, peak_bytes
from zonocuda.verifier.interval import Bounds
from zonocuda.verifier.memory_budget import bytes_in_use, memory_budget
from zonocuda.verifier.transform import allocates

Direction = Literal["auto", "forward", "dual"]
Way = Literal["forward", "dual", "box"]

PARTS = 16
"""A block's image takes at most the budget divided by this; else the block goes through its layer in parts."""

DUAL_OVERHEAD = 2.0
"""Operations of a dual pass take longer than those of the forward sweep by this factor (measured: 1.5 to 2.5)."""

SETTLED = 3
"""Where the dual would cost so many times what the forward sweep does, it is not asked for again."""

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
        pool.limit = self.budget // PARTS
        self.position = {node.name: i for i, node in enumerate(graph.nodes)}
        self.work = Work(graph)
        self.batch = zonotope.center.shape[0]
        self.is_dual = self.is_settled = False
        self.steps: list[Step] = []

    def prepare(
        self, node: Node, values: Sequence[Zonotope], in_place: bool, alive: Mapping[str, Zonotope]
    ) -> tuple[list[Zonotope], Way]:
        """The values that a node is to be computed from, made so that it fits the budget, and the way to do it."""
        zonotopes = list(values)
        parts = forecast(node, zonotopes, in_place)
        actions = self._cut(node, zonotopes, parts)
        if actions:
            parts = forecast(node, zonotopes, in_place)
        others = list(alive.values())

        def needed() -> int:
            return bytes_in_use([*others, *zonotopes], self.pool) + peak_bytes(parts, self.pool)

        foreseen = needed()
        if foreseen > self.budget:
            self.pool.clear()
            foreseen = needed()
        if foreseen > self.budget and not torch.is_grad_enabled():
            if self.direction == "auto" and self.is_box:
                self.change_to_dual(node, f"{_mib(foreseen)} would exceed the budget of {_mib(self.budget)}")
                return zonotopes, "dual"
            actions += self._merge(zonotopes, in_place, foreseen)
            parts = forecast(node, zonotopes, in_place)
            foreseen = needed()
            if foreseen > self.budget and not isinstance(node.op, Relu):
                actions.append("box")
                box = values[0].center.element_size() * self.batch * prod(node.shape)
                used = bytes_in_use([*others, *zonotopes], self.pool) + box
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
        if forward < WORTH_ASKING:
            return False
        dual = DUAL_OVERHEAD * self.work.dual(after, known)
        if dual < forward:
            self.change_to_dual(node, f"{dual / 1e9:.3g} instead of {forward / 1e9:.3g} GFLOP expected")
        self.is_settled = dual > SETTLED * forward
        return self.is_dual

    def change_to_dual(self, node: Node, reason: str) -> None:
        """From here on, no generators."""
        self.is_dual = True
        self.steps.append(Step(node.name, "dual", 0, 0, (reason,)))

    def _cut(self, node: Node, values: list[Zonotope], parts: Sequence[Part]) -> list[str]:
        """Cuts the symbols of those diagonal blocks whose images would be large, and the values into their parts."""
        if not allocates(node.op) or isinstance(node.op, Relu) or torch.is_grad_enabled():
            return []
        limit, count = self.budget // PARTS, 0
        for block, part in zip(values[0].blocks, parts, strict=True):
            if isinstance(block, Diagonal) and part.stored > limit and block.symbols.count > 1:
                count += len(block.symbols.cut(max(1, block.symbols.count * limit // part.stored)))
        if any(block.symbols.parts is not None for block in values[0].blocks):
            values[0] = replace(values[0], blocks=tuple(leaves(values[0].blocks)))
        return [f"{count} parts"] if count else []

    def _merge(self, values: list[Zonotope], in_place: bool, foreseen: int) -> list[str]:
        """Replaces values by ones of fewer symbols, as many fewer as the budget asks for where that can be."""
        actions: list[str] = []
        excess = foreseen - self.budget
        for i, value in enumerate(values):
            stored = [block for block in value.blocks if not isinstance(block, Diagonal)]
            symbols = sum(block.symbols.count for block in stored)
            neurons = prod(value.center.shape)
            if symbols <= neurons:
                continue
            each = max(1, sum(block_bytes(block) for block in stored) // symbols)
            count = min(symbols, neurons + excess // each + 1)
            values[i] = merge_symbols(value, count, consume=in_place)
            actions.append(f"merged {count} symbols")
        return actions


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
