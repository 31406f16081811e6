"""The derivative at lam = u / (u - l): the rules, what counts as on the kink, and what rounding does near it."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.ops.cases import gamma
from tests.ops.samples import Shape, uniform, zonotope
from zonocuda import ops, reference
from zonocuda.kink import KINK_RULES, KinkRule, check_kink, check_tolerance, kink_tolerance

BACKENDS = (pytest.param(ops, id="native"), pytest.param(reference, id="reference"))
STEP = 2.0**-12  # of one-sided differences; the objective is linear in the slope on either side, so any step will do


@dataclass(frozen=True)
class Objective:
    """A loss of every neuron for itself: gc c' + sum_k gG_k G'_k + gmu mu, on crossing neurons."""

    center: Tensor
    generators: Tensor
    grads: tuple[Tensor, Tensor, Tensor]

    @property
    def star(self) -> Tensor:
        """The kink, u / (u - l)."""
        lower, upper = reference.concretize(self.center, self.generators)
        return upper / (upper - lower)

    @property
    def multiplier_grad(self) -> Tensor:
        """A = gc c + sum_k gG_k G_k."""
        return self.grads[0] * self.center + (self.grads[1] * self.generators).sum(1)

    @property
    def offset_grad(self) -> Tensor:
        """m = gc + gmu."""
        return self.grads[0] + self.grads[2]

    def losses(self, backend: ModuleType, slope: Tensor, kink: KinkRule = "envelope") -> Tensor:
        """The loss of every neuron at its slope."""
        out = backend.relu(self.center, self.generators, slope, kink=kink)
        gc, gG, gmu = self.grads
        return gc * out.center + (gG * out.generators).sum(1) + gmu * out.offset

    def slope_gradient(self, backend: ModuleType, slope: Tensor, kink: KinkRule) -> Tensor:
        """dL/dlam of every neuron, by the backend's backward."""
        leaf = slope.clone().requires_grad_()
        (grad,) = torch.autograd.grad(self.losses(backend, leaf, kink).sum(), leaf)
        return grad

    def one_sided(self, step: float) -> Tensor:
        """(L(lam* + step) - L(lam*)) / step."""
        star = self.star
        return (self.losses(reference, star + step) - self.losses(reference, star)) / step


def _objective(device: torch.device, shape: Shape | None = None) -> Objective:
    """Crossing neurons with random incoming gradients, in float64."""
    c, g = zonotope(shape or Shape(2, 6, (40,)), torch.float64, dead=False, active=False)
    gc, gmu = (uniform(-1, 1, *c.shape, dtype=c.dtype) for _ in range(2))
    gG = uniform(-1, 1, *g.shape, dtype=c.dtype) / g.shape[1]
    return Objective(c.to(device), g.to(device), (gc.to(device), gG.to(device), gmu.to(device)))


# ---- the rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_left_and_right_are_the_one_sided_derivatives(backend: ModuleType, device: torch.device) -> None:
    objective = _objective(device)
    left = objective.slope_gradient(backend, objective.star, "left")
    right = objective.slope_gradient(backend, objective.star, "right")
    torch.testing.assert_close(left, objective.one_sided(-STEP), rtol=0, atol=1e-10)
    torch.testing.assert_close(right, objective.one_sided(STEP), rtol=0, atol=1e-10)
    assert ((left - right).abs() > 0.01).double().mean() > 0.5  # else there would be no kink to decide


@pytest.mark.parametrize("backend", BACKENDS)
def test_even_is_the_mean_of_the_one_sided_derivatives(backend: ModuleType, device: torch.device) -> None:
    objective = _objective(device)
    even = objective.slope_gradient(backend, objective.star, "even")
    mean = (objective.one_sided(-STEP) + objective.one_sided(STEP)) / 2
    torch.testing.assert_close(even, mean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_even_is_what_autograd_makes_of_maximum(backend: ModuleType, device: torch.device) -> None:
    lower = torch.tensor([[-1.0, -3.0, -0.5]], device=device, dtype=torch.float64)
    upper = torch.tensor([[3.0, 1.0, 0.5]], device=device, dtype=torch.float64)
    slope = (upper / (upper - lower)).requires_grad_()  # dyadic: both products are equal
    plain = torch.maximum(-lower * slope, upper * (1 - slope)) / 2
    (expected,) = torch.autograd.grad(plain.sum(), slope)
    (actual,) = torch.autograd.grad(backend.relu_relaxation(lower, upper, slope, kink="even").offset.sum(), slope)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_envelope_has_no_derivative_of_the_offset(backend: ModuleType, device: torch.device) -> None:
    objective = _objective(device)
    gradient = objective.slope_gradient(backend, objective.star, "envelope")
    torch.testing.assert_close(gradient, objective.multiplier_grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_envelope_is_the_derivative_along_the_tied_slope(backend: ModuleType, device: torch.device) -> None:
    """With no gradient of the multiplier, bounds feel a slope held at lam* as they feel the tied one."""
    objective = _objective(device)
    lower, upper = reference.concretize(objective.center, objective.generators)
    results = []
    for slope in (objective.star, None):
        leaves = (lower.clone().requires_grad_(), upper.clone().requires_grad_())
        offset = backend.relu_relaxation(*leaves, slope, kink="envelope").offset
        results.append(torch.autograd.grad((objective.offset_grad * offset).sum(), leaves))
    for free, tied in zip(*results, strict=True):
        torch.testing.assert_close(free, tied, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_min_norm_is_the_smallest_derivative_of_any_theta(backend: ModuleType, device: torch.device) -> None:
    objective = _objective(device)
    gradient = objective.slope_gradient(backend, objective.star, "min_norm")
    lower, upper = reference.concretize(objective.center, objective.generators)
    thetas = torch.linspace(0, 1, 2001, device=device, dtype=torch.float64).reshape(-1, 1, 1)
    half = objective.offset_grad / 2
    every = objective.multiplier_grad - half * (thetas * lower + (1 - thetas) * upper)
    smallest = every.abs().amin(0)
    spacing = (half * (upper - lower)).abs() / 2000
    assert bool((gradient.abs() <= smallest + 1e-13).all())
    assert bool((gradient.abs() >= smallest - spacing - 1e-13).all())
    assert bool(((gradient >= every.amin(0) - 1e-13) & (gradient <= every.amax(0) + 1e-13)).all())
    assert 0.05 < (gradient.abs() < 1e-12).double().mean() < 0.95  # zero is reached in some neurons, not in all


def _slopes_of_opposite_sign() -> tuple[dict[str, Tensor], Tensor]:
    """L = A lam - mu with one-sided slopes +0.725 and -0.775 at lam* = 0.65.

    The jump of dL/dlam is m d / 2 with m = -1, so d = u - l = 3; from the left it is A - m u / 2 = 0.725, and with
    u = 1.95 that leaves A = -0.25, here all of it through one generator.
    """
    lower, upper = -1.05, 1.95
    radius = (upper - lower) / 2
    inputs = {
        "center": torch.tensor([[(upper + lower) / 2]], dtype=torch.float64),
        "generators": torch.tensor([[[radius]]], dtype=torch.float64),
        "slope": torch.tensor([[upper / (upper - lower)]], dtype=torch.float64, requires_grad=True),
    }
    return inputs, torch.tensor([[[-0.25 / radius]]], dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kink", "expected"), [("left", 0.725), ("right", -0.775), ("even", -0.025), ("envelope", -0.25), ("min_norm", 0.0)]
)
def test_the_rules_differ_where_the_kink_is_the_maximiser(backend: ModuleType, kink: KinkRule, expected: float) -> None:
    inputs, weight = _slopes_of_opposite_sign()
    out = backend.relu(**inputs, kink=kink)
    ((weight * out.generators).sum() - out.offset.sum()).backward()
    grad = inputs["slope"].grad
    assert grad is not None
    assert grad.item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kink", KINK_RULES)
def test_the_bounds_feel_the_same_theta_as_the_slope(backend: ModuleType, kink: KinkRule, device: torch.device) -> None:
    """lbar = -theta lam m / 2 and ubar = (1 - theta)(1 - lam) m / 2 with the theta that dL/dlam was made of."""
    objective = _objective(device)
    lower, upper = (t.requires_grad_() for t in reference.concretize(objective.center, objective.generators))
    slope = objective.star.requires_grad_()
    out = backend.relu(objective.center, objective.generators, slope, lower=lower, upper=upper, kink=kink)
    grad_slope, grad_lower, grad_upper = torch.autograd.grad(out, (slope, lower, upper), objective.grads)
    m, lam = objective.offset_grad, slope.detach()
    l, u = lower.detach(), upper.detach()  # noqa: E741
    theta = -2 * grad_lower / (lam * m)
    torch.testing.assert_close(grad_upper, (1 - theta) * (1 - lam) * m / 2, rtol=0, atol=1e-13)
    expected = objective.multiplier_grad - m / 2 * (theta * l + (1 - theta) * u)
    torch.testing.assert_close(grad_slope, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_min_norm_leaves_a_gradient_without_an_offset_alone(backend: ModuleType, device: torch.device) -> None:
    objective = _objective(device)
    slope = objective.star.requires_grad_()
    bounds = reference.concretize(objective.center, objective.generators)
    multiplier = backend.relu_relaxation(*bounds, slope, kink="min_norm").multiplier
    (grad,) = torch.autograd.grad(multiplier.sum(), slope)
    assert torch.equal(grad, torch.ones_like(grad))


def test_native_and_reference_agree_on_the_kink(device: torch.device) -> None:
    objective = _objective(device, Shape(1, 200, (500,)))
    for kink in KINK_RULES:
        native = objective.slope_gradient(ops, objective.star, kink)
        oracle = objective.slope_gradient(reference, objective.star, kink)
        assert torch.allclose(native, oracle, rtol=1e-10, atol=1e-11), kink


# ---- near the kink -------------------------------------------------------------------------------------------------


def _sides(slope_gradient: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """-1, 0, 1 for left of, on and right of the kink, read off dL/dlam = -(theta l + (1 - theta) u) under ``envelope``.

    That is -u on the left, 0 on the kink and -l on the right: the half of either lies safely between.
    """
    return (slope_gradient > -lower / 2).int() - (slope_gradient < -upper / 2).int()


def _offset_slope_gradient(
    backend: ModuleType, center: Tensor, generators: Tensor, slope: Tensor, tolerance: float | None
) -> Tensor:
    """d(2 sum mu)/dlam under the rule ``envelope``."""
    leaf = slope.clone().requires_grad_()
    offset = backend.relu(center, generators, leaf, tolerance=tolerance).offset
    (grad,) = torch.autograd.grad(2 * offset.sum(), leaf)
    return grad


def test_flips_near_the_edge_of_the_tolerance_are_rare_and_straddle_it(device: torch.device) -> None:
    """float32 and float64 may disagree on what is on the kink only where |lam - lam*| rounds to the tolerance."""
    symbols, tolerance = 32, 2.0**-10
    c, g = (t.to(device) for t in zonotope(Shape(1, symbols, (20000,)), torch.float32, dead=False, active=False))
    lower, upper = reference.concretize(c.double(), g.double())
    star = upper / (upper - lower)
    slope = (star + tolerance * uniform(-2, 2, *c.shape, dtype=torch.float64).to(device)).float()
    inside = (slope > 0) & (slope < 1)
    native = _sides(_offset_slope_gradient(ops, c, g, slope, tolerance).double(), lower, upper)
    oracle = _sides(_offset_slope_gradient(reference, c.double(), g.double(), slope.double(), tolerance), lower, upper)
    flipped = (native != oracle) & inside
    distance = ((slope.double() - star).abs() - tolerance).abs()
    band = kink_tolerance(torch.float32, symbols)  # how far rounding can move lam - lam*
    assert bool((distance[flipped] <= band).all()), distance[flipped].max().item()
    rate = flipped.double().mean().item()
    assert rate <= 2 * band / tolerance, rate  # the share of slopes in the two bands is band / tolerance
    for side in (-1, 0, 1):  # and all three sides were there to compare
        assert (oracle == side).double().mean() > 0.2


def test_every_slope_initialised_at_the_kink_counts_as_on_it(device: torch.device) -> None:
    """lam = fl(u / (u - l)) with bounds summed in another order: the default tolerance covers what that moves."""
    for symbols in (1, 10, 300, 3000):
        c, g = zonotope(Shape(1, symbols, (200,)), torch.float32, dead=False, active=False)
        lower, upper = (t.to(device) for t in reference.concretize(c, g.flip(1)))
        slope = upper / (upper - lower)
        gradient = _offset_slope_gradient(ops, c.to(device), g.to(device), slope, None)
        assert bool((_sides(gradient, lower, upper) == 0).all()), f"{symbols} symbols"


def test_without_a_tolerance_the_side_of_the_kink_is_a_coin_flip(device: torch.device) -> None:
    """Why there is a tolerance: rounding alone puts initial slopes on either side."""
    c, g = zonotope(Shape(1, 100, (2000,)), torch.float32, dead=False, active=False)
    lower, upper = (t.to(device) for t in reference.concretize(c, g.flip(1)))
    slope = upper / (upper - lower)
    sides = _sides(_offset_slope_gradient(ops, c.to(device), g.to(device), slope, 0.0), lower, upper)
    for side in (-1, 1):
        assert (sides == side).double().mean() > 0.1


# ---- the numbers and errors of zonocuda.kink -----------------------------------------------------------------------


def test_the_tolerance_is_four_roundings_and_half_of_gamma() -> None:
    for dtype in (torch.float32, torch.float64):
        for symbols in (0, 1, 1000):
            roundoff = torch.finfo(dtype).eps / 2
            expected = 4 * roundoff + gamma(symbols, dtype) / 2
            assert kink_tolerance(dtype, symbols) == pytest.approx(expected, rel=1e-12)


def test_a_number_of_symbols_without_a_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16777216 symbols are too many for torch.float32"):
        kink_tolerance(torch.float32, 2**24)
    with pytest.raises(ValueError, match=r"dtype must be a floating-point one, got torch.int64"):
        kink_tolerance(torch.int64, 1)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tolerance_that_is_not_at_least_zero_is_refused(backend: ModuleType, tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"tolerance must be at least 0, got (-1|nan)"):
        check_tolerance(tolerance, torch.float32, 1)
    c, g = zonotope(Shape(1, 2, (3,)), torch.float64)
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        backend.relu(c, g, tolerance=tolerance)
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        backend.relu_relaxation(c - 1, c + 1, tolerance=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unknown_rule_is_refused_with_the_known_ones(backend: ModuleType) -> None:
    message = r"kink must be one of envelope, left, right, even, min_norm, got 'middle'"
    with pytest.raises(ValueError, match=message):
        check_kink("middle")
    c, g = zonotope(Shape(1, 2, (3,)), torch.float64)
    with pytest.raises(ValueError, match=message):
        backend.relu(c, g, kink="middle")
    with pytest.raises(ValueError, match=message):
        backend.relu_relaxation(c - 1, c + 1, kink="middle")


def test_the_number_of_a_rule_is_its_number_in_the_native_ops(device: torch.device) -> None:
    """Rules are numbered twice, in Python and in csrc/math/relu.h: each must name the same derivative."""
    objective = _objective(device)
    for kink in KINK_RULES:
        native = objective.slope_gradient(ops, objective.star, kink)
        others = {k: objective.slope_gradient(reference, objective.star, k) for k in KINK_RULES}
        assert min(others, key=lambda k: (others[k] - native).abs().max().item()) == kink
