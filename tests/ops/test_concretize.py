"""Bounds of a zonotope: what they enclose, and what NaN, infinities and zero generators do to them."""

from __future__ import annotations

import pytest
import torch

from tests.ops.cases import gamma
from tests.ops.samples import Shape, zonotope
from zonocuda import ops, reference

INF, NAN = float("inf"), float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    center = torch.tensor([[1.0, -2.0]], device=device)
    generators = torch.tensor([[[0.5, 0.0], [-1.0, 0.25]]], device=device)
    lower, upper = ops.concretize(center, generators)
    assert lower.tolist() == [[-0.5, -2.25]]
    assert upper.tolist() == [[2.5, -1.75]]


def test_bounds_enclose_every_sampled_point_and_are_reached_at_a_vertex(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(2, 6, (9,)), torch.float64))
    lower, upper = ops.concretize(c, g)
    eps = 2 * torch.rand(500, 1, 6, 1, dtype=c.dtype, device=device) - 1
    points = c + (eps * g).sum(2)
    slack = 4 * gamma(8, c.dtype) * (c.abs() + g.abs().sum(1))
    assert bool(((points >= lower - slack) & (points <= upper + slack)).all())
    # The corner that a neuron's signs point to attains its bound: the box is the smallest one.
    torch.testing.assert_close(c + (g.sign() * g).sum(1), upper, rtol=0, atol=slack.max().item())
    torch.testing.assert_close(c - (g.sign() * g).sum(1), lower, rtol=0, atol=slack.max().item())


@pytest.mark.parametrize("symbols", [1, 3, 4, 5, 1000, 20000])
def test_the_float32_radius_is_within_gamma_of_the_exact_one(symbols: int, device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(1, symbols, (70,)), torch.float32))
    lower, upper = ops.concretize(c, g)
    radius = g.double().abs().sum(1)  # float64 is exact enough: its own gamma is 2^-29 of float32's
    allowed = (gamma(symbols, torch.float32) + gamma(symbols, torch.float64)) * radius
    allowed = allowed + gamma(1, torch.float32) * (c.double().abs() + 2 * radius)
    assert bool(((lower.double() - (c.double() - radius)).abs() <= allowed).all())
    assert bool(((upper.double() - (c.double() + radius)).abs() <= allowed).all())


def test_zero_generators_change_no_bit_and_get_no_gradient(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(2, 5, (33,)), torch.float32))
    zeros = torch.zeros(2, 7, 33, device=device)
    padded = torch.cat([g[:, :2], zeros[:, :3], g[:, 2:], zeros[:, 3:]], dim=1).requires_grad_()
    lower, upper = ops.concretize(c, padded)
    (grad,) = torch.autograd.grad((3 * upper - 2 * lower).sum(), padded)
    zero_rows = [2, 3, 4, 8, 9, 10, 11]
    assert grad[:, zero_rows].count_nonzero() == 0
    rest = [k for k in range(12) if k not in zero_rows]
    assert torch.equal(grad[:, rest], 5 * g.sign())
    if device.type == "cpu":  # the rows of a GPU's threads, and so its order of summation, depend on their number
        assert all(torch.equal(a, b) for a, b in zip((lower, upper), ops.concretize(c, g), strict=True))
    at_end = ops.concretize(c, torch.cat([g, zeros], dim=1))
    allowed = 2 * gamma(14, torch.float32) * (c.abs() + g.abs().sum(1))
    assert bool(((at_end[1] - ops.concretize(c, g)[1]).abs() <= allowed).all())


def test_nan_stays_in_its_neuron(device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(1, 9, (80,)), torch.float32))
    clean = ops.concretize(c, g)
    c[0, 3] = NAN
    g[0, 5, 70] = NAN
    hit = [3, 70]
    others = [n for n in range(80) if n not in hit]
    for actual, before in zip(ops.concretize(c, g), clean, strict=True):
        assert bool(actual[0, hit].isnan().all())
        assert torch.equal(actual[0, others], before[0, others])


def test_infinite_inputs_give_infinite_bounds_or_nan_but_never_finite_ones(device: torch.device) -> None:
    center = torch.tensor([[0.0, INF, -INF, INF, -INF]], device=device)
    generators = torch.tensor([[[INF, 1.0, 1.0, INF, -INF]]], device=device)
    lower, upper = ops.concretize(center, generators)
    expected = reference.concretize(center, generators)
    assert lower.isfinite().count_nonzero() == 0
    assert upper.isfinite().count_nonzero() == 0
    torch.testing.assert_close((lower, upper), expected, rtol=0, atol=0, equal_nan=True)
    assert lower[0, 0] == -INF
    assert upper[0, 0] == INF


@pytest.mark.parametrize("needs", ["center", "generators"])
def test_only_the_input_that_wants_a_gradient_gets_one(needs: str, device: torch.device) -> None:
    c, g = (t.to(device) for t in zonotope(Shape(2, 3, (4,)), torch.float64))
    leaf = {"center": c, "generators": g}[needs].requires_grad_()
    lower, upper = ops.concretize(c, g)
    (upper.sum() - 2 * lower.sum()).backward()
    assert leaf.grad is not None
    expected = -torch.ones_like(c) if needs == "center" else 3 * g.detach().sign()
    assert torch.equal(leaf.grad, expected)
    assert (g if needs == "center" else c).grad is None


@pytest.mark.parametrize(
    ("center", "generators"),
    [((2, 3), (2, 3)), ((2, 3), (2, 1, 4)), ((2, 3), (1, 1, 3)), ((), (2, 3)), ((2, 3, 4), (2, 5, 12))],
)
def test_shapes_that_do_not_fit_are_refused_with_both(center: tuple[int, ...], generators: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"^concretize: generators must have shape \[batch, symbols, \*features\]"
    ) as e:
        ops.concretize(torch.zeros(center), torch.zeros(generators))
    assert str(list(center)) in str(e.value)
    assert str(list(generators)) in str(e.value)


def test_the_native_op_checks_what_its_wrapper_prepares() -> None:
    native = torch.ops.zonocuda.concretize
    center, generators = torch.zeros(2, 3), torch.zeros(2, 4, 3)
    for c, g, message in (
        (center, center, r"concretize: generators must have shape \[batch, symbols, features\], got \[2, 3\]"),
        (generators, generators, r"concretize: center must have shape \[batch, features\], got \[2, 4, 3\]"),
        (torch.zeros(3, 3), generators, r"concretize: center must have shape \[batch, features\], got \[3, 3\]"),
        (torch.zeros(3, 2).T, generators, r"concretize: center must be contiguous"),
        (center, torch.zeros(2, 3, 4).mT, r"concretize: generators must be contiguous"),
    ):
        with pytest.raises(RuntimeError, match=message):
            native(c, g)


def test_the_backward_op_checks_its_gradients() -> None:
    native = torch.ops.zonocuda._concretize_backward
    grad, generators = torch.zeros(2, 3), torch.zeros(2, 4, 3)
    with pytest.raises(RuntimeError, match=r"concretize_backward: grad_lower must have shape \[batch, features\]"):
        native(grad[:1], grad, generators)
    with pytest.raises(RuntimeError, match=r"concretize_backward: grad_upper must be contiguous"):
        native(grad, torch.zeros(3, 2).T, generators)


@pytest.mark.gpu
def test_tensors_of_two_devices_are_refused(cuda: torch.device) -> None:
    with pytest.raises(RuntimeError, match="concretize: center must be on the device of the other tensors"):
        ops.concretize(torch.zeros(2, 3), torch.zeros(2, 1, 3, device=cuda))
