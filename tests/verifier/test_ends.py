"""Bounds of outputs that are attained: strict rows there are refuted at once, and nothing else is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.graphs import NETWORKS
from zonocuda import from_module
from zonocuda.graph import HOPELESS, Affine, Elementary, Graph, Input, Linear, Node, Reduce, Relu, ScaleShift
from zonocuda.prove.ends import known_ends
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

BOX = Box.exact([Fraction(-1)] * 2, [Fraction(1)] * 2)
INF = math.inf
TINY = 2.0**-100
THIRD = float(torch.tensor(0.3))


class Behind(nn.Module):
    """A function of a layer's two outputs, which take both signs."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[2.0, 1.0], [-1.0, 3.0]]))
            self.layer.bias.fill_(0.25)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


# A function, a row's coefficient of output 0, and its constant: the row is 0 at a value that is attained, never less.
ATTAINED: dict[str, tuple[Callable[[Tensor], Tensor], int, float]] = {
    "relu": (torch.relu, 1, 0),
    "a negated relu": (lambda x: -torch.relu(x), -1, 0),
    "a scaled relu": (lambda x: torch.relu(x) * -3, -1, 0),
    "one less a relu": (lambda x: 1 - torch.relu(x), -1, 1),
    "a shifted relu": (lambda x: torch.relu(x) + 0.3, 1, -THIRD),
    "a negated sum of relus": (lambda x: -torch.relu(x).sum(1, keepdim=True), -1, 0),
    "an upper limit": (lambda x: torch.clamp(x, -0.5, 0.3), -1, THIRD),
    "a lower limit": (lambda x: torch.clamp(x, -0.3, 0.5), 1, THIRD),
    "relu6": (lambda x: nn.functional.relu6(8 * x), -1, 6),
    "a magnitude": (torch.abs, 1, 0),
    "a negated magnitude": (lambda x: -torch.abs(x), -1, 0),
    "the larger of two limited values": (lambda x: torch.clamp(x, -0.5, 0.3).amax(1, keepdim=True), -1, THIRD),
    "a maximum with a relu": (lambda x: torch.maximum(x, torch.relu(x.flip(1))), 1, 0),
}
SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], int, float]] = {
    "a square": (lambda x: x * x, 1, 0),
    "a negated square": (lambda x: -(x**2), -1, 0),
    "a sigmoid": (lambda x: torch.sigmoid(100 * x), -1, 1),
    "an exponential": (torch.exp, 1, 0),
    "softmax": (lambda x: torch.softmax(x, 1), 1, 0),
}


@cache
def graph_of(function: Callable[[Tensor], Tensor]) -> Graph:
    """The graph of a module of several tests, imported once."""
    return from_module(Behind(function).eval(), (2,))


def asked(coefficient: int, constant: float, strict: bool, outputs: int = 2) -> Spec:
    row = LinearConstraint({0: Fraction(coefficient)}, {}, Fraction(constant), strict)
    return Spec(2, outputs, (Region(BOX, ((row,),)),))


@pytest.mark.parametrize("case", [*ATTAINED.values(), *SMOOTH.values()], ids=[*ATTAINED, *SMOOTH])
def test_a_strict_row_at_a_value_that_is_attained_is_refuted(case: tuple[Any, int, float]) -> None:
    function, coefficient, constant = case
    graph = graph_of(function)
    spec = asked(coefficient, constant, True, math.prod(graph.output_shape))
    for semantics in ("real", "float32") if case in ATTAINED.values() else ("real",):
        # An execution may fold (x - a) c + d in any way, so that of constants behind a product nothing is claimed.
        result = verify(graph, spec, split="none", semantics=semantics)  # type: ignore[arg-type]
        assert result.verdict is Verdict.VERIFIED, (semantics, result.reason)


@pytest.mark.parametrize("case", ATTAINED.values(), ids=ATTAINED)
def test_a_row_that_holds_there_is_not_refuted(case: tuple[Any, int, float]) -> None:
    function, coefficient, constant = case
    graph = graph_of(function)
    closed = verify(graph, asked(coefficient, constant, False, math.prod(graph.output_shape)), split="none")
    assert closed.verdict is not Verdict.VERIFIED
    tight = known_ends(graph, ([-1.0] * 2, [1.0] * 2))[0][0 if coefficient == 1 else 1]
    assert tight == -coefficient * constant


@pytest.mark.parametrize("case", ATTAINED.values(), ids=ATTAINED)
def test_the_check_confirms_it(case: tuple[Any, int, float]) -> None:
    pytest.importorskip("flint", reason="python-flint is not installed")
    from tests.check.certificates import inline
    from zonocuda.checker import check_proof

    function, coefficient, constant = case
    graph = graph_of(function)
    spec = asked(coefficient, constant, True, math.prod(graph.output_shape))
    found = verify(graph, spec, split="none", certificate=True).certificate
    assert found is not None
    certificate = inline(found)
    assert certificate["regions"][0]["combinations"][0]["refutes"]
    assert check_proof(certificate, graph, spec).confirmed
    closer = asked(coefficient, constant - 1e-9, True, math.prod(graph.output_shape))
    assert not check_proof(certificate, graph, closer).confirmed


def test_what_is_no_number_is_not_said_to_be_nonnegative() -> None:
    """relu(sqrt(x)) of an x that may be negative."""
    root = Elementary("sqrt")
    nodes = (Node("x", Input(), (), (1,)), Node("s", root, ("x",), (1,)), Node("y", Relu(), ("s",), (1,)))
    assert known_ends(Graph(nodes, "y"), ([-1.0], [1.0])) == {}
    assert known_ends(Graph(nodes, "y"), ([0.0], [1.0]))[0][0] == 0


@pytest.mark.parametrize(
    ("last", "ends"),
    [
        (
            Linear(torch.tensor([[1.0, 2.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]), None),
            {0: (0, INF), 2: (0, 0)},
        ),
        (Linear(-torch.eye(3), torch.tensor([0.0, TINY, -TINY])), {0: (-INF, 0), 1: (-INF, TINY), 2: (-INF, -TINY)}),
        (ScaleShift(torch.tensor([1.0, -1.0, 0.0]), None), {0: (0, INF), 1: (-INF, 0), 2: (0, 0)}),
        (ScaleShift(None, torch.tensor([0.5, -0.5, 0.0])), {0: (0.5, INF), 1: (-0.5, INF), 2: (0, INF)}),
        (
            ScaleShift(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0.5, -0.5, 0.0]), roundings=3),
            {0: (0, INF), 2: (-INF, 0)},
        ),
        (ScaleShift(torch.tensor([1.0, 1.0, 1.0]), None, roundings=HOPELESS), {}),
        (ScaleShift(torch.ones(3), None, doubt={"scale": torch.full((3,), 2.0, dtype=torch.float64)}), {}),
        (ScaleShift(torch.tensor([INF, 1.0, 1.0]), None), {}),
        (Reduce((0,), True, True), {0: (0, INF)}),
    ],
)
def test_ends_behind_a_relu_are_those_of_the_operator(last: Affine, ends: dict[int, tuple[float, float]]) -> None:
    """Of three values in [0, u] with a u that only its sign is used of."""
    shape = (1,) if isinstance(last, Reduce) else (3,)
    nodes = (
        Node("x", Input(), (), (3,)),
        Node("a", ScaleShift(torch.tensor(1.0000001), None, roundings=9), ("x",), (3,)),
        Node("r", Relu(), ("a",), (3,)),
        Node("y", last, ("r",), shape),
    )
    assert known_ends(Graph(nodes, "y"), ([-1.0] * 3, [1.0] * 3)) == ends


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("executed", [None, torch.float32])
def test_no_value_of_a_network_lies_beyond_its_ends(name: str, executed: torch.dtype | None) -> None:
    graph = NETWORKS[name](0)
    n = math.prod(graph.input_shape)
    x = torch.rand(200, *graph.input_shape, dtype=torch.float64)
    values = graph(x).reshape(200, -1) if executed is None else graph.to(executed)(x.float()).double().reshape(200, -1)
    for i, (lower, upper) in known_ends(graph, ([0.0] * n, [1.0] * n), executed).items():
        assert bool(((values[:, i] >= lower) & (values[:, i] <= upper)).all())


def test_no_folding_of_a_chain_leaves_the_ends_of_its_execution() -> None:
    """(relu(x) c + b) s + t in float32: step by step, folded into one map, and as (relu(x) + b / c) and so on."""
    rng, tight = random.Random(3), 0
    x = torch.tensor([0.0, 1e-20, 1e-3, 0.3, 7.0])
    for _ in range(400):
        c, b, s, t = (torch.tensor(rng.choice((0.0, 1.0, -1.0, rng.uniform(-2, 2), 0.1))) for _ in range(4))
        nodes = (
            Node("x", Input(), (), (1,)),
            Node("l", Linear(c.reshape(1, 1), b.reshape(1)), ("x",), (1,)),
            Node("y", ScaleShift(s, t), ("l",), (1,)),
        )
        graph = Graph((nodes[0], Node("r", Relu(), ("x",), (1,)), Node("l", nodes[1].op, ("r",), (1,)), nodes[2]), "y")
        ways = [(x * c + b) * s + t, x * (c * s) + (b * s + t), (x * c + (b + t / s)) * s, x * (c * s) + b * s + t]
        for lower, upper in known_ends(graph, ([-9.0], [9.0]), torch.float32).values():
            tight += 1
            for way in ways:
                known = way[way.isfinite()]
                assert bool(((known >= lower) & (known <= upper)).all()), (c, b, s, t)
        first = Graph((*graph.nodes[:2], Node("y", nodes[1].op, ("r",), (1,))), "y")
        for lower, upper in known_ends(first, ([-9.0], [9.0]), torch.float32).values():
            assert bool(((x * c + b >= lower) & (x * c + b <= upper)).all())
            assert {lower, upper} & {0.0, float(b), -INF, INF} == {lower, upper}
    assert tight > 50


def test_a_subnormal_end_is_zero_where_a_machine_may_flush_it() -> None:
    nodes = (Node("x", Input(), (), (1,)), Node("y", ScaleShift(None, torch.tensor(1e-40)), ("x",), (1,)))
    graph = Graph(nodes, "y")
    assert known_ends(graph, ([0.0], [1.0]))[0][0] == float(torch.tensor(1e-40))
    assert known_ends(graph, ([0.0], [1.0]), torch.float32)[0][0] == 0
