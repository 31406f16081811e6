"""Generators times one factor for each neuron."""

from __future__ import annotations

import pytest
import torch

from tests.ops.samples import Shape, zonotope
from zonocuda import ops

INF, NAN = float("inf"), float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    generators = torch.tensor([[[1.0, 2.0], [-3.0, 4.0]]], device=device, requires_grad=True)
    multiplier = torch.tensor([[0.5, 0.0]], device=device, requires_grad=True)
    scaled = ops.scale(generators, multiplier)
    assert scaled.tolist() == [[[0.5, 0.0], [-1.5, 0.0]]]
    weights = torch.tensor([[[1.0, 10.0], [100.0, 1000.0]]], device=device)
    (scaled * weights).sum().backward()
    assert generators.grad is not None
    assert multiplier.grad is not None
    assert generators.grad.tolist() == [[[0.5, 0.0], [50.0, 0.0]]]
    assert multiplier.grad.tolist() == [[1.0 - 300.0, 20.0 + 4000.0]]


def test_values_are_single_products_bit_for_bit(device: torch.device) -> None:
    multiplier, generators = (t.to(device) for t in zonotope(Shape(2, 13, (3, 50)), torch.float32))
    assert torch.equal(ops.scale(generators, multiplier), generators * multiplier.unsqueeze(1))


def test_zero_generators_stay_zero_and_add_nothing_to_the_gradient(device: torch.device) -> None:
    multiplier, generators = (t.to(device) for t in zonotope(Shape(1, 6, (40,)), torch.float32))
    grads = []
    for padding in (0, 5):
        padded = torch.cat([generators, torch.zeros(1, padding, 40, device=device)], dim=1)
        factor = multiplier.clone().requires_grad_()
        out = ops.scale(padded, factor)
        assert out[:, 6:].count_nonzero() == 0
        (grad,) = torch.autograd.grad(out.square().sum(), factor)
        grads.append(grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=0 if device.type == "cpu" else 1e-5, atol=0)


def test_nan_and_infinities_follow_ieee_arithmetic_in_their_own_entry(device: torch.device) -> None:
    generators = torch.tensor([[[1.0, INF, NAN, INF, -1.0, 7.0]]], device=device)
    multiplier = torch.tensor([[INF, 0.0, 1.0, -2.0, NAN, 1.0]], device=device)
    result = ops.scale(generators, multiplier)[0, 0].cpu()
    expected = torch.tensor([INF, NAN, NAN, -INF, NAN, 7.0])
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("needs", ["generators", "multiplier"])
def test_only_the_input_that_wants_a_gradient_gets_one(needs: str, device: torch.device) -> None:
    multiplier, generators = (t.to(device) for t in zonotope(Shape(2, 3, (4,)), torch.float64))
    leaf, other = (generators, multiplier) if needs == "generators" else (multiplier, generators)
    leaf.requires_grad_()
    ops.scale(generators, multiplier).sum().backward()
    assert leaf.grad is not None
    expected = multiplier.unsqueeze(1).expand(2, 3, 4) if needs == "generators" else generators.sum(1)
    torch.testing.assert_close(leaf.grad, expected.detach(), rtol=1e-14, atol=1e-14)
    assert other.grad is None


def test_a_backward_without_gradients_allocates_no_generators(device: torch.device) -> None:
    g, m = torch.ones(2, 3, 4, device=device), torch.ones(2, 4, device=device)
    grad_generators, grad_multiplier = torch.ops.zonocuda._scale_backward(g, g, m, False, True)
    assert grad_generators.numel() == 0
    assert grad_multiplier.tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize(("generators", "multiplier"), [((1, 3, 2), (1, 3)), ((2, 3, 2), (1, 2)), ((3, 2), (2,))])
def test_shapes_that_do_not_fit_are_refused_with_both(generators: tuple[int, ...], multiplier: tuple[int, ...]) -> None:
    message = r"^scale: generators must have shape \[batch, symbols, \*features\] for a multiplier of shape"
    with pytest.raises(ValueError, match=message) as error:
        ops.scale(torch.zeros(generators), torch.zeros(multiplier))
    assert str(list(multiplier)) in str(error.value)
    assert str(list(generators)) in str(error.value)


def test_the_native_ops_check_their_arguments() -> None:
    g, m = torch.zeros(2, 3, 4), torch.zeros(2, 4)
    for call, message in (
        (lambda: torch.ops.zonocuda.scale(m, m), r"scale: generators must have shape \[batch, symbols, features\]"),
        (
            lambda: torch.ops.zonocuda.scale(g, m[:1]),
            r"scale: multiplier must have shape \[batch, features\], got \[1, 4\]",
        ),
        (lambda: torch.ops.zonocuda.scale(g, torch.zeros(4, 2).T), r"scale: multiplier must be contiguous"),
        (
            lambda: torch.ops.zonocuda._scale_backward(g[:, :2].contiguous(), g, m, True, True),
            r"scale_backward: grad must have shape \[batch, symbols, features\], got \[2, 2, 4\]",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
