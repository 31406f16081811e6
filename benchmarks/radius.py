"""Radii of boxes that leave a given share of a network's neurons unstable."""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.bounds.forward.sweep import Means, Sweep, sweep
from zonocuda.bounds.plan.planner import Direction
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph


def unstable_share(result: Sweep) -> float:
    """Of all ReLU neurons of a sweep."""
    return sum(s.unstable for s in result.stats) / sum(s.neurons for s in result.stats)


def radius_for(
    graph: Graph,
    image: Tensor,
    share: float,
    *,
    mask: Tensor | None = None,
    direction: Direction = "forward",
    memory_budget: int | None = None,
    steps: int = 12,
    tolerance: float = 0.1,
) -> float:
    """The radius around ``image`` at which a ``share`` of the neurons is unstable, up to the factor 1 +- ``tolerance``.

    From above a radius that leaves almost nothing unstable, by doubling and then bisection; the share grows with the
    radius. The boxes on the way up are small, so that no sweep is much larger than the last one.

    Args:
        graph: the network.
        image: the center, ``[C, H, W]``.
        share: of all ReLU neurons.
        mask: 1 where the image is perturbed, 0 elsewhere; everywhere by default.
        direction, memory_budget: those of the sweeps.
        steps: sweeps at most, of the bisection.
        tolerance: how far from ``share`` the result may be, relatively.
    """
    low, high = 0.0, 1e-4

    def measured(radius: float) -> float:
        distance = radius * (torch.ones_like(image) if mask is None else mask)
        box = Zonotope.from_box((image - distance).unsqueeze(0), (image + distance).unsqueeze(0))
        with torch.no_grad():
            return unstable_share(sweep(graph, box, Means(direction, memory_budget)))

    while (found := measured(high)) < share * (1 - tolerance):
        low, high = high, 2 * high
    middle = high
    for _ in range(steps):
        if abs(found - share) <= tolerance * share:
            break
        middle = (low + high) / 2
        found = measured(middle)
        low, high = (middle, high) if found < share else (low, middle)
    return middle
