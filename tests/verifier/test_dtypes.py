"""Which dtype decides: float32, float64 where float32's rounding is in the way, neither where both fail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.soundness.hidden import FAMILIES
from tests.verifier.graphs import constraint, fc, rand, random_box, spec
from tests.verifier.verdicts import IDENTITY, NEVER, ONE, ZERO, chain, check, run
from zonocuda.bounds.deadline import Deadline
from zonocuda.graph import Graph, Linear, Relu, ScaleShift
from zonocuda.prove.prover import LADDERS
from zonocuda.prove.stages import Arithmetic, Course, RegionProof
from zonocuda.specs import Box, LinearConstraint, Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, arguments, verification, verify
from zonocuda.verifier.arguments import resolve_dtypes

NARROW, WIDE = torch.float32, torch.float64


@pytest.fixture
def proofs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """``verify`` proves or does not."""
    monkeypatch.setattr(verification, "falsify", lambda *args, **options: None)
    monkeypatch.setattr(verification, "wants_split", lambda split, region: False)
    monkeypatch.setattr(verification, "replay", lambda *args, **options: None)


@pytest.fixture
def begins_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` begins in float32 for small networks, too."""
    monkeypatch.setattr(arguments, "SMALL", 0.0)


def wide_sum(margin: float) -> tuple[Graph, Spec]:
    """A sum of 50 products at one point, and a row that it exceeds by ``margin``."""
    weight, x = (t.float().double() for t in (rand(1, 50, seed=1), rand(50, seed=2)))
    exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weight.flatten().tolist(), x.tolist(), strict=True))
    row = LinearConstraint({0: Fraction(1)}, {}, -exact + Fraction(margin))
    return chain(Linear(weight), size=50), Spec(50, 1, (Region(Box.from_tensors(x, x), ((row,),)),))


def test_small_networks_begin_in_float64_and_large_ones_in_float32() -> None:
    assert resolve_dtypes("auto", fc(0, (4, 12, 3))) == (WIDE,)
    assert resolve_dtypes("auto", fc(0, (1000, 600, 3))) == (NARROW, WIDE)
    for dtype in (NARROW, WIDE):
        assert resolve_dtypes(dtype, IDENTITY) == (dtype,)


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
def test_float32_settles_what_has_room_to_spare() -> None:
    result = verify(*wide_sum(0.5))
    check(result, Verdict.VERIFIED)
    assert (result.ran.dtype, result.ran.settled) == ("float32", {"float32": 1})
    assert result.margins[0].dtype == "float32"


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
@pytest.mark.parametrize("effort", ["fast", "standard"])
def test_float64_settles_what_float32_has_no_room_for(effort: str) -> None:
    network, property_ = wide_sum(1e-9)
    check(verify(network, property_, dtype=NARROW, effort=effort), Verdict.UNKNOWN)  # type: ignore[arg-type]
    result = verify(network, property_, effort=effort)  # type: ignore[arg-type]
    check(result, Verdict.VERIFIED)
    assert (result.ran.dtype, result.ran.settled) == ("float64", {"float64": 1})
    assert result.margins[0].dtype == "float64"


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
@pytest.mark.parametrize("effort", ["fast", "standard"])
def test_what_lacks_nothing_but_float64s_rounding_is_unknown_and_says_so(effort: str) -> None:
    result = verify(*wide_sum(1e-15), effort=effort)  # type: ignore[arg-type]
    check(result, Verdict.UNKNOWN)
    assert "within the rounding of its own computation in float64" in result.reason
    assert result.ran.dtype == "float64"
    assert not result.ran.settled


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
def test_an_overflow_in_float32_is_decided_in_float64() -> None:
    """1e-30 relu(1e30 (1e30 x)) is 1e30 x >= 1e29, by numbers that float32 does not hold."""
    scale, back = (torch.full((2,), v, dtype=torch.float64) for v in (1e30, 1e-30))
    graph = chain(ScaleShift(scale, None), ScaleShift(scale, None), Relu(), ScaleShift(back, None))
    rows, box = [constraint({0: 1}, -1e28)], (ZERO + 0.1, ONE)
    check(run(graph, rows, box=box, dtype=NARROW), Verdict.UNKNOWN)
    result = run(graph, rows, box=box)
    check(result, Verdict.VERIFIED)
    assert result.ran.settled == {"float64": 1}


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
def test_coefficients_that_float32_has_no_room_for_are_decided_in_float64() -> None:
    row = LinearConstraint({0: Fraction(1, 10**60), 1: Fraction(1)}, {}, Fraction(1))
    result = run(IDENTITY, [row])
    check(result, Verdict.VERIFIED)
    assert result.ran.settled == {"float64": 1}


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_prove_nothing_in_any_dtype(value: float) -> None:
    for place in range(4):
        weights = [rand(3, 2, seed=1), rand(3, seed=2), rand(2, 3, seed=3), rand(2, seed=4)]
        weights[place].view(-1)[0] = value
        graph = chain(Linear(*weights[:2]), Relu(), Linear(*weights[2:]))
        check(run(graph, [constraint({0: 1, 1: 1}, 1e6)]), Verdict.UNKNOWN)


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [NARROW, WIDE])
def test_what_hides_behind_rounding_is_not_verified(family: str, dtype: torch.dtype) -> None:
    for seed in range(2):
        hidden = FAMILIES[family](dtype, seed)
        assert verify(hidden.graph, hidden.spec()).verdict is not Verdict.VERIFIED


# ---- auto proves what either dtype proves ----------------------------------------------------------------------------


def bounds(graph: Graph, box: tuple[Tensor, Tensor], constants: Sequence[float], **how: object) -> VerifyResult:
    """One disjunct for each output: Y_i + constant_i <= 0."""
    rows = [[constraint({i: 1}, c)] for i, c in enumerate(constants)]
    return verify(graph, spec(box[0][0], box[1][0], rows, len(constants)), **how)  # type: ignore[arg-type]


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
@pytest.mark.parametrize("seed", range(2))
def test_auto_proves_what_float64_proves(seed: int) -> None:
    """By any margin without optimisation; with it, by more than the ways that slopes take in two dtypes differ."""
    graph = fc(seed, (6, 20, 20, 20, 3))
    box = random_box(graph, seed=seed, width=0.6)
    margins = {"fast": (1e-1, 1e-3, 1e-5, 1e-7), "standard": (1e-1, 1e-2)}
    settled = set()
    for effort, gaps in margins.items():
        lower = [row.lower for row in bounds(graph, box, [0.0] * 3, dtype=WIDE, effort=effort).margins]
        for margin in gaps:
            constants = [margin - b for b in lower if b is not None]
            check(bounds(graph, box, constants, dtype=WIDE, effort=effort), Verdict.VERIFIED)
            result = bounds(graph, box, constants, effort=effort)
            check(result, Verdict.VERIFIED)
            assert sum(result.ran.settled.values()) == 3
            settled |= result.ran.settled.keys()
    assert settled == {"float32", "float64"}, "one dtype sufficed for everything"


@pytest.mark.usefixtures("proofs_alone")
@pytest.mark.parametrize("dtype", [NARROW, WIDE])
def test_a_dtype_that_is_asked_for_is_the_only_one(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    for constant, verdict in ((1.0, Verdict.VERIFIED), (-0.5, Verdict.UNKNOWN)):
        result = run(IDENTITY, [constraint({0: 1}, constant)], dtype=dtype)
        check(result, verdict)
        assert result.ran.dtype == result.margins[0].dtype == name
        assert set(result.ran.settled) <= {name}
        assert run(IDENTITY, [constraint({0: 1}, constant)], dtype=name).ran.dtype == name


@pytest.mark.usefixtures("begins_narrow", "proofs_alone")
def test_a_region_is_refuted_by_its_own_rows_alone() -> None:
    """Y_0 <= -1 and Y_1 <= -1: for Y_0 >= 0 the first row refutes, for Y_0 >= -2 none does; and a margin that float64
    alone sees in one region is none in the other."""
    two = torch.tensor([2.0, 2.0], dtype=torch.float64)
    disjunct = (NEVER, constraint({1: 1}, 1))
    first = Region(Box.from_tensors(torch.tensor([0.0, -2], dtype=torch.float64), two), (disjunct,))
    second = Region(Box.from_tensors(-two, two), (disjunct,))
    check(verify(IDENTITY, Spec(2, 2, (first,))), Verdict.VERIFIED)
    for regions in ((first, second), (second, first)):
        result = verify(IDENTITY, Spec(2, 2, regions))
        check(result, Verdict.UNKNOWN)
        assert {row.region for row in result.margins if row.is_positive} == {regions.index(first)}
    tiny = Fraction(1, 10**12)
    close = Region(Box.from_tensors(ONE, ONE), ((LinearConstraint({0: Fraction(1)}, {}, tiny - 1),),))
    open_ = Region(Box.from_tensors(ONE, ONE), ((LinearConstraint({0: Fraction(1)}, {}, -tiny - 1),),))
    result = verify(IDENTITY, Spec(2, 2, (close, open_)))
    check(result, Verdict.UNKNOWN)
    assert [row.is_positive for row in result.margins] == [True, False]


def test_what_one_dtype_has_found_holds_in_the_other() -> None:
    """The bounds that a prover takes over enclose those that were found; rows keep theirs to the last digit."""
    graph = fc(0, (6, 20, 20, 3))
    box = random_box(graph, width=1.0)
    region = spec(box[0][0], box[1][0], [[constraint({i: 1})] for i in range(3)], 3).regions[0]
    for here, there in ((NARROW, WIDE), (WIDE, NARROW)):
        course = Course("auto", None, Deadline(), lambda phase, done, total: None)
        proof = RegionProof(
            region, (here, there), lambda dtype: Arithmetic.of(graph, dtype, torch.device("cpu")), course
        )
        with torch.no_grad():
            proof._begin(here)
            found = proof.prover
            assert found is not None
            found.climb(LADDERS["standard"][1])
            other = proof._in(there)
        assert other.dtype is there
        assert torch.equal(other.bounds, found.bounds)
        for name, (low, high) in found.intermediate.items():
            lower, upper = (b.double() for b in other.intermediate[name])
            assert bool((lower <= low.double()).all())
            assert bool((upper >= high.double()).all())
            assert bool((lower.isfinite() & upper.isfinite()).all())
