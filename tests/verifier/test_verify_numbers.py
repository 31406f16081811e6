"""Numbers that are none, and numbers that overflow, never lead to ``verified``."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from tests.verifier.graphs import constraint, spec
from tests.verifier.verdicts import IDENTITY, chain, check, run
from zonocuda.graph import Graph, Input, Linear, Node, Relu, ScaleShift
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import Verdict, verify

INF = math.inf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("value", [math.nan, INF, -INF])
@pytest.mark.usefixtures("no_search")
def test_a_weight_that_is_no_number_is_never_verified(value: float, backend: str, dtype: torch.dtype) -> None:
    for place in range(6):
        weights = [torch.randn(3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
        weights += [torch.randn(2, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)]
        if place < 4:
            weights[place].view(-1)[0] = value
        else:
            weights[place - 4].fill_(value)
        graph = chain(Linear(weights[0], weights[1]), Relu(), Linear(weights[2], weights[3]))
        for row in (constraint({0: 1}, 1e6), constraint({0: -1}, 1e6), constraint({1: 1, 0: 1}, 1e6)):
            result = run(graph, [row], dtype=dtype, backend=backend)
            assert result.verdict in (Verdict.UNKNOWN, Verdict.FALSIFIED)
            if result.counterexample is not None:  # one whose output is a number, as executed
                assert row.holds(result.counterexample.x.tolist(), result.counterexample.y.tolist())


def test_a_coefficient_beyond_float32_is_no_proof() -> None:
    """10^39 Y_0 - 3 10^38 <= 0 is unsafe for Y_0 in [0.1, 0.2]; float32 does not hold its coefficient."""
    graph = Graph((Node("x", Input(), (), (1,)),), "x")
    row = LinearConstraint({0: Fraction(10) ** 39}, {}, -3 * Fraction(10) ** 38)
    box = torch.tensor([0.1], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    check(verify(graph, spec(*box, [[row]], 1), dtype=torch.float32), Verdict.FALSIFIED)
    check(verify(graph, spec(*box, [[row]], 1)), Verdict.FALSIFIED)


def test_an_intermediate_bound_that_overflows_is_no_proof() -> None:
    """Y = relu(1.5e308 X - 1.79e308 - 1e307) is 0 on [1.2, 1.21], though 1.5e308 X overflows: -Y <= 0 is unsafe."""

    def shift(scale: float | None, by: float | None) -> ScaleShift:
        return ScaleShift(*(None if v is None else torch.tensor([v], dtype=torch.float64) for v in (scale, by)))

    graph = chain(shift(1.5e308, None), shift(None, -1.79e308), shift(None, -1e307), Relu(), size=1)
    box = torch.tensor([1.2], dtype=torch.float64), torch.tensor([1.21], dtype=torch.float64)
    row = LinearConstraint({0: -Fraction(1, 10**308)}, {}, Fraction(0))
    check(verify(graph, spec(*box, [[row]], 1)), Verdict.UNKNOWN)


def test_coefficients_beyond_float64_are_decided_in_units_of_their_own() -> None:
    huge = LinearConstraint({0: Fraction(10) ** 400}, {}, Fraction(10) ** 400)
    check(run(IDENTITY, [huge]), Verdict.VERIFIED)
