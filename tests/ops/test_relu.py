"""The zonotope ReLU: what it encloses, its edges, its modes. Its derivative on the kink: test_kink.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.cases import cotangents_like, gamma
from tests.ops.samples import Shape, edge_zonotope, off_kink_slopes, relu_samples, uniform, zonotope
from zonocuda import ops, reference

INF, NAN = float("inf"), float("nan")


def test_examples_by_hand(device: torch.device) -> None:
    """c = 1, r = 2, so l = -1 and u = 3: lam* = 3/4, mu* = 3/8."""
    center = torch.tensor([[1.0]], device=device)
    generators = torch.tensor([[[1.5], [-0.5]]], device=device)
    tied = ops.relu(center, generators)
    assert [t.flatten().tolist() for t in tied] == [[0.75 + 0.375], [1.125, -0.375], [0.375]]
    for slope, offset in ((0.0, 1.5), (0.5, 0.75), (1.0, 0.5)):
        free = ops.relu(center, generators, torch.tensor([slope], device=device))
        assert [t.flatten().tolist() for t in free] == [[slope + offset], [1.5 * slope, -0.5 * slope], [offset]]


def test_dead_and_active_neurons_are_exact_and_deadness_is_tested_first(device: torch.device) -> None:
    """At every exact edge, and at l = u = 0 in particular, where the zonotope is a point."""
    c, g = (t.to(device) for t in edge_zonotope(torch.float32))
    for slope in (None, torch.full_like(c, 0.5)):
        out = ops.relu(c, g, slope)
        dead = [0, 2, 4]  # u <= 0: 0, and touching it from below
        active = [1, 3]  # l >= 0 < u
        assert all(t[..., dead].count_nonzero() == 0 for t in out)
        assert torch.equal(out.center[:, active], c[:, active])
        assert torch.equal(out.generators[..., active], g[..., active])
        assert out.offset[:, active].count_nonzero() == 0
        assert bool((out.offset[:, [5, 6]] > 0).all())


# ---- soundness -----------------------------------------------------------------------------------------------------


def _points(center: Tensor, generators: Tensor, count: int = 200) -> tuple[Tensor, Tensor]:
    """Symbols in [-1, 1], half of them at corners, and the points of the zonotope that they give."""
    size = (count, center.shape[0], generators.shape[1])
    eps = 2 * torch.rand(size, dtype=center.dtype, device=center.device) - 1
    eps[: count // 2] = eps[: count // 2].sign()
    eps = eps.reshape(*size, *[1] * (center.dim() - 1))
    return eps, center + (eps * generators).sum(2)


def _enclosure_cases(device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    for dtype in (torch.float64, torch.float32):
        for sample in relu_samples(device, dtype, requires_grad=False):
            if sample.inputs["center"].numel():
                yield f"{dtype}, {sample.name}", dict(sample.inputs)
        c, g = (t.to(device) for t in zonotope(Shape(1, 6, (50,)), dtype))
        for slope in (0.0, 0.3, 1.0):
            yield f"{dtype}, slope {slope}", {"center": c, "generators": g, "slope": torch.full_like(c, slope)}


def test_every_sampled_output_is_enclosed_with_the_new_symbol(device: torch.device) -> None:
    """relu(x) = c' + sum_k eps_k G'_k + eps_new mu has a solution |eps_new| <= 1 at the eps that gave x.

    With given bounds, for the x that satisfy them. The computed mu may be short by rounding: by gamma of its summands.
    """
    tightest = 0.0
    for name, inputs in _enclosure_cases(device):
        out = ops.relu(**inputs)
        c, g = inputs["center"].double(), inputs["generators"].double()
        eps, x = _points(c, g)
        promised = out.center.double() + (eps * out.generators.double()).sum(2)
        missing = (x.clamp(min=0) - promised).abs() - out.offset.double()
        slack = 8 * gamma(g.shape[1] + 8, inputs["center"].dtype) * (c.abs() + g.abs().sum(1))
        satisfied = torch.ones_like(x, dtype=torch.bool)
        if "lower" in inputs:
            satisfied = (x >= inputs["lower"]) & (x <= inputs["upper"])
        assert bool(((missing <= slack) | ~satisfied).all()), f"{name}: short by {missing[satisfied].max().item()}"
        crossing = out.offset > 0
        if bool(crossing.any()):
            tightest = max(tightest, (missing / out.offset)[:, crossing].max().item())
    assert tightest > -0.1  # some sampled point comes close to using all of its new symbol


def test_points_outside_the_given_bounds_need_not_be_enclosed(device: torch.device) -> None:
    """Why the test above leaves them out: x = 1 of [-1, 1] under the given bounds [-1/2, 1/2]."""
    zero, one = torch.zeros(1, 1, device=device), torch.ones(1, 1, 1, device=device)
    out = ops.relu(zero, one, torch.full_like(zero, 0.5), lower=zero - 0.5, upper=zero + 0.5)
    assert (out.center.item(), out.generators.item(), out.offset.item()) == (0.125, 0.5, 0.125)
    assert abs(1 - (0.125 + 0.5)) > out.offset.item()


def test_the_tied_slope_has_the_smallest_offset(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(1, 6, (50,)), torch.float64, dead=False, active=False))
    tied = ops.relu(c, g).offset
    for slope in torch.linspace(0, 1, 21, dtype=c.dtype, device=device):
        assert bool((ops.relu(c, g, slope.expand(c.shape)).offset >= tied * (1 - 1e-13)).all())


# ---- near the edges of the stable cases ----------------------------------------------------------------------------


def test_flips_between_the_cases_are_rare_and_straddle_their_edge() -> None:
    """float32 sums may call a neuron crossing that is stable in float64, only where l or u rounds to zero.

    Away from the flips the values agree tightly. Neurons lie within 10 bands of l = 0 and of u = 0.
    """
    symbols, count = 64, 20000
    _, g = zonotope(Shape(1, symbols, (count,)), torch.float32)
    radius = g.double().abs().sum(1)
    band = 2 * gamma(symbols + 1, torch.float32) * radius  # |c| is about r
    edge = torch.where(torch.arange(count) % 2 == 0, radius, -radius)
    c = (edge + 10 * band * uniform(-1, 1, 1, count, dtype=torch.float64)).float()
    slope = off_kink_slopes(-torch.ones_like(c), torch.ones_like(c))
    out, oracle = ops.relu(c, g, slope), reference.relu(c.double(), g.double(), slope.double())
    lower, upper = reference.concretize(c.double(), g.double())

    def case(offset: Tensor, center: Tensor) -> Tensor:
        return torch.where(offset != 0, 1, torch.where(center != 0, 2, 0))

    flipped = case(out.offset, out.center) != case(oracle.offset, oracle.center)
    distance = torch.minimum(lower.abs(), upper.abs())
    assert bool((distance[flipped] <= band[flipped]).all())
    assert flipped.double().mean() <= 0.15  # a tenth of the neurons lie within a band of their edge
    assert flipped.sum() > 0  # and some of them do flip: the comparison is not empty
    for actual, expected in zip((out.center, out.offset), (oracle.center, oracle.offset), strict=True):
        assert bool(((actual.double() - expected).abs() <= 4 * band)[~flipped].all())


# ---- modes ---------------------------------------------------------------------------------------------------------


def test_slopes_outside_the_unit_interval_are_clamped_and_get_no_gradient(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(2, 4, (30,)), torch.float64, dead=False, active=False))
    outside = torch.where(torch.rand_like(c) < 0.5, -0.2, 1.3).to(c.dtype).requires_grad_()
    out = ops.relu(c, g, outside)
    clamped = ops.relu(c, g, outside.detach().clamp(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(out, clamped, strict=True))
    (grad,) = torch.autograd.grad(out, outside, cotangents_like(out))
    assert grad.count_nonzero() == 0


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_slope_at_the_end_of_the_interval_still_gets_a_gradient(end: float, device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(1, 4, (30,)), torch.float64, dead=False, active=False))
    slope = torch.full_like(c, end).requires_grad_()
    (grad,) = torch.autograd.grad(ops.relu(c, g, slope).offset.sum(), slope)
    lower, upper = reference.concretize(c, g)
    torch.testing.assert_close(grad, -(upper if end == 0 else lower) / 2, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("leading", [(), (1,)])
def test_the_gradient_of_a_shared_slope_is_the_sum_over_the_batch(
    leading: tuple[int, ...], device: torch.device
) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(3, 4, (5, 2)), torch.float64))
    shared = torch.full((*leading, 5, 2), 0.37, dtype=c.dtype, device=device, requires_grad=True)
    own = shared.detach().expand(c.shape).clone().requires_grad_()
    out = ops.relu(c, g, shared)
    cotangents = cotangents_like(out)
    (grad,) = torch.autograd.grad(out, shared, cotangents)
    (every,) = torch.autograd.grad(ops.relu(c, g, own), own, cotangents)
    torch.testing.assert_close(grad, every.sum(0).expand(shared.shape), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("free", [False, True])
def test_given_bounds_take_their_gradients_and_leave_the_zonotope_its_slope(free: bool, device: torch.device) -> None:
    """dL/dc = lam gc and dL/dG = lam gG: the zonotope no longer sees how l and u move."""
    c, g = (t.to(device) for t in zonotope(Shape(2, 4, (30,)), torch.float64, dead=False, active=False))
    radius = g.abs().sum(1)
    lower, upper = c - 0.9 * radius, c + 0.9 * radius
    crossing = (lower < 0) & (upper > 0)
    slope = off_kink_slopes(lower, upper) if free else None
    leaves = [t.requires_grad_() for t in (c, g, lower, upper)]
    out = ops.relu(c, g, slope, lower=lower, upper=upper)
    gc, gG, _ = cotangents = cotangents_like(out)
    grad_c, grad_g, grad_lower, grad_upper = torch.autograd.grad(out, leaves, cotangents)
    lam = slope if slope is not None else upper / (upper - lower)
    lam = torch.where(crossing, lam, (lower >= 0).double()).detach()
    torch.testing.assert_close(grad_c, lam * gc, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(grad_g, lam.unsqueeze(1) * gG, rtol=1e-14, atol=1e-15)
    assert bool(((grad_lower != 0) | (grad_upper != 0) | ~crossing).all())
    assert bool(((grad_lower == 0) & (grad_upper == 0) | crossing).all())


def test_the_zonotopes_own_bounds_given_from_outside_change_no_value(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(2, 4, (30,)), torch.float32))
    lower, upper = ops.concretize(c, g)
    for slope in (None, torch.full_like(c, 0.4)):
        own, given = ops.relu(c, g, slope), ops.relu(c, g, slope, lower=lower, upper=upper)
        assert all(torch.equal(a, b) for a, b in zip(own, given, strict=True))


def test_zero_generators_change_no_bit_and_get_no_gradient(device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("a GPU's order of summation depends on the number of symbols; test_concretize bounds that")
    c, g = zonotope(Shape(2, 5, (33,)), torch.float32)
    zeros = torch.zeros(2, 4, 33)
    for slope in (None, torch.full_like(c, 0.4)):
        padded = torch.cat([g[:, :3], zeros, g[:, 3:]], dim=1).requires_grad_()
        short = g.clone().requires_grad_()
        out, plain = ops.relu(c, padded, slope), ops.relu(c, short, slope)
        assert torch.equal(out.center, plain.center)
        assert torch.equal(out.offset, plain.offset)
        assert out.generators[:, 3:7].count_nonzero() == 0
        gc, gG, gmu = cotangents_like(plain)
        (grad,) = torch.autograd.grad(out, padded, (gc, torch.cat([gG[:, :3], zeros, gG[:, 3:]], dim=1), gmu))
        (expected,) = torch.autograd.grad(plain, short, (gc, gG, gmu))
        assert grad[:, 3:7].count_nonzero() == 0
        assert torch.equal(torch.cat([grad[:, :3], grad[:, 7:]], dim=1), expected)


# ---- numbers that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["center", "generators", "slope", "lower", "upper"])
def test_nan_reaches_the_outputs_of_its_neuron_and_no_other(where: str, device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(1, 4, (60,)), torch.float32, dead=False, active=False))
    inputs: dict[str, Any] = {"center": c, "generators": g, "slope": torch.full_like(c, 0.4)}
    if where in ("lower", "upper"):
        inputs |= dict(zip(("lower", "upper"), ops.concretize(c, g), strict=True))
        inputs["upper"][0, 1] = -1.0  # with a NaN lower bound this one must not pass for dead
        inputs["lower"][0, 2] = 1.0  # nor, with a NaN upper bound, this one for active
    clean = ops.relu(**inputs)
    hit = [1, 2, 50]
    others = [n for n in range(60) if n not in hit]
    inputs[where] = inputs[where].clone()
    inputs[where][..., hit] = NAN
    out = ops.relu(**inputs)
    if where in ("lower", "upper"):
        hit = [1, 50] if where == "lower" else [2, 50]
    assert bool(out.center[..., hit].isnan().all())
    assert bool(out.offset[..., hit].isnan().all())
    for actual, before in zip(out, clean, strict=True):
        assert torch.equal(actual[..., others], before[..., others])


def test_infinite_inputs_are_never_made_finite(device: torch.device) -> None:
    """Neurons: G infinite; c infinite; c = -inf is dead, and 0 * inf is NaN; both infinite."""
    center = torch.tensor([[0.0, INF, -INF, INF, 1.0]], device=device)
    generators = torch.tensor([[[INF, 1.0, 1.0, -INF, 3e38], [1.0, 1.0, 1.0, INF, 3e38]]], device=device)
    for slope in (None, torch.full_like(center, 0.5)):
        out, expected = ops.relu(center, generators, slope), reference.relu(center, generators, slope)
        torch.testing.assert_close(tuple(out), tuple(expected), rtol=0, atol=0, equal_nan=True)
        finite = out.center.isfinite() & out.offset.isfinite() & out.generators.isfinite().all(1)
        assert finite.count_nonzero() == 0


# ---- errors --------------------------------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    c, g = torch.zeros(2, 3), torch.zeros(2, 1, 3)
    for call, message in (
        (lambda: ops.relu(c, g[:, 0]), r"^relu: generators must have shape .* \[2, 3\], got \[2, 3\]"),
        (lambda: ops.relu(c, g, torch.zeros(4)), r"^relu: slope must broadcast to shape \[2, 3\], got \[4\]"),
        (
            lambda: ops.relu(c, g, torch.zeros(1, 2, 3)),
            r"^relu: slope must broadcast to shape \[2, 3\], got \[1, 2, 3\]",
        ),
        (lambda: ops.relu(c, g, lower=c), r"^relu: lower and upper must be given together"),
        (lambda: ops.relu(c, g, upper=c), r"^relu: lower and upper must be given together"),
        (lambda: ops.relu(c, g, lower=c, upper=g), r"^relu: upper must broadcast to shape \[2, 3\], got \[2, 1, 3\]"),
        (lambda: reference.relu(c, g, lower=c), r"^relu: lower and upper must be given together"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_native_ops_check_their_arguments() -> None:
    c, g = torch.zeros(2, 3), torch.zeros(2, 1, 3)
    relu, backward = torch.ops.zonocuda.relu, torch.ops.zonocuda._relu_backward
    rest = (0, 0.0, False, True, True)
    for call, message in (
        (
            lambda: relu(c, c, None, None, None, 0, 0.0),
            r"relu: generators must have shape \[batch, symbols, features\]",
        ),
        (
            lambda: relu(c[:1], g, None, None, None, 0, 0.0),
            r"relu: center must have shape \[batch, features\], got \[1, 3\]",
        ),
        (lambda: relu(c, g, c[0], None, None, 0, 0.0), r"relu: slope must have shape \[batch, features\], got \[3\]"),
        (lambda: relu(c, g, None, c, None, 0, 0.0), r"relu: lower and upper must be given together"),
        (lambda: relu(c, g, None, c[:1], c, 0, 0.0), r"relu: lower must have shape \[batch, features\], got \[1, 3\]"),
        (lambda: relu(c, g, None, c, c[:1], 0, 0.0), r"relu: upper must have shape \[batch, features\], got \[1, 3\]"),
        (lambda: relu(c, g, None, c, torch.zeros(3, 2).T, 0, 0.0), r"relu: upper must be contiguous"),
        (lambda: backward(c, c, c, c, g, c, c, None, *rest), r"relu_backward: grad_generators must have shape"),
        (lambda: backward(c[:1], g, c, c, g, c, c, None, *rest), r"relu_backward: grad_center must have shape"),
        (lambda: backward(c, g, c[:1], c, g, c, c, None, *rest), r"relu_backward: grad_offset must have shape"),
        (lambda: backward(c, g, c, c[:1], g, c, c, None, *rest), r"relu_backward: center must have shape"),
        (lambda: backward(c, g, c, c, g, c[:1], c, None, *rest), r"relu_backward: lower must have shape"),
        (lambda: backward(c, g, c, c, g, c, c[:1], None, *rest), r"relu_backward: upper must have shape"),
        (lambda: backward(c, g, c, c, g, c, c, c[:1], *rest), r"relu_backward: slope must have shape"),
        (
            lambda: backward(c, g, c.double(), c, g, c, c, None, *rest),
            r"relu_backward: grad_offset must have .* Double",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
