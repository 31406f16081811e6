"""Numbers that are none, and numbers that overflow, never lead to ``verified``."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from tests.verifier.graphs import Builder, constraint, spec
from tests.verifier.verdicts import IDENTITY, chain, check, run
from zonocuda.graph import Linear, Relu, Reshape, ScaleShift
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


@pytest.mark.usefixtures("no_search")
def test_an_infinite_bound_is_no_proof() -> None:
    """Y_0 + Y_1 - Y_2 - 1.7e308 is negative where all are 1.5e308, though the sum of the first two overflows."""
    graph = chain(ScaleShift(torch.full((3,), 1e308, dtype=torch.float64), None), size=3)
    x = torch.full((3,), 1.5, dtype=torch.float64)
    for negative in range(3):
        row = constraint({i: -1.0 if i == negative else 1.0 for i in range(3)}, -1.7e308)
        result = verify(graph, spec(x, x, [[row]], 3))
        check(result, Verdict.UNKNOWN)
        bounds = [result.margins[0].forward, result.margins[0].dual]
        assert not any(math.isfinite(b) for b in bounds if b is not None), "no sum overflowed"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("exponent", [-400, -39, 39, 400])
def test_coefficients_of_any_size_are_decided_as_those_of_ordinary_size(exponent: int, dtype: torch.dtype) -> None:
    """size * Y_0 <= 3/10 size is unsafe for Y_0 in [0.1, 0.2], size * Y_0 <= 1/20 size is not."""
    size = Fraction(10) ** exponent
    box = torch.tensor([0.1, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.2], dtype=torch.float64)
    for constant, verdict in ((Fraction(3, 10), Verdict.FALSIFIED), (Fraction(1, 20), Verdict.VERIFIED)):
        row = LinearConstraint({0: size}, {}, -constant * size)
        check(run(IDENTITY, [row], box=box, dtype=dtype), verdict)


@pytest.mark.usefixtures("no_search")
def test_coefficients_too_far_apart_for_the_dtype_are_never_verified() -> None:
    """10^-60 Y_0 + Y_1 <= 0 and its like: float32 has no room for both, float64 has."""
    for row, verdict in (
        (LinearConstraint({0: Fraction(1, 10**60), 1: Fraction(1)}, {}, Fraction(1)), Verdict.VERIFIED),
        (LinearConstraint({0: Fraction(1, 10**400), 1: Fraction(1)}, {}, Fraction(1)), Verdict.UNKNOWN),
        (LinearConstraint({0: Fraction(1)}, {}, Fraction(10) ** 400), Verdict.UNKNOWN),
    ):
        check(run(IDENTITY, [row]), verdict)
        check(run(IDENTITY, [row], dtype=torch.float32), Verdict.UNKNOWN)


def test_an_intermediate_bound_that_overflows_is_no_proof() -> None:
    """Y = relu(1.5e308 X - 1.79e308 - 1e307) is 0 on [1.2, 1.21], though 1.5e308 X overflows: -Y <= 0 is unsafe."""

    def shift(scale: float | None, by: float | None) -> ScaleShift:
        return ScaleShift(*(None if v is None else torch.tensor([v], dtype=torch.float64) for v in (scale, by)))

    graph = chain(shift(1.5e308, None), shift(None, -1.79e308), shift(None, -1e307), Relu(), size=1)
    box = torch.tensor([1.2], dtype=torch.float64), torch.tensor([1.21], dtype=torch.float64)
    row = LinearConstraint({0: -Fraction(1, 10**308)}, {}, Fraction(0))
    check(verify(graph, spec(*box, [[row]], 1)), Verdict.UNKNOWN)


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("direction", ["forward", "dual"])
def test_values_without_dimensions_are_verified(direction: str) -> None:
    """A network whose last layers work on one number each sample, without a feature dimension."""
    b = Builder(3, seed=1)
    b(b.linear(3, 3))
    b(Relu())
    b(b.linear(3, 1))
    b(Reshape(()))
    b(Relu())
    b(ScaleShift(torch.tensor(2.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)))
    b(Relu())
    one = torch.ones(3, dtype=torch.float64)
    for effort in ("fast", "standard", "max"):
        for threshold, verdict in ((-0.05, Verdict.VERIFIED), (1.0, Verdict.FALSIFIED)):
            problem = spec(-one, one, [[constraint({0: 1.0}, -threshold)]], 1)
            result = verify(b.graph(), problem, direction=direction, effort=effort)  # type: ignore[arg-type]
            assert result.verdict is verdict, (effort, result.reason)
