"""Optimised bounds of a network's outputs, for users who bring their own network, inputs and objective."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.dual.problem import RowProblem
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.dual.stops import Maxima
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.brief import brief
from zonocuda.domains import Backend, Zonotope, use_backend
from zonocuda.graph import Graph
from zonocuda.precision import full_precision, plain_torch
from zonocuda.tighten.ascent import Ascent, ascend, climb
from zonocuda.tighten.history import History
from zonocuda.tighten.joint import JointSearch, Loss, margin
from zonocuda.tighten.refine import refine
from zonocuda.verifier.arguments import check_budget, check_choice, check_count, resolve_zonotope
from zonocuda.verifier.model import Model, Subject
from zonocuda.verifier.shared import check_ranks

Mode = Literal["dual", "forward"]

FORWARD = Ascent(iterations=30, rate=0.1)
"""How slopes are optimised in the mode ``forward``, where nobody says otherwise."""


@dataclass(frozen=True, eq=False)
class OptimizedBounds:
    """Lower bounds of an objective's rows over a set of inputs, and how they were found.

    Attributes:
        lower: ``[B, R]``, the best lower bound seen of every row of objective . y; behind maxima it may be that of a
            row that ends there, which has other slopes.
        slopes: by activation, the slopes of the best bounds of the search (in the mode ``forward``, of each batch
            element's smallest loss): a state to save (:meth:`state`) and to begin the next search with.
        intermediate: bounds ``[B, *features]`` of the input of every activation, by name: those that the rows' bounds
            rest on; in the mode ``forward`` the best that were seen.
        history: what was reached when: seconds since the search began, rows, the sum of bounds, the smallest one.
        seconds: time by phase: ``sweep``, ``refine``, ``ascend``; in the mode ``forward`` ``sweep`` and ``backward``.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> best = optimize_bounds(model, Zonotope.from_ball(torch.zeros(1, 2), 0.1), torch.eye(2))
        >>> tuple(best.lower.shape), best.history[-1].worst == best.lower.min().item()
        ((1, 2), True)
    """

    lower: Tensor
    slopes: Mapping[str, Slopes]
    intermediate: Mapping[str, Bounds]
    history: History
    seconds: Mapping[str, float]

    def __repr__(self) -> str:
        return f"OptimizedBounds(lower={brief(self.lower)}, {len(self.history)} steps, slopes of {len(self.slopes)})"

    def state(self) -> dict[str, Tensor]:
        """The slopes as tensors by name, which ``torch.save`` writes and :func:`slopes_of` reads back."""
        return _tensors(self.slopes)


def _tensors(slopes: Mapping[str, Slopes]) -> dict[str, Tensor]:
    """Slopes as tensors by name."""
    return {
        f"{name}/{side}": value
        for name, one in slopes.items()
        for side, value in (("negative", one.negative), ("nonnegative", one.nonnegative))
        if value is not None
    }


def slopes_of(state: Mapping[str, Tensor]) -> dict[str, Slopes]:
    """The slopes that :meth:`OptimizedBounds.state` wrote down.

    Raises:
        ValueError: a key that is none of its.

    Examples:
        >>> slopes_of({"relu/negative": torch.zeros(1)})["relu"].negative.tolist()
        [0.0]
    """
    result: dict[str, Slopes] = {}
    for key, value in state.items():
        name, _, side = key.rpartition("/")
        if side not in ("negative", "nonnegative") or not name:
            raise ValueError(f"slopes_of: {key!r} is no key of a state: they end in /negative or /nonnegative")
        before = result.get(name, Slopes())
        result[name] = replace(before, negative=value) if side == "negative" else replace(before, nonnegative=value)
    return result


@plain_torch()
def optimize_bounds(
    model: Model,
    zonotope: Zonotope,
    objective: Tensor,
    *,
    mode: Mode = "dual",
    loss: Loss | None = None,
    ascent: Ascent | None = None,
    intermediate: int | None = 0,
    target: float = math.inf,
    start: Mapping[str, Slopes] | None = None,
    softmax_sum: bool = False,
    memory_budget: int | None = None,
    backend: Backend = "auto",
) -> OptimizedBounds:
    """Lower bounds of the rows ``objective . y`` over a set of inputs, with optimised slopes.

    ``dual``: first the sweep and, unless ``intermediate`` is None, the dual pass bound the activations' inputs;
    then every row's bound is maximised over its own slopes.

    ``forward``: the slopes of a forward sweep, one for each neuron and batch element, are optimised together, through
    the bounds of every layer: for the margin, which is the smallest of the rows' bounds, or for any ``loss`` of the
    output's zonotope.

    For an upper bound of a row, negate it. Rounding is not part of the bounds: neither their own nor that of casts to
    narrower types.

    Args:
        model: a module, a Graph, a loaded Network, or a path to an ONNX file, as in :func:`compute_bounds`.
        zonotope: the inputs, ``[B, *input features]``; in the mode ``forward`` also shared out over ranks, as in
            :func:`compute_bounds`.
        objective: rows ``[R, outputs]``, a tensor, an array or nested lists; converted to the zonotope's dtype.
        mode: ``dual`` or ``forward``.
        loss: for ``forward``, what to minimise: a differentiable function of the output's zonotope that returns one
            number for each batch element, or one for all. By default minus the margin.
        ascent: how slopes are optimised; by default ``Ascent()``, in the mode ``forward`` ``FORWARD``; ``signs`` is
            the dual's alone.
        intermediate: for ``dual``, how many steps the slopes of the intermediate bounds are optimised; None: no
            refinement.
        target: a row whose bound exceeds it in every batch element needs no better one; the search ends without rows.
        start: slopes ``[B, 1 or R, *features]`` to begin with, such as another call's (``forward``: one for all rows
            and signs); elsewhere adaptive ones, in the mode ``forward`` minimum-area ones.
        softmax_sum: for ``dual``, whether rows know that the shares of a softmax sum to 1
            (:mod:`zonocuda.bounds.dual.shares`); where that helps depends on the network (docs/tightness.md).
        memory_budget: bytes that generators may take in a sweep, and in the mode ``forward`` in its backward pass; by
            default a share of what is free.
        backend: ``native`` (which ``auto`` is) or ``reference``.

    Returns:
        The bounds, in round to nearest: their own rounding is not part of them.

    Raises:
        ValueError: a network that cannot be imported, shapes that do not fit, or in the mode ``forward`` a budget that
            the generators do not fit.
        TypeError: inputs that are no zonotope, or neither float32 nor float64, or an objective that is no numbers.

    Examples:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> ball = Zonotope.from_ball(torch.zeros(1, 2), 0.1)
        >>> best = optimize_bounds(model, ball, torch.tensor([[1.0, -1.0]]))
        >>> best.lower.shape
        torch.Size([1, 1])
    """
    check_choice("optimize_bounds", "mode", mode, get_args(Mode))
    check_choice("optimize_bounds", "backend", backend, get_args(Backend))
    check_budget("optimize_bounds", memory_budget)
    if intermediate is not None:
        check_count("optimize_bounds", "intermediate", intermediate, 0)
    if ascent is not None and not isinstance(ascent, Ascent):
        raise TypeError(f"optimize_bounds: ascent must be an Ascent, got {type(ascent).__name__}")
    if not isinstance(target, int | float):
        raise TypeError(f"optimize_bounds: target must be a number, got {target!r}")
    if start is not None and not (
        isinstance(start, Mapping) and all(isinstance(slopes, Slopes) for slopes in start.values())
    ):
        raise TypeError("optimize_bounds: start must be Slopes by the name of an activation, such as a result's slopes")
    zonotope = resolve_zonotope(zonotope, "optimize_bounds")
    objective = _resolved(objective, zonotope.center)
    subject = Subject.of(model, zonotope.features)
    graph = subject.graph.to(zonotope.center.dtype, zonotope.center.device)
    outputs = math.prod(graph.output_shape)
    if zonotope.features != graph.input_shape or objective.dim() != 2 or objective.shape[1] != outputs:
        raise ValueError(
            f"optimize_bounds: the zonotope has features {list(zonotope.features)} and the objective the shape "
            f"{list(objective.shape)}; the network needs {list(graph.input_shape)} and [rows, {outputs}]"
        )
    if mode == "forward" and softmax_sum:
        raise ValueError("optimize_bounds: softmax_sum is for mode='dual'; a zonotope has no rows to take a sum off")
    if mode == "dual" and zonotope.ranks is not None:
        raise ValueError(
            "optimize_bounds: mode='dual' needs all symbols of the inputs in one process, and these are shared out "
            "over ranks; pass mode='forward'"
        )
    check_ranks("optimize_bounds", graph, zonotope, {"objective": objective, **_tensors(start or {})})
    if mode == "dual" and loss is not None:
        raise ValueError("optimize_bounds: a loss needs mode='forward'; the dual maximises every row for itself")
    with torch.no_grad(), use_backend(backend), full_precision():
        if len(zonotope.center):
            low, high = zonotope.bounds()
            subject.check(low.amin(0), high.amax(0))
        begin, clock = dict(start or {}), time.monotonic()
        if mode == "dual":
            swept = dict(sweep(graph, zonotope, Means("auto", memory_budget)).intermediate)
            seconds = {"sweep": time.monotonic() - clock}
            asked = ascent or Ascent()
            return _dual(graph, zonotope, objective, asked, intermediate, target, begin, swept, seconds, softmax_sum)
        search = JointSearch(
            graph,
            zonotope,
            objective,
            loss or margin(objective),
            ascent or FORWARD,
            target=target,
            start=begin,
            memory_budget=memory_budget,
        )
        history = climb(search, ascent or FORWARD)
    slopes = {name: Slopes(slope.unsqueeze(1)) for name, slope in search.slopes.items()}
    return OptimizedBounds(search.best, slopes, search.intermediate, history, search.seconds)


def _resolved(objective: Any, like: Tensor) -> Tensor:
    """The objective like a tensor.

    Raises:
        TypeError: no numbers.
    """
    try:
        rows = torch.as_tensor(objective)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"optimize_bounds: the objective must be numbers [rows, outputs], got {type(objective).__name__}"
        ) from error
    if rows.is_complex() or rows.numel() == 0:
        raise ValueError(
            f"optimize_bounds: the objective must be real numbers, in one row at least, got {rows.dtype} "
            f"{list(rows.shape)}"
        )
    return (rows.clone() if rows.is_inference() else rows).to(like)


def _dual(
    graph: Graph,
    zonotope: Zonotope,
    objective: Tensor,
    ascent: Ascent,
    intermediate: int | None,
    target: float,
    start: dict[str, Slopes],
    bounds: dict[str, Bounds],
    seconds: dict[str, float],
    softmax_sum: bool,
) -> OptimizedBounds:
    """The mode ``dual``, behind the sweep."""
    clock = time.monotonic()
    if intermediate is not None:
        steps = replace(ascent, iterations=intermediate)
        bounds = refine(graph, zonotope, bounds, steps, softmax_sum=softmax_sum).intermediate
    clock = _lap(seconds, "refine", clock)
    given = {**initial_slopes(graph, bounds, "adaptive"), **start}
    begin = {name: slopes.flat() for name, slopes in given.items()}
    left = compact(graph, bounds)
    lower = _ended(left, zonotope, objective, left.narrow_slopes(begin))
    best = ascend(
        RowProblem(
            _rows(left.graph, objective, len(zonotope.center)), zonotope, left.intermediate, softmax_sum=softmax_sum
        ),
        ascent,
        left.narrow_slopes(begin),
        finished=lambda lower: (lower > target).all(0),
        wants_slopes=True,
    )
    _lap(seconds, "ascend", clock)
    found = left.widen_slopes(best.slopes, begin)
    slopes = {name: one.shaped(graph[graph[name].inputs[0]].shape) for name, one in found.items()}
    lower = best.lower if lower is None else torch.fmax(best.lower, lower)
    return OptimizedBounds(lower, slopes, bounds, best.history, seconds)


def _ended(left: Compact, zonotope: Zonotope, objective: Tensor, slopes: Mapping[str, Slopes]) -> Tensor | None:
    """Bounds ``[B, R]`` of rows that end at maxima; None where there are none."""
    maxima = Maxima(left.graph, left.intermediate, zonotope.bounds())
    if not maxima.stops:
        return None
    rows, usual = _rows(left.graph, objective, len(zonotope.center)), maxima.usual(slopes)
    problem = RowProblem(rows, zonotope, left.intermediate, stops=maxima.stops)
    return problem.bound(lambda node: usual[node.name], ends=True)[0]


def _lap(seconds: dict[str, float], phase: str, since: float) -> float:
    now = time.monotonic()
    seconds[phase] = now - since
    return now


def _rows(graph: Graph, objective: Tensor, batch: int) -> DualPass:
    """The rows of the objective at the network's output."""
    flow = DualPass(graph, batch, len(objective), objective)
    rows = objective.reshape(-1, *graph.output_shape)
    flow.send(graph.output, rows.repeat(batch, *[1] * (rows.dim() - 1)))
    return flow
