"""Bounds of a network's layers, for users who bring their own set of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.forward.seen import LayerStats
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.plan.planner import Direction, Step
from zonocuda.brief import brief
from zonocuda.domains import Backend, Zonotope, use_backend
from zonocuda.domains.plot import plot_intervals
from zonocuda.graph import Graph
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.precision import full_precision, plain_torch
from zonocuda.relaxations import use_kink
from zonocuda.verifier.arguments import check_budget, check_choice, check_count, check_slopes, resolve_zonotope
from zonocuda.verifier.model import Model, Subject
from zonocuda.verifier.shared import check_ranks


@dataclass(frozen=True, eq=False)
class NetworkBounds:
    """Bounds of a network's values over a set of inputs.

    Attributes:
        lower, upper: bounds of the output, ``[B, *output features]``.
        output: the zonotope that encloses the output, on the input's symbols and new ones, with this rank's share of
            them where they are shared out; None where the sweep changed to the dual.
        layers: bounds (lower, upper) of the value of every node, by name, where they were asked for; in round to
            nearest.
        intermediate: bounds of the input of every activation, by name.
        stats: what the sweep saw at each activation.
        plan: the planner's decisions, node by node.

    Examples:
        >>> bounds = compute_bounds(torch.nn.Linear(3, 2), Zonotope.from_ball(torch.zeros(1, 3), 0.5))
        >>> tuple(bounds.lower.shape), bool((bounds.lower <= bounds.upper).all()), bounds.output.symbols
        ((1, 2), True, 3)
    """

    lower: Tensor
    upper: Tensor
    output: Zonotope | None
    layers: Mapping[str, tuple[Tensor, Tensor]]
    intermediate: Mapping[str, tuple[Tensor, Tensor]]
    stats: tuple[LayerStats, ...]
    plan: tuple[Step, ...]

    def __repr__(self) -> str:
        kept = f"output={self.output is not None}, layers={len(self.layers)}, intermediate={len(self.intermediate)}"
        return f"NetworkBounds(lower={brief(self.lower)}, upper={brief(self.upper)}, {kept})"

    def plot(self, *, index: int = 0, axes: Any = None, **style: Any) -> Any:
        """Draws the interval of each output, one beside the other.

        Args:
            index: which input of the batch.
            axes: matplotlib's, to draw on; by default those of a new figure.
            style: of the intervals, as ``matplotlib.axes.Axes.vlines`` takes it.

        Returns:
            The axes.

        Raises:
            ImportError: there is no matplotlib (``pip install 'zonocuda[plot]'``).
            ValueError: an index that is not there, or more outputs than a drawing holds.
        """
        if not 0 <= index < len(self.lower):
            raise ValueError(f"plot: index {index} is not in a batch of {len(self.lower)}")
        return plot_intervals(self.lower[index], self.upper[index], axes, **style)


@plain_torch()
def compute_bounds(
    model: Model,
    zonotope: Zonotope,
    *,
    layers: Literal["output", "all"] = "output",
    direction: Direction = "forward",
    memory_budget: int | None = None,
    max_symbols: int | None = None,
    slopes: Mapping[str, Tensor] | None = None,
    kink: KinkRule = "envelope",
    backend: Backend = "auto",
) -> NetworkBounds:
    """Encloses the values of a network over a zonotope of inputs, by one forward sweep.

    Differentiable in the slopes, in the parameters of a module, and in the zonotope. The bounds are computed in round
    to nearest in the zonotope's dtype, on its device; their own rounding is not part of them, nor is that of casts to
    narrower types.

    Args:
        model: a module, a Graph, a loaded Network, or a path to an ONNX file. All but a Graph are compared with their
            graph on the inputs first; in a loop, import once and pass the Graph, which follows its module.
        zonotope: the inputs, ``[B, *input features]``; ``zonotope.shared(Ranks())`` where several processes make this
            call, each with a share of the symbols and of their memory (docs/scaling.md).
        layers: ``all`` bounds the value of every node, ``output`` the output's alone (and the activations' inputs').
        direction: ``forward`` carries a zonotope to the output; ``dual`` and ``auto`` may bound neurons and the output
            by dual passes instead (for a box of inputs), which is often faster and needs little memory.
        memory_budget: bytes that generators may take; by default a share of what is free. What would not fit is done
            another way, and the plan says so. Where gradients are recorded nothing is, as the backward needs it all.
        max_symbols: how many generators to keep where the network has a single value (between the blocks of a
            transformer, say): the least are merged there into one for each feature (Girard 2005), so that deep networks
            take the memory of one block. The output's symbols are then fresh ones. By default all are kept.
        slopes: a slope for some of the activations, by name; the minimum-area slope elsewhere.
        kink: the derivative where a slope sits on its kink.
        backend: ``native`` (which ``auto`` is) or ``reference``.

    Raises:
        ValueError: a network that cannot be imported, shapes that do not fit, ``max_symbols`` where gradients are
            recorded or symbols shared out over ranks, ranks that were given different things, or whose shares exceed
            the memory budget.
        TypeError: inputs that are no zonotope, or neither float32 nor float64.

    Examples:
        >>> double = torch.nn.Linear(1, 1)
        >>> _ = double.requires_grad_(False).load_state_dict({'weight': torch.tensor([[2.0]]), 'bias': torch.zeros(1)})
        >>> bounds = compute_bounds(double, Zonotope.from_box(torch.zeros(1, 1), torch.ones(1, 1)))
        >>> bool(bounds.lower <= 0), bool(bounds.upper >= 2), bounds.upper.item() < 2.001
        (True, True, True)
    """
    zonotope = resolve_zonotope(zonotope, "compute_bounds")
    check_choice("compute_bounds", "layers", layers, ("output", "all"))
    check_choice("compute_bounds", "direction", direction, get_args(Direction))
    check_choice("compute_bounds", "kink", kink, KINK_RULES)
    check_choice("compute_bounds", "backend", backend, get_args(Backend))
    check_budget("compute_bounds", memory_budget)
    if max_symbols is not None:
        check_count("compute_bounds", "max_symbols", max_symbols, 0)
    check_slopes(slopes, zonotope.center)
    subject = Subject.of(model, zonotope.features)
    if zonotope.features != subject.graph.input_shape:
        raise ValueError(
            f"compute_bounds: the zonotope has features {list(zonotope.features)}, the network's input "
            f"{list(subject.graph.input_shape)}"
        )
    graph = subject.graph.to(zonotope.center.dtype, zonotope.center.device)
    gradients = torch.is_grad_enabled() and _requires_grad(graph, zonotope, slopes or {})
    if max_symbols is not None and (gradients or zonotope.ranks is not None):
        raise ValueError(
            "compute_bounds: max_symbols merges symbols, which have no gradient then and cannot be shared out over "
            "ranks; call it under torch.no_grad() on a zonotope of one process"
        )
    if gradients and zonotope.ranks is not None:
        raise ValueError(
            "compute_bounds: derivatives are not recorded through symbols that are shared out over ranks; call it "
            "under torch.no_grad(), or optimise slopes by optimize_bounds(mode='forward')"
        )
    check_ranks("compute_bounds", graph, zonotope, slopes or {})
    with use_backend(backend), use_kink(kink), full_precision(), torch.set_grad_enabled(gradients):
        if len(zonotope.center):
            with torch.no_grad():
                low, high = zonotope.bounds()
                subject.check(low.amin(0), high.amax(0))
        means = Means(direction, memory_budget, symbols=max_symbols)
        result = sweep(graph, zonotope, means, slopes=slopes, all_layers=layers == "all")
        lower, upper = result.bounds
        if result.output is None:
            everything = torch.arange(prod(graph.output_shape), device=lower.device)
            low, high = neuron_bounds(
                Relaxed(graph, zonotope.bounds(), result.intermediate, slopes), graph.output, everything
            )
            lower, upper = low.reshape(lower.shape), high.reshape(upper.shape)
    return NetworkBounds(lower, upper, result.output, result.layers, result.intermediate, result.stats, result.plan)


def _requires_grad(graph: Graph, zonotope: Zonotope, slopes: Mapping[str, Tensor]) -> bool:
    """Whether the bounds have a derivative that anybody asked for."""
    tensors = [zonotope.center, *slopes.values(), *(t for block in zonotope.blocks for t in block.tensors)]
    weights = [getattr(node.op, field.name) for node in graph.nodes for field in fields(node.op)]
    return any(isinstance(t, Tensor) and t.requires_grad for t in [*tensors, *weights])
