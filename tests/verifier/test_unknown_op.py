"""An operator that a pass does not know is refused by it, by name: nothing is guessed about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zonocuda
from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.dual.points import Constraints, PointProblem, Reads
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.dual.stops import Maxima
from zonocuda.bounds.forward.adjoint import Adjoint, Crossed, OutputGradient
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import interval
from zonocuda.bounds.plan.forecast import Work, forecast
from zonocuda.bounds.plan.ownership import Ownership
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.forward_error import Error, ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.rows import Rows
from zonocuda.bounds.transform import transform
from zonocuda.domains import Zonotope
from zonocuda.graph import (
    Add,
    Affine,
    Conv,
    Graph,
    Input,
    Linear,
    Node,
    Op,
    Part,
    Relu,
    Reshape,
    absolute,
    fan_in,
    fan_out,
)
from zonocuda.graph.whole import Extreme
from zonocuda.importers.rounding import Bounded, transfer
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.ends import known_ends
from zonocuda.prove.regions import refuted_regions
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import rule_of
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.refine import refine


def checker(name: str) -> Any:
    """A module of the checker."""
    return pytest.importorskip(f"zonocuda.checker.{name}", reason="python-flint is not installed", exc_type=ImportError)


maps = checker("maps")
explicit = checker("affine").explicit


class Invented(Op):
    """x^2, which no pass has heard of."""

    def apply(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * inputs[0]


@dataclass(frozen=True, eq=False)
class Difference(Affine):
    """Weight times x, less half of x: |A| is not what the absolute weight says."""

    weight: Tensor

    def linear(self, x: Tensor) -> Tensor:
        return x * self.weight - x / 2

    def adjoint(self, v: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.linear(v)


F64 = torch.float64
WEIGHT = torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=F64)
BOX = torch.full((1, 2), -1.0, dtype=F64), torch.full((1, 2), 1.0, dtype=F64)
UNREACHED = Spec(
    2, 2, (Region(Box.from_tensors(BOX[0][0], BOX[1][0]), ((LinearConstraint({0: Fraction(1)}, {}, Fraction(999)),),)),)
)
WIDE = (torch.full((1, 2), -9.0, dtype=F64), torch.full((1, 2), 9.0, dtype=F64))


def network(op: Op) -> Graph:
    """Linear, the operator, linear, ReLU, linear."""
    nodes = (
        Node("x", Input(), (), (2,)),
        Node("first", Linear(WEIGHT), ("x",), (2,)),
        Node("odd", op, ("first",), (2,)),
        Node("second", Linear(WEIGHT), ("odd",), (2,)),
        Node("relu", Relu(), ("second",), (2,)),
        Node("last", Linear(WEIGHT), ("relu",), (2,)),
    )
    return Graph(nodes, "last")


def zonotope() -> Zonotope:
    """The box."""
    return Zonotope.from_box(*BOX)


def run_dual(graph: Graph) -> None:
    """A pass of one row from the output."""
    flow = DualPass(graph, 1, 1, BOX[0])
    flow.send("last", torch.ones(1, 2, dtype=F64))
    flow.run(lambda node, v: v)


def ledger(graph: Graph) -> Ledger:
    """Charges over the reals."""
    return Ledger(Rounding(graph, F64, {node.name: 0 for node in graph.nodes}), BOX, {"relu": WIDE})


CPU = torch.device("cpu")
FLAT = BOX[0].numpy(), BOX[1].numpy()


def rows() -> Rows:
    """That of the property."""
    return Rows.of(UNREACHED.regions[0], 2, 2, BOX[0])


def of_rows(graph: Graph) -> RowProblem:
    """The property's row, which has passed the last layer."""
    return RowProblem(output_rows(graph, rows(), 1), BOX, {"relu": WIDE})


def of_signs(graph: Graph) -> object:
    """A pass of the row on a part with no sign known."""
    problem = SignProblem(graph, lambda given: output_rows(graph, rows(), 1, given), BOX, {"relu": WIDE}, ledger(graph))
    none = torch.zeros(1, problem.count, dtype=F64)
    return problem.run(problem.flow(torch.tensor([0]), False), problem.known(none), none, none)


def of_points(graph: Graph) -> object:
    """A pass of the row on a part where a neuron is at least 0."""
    one = torch.ones(1, 1, dtype=F64)
    constraints = Constraints(torch.zeros(1, 1, dtype=torch.int64), one, 0 * one)
    own = ledger(graph).rounding
    problem = PointProblem(Reads(graph), Rows.stack([rows()]), BOX, {"relu": WIDE}, constraints, own)
    return problem.run(lambda node: Slopes(), one, False)


def arithmetic(graph: Graph) -> Arithmetic:
    """Float64."""
    return Arithmetic(graph, ledger(graph).rounding, CPU)


def of_windows(graph: Graph) -> object:
    """A neuron of a map behind two convolutions with the operator between."""
    layer = Conv(torch.ones(1, 1, 2, 2, dtype=F64), None, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    nodes = (
        Node("x", Input(), (), (1, 8, 8)),
        Node("first", layer, ("x",), (1, 7, 7)),
        Node("odd", graph["odd"].op, ("first",), (1, 7, 7)),
        Node("last", layer, ("odd",), (1, 6, 6)),
    )
    box = torch.zeros(1, 1, 8, 8, dtype=F64), torch.ones(1, 1, 8, 8, dtype=F64)
    return neuron_bounds(Relaxed(Graph(nodes, "last"), box, {}), "last", torch.tensor([0]))


def of_maximum(graph: Graph) -> object:
    """The larger value of two layers behind the operator."""
    layer = graph["second"].op
    nodes = (
        Node("x", Input(), (), (2,)),
        Node("odd", graph["odd"].op, ("x",), (2,)),
        Node("a", layer, ("odd",), (2,)),
        Node("b", layer, ("odd",), (2,)),
        Node("difference", Add(-1), ("a", "b"), (2,), part=Part()),
        Node("positive", Relu(), ("difference",), (2,), part=Part()),
        Node("m", Add(), ("b", "positive"), (2,), part=Part(whole=Extreme(1), inputs=("a", "b"))),
    )
    return Maxima(Graph(nodes, "m"), {"positive": WIDE}, BOX)


def gradients(graph: Graph) -> object:
    """Of the slopes of a sweep."""
    crossed = {"relu": Crossed(rule_of(graph["relu"]), *WIDE, torch.full((1, 2), 0.5, dtype=F64), 2)}
    return Adjoint(graph, zonotope(), crossed).slopes(OutputGradient(torch.ones(1, 2, dtype=F64), {}))


def check_region(graph: Graph) -> object:
    """The check of the property's proof, whatever it claims."""
    claim: Any = SimpleNamespace(rows={}, activations={}, second_pass=False)
    return checker("region").RegionCheck(maps.Maps(graph), UNREACHED.regions[0], claim)


PASSES: dict[str, Callable[[Graph], object]] = {
    "zonotope": lambda g: transform(g["odd"], [zonotope()]),
    "sweep": lambda g: sweep(g, zonotope()),
    "budgeted sweep": lambda g: sweep(g, zonotope(), Means(memory_budget=1 << 20)),
    "interval": lambda g: interval(g["odd"], [BOX]),
    "dual": run_dual,
    "neurons": lambda g: neuron_bounds(Relaxed(g, BOX, {}), "second", torch.tensor([0])),
    "windows": of_windows,
    "rows": lambda g: of_rows(g).bound(lambda node: Slopes()),
    "signs": of_signs,
    "points": of_points,
    "rows that end": of_maximum,
    "slopes to begin with": lambda g: initial_slopes(g, {"odd": WIDE}, "adaptive"),
    "ascent": lambda g: ascend(of_rows(g), Ascent(iterations=1), initial_slopes(g, {"relu": WIDE}, "adaptive")),
    "refinement": lambda g: refine(g, BOX, {"relu": WIDE}, Ascent(iterations=0), first=True),
    "adjoint": gradients,
    "reduced zonotopes": lambda g: reduced_bounds(g, BOX, ledger(g).rounding),
    "boxes": lambda g: BoxBounder(arithmetic(g), rows()).bound(*BOX),
    "regions": lambda g: list(refuted_regions(UNREACHED.regions, [arithmetic(g)], lambda: None)),
    "ends of outputs": known_ends,
    "memory of the image": lambda g: forecast(g["odd"], [zonotope()], in_place=False),
    "operations": Work,
    "ownership": lambda g: [Ownership(g, True).may_overwrite(node) for node in g.nodes],
    "rounding": lambda g: Rounding.of(g, g.to(torch.float32), torch.float32),
    "error of the sweep": lambda g: ForwardErrors(ledger(g).rounding).image(g["odd"], [Error(BOX[1], BOX[1])], 2),
    "error of intervals": lambda g: ForwardErrors(ledger(g).rounding).interval(g["odd"], [BOX]),
    "magnitude": lambda g: ledger(g).magnitude("odd"),
    "execution": lambda g: Execution.of(g, torch.float32),
    "comparison": lambda g: transfer(g["odd"], (Bounded.exact(BOX[1]),), torch.float32),
    "checker's interval": lambda g: maps.interval(maps.Maps(g), g["odd"], [(BOX[0], BOX[1])]),
    "checker's rows": lambda g: maps.Maps(g).of(g["odd"]),
    "checker's lines": lambda g: checker("relaxed").relaxed(g["odd"].op, FLAT, np.zeros(0)),
    "checker's region": check_region,
    "checker's floats": lambda g: checker("derive").Derivation(checker("sets").FloatNet(maps.Maps(g)), *FLAT).run(),
    "checker's execution": lambda g: checker("execution").Execution(g, F64),
    "verify": lambda g: zonocuda.verify(g, UNREACHED),
    "verify, as executed": lambda g: zonocuda.verify(g, UNREACHED, semantics="float64"),
    "compute_bounds": lambda g: zonocuda.compute_bounds(g, zonotope()),
    "optimize_bounds": lambda g: zonocuda.optimize_bounds(g, zonotope(), torch.ones(1, 2, dtype=F64)),
    "optimize_bounds, joint": lambda g: zonocuda.optimize_bounds(
        g, zonotope(), torch.ones(1, 2, dtype=F64), mode="forward"
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_an_unknown_operator_is_refused_by_every_pass(name: str) -> None:
    with pytest.raises((NotImplementedError, ValueError), match="Invented"):
        PASSES[name](network(Invented()))


def test_a_chain_with_an_unknown_operator_is_no_matrices() -> None:
    graph = network(Invented())
    assert DenseNetwork.of(ledger(graph).rounding, BOX) is None
    assert DenseNetwork.of(ledger(network(Reshape((2,)))).rounding, BOX) is not None


@pytest.mark.parametrize(
    "ask",
    [
        absolute,
        lambda op: fan_in(op, (2,)),
        lambda op: fan_out(op, (2,)),
        lambda op: explicit(op, (2,), (2,)),
        lambda op: interval(Node("odd", op, ("x",), (2,)), [BOX]),
        lambda op: Execution.of(network(op), torch.float32),
    ],
    ids=["absolute value", "fan-in", "fan-out", "checker", "interval", "execution"],
)
def test_nothing_is_guessed_about_the_numbers_of_an_unknown_affine_operator(ask: Callable[[Affine], object]) -> None:
    with pytest.raises(NotImplementedError, match="Difference"):
        ask(Difference(torch.tensor([1.0, -1.0], dtype=F64)))
