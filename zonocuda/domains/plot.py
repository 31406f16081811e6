"""Drawings of zonotopes, bounds and how these improve, with matplotlib, which is loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zonocuda.domains.zonotope import Zonotope

_FILL, _EDGE = "#dce8f5", "#1f5a96"
MOST_INTERVALS = 2000
"""Outputs that are drawn one by one."""


def polygon(zonotope: Zonotope, dims: Sequence[int] = (0, 1), index: int = 0) -> Tensor:
    """The corners of a zonotope's projection onto two features, counterclockwise, ``[2 K, 2]`` float64 on the CPU.

    From the lowest corner, c - sum_k g_k with every generator turned to point up, one generator after the other, in
    the order of their angles, is turned from -g to g, and back again: the sums of a zonotope's sides in order are its
    boundary (Ziegler, Lectures on Polytopes, 7.3). Generators that are zero there are left out; parallel ones have
    corners on a common side. The corners are rounded sums.

    Args:
        zonotope: of any features.
        dims: two places in the flattened features, negative ones from the end.
        index: which zonotope of the batch.

    Raises:
        ValueError: places or an index that are not there, or generators or a center that are not finite.
    """
    count = zonotope.center[0].numel() if len(zonotope.center) else 0
    if len(dims) != 2 or not all(isinstance(d, int) and -count <= d < count for d in dims):
        raise ValueError(f"polygon: dims must be two of the {count} flattened features, got {tuple(dims)}")
    if not 0 <= index < len(zonotope.center):
        raise ValueError(f"polygon: index {index} is not in a batch of {len(zonotope.center)}")
    plane = zonotope.reshape(count).select(0, [d % count for d in dims])
    dense = [block.dense(plane.features)[index] for block in plane.blocks]
    center = plane.center[index].detach().double().cpu()
    generators = torch.cat([center.new_zeros(0, 2), *(block.detach().double().cpu() for block in dense)])
    if not bool(center.isfinite().all()) or not bool(generators.isfinite().all()):
        raise ValueError("polygon: the zonotope is not finite")
    generators = generators[(generators != 0).any(1)]
    if not len(generators):
        return center.unsqueeze(0)
    down = (generators[:, 1] < 0) | ((generators[:, 1] == 0) & (generators[:, 0] < 0))
    generators = torch.where(down.unsqueeze(1), -generators, generators)
    generators = generators[torch.atan2(generators[:, 1], generators[:, 0]).argsort()]
    steps = torch.cat([2 * generators, -2 * generators])
    return center - generators.sum(0) + steps.cumsum(0)


def plot_zonotope(zonotope: Zonotope, dims: Sequence[int], index: int, axes: Any, **style: Any) -> Any:
    """Draws the polygon; the axes."""
    corners = polygon(zonotope, dims, index)
    axes = axes_or_new(axes)
    axes.fill(*corners.T.numpy(), **{"facecolor": _FILL, "edgecolor": _EDGE, "linewidth": 1.5, **style})
    axes.set_xlabel(f"feature {dims[0]}")
    axes.set_ylabel(f"feature {dims[1]}")
    return axes


def plot_intervals(lower: Tensor, upper: Tensor, axes: Any, **style: Any) -> Any:
    """Draws an interval for each of the flattened values ``[N]``, one beside the other; the axes.

    Raises:
        ValueError: more than MOST_INTERVALS of them.
    """
    low, high = (bound.detach().double().cpu().flatten().numpy() for bound in (lower, upper))
    if len(low) > MOST_INTERVALS:
        raise ValueError(f"plot: {len(low)} values are more than the {MOST_INTERVALS} that a drawing holds")
    axes = axes_or_new(axes)
    axes.vlines(range(len(low)), low, high, **{"color": _EDGE, "linewidth": 4, **style})
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlabel("output")
    axes.set_ylabel("bounds")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def plot_course(seconds: Sequence[float], margins: Sequence[float], axes: Any, **style: Any) -> Any:
    """Draws a margin against time, which keeps its value until the next; the axes."""
    axes = axes_or_new(axes)
    axes.step(seconds, margins, **{"color": _EDGE, "linewidth": 1.5, "where": "post", **style})
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("margin")
    return axes


def axes_or_new(axes: Any) -> Any:
    """The axes, or those of a new figure.

    Raises:
        ImportError: there is no matplotlib.
    """
    if axes is not None:
        return axes
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'zonocuda[plot]'") from error
    return pyplot.subplots(layout="constrained")[1]
