"""Verdicts: what each needs, and what a result tells."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import pytest
import torch

from tests.devices import use_device
from tests.verifier.graphs import constraint, fc, region, spec
from tests.verifier.verdicts import (
    ALWAYS,
    DISTANCE,
    IDENTITY,
    NEVER,
    ONE,
    SOMETIMES,
    TENTH,
    ZERO,
    chain,
    check,
    matrix,
    run,
)
from zonocuda.graph import Relu
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, verify

INF = math.inf

# ---- the table -------------------------------------------------------------------------------------------------------

TABLE: list[tuple[str, list[list[LinearConstraint]], Verdict]] = [
    ("one row, refuted", [[NEVER]], Verdict.VERIFIED),
    ("one row, always true", [[ALWAYS]], Verdict.FALSIFIED),
    ("one row, true somewhere", [[SOMETIMES]], Verdict.FALSIFIED),
    ("a conjunction, refuted by one row", [[ALWAYS, NEVER]], Verdict.VERIFIED),
    ("a conjunction, every row true somewhere", [[SOMETIMES, ALWAYS]], Verdict.FALSIFIED),
    ("disjuncts, one of them possible", [[NEVER], [SOMETIMES]], Verdict.FALSIFIED),
    ("disjuncts, all refuted", [[NEVER], [NEVER, ALWAYS]], Verdict.VERIFIED),
    ("an empty conjunction", [[]], Verdict.FALSIFIED),
    ("an empty conjunction beside a refuted one", [[NEVER], []], Verdict.FALSIFIED),
    ("an empty disjunction", [], Verdict.VERIFIED),
    ("a constant that is unsafe", [[constraint({}, -1)]], Verdict.FALSIFIED),
    ("a constant that is safe", [[constraint({}, 1)]], Verdict.VERIFIED),
    ("zero is unsafe for <=", [[constraint({}, 0)]], Verdict.FALSIFIED),
    ("zero is unsafe at the boundary", [[constraint({0: -1}, 1)]], Verdict.FALSIFIED),
]


@pytest.mark.parametrize(("disjuncts", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_verdicts(disjuncts: list[list[LinearConstraint]], verdict: Verdict, dtype: torch.dtype, backend: str) -> None:
    result = run(IDENTITY, *disjuncts, dtype=dtype, backend=backend)
    check(result, verdict)
    assert (result.ran.dtype, result.ran.backend) == (str(dtype).removeprefix("torch."), backend)


@pytest.mark.gpu
def test_cuda_gives_the_verdicts_of_the_cpu() -> None:
    device = use_device("cuda")
    for _, disjuncts, verdict in TABLE:
        check(run(IDENTITY, *disjuncts, device=device), verdict)


def test_a_conjunction_whose_rows_fail_alone_is_not_verified() -> None:
    """Y_0 <= 1/10 and Y_0 >= 1/10: a point that is no float, so that nothing falsifies it either."""
    result = run(IDENTITY, TENTH)
    check(result, Verdict.UNKNOWN)
    assert [row.lower for row in result.margins] == pytest.approx([-0.1, -0.9])


def test_a_conjunction_that_no_output_satisfies_is_verified_without_a_bound() -> None:
    """Y_0 <= 0.45 and -Y_0 <= -0.55: each has points, together they have none."""
    result = run(IDENTITY, [constraint({0: 1}, -0.45), constraint({0: -1}, 0.55)])
    check(result, Verdict.VERIFIED)
    assert result.margins == ()


def test_a_strict_constraint_on_its_boundary_is_not_falsified() -> None:
    """Y_0 >= 1 touches [0, 1] in one point; Y_0 > 1 has none, but the bound is zero, not positive."""
    check(run(IDENTITY, [constraint({0: -1}, 1, strict=False)]), Verdict.FALSIFIED)
    check(run(IDENTITY, [constraint({0: -1}, 1, strict=True)]), Verdict.UNKNOWN)
    check(run(IDENTITY, [constraint({0: -1}, 1.001, strict=True)]), Verdict.VERIFIED)


def test_a_true_property_that_the_relaxation_cannot_prove_is_unknown() -> None:
    """Y_0 = relu(X_0) - relu(X_0) = 0 on [-1, 1], by two neurons: the slopes 1/2 give 1/2 - 1/2 - 1/2 = -1/2."""
    graph = chain(matrix([1, 0], [1, 0]), Relu(), matrix([1, -1], [0, 0]))
    result = run(graph, [constraint({0: 1}, 0.4)], box=(-ONE, ONE), split="none")
    check(result, Verdict.UNKNOWN)
    assert result.margin == pytest.approx(-0.1)
    assert "1 of 1 disjuncts not refuted; the worst bound is -0.1" in result.reason


def test_the_dual_proves_what_the_forward_sweep_leaves_open() -> None:
    """relu(X_0) on [-2, 1]: the slope 1/3 gives -2/3, the adaptive one, 0, gives 0."""
    result = run(chain(Relu(), matrix([1, 0], [0, 1])), [constraint({0: 1}, 0.1)], box=(-2 * ONE, ONE))
    check(result, Verdict.VERIFIED)
    (row,) = result.margins
    assert row.forward == pytest.approx(-2 / 3 + 0.1)
    assert row.dual == row.lower == pytest.approx(0.1)
    assert {"check", "combine", "falsify", "forward", "dual", "total"} == set(result.seconds)


# ---- boxes and regions -----------------------------------------------------------------------------------------------


def test_no_region_means_verified() -> None:
    result = verify(IDENTITY, Spec(2, 2, ()))
    check(result, Verdict.VERIFIED)
    assert "no unsafe region" in result.reason


@pytest.mark.parametrize("disjuncts", [[[ALWAYS]], [[]], []])
def test_an_empty_box_has_no_counterexample(disjuncts: list[list[LinearConstraint]]) -> None:
    result = run(IDENTITY, *disjuncts, box=(ONE, torch.tensor([2.0, 0.5])))
    check(result, Verdict.VERIFIED)
    assert "empty" in result.reason


@pytest.mark.parametrize(
    "box", [(-INF, 1.0), (0.0, INF), (math.nan, 1.0), (0.0, math.nan), (-INF, INF), (0.0, 1e39), (-1e308, 1e308)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.usefixtures("no_search")
def test_a_box_without_finite_bounds_is_never_decided_by_bounds(box: tuple[float, float], dtype: torch.dtype) -> None:
    low, high = (torch.tensor([b, 0.0], dtype=torch.float64) for b in box)
    low[1] = -1
    for row in (constraint({1: 1}, 5), constraint({0: 1}, 5), constraint({0: 1, 1: 1}, 5)):
        result = verify(IDENTITY, spec(low, high, [[row]], 2), dtype=dtype)
        finite = math.isfinite(box[0]) and math.isfinite(box[1])
        if not finite or (dtype == torch.float32 and abs(box[1]) > 3.5e38):
            check(result, Verdict.UNKNOWN)
        elif result.verdict is Verdict.VERIFIED:  # exact truth: the row's smallest value over the box is positive
            truth = sum(c * Fraction(min(low[i].item() * c, high[i].item() * c)) / c for i, c in row.outputs.items())
            assert truth + row.constant > 0


def test_constraints_on_variables_that_do_not_exist_are_an_error() -> None:
    for row in (constraint({2: 1}), LinearConstraint({}, {2: Fraction(1)}, Fraction(0)), constraint({-1: 1})):
        with pytest.raises(ValueError, match="names a variable that does not exist"):
            run(IDENTITY, [row])


def test_every_region_must_be_safe() -> None:
    safe = region(ZERO, ONE, [[NEVER]])
    unsafe = region(ZERO, ONE, [[SOMETIMES]])
    open_ = region(ZERO, ONE, [TENTH])
    empty = region(ONE, ZERO, [[]])
    for regions, verdict in (
        ((safe, safe, empty), Verdict.VERIFIED),
        ((safe, open_), Verdict.UNKNOWN),
        ((open_, safe), Verdict.UNKNOWN),
        ((safe, open_, unsafe), Verdict.FALSIFIED),
        ((empty, unsafe), Verdict.FALSIFIED),
    ):
        result = verify(IDENTITY, Spec(2, 2, regions))
        check(result, verdict)
        if verdict is Verdict.UNKNOWN:
            assert result.reason.startswith(f"region {regions.index(open_)}: ")
        if result.counterexample is not None:
            assert result.counterexample.region == regions.index(unsafe)


def test_a_region_without_output_constraints_is_falsified_by_any_point() -> None:
    low = torch.tensor([0.1, 0.2], dtype=torch.float64)
    result = run(IDENTITY, [], box=(low, low))
    check(result, Verdict.FALSIFIED)
    assert result.counterexample is not None
    assert torch.equal(result.counterexample.x, low.float())


def test_a_region_without_output_constraints_and_without_float32_points_is_unknown() -> None:
    low, high = torch.tensor([1e39, 0.0], dtype=torch.float64), torch.tensor([2e39, 1.0], dtype=torch.float64)
    check(run(IDENTITY, [], box=(low, high)), Verdict.UNKNOWN)


# ---- the result ------------------------------------------------------------------------------------------------------


def test_a_result_tells_what_it_rests_on() -> None:
    rows = [[constraint({0: 1}, 0.125)], [constraint({0: 1}, 5)], [constraint({0: 1}, 0.125)]]
    result = run(DISTANCE, *rows)
    check(result, Verdict.VERIFIED)
    assert [(row.region, row.constraint) for row in result.margins] == [(0, "Y_0 + 1/8 <= 0"), (0, "Y_0 + 5 <= 0")]
    assert result.margin == min(row.lower for row in result.margins if row.lower is not None)
    (layer,) = result.layers
    assert (layer.neurons, layer.dead, layer.active, layer.unstable) == (2, 0, 0, 2)
    assert layer.symbols == {"dense": 2}
    assert layer.mean_width == pytest.approx(2.0)
    ran = result.ran
    assert (ran.dtype, ran.device, ran.backend, ran.replay) == ("float64", "cpu", "native", "graph")
    assert set(ran.versions) == {"zonocuda", "torch"}
    assert str(result.verdict) == "verified"
    assert sum(s for name, s in result.seconds.items() if name != "total") <= result.seconds["total"]


def test_a_counterexample_holds_exactly_and_lies_in_the_float32_box() -> None:
    graph = fc(0, (2, 8, 2))
    low, high = torch.tensor([0.1, -0.3], dtype=torch.float64), torch.tensor([0.7, 0.4], dtype=torch.float64)
    middle = graph(((low + high) / 2).unsqueeze(0))[0, 0].item()
    row = constraint({0: 1}, -middle)
    result = run(graph, [row], box=(low, high))
    check(result, Verdict.FALSIFIED)
    found = result.counterexample
    assert found is not None
    assert row.holds(found.x.tolist(), found.y.tolist())
    assert (found.x >= low.float()).all()
    assert (found.x <= high.float()).all()
    assert torch.equal(graph.to(torch.float32)(found.x.unsqueeze(0))[0], found.y)


def test_a_property_of_one_float32_point_is_decided_there() -> None:
    x = torch.tensor([0.1, 0.7])
    box = Box(x.double() - 1e-12, x.double() + 1e-12, x, x)
    for slack, verdict in ((1e-6, Verdict.FALSIFIED), (-1e-6, Verdict.VERIFIED)):
        row = LinearConstraint({0: Fraction(1)}, {}, -Fraction(x[0].item()) - Fraction(slack))
        check(verify(IDENTITY, Spec(2, 2, (Region(box, ((row,),)),))), verdict)


def test_results_are_copied_and_pickled() -> None:
    for rows, verdict in (([NEVER], Verdict.VERIFIED), ([ALWAYS], Verdict.FALSIFIED), (TENTH, Verdict.UNKNOWN)):
        result = run(DISTANCE if rows is not TENTH else IDENTITY, rows)
        for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
            assert other.verdict is verdict
            assert other.margins == result.margins
            assert other.reason == result.reason
            if result.counterexample is not None:
                assert torch.equal(other.counterexample.x, result.counterexample.x)


def test_a_certificate_is_pickled_with_its_combinations() -> None:
    result = verify(IDENTITY, spec(ZERO, ONE, [[constraint({0: 1}, 1), constraint({0: -1})]], 2), certificate=True)
    again = pickle.loads(pickle.dumps(result))
    assert again.certificate.regions[0].combinations == result.certificate.regions[0].combinations != ()
