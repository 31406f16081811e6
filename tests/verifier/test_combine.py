"""Conjunctions that contradict themselves or the box are refuted at once, exactly, and the check confirms it."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from zonocuda.graph import Graph, Input, Linear, Node, Relu
from zonocuda.prove.combine import combined, mixture, refutation, refutes
from zonocuda.prove.ends import known_ends
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.check.certificates import inline
from zonocuda.checker import check_proof

UNIT = Box.from_tensors(torch.zeros(3), torch.ones(3))


def row(
    outputs: Mapping[int, object],
    constant: object = 0,
    strict: bool = False,
    inputs: Mapping[int, object] | None = None,
) -> LinearConstraint:
    y, x = ({i: Fraction(str(c)) for i, c in side.items()} for side in (outputs, inputs or {}))
    return LinearConstraint(y, x, Fraction(str(constant)), strict)


def network(relu_last: bool = True) -> Graph:
    """Three inputs, three outputs, behind a ReLU if asked."""
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (3, 3))
    nodes = [
        Node("x", Input(), (), (3,)),
        Node("a", Linear(first, torch.zeros(3, dtype=torch.float64)), ("x",), (3,)),
        Node("r", Relu(), ("a",), (3,)),
        Node("b", Linear(second), ("r",), (3,)),
    ]
    if relu_last:
        nodes.append(Node("y", Relu(), ("b",), (3,)))
    return Graph(tuple(nodes), nodes[-1].name)


CONTRADICTIONS = {
    "bounds that cross": [row({0: 1}, "-0.1"), row({0: -1}, "0.2")],
    "a strict order both ways": [row({0: 1, 1: -1}, 0, True), row({0: -1, 1: 1}, 0, True)],
    "a strict order and its converse": [row({0: 1, 1: -1}, 0, True), row({0: -1, 1: 1})],
    "a cycle": [row({0: 1, 1: -1}, "1e-30"), row({1: 1, 2: -1}), row({2: 1, 0: -1})],
    "a cycle of strict rows among others": [
        row({0: -1}, 5),
        row({0: 1, 1: -1}, 0, True),
        row({1: 1, 2: -1}),
        row({2: 1, 0: -1}),
    ],
    "weights that are no floats": [row({0: "1/3", 1: "-1/7"}, "1/1000"), row({0: "-1/11", 1: "3/77"}, 0)],
    "the box": [row({}, "1.000001", inputs={0: 1, 1: -1, 2: -1}), row({}, "0.1", inputs={0: -1, 2: 1})],
    "the box, strictly": [row({}, 0, True, inputs={0: 1, 2: 2})],
    "the box and the outputs": [row({0: 1}, 0, inputs={1: 1}), row({0: -1}, "0.5", inputs={2: 1})],
}


def spec(*disjuncts: list[LinearConstraint]) -> Spec:
    return Spec(3, 3, (Region(UNIT, tuple(map(tuple, disjuncts))),))


def certificate_of(graph: Graph, property_: Spec) -> dict[str, Any]:
    result = verify(graph, property_, split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED, result.reason
    assert result.certificate is not None
    loaded: dict[str, Any] = inline(result.certificate)
    return loaded


@pytest.mark.parametrize("rows", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_a_contradiction_is_verified_without_a_bound(rows: list[LinearConstraint], semantics: Any) -> None:
    result = verify(network(relu_last=False), spec(rows), semantics=semantics)
    assert result.verdict is Verdict.VERIFIED, result.reason
    assert "contradicts itself or the box" in result.reason
    assert result.margins == ()


@pytest.mark.parametrize("rows", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_the_check_confirms_a_contradiction(rows: list[LinearConstraint]) -> None:
    graph = network(relu_last=False)
    assert check_proof(certificate_of(graph, spec(rows)), graph, spec(rows)).confirmed


@pytest.mark.parametrize(
    "rows", [[row({0: 1}, 0, True)], [row({0: "1/3", 1: "2/7"}, 0, True)], [row({0: 2, 2: 1}, "1e-40")]]
)
def test_a_value_of_a_relu_is_never_negative(rows: list[LinearConstraint]) -> None:
    graph = network()
    assert known_ends(graph) == dict.fromkeys(range(3), (0, math.inf))
    certificate = certificate_of(graph, spec(rows))
    assert check_proof(certificate, graph, spec(rows)).confirmed
    without = network(relu_last=False)
    assert not check_proof(certificate, without, spec(rows)).confirmed


def test_a_bound_that_is_attained_does_not_refute_a_row_that_holds_there() -> None:
    closed = [row({0: 1})]
    nodes = (Node("x", Input(), (), (3,)), Node("b", Linear(torch.zeros(3, 3)), ("x",), (3,)))
    zero = Graph((*nodes, Node("y", Relu(), ("b",), (3,))), "y")
    assert verify(zero, spec(closed)).verdict is Verdict.FALSIFIED
    assert verify(zero, spec([row({0: 1}, 0, True)])).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    "rows",
    [
        [row({0: 1, 1: -1}), row({0: -1, 1: 1})],
        [row({0: 1}, "-0.1"), row({0: -1}, "0.1")],
        [row({0: 1}, 0, True), row({1: -1}, 0, True)],
        [row({}, 0, inputs={0: 1, 2: 2})],
    ],
)
def test_rows_that_some_point_satisfies_are_not_refuted(rows: list[LinearConstraint]) -> None:
    assert refutation(tuple(rows), [0.0] * 3, [1.0] * 3, {}) is None


def test_refutations_are_those_of_brute_force() -> None:
    rng = random.Random(0)
    grid = [Fraction(v, 2) for v in range(-8, 9)]
    found = 0
    for _ in range(300):
        rows = tuple(
            LinearConstraint(
                {i: Fraction(rng.randint(-2, 2)) for i in (0, 1)},
                {0: Fraction(rng.randint(-1, 1))},
                Fraction(rng.randint(-2, 2), 2),
                rng.random() < 0.5,
            )
            for _ in range(rng.choice((1, 2, 3, 4)))
        )
        ends = {i: rng.choice(((0.0, math.inf), (-math.inf, 0.5), (-0.5, 1.0))) for i in (0, 1) if rng.random() < 0.4}
        weights = refutation(rows, [0.0], [1.0], ends)
        satisfied = any(
            all(r.holds([x], [a, b]) for r in rows)
            for x, a, b in product((0.0, 0.5, 1.0), map(float, grid), map(float, grid))
            if all(ends[i][0] <= y <= ends[i][1] for i, y in ((0, a), (1, b)) if i in ends)
        )
        assert not (satisfied and weights is not None), rows
        if weights is not None:
            found += 1
            assert refutes(rows, *weights, [0.0], [1.0], ends)
    assert found > 60


def test_a_mixture_of_rows_proves_what_no_row_alone_does() -> None:
    # Y_0 = relu(X_0), Y_1 = relu(-X_0) on [-1, 1]: either may be 0 and either may be 1, but |X_0| >= 0 is their sum.
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    shift = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    nodes = (
        Node("x", Input(), (), (1,)),
        Node("a", Linear(weight), ("x",), (2,)),
        Node("r", Relu(), ("a",), (2,)),
        Node("y", Linear(shift), ("r",), (2,)),
    )
    graph = Graph(nodes, "y")
    box = Box.from_tensors(-torch.ones(1), torch.ones(1))
    # Y_1 = X_0: X_0 <= -1/2 + Y_0/4 and -X_0 <= -1/2 + Y_0/4 with Y_0 = |X_0| <= 1.
    rows = (row({1: 1, 0: "-1/4"}, "1/2"), row({1: -1, 0: "-1/4"}, "1/2"))
    property_ = Spec(1, 2, (Region(box, (rows,)),))
    result = verify(graph, property_, split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED, result.reason
    assert len(result.margins) == 3
    assert result.certificate is not None
    certificate = inline(result.certificate)
    assert not certificate["regions"][0]["combinations"][0]["refutes"]
    assert check_proof(certificate, graph, property_).confirmed


def test_mixtures_have_positive_weights_and_are_implied_by_their_rows() -> None:
    values = np.array([[1.0, -0.5, 3.0], [-0.5, 1.0, -3.0], [0.1, 0.1, 0.0]])
    weights = mixture(values)
    assert weights is not None
    assert all(w > 0 for w in weights.values())
    assert all(sum(float(w) * line[k] for k, w in weights.items()) > 0 for line in values)
    rows = (row({0: 1}, 1), row({1: 1}, 2, True), row({2: 1}))
    mixed = combined(rows, {0: Fraction(1, 2), 1: Fraction(1, 3)})
    assert mixed == LinearConstraint({0: Fraction(1, 2), 1: Fraction(1, 3)}, {}, Fraction(7, 6), True)


def tampered(certificate: dict[str, Any]) -> list[dict[str, Any]]:
    """Changes of a combination, each of which makes it prove nothing or be malformed."""
    changes: list[tuple[str, Any]] = [
        ("rows", [{"row": 0, "weight": "1"}]),
        ("rows", [{"row": 0, "weight": "-1"}, {"row": 1, "weight": "1"}]),
        ("rows", [{"row": 0, "weight": "0"}, {"row": 1, "weight": "1"}]),
        ("rows", [{"row": 0, "weight": "1/0"}, {"row": 1, "weight": "1"}]),
        ("rows", [{"row": 0, "weight": 1.0}, {"row": 1, "weight": 1.0}]),
        ("rows", [{"row": 7, "weight": "1"}]),
        ("rows", []),
        ("rows", [{"row": 0, "weight": "1"}, {"row": 1, "weight": "2"}]),
        ("outputs", [{"output": 0, "weight": "1"}]),
        ("outputs", [{"output": 10**9, "weight": "1"}]),
        ("disjunct", 3),
        ("disjunct", True),
        ("refutes", False),
        ("refutes", "yes"),
    ]
    result = []
    for key, value in changes:
        other = copy.deepcopy(certificate)
        other["regions"][0]["combinations"][0][key] = value
        result.append(other)
    twice = copy.deepcopy(certificate)
    twice["regions"][0]["combinations"] *= 2
    return [*result, twice]


def test_the_check_believes_no_combination_that_was_changed() -> None:
    graph = network(relu_last=False)
    property_ = spec(CONTRADICTIONS["bounds that cross"])
    certificate = certificate_of(graph, property_)
    assert check_proof(certificate, graph, property_).confirmed
    for other in tampered(certificate):
        assert not check_proof(other, graph, property_).confirmed, other["regions"][0]["combinations"]


def test_a_contradiction_beside_disjuncts_that_need_bounds_is_confirmed() -> None:
    graph = network()
    rows = [CONTRADICTIONS["a cycle"], [row({0: -1}, 100)], CONTRADICTIONS["bounds that cross"], [row({1: 1}, 1)]]
    certificate = certificate_of(graph, spec(*rows))
    assert check_proof(certificate, graph, spec(*rows)).confirmed
    assert not check_proof(certificate, graph, spec(*rows[::-1])).confirmed


def test_the_check_knows_what_a_proof_knows_of_sums_of_values_of_relus() -> None:
    nodes = (
        Node("x", Input(), (), (1,)),
        Node("h", Linear(torch.tensor([[1.0], [-1.0]]), roundings=1), ("x",), (2,)),
        Node("r", Relu(), ("h",), (2,)),
        Node("y", Linear(torch.tensor([[1.0, 1.0]]), roundings=1), ("r",), (1,)),
    )
    graph = Graph(nodes, "y")
    box = Box.exact([Fraction(-1)], [Fraction(1)])
    property_ = Spec(1, 1, (Region(box, ((row({0: 1}, "0.5"),),)),))
    assert check_proof(certificate_of(graph, property_), graph, property_).confirmed


def test_a_value_of_a_relu_that_may_overflow_is_not_verified_as_executed() -> None:
    large = torch.full((3, 3), 1e30, dtype=torch.float64)
    nodes = (
        Node("x", Input(), (), (3,)),
        Node("a", Linear(large), ("x",), (3,)),
        Node("b", Linear(large), ("a",), (3,)),
        Node("y", Relu(), ("b",), (3,)),
    )
    negative = spec([row({0: 1}, 0, True)])
    assert verify(Graph(nodes, "y"), negative, semantics="float32").verdict is Verdict.UNKNOWN
    assert verify(Graph(nodes, "y"), negative).verdict is Verdict.VERIFIED
