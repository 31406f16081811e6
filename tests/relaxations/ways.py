"""Every way to proven bounds that an activation takes part in, for tests of its rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tests.verifier.exact import Vector, value_step
from tests.verifier.graphs import spec
from zonocuda import Spec
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.forward_error import ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Node, interpret
from zonocuda.precision import summed_products
from zonocuda.specs import LinearConstraint

Step = Callable[[Graph, Node, tuple[Vector, ...]], Vector]
"""The exact value of a node from those before it."""


def both_ends(graph: Graph, like: Tensor) -> Rows:
    """Rows +y_i and -y_i of the outputs."""
    eye = torch.eye(graph.output_shape[0], dtype=like.dtype)
    output = torch.cat([eye, -eye])
    input_ = output.new_zeros(len(output), torch.Size(graph.input_shape).numel())
    constant, members = output.new_zeros(len(output)), tuple((r,) for r in range(len(output)))
    return Rows(output, input_, constant, (1,) * len(output), members, ("",) * len(output))


def run_exactly(graph: Graph, x: list[Fraction], step: Step = value_step) -> tuple[dict[str, Vector], Vector]:
    """The exact value of every node, by name, and the exact output."""
    seen: dict[str, Vector] = {}
    output = interpret(
        graph, x, lambda node, values: step(graph, node, values), lambda node, v: seen.update({node.name: v})
    )
    return seen, output


def claims(network: Graph, dtype: torch.dtype, box: Bounds) -> Iterator[tuple[str, dict[str, Bounds], Tensor]]:
    """Proven bounds of the activations' inputs, and of the rows +y, -y, by every way there is."""
    graph = network.to(dtype)
    rounding, rows = Rounding.of(network, graph, dtype), both_ends(graph, box[0])
    zonotope = Zonotope.from_box(*box)
    forward = sweep(graph, zonotope, rounding=rounding)
    assert forward.output is not None
    assert forward.errors is not None
    yield (
        "forward",
        dict(forward.intermediate),
        ForwardErrors(rounding).rows(rows, zonotope, forward.output, forward.errors),
    )
    by_dual = sweep(graph, zonotope, Means("dual"), rounding=rounding)
    reduced = reduced_bounds(graph, box, rounding)
    for kind, inputs in (("dual", dict(by_dual.intermediate)), ("reduced", reduced)):
        for start in ("minimum_area", "adaptive"):
            ledger = Ledger(rounding, box, inputs)
            slopes = {n: s.flat() for n, s in initial_slopes(graph, inputs, start).items()}  # type: ignore[arg-type]
            problem = RowProblem(output_rows(graph, rows, 1, ledger), box, inputs)
            yield f"{kind}, {start}", inputs, problem.bound(lambda node, s=slopes: s[node.name])[0]  # type: ignore[misc]


def check_claims(
    network: Graph, dtype: torch.dtype, box: Bounds, points: Sequence[Tensor], step: Step = value_step
) -> int:
    """Compares all claims about a box with exact values at points of it; returns how many about rows were."""
    runs = [run_exactly(network, [Fraction(v) for v in point.flatten().tolist()], step) for point in points]
    count = 0
    with torch.no_grad(), summed_products():
        for what, inputs, bound in claims(network, dtype, box):
            assert bool(bound.isfinite().all()), what
            for seen, y in runs:
                for name, (below, above) in inputs.items():
                    exact = seen[network[name].inputs[0]]
                    for v, a, b in zip(exact, below.flatten().tolist(), above.flatten().tolist(), strict=True):
                        assert Fraction(a) <= v <= Fraction(b), f"{what}: {name}"
                for value, claim in zip([*y, *(-v for v in y)], bound.flatten().tolist(), strict=True):
                    assert Fraction(claim) <= value, what
                    count += 1
    return count


def property_of(graph: Graph, box: Bounds, threshold: float) -> Spec:
    """That y_0 does not fall to ``threshold``."""
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(-threshold))
    return spec(box[0][0], box[1][0], [[row]], graph.output_shape[0])
