"""Specifications of many regions are bounded in batches, and judged as one by one."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.graphs import constraint, fc, region
from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.importers import NetworkMismatchError
from zonocuda.prove.regions import LEAST, refuted_regions
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verification, verify

CPU = torch.device("cpu")
GRAPH = fc(1, (1, 8, 8, 2))


def part(position: int, count: int, *disjuncts: list[LinearConstraint]) -> Region:
    """One of ``count`` equal parts of [-1, 1]."""
    ends = torch.tensor([-1 + 2 * position / count, -1 + 2 * (position + 1) / count]).double()
    return region(ends[:1], ends[1:], disjuncts)


def table(count: int, error: float) -> list[Region]:
    """Safe: on each part the output is within ``error`` of its value in the middle."""
    found = []
    for position in range(count):
        value = float(GRAPH(torch.tensor([[-1 + (2 * position + 1) / count]]).double())[0, 0])
        rows = [constraint({0: 1.0}, error - value), constraint({0: -1.0}, value + error)]
        found.append(part(position, count, *[[row] for row in rows]))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_are_refuted_as_each_alone(dtype: torch.dtype) -> None:
    regions = table(40, 0.01)
    arithmetic = Arithmetic.of(GRAPH, dtype, CPU)
    together, margins = refuted_regions(regions, arithmetic, Deadline())
    alone = {i for i, one in enumerate(regions) if refuted_regions([one], arithmetic, Deadline())[0]}
    assert together == alone
    assert 0 < len(together) < 40
    assert {row.region for row in margins} == together
    assert all(row.is_positive for row in margins if len(regions[row.region].disjuncts) == 2)


def test_many_regions_are_verified_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "falsify", lambda *args, **options: pytest.fail("a search"))
    result = verify(GRAPH, Spec(1, 2, tuple(table(600, 1.0))), device="cpu")
    assert result.verdict is Verdict.VERIFIED
    assert len(result.margins) == 1200


def test_a_planted_violation_in_one_region_is_found() -> None:
    regions = table(50, 1.0)
    regions[37] = table(50, -0.01)[37]
    result = verify(GRAPH, Spec(1, 2, tuple(regions)), device="cpu")
    assert result.verdict is Verdict.FALSIFIED
    assert result.counterexample is not None
    assert result.counterexample.region == 37


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        (part(0, 2), Verdict.VERIFIED),  # nothing is unsafe
        (part(0, 2, []), Verdict.FALSIFIED),  # everything is
        (region(torch.ones(1).double(), -torch.ones(1).double(), [[]]), Verdict.VERIFIED),  # an empty box
        (region(torch.ones(1).double() * torch.nan, torch.ones(1).double(), [[]]), Verdict.UNKNOWN),
        (region(torch.ones(1).double(), torch.ones(1).double() * torch.inf, [[]]), Verdict.UNKNOWN),
    ],
)
def test_odd_regions_among_many_are_judged_by_themselves(odd: Region, verdict: Verdict) -> None:
    regions = [*table(LEAST + 1, 3.0), odd]
    assert verify(GRAPH, Spec(1, 2, tuple(regions)), device="cpu").verdict is verdict


def test_regions_with_numbers_of_rows_of_their_own_are_stacked() -> None:
    third = LinearConstraint({1: Fraction(1, 3)}, {0: Fraction(1)}, Fraction(7))
    regions = [part(0, 3, [constraint({0: 1.0}, 9.0)]), part(1, 3, [third], [constraint({1: -1.0}, 9.0), third])]
    arithmetic = Arithmetic.of(GRAPH, torch.float32, CPU)
    parts = [arithmetic.rows(one, arithmetic.box(one)) for one in regions]
    stacked = Rows.stack(parts)
    assert stacked.output.shape == (2, 2, 2)
    assert stacked.constant.tolist() == [[9.0, -1.0], [7.0, 9.0]]
    assert stacked.rounded is not None
    assert stacked.rounded.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert refuted_regions(regions, arithmetic, Deadline())[0] == {0, 1}


class Hidden(nn.Module):
    """|x|, less 1000 near 0.3, where a branch in Python hides from the trace."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x) + torch.relu(-x)
        if type(x) is Tensor and len(x) == 1 and abs(float(x) - 0.3) < 0.02:
            y = y - 1000
        return y


def test_a_region_where_the_network_is_another_is_never_refuted_in_a_batch() -> None:
    def narrow(low: float) -> Region:
        ends = torch.tensor([low, low + 0.02]).double()
        return region(ends[:1], ends[1:], [[constraint({0: 1.0}, 50.0)]])  # unsafe: Y_0 <= -50

    regions = [narrow(low) for low in (-0.9, -0.5, -0.1, 0.29, 0.7)]
    for chosen in (regions[3:4], regions):
        with pytest.raises(NetworkMismatchError):
            verify(Hidden().eval(), Spec(1, 1, tuple(chosen)), device="cpu", input_shape=(1,))
    others = [one for one in regions if one is not regions[3]]
    assert (
        verify(Hidden().eval(), Spec(1, 1, tuple(others)), device="cpu", input_shape=(1,)).verdict is Verdict.VERIFIED
    )


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_a_box_that_float32_rounds_to_infinity_is_judged_by_itself(dtype: Any) -> None:
    largest = torch.tensor([torch.finfo(torch.float32).max]).double() * (1 + 2**-30)
    odd = region(torch.zeros(1).double(), largest, [[constraint({0: 1.0}, 3.0)]])
    regions = [*table(LEAST + 1, 3.0), odd]
    result = verify(GRAPH, Spec(1, 2, tuple(regions)), device="cpu", dtype=dtype, timeout=5)
    assert result.verdict is not Verdict.FALSIFIED
    assert refuted_regions([odd], Arithmetic.of(GRAPH, torch.float32, CPU), Deadline())[0] == set()
