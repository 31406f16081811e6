"""The relaxation of ReLU on given bounds, alone and as what the blocks of a zonotope are scaled by."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.ops.cases import cotangents_like
from tests.ops.samples import Shape, off_kink_slopes, uniform, zonotope
from zonocuda import ops, reference

INF, NAN = float("inf"), float("nan")


def test_examples_by_hand(device: torch.device) -> None:
    lower = torch.tensor([[-1.0, -2.0, 1.0, 0.0, -3.0, 0.0]], device=device)
    upper = torch.tensor([[3.0, -1.0, 2.0, 2.0, 0.0, 0.0]], device=device)
    tied = ops.relu_relaxation(lower, upper)
    assert tied.multiplier.tolist() == [[0.75, 0.0, 1.0, 1.0, 0.0, 0.0]]
    assert tied.offset.tolist() == [[0.375, 0.0, 0.0, 0.0, 0.0, 0.0]]
    free = ops.relu_relaxation(lower, upper, torch.tensor([0.5], device=device))
    assert free.multiplier.tolist() == [[0.5, 0.0, 1.0, 1.0, 0.0, 0.0]]
    assert free.offset.tolist() == [[0.75, 0.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_offset_is_three_roundings_from_the_exact_one(dtype: torch.dtype, device: torch.device) -> None:
    """In rational arithmetic: mu = max(-l lam, u (1 - lam)) / 2 for the very lam that is returned.

    -l lam rounds once, u (1 - lam) twice, and the half is exact: a relative error below 3 u.
    """
    lower, upper = (t.to(device) for t in (uniform(-3, 0, 1, 200, dtype=dtype), uniform(0.01, 3, 1, 200, dtype=dtype)))
    for slope in (None, torch.rand_like(lower)):
        out = ops.relu_relaxation(lower, upper, slope)
        for l, u, lam, mu in zip(  # noqa: E741
            *(map(Fraction, t.flatten().tolist()) for t in (lower, upper, out.multiplier, out.offset)), strict=True
        ):
            exact = max(-l * lam, u * (1 - lam)) / 2
            assert abs(mu - exact) <= exact * 3 * Fraction(torch.finfo(dtype).eps) / 2


def test_the_line_encloses_relu_at_the_ends_and_the_kink_in_rational_arithmetic(device: torch.device) -> None:
    """A piecewise linear gap is extreme at l, 0 and u: checking those three proves the enclosure on all of [l, u]."""
    lower, upper = (t.to(device) for t in (uniform(-3, 0, 1, 200, dtype=torch.float64), torch.rand(1, 200).double()))
    for slope in (None, torch.rand_like(lower), torch.zeros_like(lower), torch.ones_like(lower)):
        out = ops.relu_relaxation(lower, upper, slope)
        for l, u, lam, mu in zip(  # noqa: E741
            *(map(Fraction, t.flatten().tolist()) for t in (lower, upper, out.multiplier, out.offset)), strict=True
        ):
            for x in (l, Fraction(0), u):
                gap = max(x, Fraction(0)) - lam * x
                assert -Fraction(1, 2**50) * (u - l) <= gap <= 2 * mu + Fraction(1, 2**50) * (u - l)


def _blocks(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    c, g = zonotope(Shape(2, 7, (4, 5)), torch.float64)
    return c.to(device), g[:, :3].to(device), g[:, 3:].to(device)


@pytest.mark.parametrize("free", [False, True])
def test_blocks_scaled_by_the_relaxation_are_the_fused_relu_with_its_gradients(
    free: bool, device: torch.device
) -> None:
    """Center and two blocks of generators, each for itself: autograd adds up what the fused backward does at once."""
    c, first, second = _blocks(device)
    lower, upper = reference.concretize(c, torch.cat([first, second], dim=1))
    slope = off_kink_slopes(lower, upper) if free else None
    leaves = [t.requires_grad_() for t in (c, first, second, slope) if t is not None]

    fused = ops.relu(c, torch.cat([first, second], dim=1), slope)
    bounds = ops.concretize(c, torch.cat([first, second], dim=1))
    multiplier, offset = ops.relu_relaxation(*bounds, slope)
    parts = (
        multiplier * c + offset,
        torch.cat([ops.scale(first, multiplier), ops.scale(second, multiplier)], dim=1),
        offset,
    )
    cotangents = cotangents_like(fused)
    for actual, expected in zip(parts, fused, strict=True):
        assert torch.equal(actual, expected)
    grads = torch.autograd.grad(parts, leaves, cotangents)
    for actual, expected in zip(grads, torch.autograd.grad(fused, leaves, cotangents), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_stable_neurons_hand_nothing_back(device: torch.device) -> None:
    lower = torch.tensor([[-2.0, 1.0, 0.0, -1.0, 0.0]], device=device, requires_grad=True)
    upper = torch.tensor([[-1.0, 2.0, 3.0, 0.0, 0.0]], device=device, requires_grad=True)
    for slope in (None, torch.full_like(lower, 0.5).requires_grad_()):
        out = ops.relu_relaxation(lower, upper, slope)
        leaves = [t for t in (lower, upper, slope) if t is not None]
        for grad in torch.autograd.grad(out, leaves, cotangents_like(out)):
            assert grad.count_nonzero() == 0


def test_a_nan_bound_makes_the_offset_nan_whatever_the_other_bound_is(device: torch.device) -> None:
    other = torch.tensor([[-1.0, 0.0, 1.0, NAN, INF, -INF]], device=device)
    nan = torch.full_like(other, NAN)
    for slope in (None, torch.full_like(other, 0.5)):
        for lower, upper in ((nan, other), (other, nan)):
            for backend in (ops, reference):
                assert bool(backend.relu_relaxation(lower, upper, slope).offset.isnan().all())


def test_a_nan_slope_makes_its_crossing_neuron_nan_and_no_stable_one(device: torch.device) -> None:
    lower = torch.tensor([[-1.0, -2.0, 1.0, -1.0]], device=device)
    upper = torch.tensor([[1.0, -1.0, 2.0, 1.0]], device=device)
    slope = torch.tensor([[NAN, NAN, NAN, 0.5]], device=device)
    for backend in (ops, reference):
        out = backend.relu_relaxation(lower, upper, slope)
        assert out.multiplier.isnan().tolist() == [[True, False, False, False]]
        assert out.offset.isnan().tolist() == [[True, False, False, False]]


def test_infinite_bounds_give_an_infinite_offset_or_nan_unless_they_are_stable(device: torch.device) -> None:
    lower = torch.tensor([[-INF, -1.0, -INF, -INF, INF, 1.0, -INF]], device=device)
    upper = torch.tensor([[1.0, INF, INF, -1.0, INF, INF, -INF]], device=device)
    for slope in (None, torch.full_like(lower, 0.5), torch.zeros_like(lower), torch.ones_like(lower)):
        out, expected = ops.relu_relaxation(lower, upper, slope), reference.relu_relaxation(lower, upper, slope)
        torch.testing.assert_close(tuple(out), tuple(expected), rtol=0, atol=0, equal_nan=True)
        assert out.multiplier[0, 3:].tolist() == [0.0, 1.0, 1.0, 0.0]
        assert out.offset[0, 3:].tolist() == [0.0] * 4
    half = ops.relu_relaxation(lower, upper, torch.full_like(lower, 0.5))
    assert bool((half.offset[0, :3] == INF).all())


def test_no_gradient_is_nan_where_the_bounds_meet(device: torch.device) -> None:
    """u / (u - l) at l = u = 0 is 0 / 0: neither the value nor the gradient may show it."""
    for value in (0.0, 1.0, -1.0):
        for backend in (ops, reference):
            lower = torch.full((1, 3), value, device=device, requires_grad=True)
            upper = torch.full((1, 3), value, device=device, requires_grad=True)
            out = backend.relu_relaxation(lower, upper)
            grads = torch.autograd.grad(out, (lower, upper), cotangents_like(out))
            assert all(bool(t.isfinite().all()) for t in (*out, *grads))


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    t = torch.zeros(2, 3)
    for call, message in (
        (
            lambda: ops.relu_relaxation(t, torch.zeros(2, 4)),
            r"^relu_relaxation: upper must broadcast to shape \[2, 3\]",
        ),
        (
            lambda: ops.relu_relaxation(t, t, torch.zeros(4)),
            r"^relu_relaxation: slope must broadcast to shape \[2, 3\]",
        ),
        (lambda: ops.relu_relaxation(t.sum(), t.sum()), r"^relu_relaxation: tensors must have shape .*, got \[\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_native_ops_check_their_arguments() -> None:
    t = torch.zeros(2, 3)
    relax, backward = torch.ops.zonocuda.relu_relaxation, torch.ops.zonocuda._relu_relaxation_backward
    turned = torch.zeros(3, 2).T
    for call, message in (
        (
            lambda: relax(t[0], t, None, 0, 0.0),
            r"relu_relaxation: lower must have shape \[batch, features\], got \[3\]",
        ),
        (
            lambda: relax(t, t[:1], None, 0, 0.0),
            r"relu_relaxation: upper must have shape \[batch, features\], got \[1, 3\]",
        ),
        (lambda: relax(turned, t, None, 0, 0.0), r"relu_relaxation: lower must be contiguous"),
        (
            lambda: relax(t, t, t[:1], 0, 0.0),
            r"relu_relaxation: slope must have shape \[batch, features\], got \[1, 3\]",
        ),
        (lambda: backward(t[:1], t, t, t, None, 0, 0.0), r"relu_relaxation_backward: grad_multiplier must have shape"),
        (lambda: backward(t, t[:1], t, t, None, 0, 0.0), r"relu_relaxation_backward: grad_offset must have shape"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
