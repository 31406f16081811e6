"""Planted counterexamples are never verified: properties that one exactly evaluated point violates by a hair.

Small boxes leave most neurons stable, so that the bounds come within rounding of the truth, and the planted point is
the vertex where the dual's bound is attained: what a proof has to spare there is nothing but the margin.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.soundness.operators import kinds_of, kinds_to_attack
from tests.thorough import few
from tests.verifier.exact import Vector, evaluate, exactly
from tests.verifier.graphs import NETWORKS, casting, rand, random_box
from zonocuda.bounds.dual.problem import dual_bound
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, Input, Linear, Node
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, splitting, verification, verify

MARGINS = {dtype: ("1e-3", "1e-7", "0") for dtype in (torch.float64, torch.float32)}
"""Relative to the size of the row's terms; without a margin the row holds with equality, which is a violation, too."""


def coefficients(outputs: int, seed: int) -> list[Fraction]:
    """Small random rationals."""
    return [Fraction(round(v * 16), 16) for v in rand(outputs, seed=seed).tolist()]


def worst_vertices(graph: Graph, box: tuple[Tensor, Tensor], weights: list[Fraction]) -> list[Tensor]:
    """Vertices where sum weights[i] Y_i is small: the duals' corner, and the best of random ones."""
    row = LinearConstraint(dict(enumerate(weights)), {}, Fraction(0))
    region = Region(Box.from_tensors(*box), ((row,),))
    rows = Rows.of(region, box[0].numel(), len(weights), box[0])
    inputs = sweep(graph, Zonotope.from_box(*box)).intermediate
    corner = dual_bound(graph, rows, box, inputs).corner.reshape(1, *graph.input_shape)
    choice = torch.rand((256, *graph.input_shape), generator=torch.Generator().manual_seed(1)) < 0.5
    vertices = torch.where(choice, box[0], box[1])
    best = vertices[rows.values(vertices, graph(vertices)).argmin()].unsqueeze(0)
    return [corner, best]


def planted(y: Vector, weights: list[Fraction], margin: Fraction) -> LinearConstraint:
    """The row sum weights[i] Y_i <= its value at y, plus ``margin`` of the size of its terms."""
    value = sum((w * v for w, v in zip(weights, y, strict=True)), Fraction(0))
    size = sum((abs(w * v) for w, v in zip(weights, y, strict=True)), Fraction(0))
    row = LinearConstraint(dict(enumerate(weights)), {}, -value - margin * size)
    left = sum((c * y[i] for i, c in row.outputs.items()), row.constant)
    assert left <= 0, "the plant is no counterexample"
    return row


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("width", "seeds"), [(1e-4, [0]), (0.02, [1]), (0.3, [0]), *few(0, [(1e-4, [1]), (0.3, [1])])])
@pytest.mark.usefixtures("prover_only")
def test_a_planted_counterexample_is_never_verified(
    name: str, width: float, seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One violated row, in float64 and float32; a conjunction of two; and a disjunct beside a refuted one."""
    nearest = []
    never = LinearConstraint({0: Fraction(1)}, {}, Fraction(10) ** 6)
    for seed in seeds:
        graph = NETWORKS[name](seed)
        box = random_box(graph, width=width, seed=seed + 40)
        for x in worst_vertices(graph, box, coefficients(3, seed)):
            y = evaluate(graph, exactly(x))
            for dtype, margins in MARGINS.items():
                for margin in map(Fraction, margins):
                    row, other = (planted(y, coefficients(3, s), margin) for s in (seed, seed + 10))
                    forms = (((row,),), ((row, other),), ((never,), (row,)))
                    nearly = margin == Fraction(margins[-1])
                    monkeypatch.setattr(splitting, "SECONDS", 0.1 if nearly else 0.02)
                    for disjuncts in forms if nearly else forms[:1]:
                        region = Region(Box.from_tensors(*box), disjuncts)
                        result = verify(graph, Spec(box[0].numel(), 3, (region,)), dtype=dtype)
                        assert result.verdict is Verdict.UNKNOWN, f"seed {seed}, margin {margin}, {dtype}"
                        if dtype == torch.float64 and disjuncts == forms[0]:
                            assert result.margin is not None
                            nearest.append(abs(result.margin))
    if width == 1e-4:
        assert min(nearest) < 1e-4, "no plant came close to what can be proven"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("prover_only")
def test_the_same_rows_without_their_violation_are_verified(name: str) -> None:
    """The plants are not trivial: on a box of 1e-4, moving the row by a hundredth of its size makes it provable."""
    graph = NETWORKS[name](0)
    box = random_box(graph, width=1e-4, seed=40)
    weights = coefficients(3, 0)
    (x, _) = worst_vertices(graph, box, weights)
    y = evaluate(graph, exactly(x))
    row = planted(y, weights, Fraction(1, 1000))
    size = sum((abs(w * v) for w, v in zip(weights, y, strict=True)), Fraction(0))
    safe = LinearConstraint(row.outputs, {}, row.constant + size / 50)
    region = Region(Box.from_tensors(*box), ((safe,),))
    assert verify(graph, Spec(box[0].numel(), 3, (region,))).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("name", NETWORKS)
def test_a_verdict_agrees_with_exact_evaluation_at_every_point_tried(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows around the smallest value, with the search: ``verified`` has no exact counterexample among the points, and
    ``falsified`` shows one whose float32 output satisfies the row.
    """
    monkeypatch.setattr(verification.Verification, "restarts", lambda run, least: 16)
    verdicts = []
    for seed in range(2):
        graph = NETWORKS[name](seed)
        low, high = random_box(graph, width=0.05, seed=seed + 60)
        points = [low, high, (low + high) / 2, *worst_vertices(graph, (low, high), coefficients(3, seed))]
        outputs = [evaluate(graph, exactly(x)) for x in points]
        weights = coefficients(3, seed)
        values = [sum((w * v for w, v in zip(weights, y, strict=True)), Fraction(0)) for y in outputs]
        spread = max(values) - min(values)
        for shift in (Fraction(-1, 4), Fraction(-1, 10**6), Fraction(2), Fraction(8)):
            row = LinearConstraint(dict(enumerate(weights)), {}, -min(values) + shift * spread)
            region = Region(Box.from_tensors(low, high), ((row,),))
            result = verify(graph, Spec(low.numel(), 3, (region,)))
            verdicts.append(result.verdict)
            if result.verdict is Verdict.VERIFIED:
                assert all(value + row.constant > 0 for value in values)
            if result.counterexample is not None:
                y = result.counterexample.y.tolist()
                assert row.holds(result.counterexample.x.flatten().tolist(), y)
    assert {Verdict.VERIFIED, Verdict.FALSIFIED} <= set(verdicts)


@pytest.mark.usefixtures("prover_only")
def test_a_property_violated_by_less_than_rounding_is_not_verified() -> None:
    """A linear layer on a box of one point: Y_0 - y <= 0 with the exact value y holds with equality."""
    for seed in range(20):
        op = Linear(rand(1, 8, seed=seed))
        graph = Graph((Node("x", Input(), (), (8,)), Node("y", op, ("x",), (1,))), "y")
        x = rand(1, 8, seed=seed + 100)
        (value,) = evaluate(graph, exactly(x))
        region = Region(Box.from_tensors(x, x), ((LinearConstraint({0: Fraction(1)}, {}, -value),),))
        assert verify(graph, Spec(8, 1, (region,))).verdict is not Verdict.VERIFIED, f"seed {seed}"


def test_every_kind_of_operator_was_planted_in() -> None:
    """But steps, which tests/relaxations/test_steps.py and the fuzzer attack."""
    assert kinds_of(make(0) for make in (*NETWORKS.values(), casting)) == kinds_to_attack() - {"Staircase"}


def test_conjunctions_are_refuted_by_one_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that hold and rows that cannot, combined: ``verified`` exactly if every disjunct has one that cannot."""
    graph = NETWORKS["fc"](0)
    box = random_box(graph, width=0.05, seed=3)
    low, high = sweep(graph, Zonotope.from_box(*box)).output.bounds()
    holds = LinearConstraint({0: Fraction(1)}, {}, -Fraction(high[0, 0].item()) - 1)
    cannot = LinearConstraint({0: Fraction(1)}, {}, -Fraction(low[0, 0].item()) + 1)
    choices: list[tuple[LinearConstraint, ...]] = [
        rows for n in range(3) for rows in itertools.product((holds, cannot), repeat=n)
    ]
    monkeypatch.setattr(verification.Verification, "restarts", lambda run, least: 4)
    for one, other in itertools.product(choices, repeat=2):
        region = Region(Box.from_tensors(*box), (one, other))
        verdict = verify(graph, Spec(4, 3, (region,))).verdict
        safe = cannot in one and cannot in other
        assert verdict is (Verdict.VERIFIED if safe else Verdict.FALSIFIED), f"{one} or {other}"
