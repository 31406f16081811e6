"""What a sweep saw at the activations: how many neurons are open, on how many symbols, and how wide they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Zonotope
from zonocuda.domains.shares import kinds
from zonocuda.graph import Node
from zonocuda.relaxations import rule_of


@dataclass(frozen=True)
class LayerStats:
    """What the sweep saw at an activation, summed over the batch.

    Attributes:
        name: the node.
        neurons, dead, active, unstable: how many neurons; how many of them are 0 throughout, one line otherwise, and
            neither; a neuron with NaN bounds counts as unstable.
        symbols: how many symbols the layer's input depends on, by kind of block, all ranks' where they have shares;
            none in the dual direction.
        mean_width: mean of upper - lower over the neurons; in the dual direction neurons of known sign have wide
            bounds.
        direction: ``forward`` or ``dual``, where the bounds come from.
        dual_rows: how many neurons a dual pass was made for.
    """

    name: str
    neurons: int
    dead: int
    active: int
    unstable: int
    symbols: Mapping[str, int]
    mean_width: float
    direction: str = "forward"
    dual_rows: int = 0


@dataclass(frozen=True, eq=False)
class Seen:
    """:class:`LayerStats` of an activation, its numbers still on the device: ``[3]``, how many neurons are dead and
    active, and the mean width."""

    name: str
    neurons: int
    numbers: Tensor
    symbols: Mapping[str, int]
    direction: str
    dual_rows: int

    @staticmethod
    def of(node: Node, bounds: Bounds, value: Zonotope | None, dual_rows: int = 0) -> Seen:
        lower, upper = (b.detach() for b in bounds)
        neurons = lower.numel()
        dead, active = rule_of(node).kinds(lower, upper)
        width = (upper - lower).mean() if neurons else lower.new_zeros(())
        symbols = {} if value is None else kinds(value.blocks)
        numbers = torch.stack([dead.sum().double(), active.sum().double(), width.double()])
        return Seen(node.name, neurons, numbers, symbols, "dual" if value is None else "forward", dual_rows)

    def unstable(self) -> int:
        """How many neurons are open: a device is waited for."""
        return self.neurons - int(self.numbers[:2].sum())

    def stats(self, dead: float, active: float, width: float) -> LayerStats:
        open_ = self.neurons - int(dead) - int(active)
        return LayerStats(
            self.name, self.neurons, int(dead), int(active), open_, self.symbols, width, self.direction, self.dual_rows
        )


def layer_stats(seen: Sequence[Seen]) -> tuple[LayerStats, ...]:
    """All layers' numbers in one transfer."""
    if not seen:
        return ()
    numbers = torch.stack([layer.numbers for layer in seen]).tolist()
    return tuple(layer.stats(*row) for layer, row in zip(seen, numbers, strict=True))
