"""How many neurons the bounds leave open in each layer, from the results' documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zonocuda.fleet.pictures import document_of
from zonocuda.fleet.record import Record

MOST_GROUPS = 12
"""Networks, or groups of them, that are drawn."""
MOST_LAYERS = 200
"""Of a network that is drawn."""


@dataclass(frozen=True)
class LayerShare:
    """A layer, and which share of its neurons is unstable, on average over the instances."""

    name: str
    neurons: int
    share: float


@dataclass(frozen=True)
class LayerGroup:
    """Networks whose layers have the same names and sizes.

    Attributes:
        nets: their names, in the order of the instances.
        instances: how many the layers are known of.
        layers: in the network's order.
    """

    nets: tuple[str, ...]
    instances: int
    layers: tuple[LayerShare, ...]

    @property
    def title(self) -> str:
        """The networks' names, or the first ones."""
        more = f" and {len(self.nets) - 3:,} more" if len(self.nets) > 3 else ""
        return ", ".join(self.nets[:3]) + more


def layer_groups(folder: Path, records: Sequence[Record]) -> list[LayerGroup]:
    """The groups of a folder's results, those of most instances first."""
    found: dict[tuple[tuple[str, int], ...], list[tuple[str, list[int]]]] = {}
    for record in records:
        layers = _layers(document_of(folder, record))
        if layers:
            key = tuple((name, neurons) for name, neurons, _ in layers)
            found.setdefault(key, []).append((record.net, [unstable for _, _, unstable in layers]))
    groups = []
    for key, seen in found.items():
        totals = [sum(counts) for counts in zip(*(counts for _, counts in seen), strict=True)]
        layers_of = (
            LayerShare(name, neurons, total / (neurons * len(seen)))
            for (name, neurons), total in zip(key, totals, strict=True)
        )
        groups.append(LayerGroup(tuple(dict.fromkeys(net for net, _ in seen)), len(seen), tuple(layers_of)))
    return sorted(groups, key=lambda group: -group.instances)


def _layers(document: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """The name, neurons and unstable neurons of each layer; none where they are not as they should be."""
    try:
        layers = [(layer["name"], layer["neurons"], layer["unstable"]) for layer in document["layers"]]
    except (KeyError, TypeError):
        return []
    sound = all(
        isinstance(name, str) and type(neurons) is int and type(unstable) is int and 0 <= unstable <= neurons > 0
        for name, neurons, unstable in layers
    )
    return layers if sound and len(layers) <= MOST_LAYERS else []
