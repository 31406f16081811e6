"""Elementary functions: against Arb, at their limits, and as bounds. The theorems have tests of their own
(tests/elementary)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb, ctx
from torch import Tensor

from tests.elementary import oracle, points
from tests.elementary.claims import claimed_units
from tests.elementary.model import ALPHA, EXPONENT
from tests.elementary.rounding import power
from zonocuda import ops, reference
from zonocuda.functions import FUNCTIONS, FunctionName, RoundingName

INF, NAN = math.inf, math.nan
EACH_FUNCTION = pytest.mark.parametrize("function", FUNCTIONS)
LOOSE = ("gelu_tanh", "reciprocal", "sqrt", "rsqrt", "power")  # their units are no single number of the header


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    before, ctx.prec = ctx.prec, 128
    yield
    ctx.prec = before


def parameter(function: FunctionName) -> float:
    return EXPONENT if function == "power" else ALPHA


def evaluate(x: Tensor, function: FunctionName, rounding: RoundingName = "nearest") -> Tensor:
    return ops.elementary(x, function, parameter(function), rounding)


def numbers(function: FunctionName) -> Tensor:
    hard = points.in_domain(function, points.hard_points())
    return torch.cat([points.random_points(function, 300, 7), hard[:: hard.numel() // 200]])


@EACH_FUNCTION
def test_values_are_as_near_as_the_theorem_says_and_bounds_hold(function: FunctionName) -> None:
    x = numbers(function)
    absolute = power(-1062) if function in ("silu", "gelu", "gelu_tanh", "mish") else power(-1066)
    results = [evaluate(x, function, rounding) for rounding in ("nearest", "down", "up")]
    found = oracle.compare(function, x, *results, absolute)
    assert not found.outside, f"{function}: bounds do not hold at {found.outside[:5]}"
    if function not in LOOSE:
        assert found.units <= claimed_units(function), f"{function}: {found.units} units at {found.at!r}"


@EACH_FUNCTION
def test_bounds_in_float32_hold_and_are_neighbours_where_they_can_be(function: FunctionName) -> None:
    x = numbers(function).float()
    x = points.in_domain(function, x[x.isfinite()].double()).float()
    lower, upper = evaluate(x, function, "down"), evaluate(x, function, "up")
    for at, low, high in zip(x.tolist(), lower.tolist(), upper.tolist(), strict=True):
        assert oracle.holds(low, high, oracle.true_value(function, at)), f"{function}({at!r})"
    x = 0.1 + 1.9 * torch.rand(500, generator=torch.Generator().manual_seed(2))
    lower, upper = evaluate(x, function, "down"), evaluate(x, function, "up")
    apart = upper > torch.nextafter(lower, torch.full_like(lower, INF))
    assert apart.float().mean() < 0.02


def test_bounds_are_the_value_where_that_is_exact(device: torch.device) -> None:
    for function, x in (
        ("tanh", 0.0),
        ("sin", 0.0),
        ("elu", 1.1),
        ("celu", 3.3),
        ("hardswish", 3.7),
        ("hardswish", -5.0),
    ):
        at = torch.tensor([x], dtype=torch.float64, device=device)
        values = [evaluate(at, function, rounding).item() for rounding in ("nearest", "down", "up")]  # type: ignore[arg-type]
        assert values == [max(x, 0.0) if x else 0.0] * 3


@EACH_FUNCTION
def test_a_nan_stays_one_in_values_and_bounds(function: FunctionName, device: torch.device) -> None:
    x = torch.tensor([NAN], dtype=torch.float64, device=device)
    for rounding in ("nearest", "down", "up"):
        assert evaluate(x, function, rounding).isnan().all()


def test_limits_and_points_outside_the_domain(device: torch.device) -> None:
    for function, x, y in (
        ("exp", [INF, -INF, 709.0, 710.0, -746.0], [INF, 0.0, None, INF, 0.0]),
        ("expm1", [INF, -INF, -100.0], [INF, -1.0, -1.0]),
        ("log", [0.0, -0.0, INF, -1.0, -INF], [-INF, -INF, INF, NAN, NAN]),
        ("log1p", [-1.0, INF, -2.0], [-INF, INF, NAN]),
        ("tanh", [INF, -INF, 1e300], [1.0, -1.0, 1.0]),
        ("sigmoid", [INF, -INF, -1e300], [1.0, 0.0, 0.0]),
        ("erf", [INF, -INF], [1.0, -1.0]),
        ("erfc", [INF, -INF], [0.0, 2.0]),
        ("normal_cdf", [INF, -INF], [1.0, 0.0]),
        ("softplus", [INF, -INF], [INF, 0.0]),
        ("silu", [INF, -INF], [INF, NAN]),
        ("softsign", [1e308], [1.0]),
        ("hardswish", [1.7e308, -1.7e308, -3.0], [1.7e308, 0.0, 0.0]),
        ("sin", [INF, -INF, 2.0**20 + 1], [NAN, NAN, NAN]),
        ("atan", [INF, -INF], [math.pi / 2, -math.pi / 2]),
        ("reciprocal", [0.0, INF, -INF], [INF, 0.0, 0.0]),
        ("sqrt", [0.0, INF, -1.0], [0.0, INF, NAN]),
        ("rsqrt", [0.0, INF, -1.0], [INF, 0.0, NAN]),
    ):
        actual = evaluate(torch.tensor(x, dtype=torch.float64, device=device), function).tolist()  # type: ignore[arg-type]
        for at, value, expected in zip(x, actual, y, strict=True):
            same = expected is None or value == expected or (math.isnan(value) and math.isnan(expected))
            assert same, f"{function}({at}) = {value}"


def test_bounds_beyond_the_largest_angle_are_those_of_every_sine() -> None:
    x = torch.tensor([2.0**20 * (1 + 2.0**-52), 1e300, -1e22], dtype=torch.float64)
    for function in ("sin", "cos"):
        assert evaluate(x, function, "down").tolist() == [-1.0] * 3  # type: ignore[arg-type]
        assert evaluate(x, function, "up").tolist() == [1.0] * 3  # type: ignore[arg-type]
        assert evaluate(x, function).isnan().all()  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_of_values_that_overflow_hold(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    x = torch.tensor([709.78271289338, 709.79, 88.7229, 1e4], dtype=dtype)
    lower, upper = evaluate(x, "exp", "down"), evaluate(x, "exp", "up")
    assert (lower <= largest).all()
    assert (upper[x > 709.79] == INF).all()
    for at, low in zip(x.tolist(), lower.tolist(), strict=True):
        assert arb(low) <= arb(at).exp()


@pytest.mark.parametrize("function", ["log", "log1p", "reciprocal", "rsqrt"])
def test_a_pole_has_no_bounds(function: FunctionName) -> None:
    x = torch.tensor([-1.0 if function == "log1p" else 0.0], dtype=torch.float64)
    assert evaluate(x, function, "down").isnan().all()
    assert evaluate(x, function, "up").isnan().all()


@EACH_FUNCTION
def test_the_derivative_is_the_references_far_out_too(function: FunctionName, device: torch.device) -> None:
    low, high = points.DOMAINS[function]
    x = torch.linspace(max(low, -30), min(high, 30), 401, dtype=torch.float64, device=device)
    x = points.in_domain(function, x[(x - x.round()).abs() > 1e-3])  # away from kinks
    grads = []
    for call in (ops.elementary, reference.elementary):
        leaf = x.clone().requires_grad_()
        call(leaf, function, parameter(function)).sum().backward()
        assert leaf.grad is not None
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-13)


def test_images_stored_channels_last_stay_so(device: torch.device) -> None:
    x = torch.randn(2, 3, 4, 5, device=device).contiguous(memory_format=torch.channels_last)
    y = ops.elementary(x, "tanh")
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, torch.tanh(x))


def test_what_does_not_exist_is_refused_by_name() -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"elementary: function must be one of exp, .*, got 'sinh'"):
        ops.elementary(x, "sinh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="elementary: rounding must be one of nearest, down, up, got 'zero'"):
        ops.elementary(x, "exp", rounding="zero")  # type: ignore[arg-type]
    for exponent in (0, 2.5, -1, 1025, NAN, INF):
        with pytest.raises(RuntimeError, match="elementary: the exponent must be an integer from 1 to 1024"):
            ops.elementary(x, "power", exponent)
    for alpha in (0.0, -1.0, INF, NAN):
        with pytest.raises(RuntimeError, match="elementary: alpha must be a positive number from"):
            ops.elementary(x, "elu", alpha)
    with pytest.raises(RuntimeError, match="elementary: function must be one of 0 to 25, got 26"):
        torch.ops.zonocuda.elementary(x, 26, 1.0, 0)
    with pytest.raises(RuntimeError, match="elementary: rounding must be 0"):
        torch.ops.zonocuda.elementary(x, 0, 1.0, 3)
    with pytest.raises(NotImplementedError, match="needs a proven error"):
        reference.elementary(x, "exp", rounding="down")
