"""Specifications of many regions are bounded in batches, and judged as one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from torch import Tensor, nn

from tests.cli import files
from tests.verifier.graphs import constraint, fc, region
from zonocuda import check
from zonocuda.bounds.deadline import TimeoutReached
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph, Input, Linear, Node, Relu
from zonocuda.importers import NetworkMismatchError
from zonocuda.prove import boxes
from zonocuda.prove.regions import LEAST, Refuted, refuted_regions
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


def refuted(
    regions: Sequence[Region], *arithmetics: Arithmetic, check: Callable[[], None] = lambda: None, record: bool = False
) -> dict[int, Refuted]:
    """Those that one pass refutes, by position."""
    batches = list(refuted_regions(regions, arithmetics, check, record))
    found = {one.position: one for batch in batches for one in batch}
    assert len(found) == sum(map(len, batches))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_are_refuted_as_each_alone(dtype: torch.dtype) -> None:
    regions = table(40, 0.01)
    arithmetic = Arithmetic.of(GRAPH, dtype, CPU)
    together = refuted(regions, arithmetic)
    assert set(together) == {i for i, one in enumerate(regions) if refuted([one], arithmetic)}
    assert 0 < len(together) < 40
    rows = [row for one in together.values() for row in one.margins]
    assert {row.region for row in rows} == set(together)
    assert all(row.is_positive for row in rows if len(regions[row.region].disjuncts) == 2)


def test_what_rounding_leaves_open_is_bounded_again_in_a_wider_dtype() -> None:
    regions = table(40, 2e-2) + [part(i, 2**24, *table(1, 1.0)[0].disjuncts) for i in range(4)]
    first = float(GRAPH(torch.tensor([[-1.0]]).double())[0, 0])
    near = [constraint({0: 1.0}, 1e-6 - first)], [constraint({0: -1.0}, first + 1e-6)]
    regions.append(part(0, 2**40, *near))
    narrow, wide = (Arithmetic.of(GRAPH, dtype, CPU) for dtype in (torch.float32, torch.float64))
    both = refuted(regions, narrow, wide)
    assert set(both) == set(refuted(regions, narrow)) | set(refuted(regions, wide))
    assert {row.dtype for row in both[len(regions) - 1].margins} == {"float64"}


def test_time_grows_with_the_number_of_regions_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted: passes over the network, rows made, points compared."""
    counts = Counter[str]()

    def counted(name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return of(*arguments, **options)

        return call

    monkeypatch.setattr(boxes, "reduced_bounds", counted("pass", boxes.reduced_bounds))
    monkeypatch.setattr(boxes, "RowProblem", counted("problem", boxes.RowProblem))
    monkeypatch.setattr(Rows, "of", staticmethod(counted("rows", Rows.of)))
    monkeypatch.setattr(verification, "falsify", counted("search", verification.falsify))
    found = []
    for count in (400, 1600):
        counts.clear()
        assert verify(GRAPH, Spec(1, 2, tuple(table(count, 1.0))), device="cpu").verdict is Verdict.VERIFIED
        found.append(dict(counts))
    assert found[1]["rows"] == 4 * found[0]["rows"] == 1600
    assert found[0]["pass"] <= 400 / 100
    assert found[1]["pass"] <= 4 * found[0]["pass"]
    assert found[1]["problem"] <= 4 * found[0]["problem"]
    assert "search" not in found[1]


def test_the_deadline_is_looked_at_between_batches() -> None:
    found = list[int]()

    def look() -> None:
        if found:
            raise TimeoutReached

    def collect() -> None:
        for batch in refuted_regions(table(1200, 1.0), [Arithmetic.of(GRAPH, torch.float32, CPU)], look):
            found.append(len(batch))

    with pytest.raises(TimeoutReached):
        collect()
    assert 0 < sum(found) < 1200


@pytest.mark.parametrize("semantics", ["float32", "float64"])
def test_executed_networks_are_bounded_in_batches_too(semantics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "falsify", lambda *args, **options: pytest.fail("a search"))
    result = verify(GRAPH, Spec(1, 2, tuple(table(50, 1.0))), device="cpu", semantics=semantics)
    assert result.verdict is Verdict.VERIFIED
    assert len(result.margins) == 100


def test_executed_values_that_may_overflow_are_refuted_in_no_batch() -> None:
    layers = [Linear(torch.tensor([[size]]), None) for size in (1e20, 1e10)]
    nodes = (
        Node("x", Input(), (), (1,)),
        Node("linear", layers[0], ("x",), (1,)),
        Node("relu", Relu(), ("linear",), (1,)),
        Node("y", layers[1], ("relu",), (1,)),
    )
    graph = Graph(nodes, "y")
    ends = [torch.tensor([end]).double() for end in (0.0, 1e-32, 2e-32, 3e-32, 4e-32, 1.0)]
    regions = [region(low, high, [[constraint({0: 1.0}, 1e7)]]) for low, high in pairwise(ends)]
    arithmetic = Arithmetic.of(graph, torch.float64, CPU, Execution.of(graph, torch.float32))
    found = refuted(regions, arithmetic)
    assert set(found) == {i for i, one in enumerate(regions) if refuted([one], arithmetic)}
    assert set(found) == {0, 1, 2, 3}


def test_a_proof_in_a_batch_is_written_down_and_confirmed(tmp_path: Path) -> None:
    net, spec = tmp_path / "net.onnx", tmp_path / "spec.vnnlib"
    files.fc_model(net, [[1], [-1], [2]], [[1, 1, -1], [1, -1, 0], [-1, 2, 1]], [[1, -1, 1]])
    terms = (f"(and (>= X_0 {i / 10}) (<= X_0 {(i + 1) / 10}) (>= Y_0 {4 if i < 9 else 9}))" for i in range(-8, 12))
    declared = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"
    spec.write_text(f"{declared}(assert (or {' '.join(terms)}))\n")
    result = verify(net, spec, device="cpu", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    leaves = [one for one in result.certificate.regions if one.forest is not None]
    assert len(leaves) == 20
    (tmp_path / "proof.zip").write_bytes(result.proof())
    assert check(tmp_path / "proof.zip", net, spec).confirmed


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
    assert set(refuted(regions, arithmetic)) == {0, 1}


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
    assert not refuted([odd], Arithmetic.of(GRAPH, torch.float32, CPU))
