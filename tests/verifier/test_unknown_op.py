"""An operator that a pass does not know is refused by it, by name: nothing is guessed about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import zonocuda
from zonocuda.bounds.dual.dual_pass import DualPass
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.bounds.interval import interval
from zonocuda.bounds.plan.forecast import Work, forecast
from zonocuda.bounds.plan.ownership import Ownership
from zonocuda.bounds.rounding.arithmetic import Rounding
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rounding.forward_error import Error, ForwardErrors
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.bounds.transform import transform
from zonocuda.domains import Zonotope
from zonocuda.graph import Affine, Graph, Input, Linear, Node, Op, Relu, absolute, fan_in, fan_out
from zonocuda.importers.rounding import Bounded, transfer
from zonocuda.specs import Box, LinearConstraint, Region, Spec

maps = pytest.importorskip("zonocuda.checker.maps", reason="python-flint is not installed", exc_type=ImportError)
explicit = pytest.importorskip(
    "zonocuda.checker.affine", reason="python-flint is not installed", exc_type=ImportError
).explicit


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


PASSES: dict[str, Callable[[Graph], object]] = {
    "zonotope": lambda g: transform(g["odd"], [zonotope()]),
    "sweep": lambda g: sweep(g, zonotope()),
    "budgeted sweep": lambda g: sweep(g, zonotope(), Means(memory_budget=1 << 20)),
    "interval": lambda g: interval(g["odd"], [BOX]),
    "dual": run_dual,
    "neurons": lambda g: neuron_bounds(Relaxed(g, BOX, {}), "second", torch.tensor([0])),
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
    "verify": lambda g: zonocuda.verify(g, UNREACHED),
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
