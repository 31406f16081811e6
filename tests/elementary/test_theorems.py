"""The theorems of docs/math.md, and what they rest on: polynomials, rounding, and the formulas of csrc/math."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flint import arb, ctx

from tests.elementary import approximation, model, points
from tests.elementary.claims import claimed_units
from tests.elementary.polynomials import HEADER, TARGETS, coefficients, header
from tests.elementary.rounding import Computed, half_ulp, power
from tests.elementary.theorems import THEOREMS
from zonocuda.functions import FUNCTIONS, FunctionName

ops = pytest.importorskip("zonocuda.ops", reason="the native ops are not built")


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    before, ctx.prec = ctx.prec, 128
    yield
    ctx.prec = before


def parameter(name: str) -> float:
    return model.EXPONENT if name == "power" else model.ALPHA


def test_the_header_is_what_the_script_writes() -> None:
    assert HEADER.read_text(encoding="utf-8") == header()


@pytest.mark.parametrize("name", TARGETS)
def test_a_polynomial_is_as_near_to_its_target_as_is_proven(name: str) -> None:
    proven, target = approximation.error(name), TARGETS[name]
    assert proven < power(-52)
    seen = arb(0)
    ctx.prec = 300
    for i in range(1, 60):
        x = arb(target.lower) + arb(target.upper - target.lower) * i / 61
        value = arb(0)
        for c in reversed(coefficients(name)):
            value = value * x + c
        distance = abs(value - target.function(x))
        assert distance <= proven
        seen = seen.max(distance)
    assert seen > proven / 8  # a bound that is not far off


def test_a_wrong_coefficient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = coefficients("exp_rest")
    wrong = (right[0], right[1] * (1 + 1e-12), *right[2:])
    approximation.error.cache_clear()
    monkeypatch.setattr(approximation, "coefficients", lambda name: wrong)
    assert approximation.error("exp_rest") > power(-48)
    approximation.error.cache_clear()


def test_half_a_unit_in_the_last_place_bounds_every_rounding() -> None:
    assert half_ulp(arb(1)) == power(-54)
    assert half_ulp(arb(1) + power(-60)) == power(-53)
    assert half_ulp(arb(0.7)) == power(-54)
    assert half_ulp(power(-1074)) == half_ulp(arb(0)) == power(-1075)


def test_errors_of_operations_bound_those_of_floats() -> None:
    numbers = torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).tolist()
    for a, b, c in numbers:
        computed = (Computed.of(arb(a)) * b - c) / (2.0 + Computed.of(arb(b)) * b)
        exact = (arb(a) * b - c) / (2 + arb(b) * b)
        assert computed.exact.overlaps(exact)
        assert abs((a * b - c) / (2.0 + b * b) - exact) <= computed.error


@pytest.mark.parametrize("name", THEOREMS)
def test_a_theorem_holds_with_the_units_of_the_header(name: str) -> None:
    units = THEOREMS[name]()
    assert units >= 1
    assert units <= claimed_units(name), units
    assert claimed_units(name) <= units + 1.5  # and says no more than it must


def test_the_table_of_the_docs_says_what_the_header_does() -> None:
    table = (Path(__file__).parents[2] / "docs" / "math.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    assert rows.keys() == set(FUNCTIONS)
    for name, units in rows.items():
        if name not in ("gelu_tanh", "reciprocal", "sqrt", "rsqrt", "power"):
            assert float(units) == claimed_units(name), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_formulas_in_python_give_the_bits_of_the_op(name: FunctionName) -> None:
    x = torch.cat([points.random_points(name, 600, 0), points.in_domain(name, points.hard_points()[::9])])
    expected = torch.tensor([model.FUNCTIONS[name](v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ops.elementary(x, name, parameter(name)), expected, rtol=0, atol=0, equal_nan=True)
