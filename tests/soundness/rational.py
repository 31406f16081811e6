"""Bounds of small networks in floating point, with rounding counted and not, beside exact values at points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from tests.verifier.exact import Vector, exactly, value_step
from zonocuda.bounds.dual.dual_pass import flatten_positions
from zonocuda.bounds.dual.neurons import EarlyEnd, Relaxed, neuron_bounds
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.dual.stops import Maxima
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.branch import Bounded
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node, Relu, Staircase, interpret
from zonocuda.precision import full_precision, summed_products
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import activations, rule_of
from zonocuda.specs import Box, LinearConstraint, Region
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import refine


@dataclass(frozen=True)
class Claim:
    """A lower bound and the exact value that it should not exceed; an upper bound counts with both signs turned."""

    what: str
    bound: float
    value: Fraction

    @property
    def holds(self) -> bool:
        """Whether the bound is a number that does not exceed the value."""
        return self.bound == self.bound and Fraction(max(self.bound, -(2.0**1000))) <= self.value


def values_before_relus(graph: Graph, x: Sequence[Fraction]) -> tuple[dict[str, Vector], Vector]:
    """The exact inputs of every ReLU and step, by its name, and the exact output."""
    seen: dict[str, Vector] = {}

    def step(node: Node, values: tuple[Vector, ...]) -> Vector:
        if isinstance(node.op, Relu | Staircase):
            seen[node.name] = values[0]
        return value_step(graph, node, values)

    return seen, interpret(graph, list(x), step)


Run = Callable[[Sequence[Fraction]], tuple[dict[str, Vector], Vector]]
"""What a network computes at a point: the inputs of every ReLU, by its name, and the output."""


def claims(
    network: Graph,
    box: Bounds,
    rows: Sequence[LinearConstraint],
    dtype: torch.dtype,
    counted: bool,
    execution: Execution | None = None,
    runs: Sequence[Run] | None = None,
) -> Iterator[Claim]:
    """Every bound that a verdict may rest on, beside exact values at the corners of the box and where the dual points.

    Bounds of the ReLUs' inputs by the forward sweep, and by dual passes from intervals; of the rows by the forward
    zonotope, and by the dual with minimum-area, adaptive and random slopes for every row, and ending at maxima. Where
    rounding is counted also the bounds of input splitting: of the ReLUs' inputs by reduced zonotopes, of the rows, and
    of what a row exceeds its linear bound by; and of neuron splitting, on parts that hold the point.

    Args:
        network: its constants are held in float64; ``dtype`` may round them.
        box: ``[1, *input features]``, in ``dtype``.
        rows: of a specification.
        dtype: of the bounds.
        counted: whether rounding is part of them.
        execution: which executed values they are to hold for; those of the real network, for None.
        runs: what the network computes, at each of the points; its exact values, for None.
    """
    graph = network.to(dtype)
    rounding = Rounding.of(network, graph, dtype, execution) if counted else None
    region = Region(Box.from_tensors(*box), tuple((row,) for row in rows))
    inputs, outputs = box[0].numel(), 1
    for extent in graph.output_shape:
        outputs *= extent
    matrix = Rows.of(region, inputs, outputs, box[0])
    bounds: list[tuple[str, str, Tensor, Tensor | None]] = []
    points = [box[0], box[1]]
    with torch.no_grad(), full_precision(), summed_products():
        zonotope = Zonotope.from_box(*box)
        forward = sweep(graph, zonotope, rounding=rounding)
        backward = sweep(graph, zonotope, Means("dual"), rounding=rounding)
        for name, (lower, upper) in forward.intermediate.items():
            bounds.append(("forward", name, lower, upper))
            bounds.append(("backward", name, *backward.intermediate[name]))
            everything = torch.arange(lower[0].numel())
            early = EarlyEnd() if name == graph.relus[-1].name else None
            ledger = None if rounding is None else Ledger(rounding, box, forward.intermediate)
            source = graph[name].inputs[0]
            relaxed = Relaxed(graph, box, forward.intermediate, ledger=ledger)
            again = neuron_bounds(relaxed, source, everything, early=early)
            bounds.append(("neurons", name, *again))
        assert forward.output is not None
        if rounding is None:
            image = matrix.image(zonotope, forward.output).bounds()[0]
        else:
            assert forward.errors is not None
            image = ForwardErrors(rounding).rows(matrix, zonotope, forward.output, forward.errors)
        bounds.append(("forward", "rows", image, None))
        refined = refine(graph, box, forward.intermediate, Ascent(iterations=0), rounding=rounding)
        for name, ends in refined.intermediate.items():
            bounds.append(("refined", name, *ends))
        maxima = Maxima(graph, forward.intermediate, box, rounding)
        for kind, slopes in _starts(graph, forward.intermediate, len(rows), maxima):
            ledger = None if rounding is None else Ledger(rounding, box, forward.intermediate)
            stops = maxima.stops if kind == "ended" else None
            problem = RowProblem(output_rows(graph, matrix, 1, ledger), box, forward.intermediate, stops=stops)
            lower, weight = problem.bound(slopes, ends=kind == "ended")
            bounds.append((kind, "rows", lower, None))
            if weight is not None:
                points += list(torch.where(weight >= 0, *box).unsqueeze(1))
        split: list[Bounded] = []
        parts: SignProblem | None = None
        if rounding is not None:
            ledger = Ledger(rounding, box, forward.intermediate)
            if all(rule_of(node).has_signs for node in activations(graph)):
                parts = SignProblem(
                    graph, lambda given: output_rows(graph, matrix, 1, given), box, forward.intermediate, ledger
                )
            for name, ends in reduced_bounds(graph, box, rounding).items():
                bounds.append(("reduced", name, *ends))
            flat = box[0].flatten(1), box[1].flatten(1)
            general = BoxBounder(Arithmetic(graph, rounding, torch.device("cpu")), matrix)
            split.append(general.bound(*flat))
            width = box[1] - box[0]
            dense = DenseNetwork.of(rounding, (box[0] - width, box[1] + 2 * width))  # as of a part of another box
            if dense is not None:
                bounder = DenseBounder(dense, matrix, lambda: general)
                split.append(bounder.bound(*flat))
                known = bounder.intermediate(*flat)
                for node, ends in zip(graph.relus, known, strict=True):
                    bounds.append(("dense", node.name, *ends))
                again = torch.cat([ends[side] for side in (0, 1) for ends in known], 1) if known else None
                split.append(bounder.bound(*flat, again))
            for one in split:
                points += list(torch.where(one.weight[0] >= 0, *flat).reshape(-1, *box[0].shape))
    if execution is not None:
        points = [torch.clamp(x.to(execution.dtype), *(b.to(execution.dtype) for b in box)) for x in points]
    for run, x in itertools.product(runs or [lambda x: values_before_relus(network, x)], points):
        point = exactly(x)
        before, y = run(point)
        exact = [_value(row, point, y) for row in rows]
        for kind, name, lower, upper in bounds:
            if name != "rows" and name not in before:
                continue  # a run that tells its output alone
            values = exact if name == "rows" else before[name]
            for sign, bound in ((1, lower), (-1, upper)):
                if bound is not None:
                    for b, v in zip(bound.flatten().tolist(), values, strict=True):
                        yield Claim(f"{kind} {name}", sign * b, sign * v)
        for one in split:
            yield from _linear_claims(one, flat, point, exact)
        if parts is not None and all(layer.name in before for layer in parts.layers):
            yield from _sign_claims(parts, before, exact)


def _linear_claims(split: Bounded, box: Bounds, x: Vector, values: Vector) -> Iterator[Claim]:
    """What linear bounds say of the rows at a point: row - v . (x - corner) is at least the bound."""
    corners = torch.where(split.weight[0] >= 0, *box)
    for bound, weight, corner, value in zip(split.lower[0].tolist(), split.weight[0], corners, values, strict=True):
        if bound == bound and abs(bound) != float("inf"):
            terms = (v * (at - c) for v, at, c in zip(exactly(weight), x, exactly(corner), strict=True))
            yield Claim("linear bound of a box", bound, value - sum(terms, Fraction(0)))


def _sign_claims(problem: SignProblem, before: dict[str, Vector], values: Vector) -> Iterator[Claim]:
    """Bounds of the rows on a part that a point with these inputs of the ReLUs lies in: some of its neurons have its
    signs, with random slopes and multipliers."""
    generator = torch.Generator().manual_seed(len(values))
    size = (len(values), problem.count)
    signs = []
    for layer in problem.layers:
        order = flatten_positions(problem.graph[layer.name].shape)[layer.index].tolist()
        signs += [1.0 if before[layer.name][i] > 0 else -1.0 for i in order]
    known = torch.rand(size, generator=generator) < torch.tensor([[0.1], [0.5], [1.0]])[: len(values)]
    with torch.no_grad(), full_precision(), summed_products():
        like = problem.like
        slopes, multipliers = (torch.rand(size, generator=generator).to(like) for _ in range(2))
        flow = problem.flow(torch.arange(len(values)), True)
        given = (torch.tensor(signs, dtype=like.dtype) * known).reshape(size)
        found = problem.run(flow, problem.known(given), slopes, multipliers)
    for bound, value in zip(found.lower.tolist(), values, strict=True):
        if bound == bound:
            yield Claim("part by signs", bound, value)


def _value(row: LinearConstraint, x: Vector, y: Vector) -> Fraction:
    total = sum((c * y[i] for i, c in row.outputs.items()), row.constant)
    return sum((c * x[j] for j, c in row.inputs.items()), total)


def _starts(
    graph: Graph, inputs: dict[str, Bounds], rows: int, maxima: Maxima
) -> Iterator[tuple[str, Callable[[Node], Slopes]]]:
    for start in ("minimum_area", "adaptive"):
        flat = {name: slopes.flat() for name, slopes in initial_slopes(graph, inputs, start).items()}
        yield start, lambda node, flat=flat: flat[node.name]  # type: ignore[misc]
    if maxima.stops:
        usual = maxima.usual(flat)
        yield "ended", lambda node: usual[node.name]
    generator = torch.Generator().manual_seed(7)

    def random(node: Node) -> Slopes:
        lower = inputs[node.name][0]
        shape = (1, rows, lower.numel())
        return Slopes(*(torch.rand(shape, generator=generator, dtype=lower.dtype) for _ in range(2)))

    yield "random", random
