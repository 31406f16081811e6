"""Windowed generators times one factor for each neuron."""

from __future__ import annotations

import pytest
import torch

from tests.ops.test_window_radius import outside_of
from tests.ops.window_samples import border_corners, patches_of
from zonocuda import ops

INF, NAN = float("inf"), float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    patches = torch.tensor([[[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]]], device=device)
    multiplier = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]], device=device)
    patches.requires_grad_()
    multiplier.requires_grad_()
    corners = torch.tensor([[0, 0], [1, -1]], device=device)  # the second: across the left and the lower border
    scaled = ops.window_scale(patches, corners, multiplier)
    assert scaled.tolist() == [[[[[10.0, 40.0], [90.0, 160.0]]], [[[0.0, 180.0], [0.0, 0.0]]]]]
    scaled.sum().backward()
    assert patches.grad is not None
    assert multiplier.grad is not None
    assert patches.grad.tolist() == [[[[[10.0, 20.0], [30.0, 40.0]]], [[[0.0, 30.0], [0.0, 0.0]]]]]
    assert multiplier.grad.tolist() == [[[[1.0, 2.0], [3.0 + 6.0, 4.0]]]]


def test_values_are_single_products_bit_for_bit(device: torch.device) -> None:
    patches = patches_of(2, 30, 3, (3, 5), torch.float32).to(device)
    multiplier = torch.rand(2, 3, 9, 11, device=device)
    corners = torch.stack([torch.randint(0, 7, (30,)), torch.randint(0, 7, (30,))], dim=1)
    scaled = ops.window_scale(patches, corners.to(device), multiplier)
    for k, (y, x) in enumerate(corners.tolist()):
        assert torch.equal(scaled[:, k], multiplier[:, :, y : y + 3, x : x + 5] * patches[:, k])


@pytest.mark.parametrize("garbage", [NAN, INF])
def test_outside_the_map_values_and_gradients_are_zero_whatever_the_patch_holds(
    garbage: float, device: torch.device
) -> None:
    window, (height, width) = (3, 4), (5, 6)
    corners = border_corners(window, height, width)
    outside = outside_of(corners, window, height, width).unsqueeze(1)
    clean = patches_of(2, len(corners), 3, window, torch.float32).masked_fill(outside, 0.0)
    multiplier = (torch.rand(2, 3, height, width) + 0.5).to(device).requires_grad_()
    grad = patches_of(2, len(corners), 3, window, torch.float32)
    results = []
    for fill in (0.0, garbage):
        patches = clean.masked_fill(outside, fill).to(device).requires_grad_()
        scaled = ops.window_scale(patches, corners.to(device), multiplier)
        grads = torch.autograd.grad(scaled, [patches, multiplier], grad.masked_fill(outside, fill).to(device))
        results.append([scaled, *grads])
    for first, second in zip(*results, strict=True):
        assert first.isfinite().all()
        assert torch.equal(first, second)
    assert (results[1][0].cpu().masked_select(outside.expand(clean.shape)) == 0).all()
    assert (results[1][1].cpu().masked_select(outside.expand(clean.shape)) == 0).all()


def test_nan_and_infinity_follow_ieee_arithmetic_in_their_own_entry(device: torch.device) -> None:
    patches = torch.tensor([[[[[1.0, INF, NAN, INF, -1.0, 7.0]]]]], device=device)
    multiplier = torch.tensor([[[[INF, 0.0, 1.0, -2.0, NAN, 1.0]]]], device=device)
    corners = torch.zeros(1, 2, dtype=torch.int64, device=device)
    result = ops.window_scale(patches, corners, multiplier).flatten().cpu()
    torch.testing.assert_close(result, torch.tensor([INF, NAN, NAN, -INF, NAN, 7.0]), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("needs", ["patches", "multiplier"])
def test_only_the_input_that_wants_a_gradient_gets_one(needs: str, device: torch.device) -> None:
    patches, multiplier = torch.ones(1, 2, 1, 2, 2, device=device), torch.full((1, 1, 3, 3), 5.0, device=device)
    leaf, other = (patches, multiplier) if needs == "patches" else (multiplier, patches)
    leaf.requires_grad_()
    ops.window_scale(patches, torch.tensor([[0, 0], [1, 1]], device=device), multiplier).sum().backward()
    assert leaf.grad is not None
    expected = [[5.0, 5.0], [5.0, 5.0]] if needs == "patches" else [[1.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 1.0]]
    assert leaf.grad[0, 0].squeeze(0).tolist() == expected
    assert other.grad is None


def test_gradcheck_at_the_borders(device: torch.device) -> None:
    corners = border_corners((2, 2), 2, 3)[::5].to(device)
    patches = patches_of(1, len(corners), 2, (2, 2), torch.float64).to(device).requires_grad_()
    multiplier = torch.rand(1, 2, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, m: ops.window_scale(x, corners, m), (patches, multiplier))


def test_a_backward_without_gradients_allocates_neither(device: torch.device) -> None:
    p, c = torch.ones(1, 2, 1, 2, 2, device=device), torch.zeros(2, 2, dtype=torch.int64, device=device)
    m = torch.ones(1, 1, 3, 3, device=device)
    assert [t.numel() for t in torch.ops.zonocuda._window_scale_backward(p, p, c, m, False, True)] == [0, 9]
    assert [t.numel() for t in torch.ops.zonocuda._window_scale_backward(p, p, c, m, True, False)] == [8, 0]


def test_the_native_ops_check_their_arguments() -> None:
    p, c, m = torch.zeros(2, 3, 4, 5, 6), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 4, 7, 8)
    native = torch.ops.zonocuda
    for call, message in (
        (
            lambda: native.window_scale(p, c, m[:, :3]),
            r"window_scale: multiplier must have shape \[batch, channels, height, width\], got \[2, 3, 7, 8\]",
        ),
        (lambda: native.window_scale(p, c.T.contiguous(), m), r"corners must have shape \[symbols, 2\] = \[3, 2\]"),
        (lambda: native.window_scale(p, c, m.mT), r"window_scale: multiplier must be contiguous"),
        (
            lambda: native._window_scale_backward(p[:, :2].contiguous(), p, c, m, True, True),
            r"window_scale_backward: grad must have shape \[batch, symbols, channels, rows, columns\]",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
