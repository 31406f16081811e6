"""Windowed generators as dense ones."""

from __future__ import annotations

import pytest
import torch

from tests.ops.test_window_radius import outside_of
from tests.ops.window_samples import border_corners, patches_of
from zonocuda import ops

NAN = float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    patches = torch.tensor([[[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 6.0], [7.0, 8.0]]]]], device=device)
    patches.requires_grad_()
    corners = torch.tensor([[0, 1], [1, -1]], device=device)
    dense = ops.window_dense(patches, corners, 2, 3)
    assert dense[0, :, 0].tolist() == [[[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]], [[0.0, 0.0, 0.0], [6.0, 0.0, 0.0]]]
    weights = torch.arange(12.0, device=device).reshape(1, 2, 1, 2, 3)
    (dense * weights).sum().backward()
    assert patches.grad is not None
    assert patches.grad[0, :, 0].tolist() == [[[1.0, 2.0], [4.0, 5.0]], [[0.0, 9.0], [0.0, 0.0]]]


def test_numbers_move_bit_for_bit_and_those_outside_the_map_vanish(device: torch.device) -> None:
    window, (height, width) = (3, 4), (5, 6)
    corners = border_corners(window, height, width)
    outside = outside_of(corners, window, height, width)
    patches = patches_of(2, len(corners), 3, window, torch.float32).masked_fill(outside.unsqueeze(1), NAN)
    dense = ops.window_dense(patches.to(device), corners.to(device), height, width).cpu()
    expected = torch.zeros(2, len(corners), 3, height, width)
    for k, t, u in (~outside).nonzero().tolist():
        expected[:, k, :, corners[k, 0] + t, corners[k, 1] + u] = patches[:, k, :, t, u]
    assert torch.equal(dense, expected)


def test_a_slice_of_the_symbols_gives_that_slice(device: torch.device) -> None:
    corners = border_corners((2, 3), 4, 5).to(device)
    patches = patches_of(2, len(corners), 2, (2, 3), torch.float32).to(device)
    whole = ops.window_dense(patches, corners, 4, 5)
    chunks = [ops.window_dense(patches[:, k : k + 7], corners[k : k + 7], 4, 5) for k in range(0, len(corners), 7)]
    assert torch.equal(torch.cat(chunks, dim=1), whole)


def test_the_gradient_outside_the_map_is_zero_and_inside_it_is_gathered(device: torch.device) -> None:
    window, (height, width) = (3, 4), (5, 6)
    corners = border_corners(window, height, width)
    outside = outside_of(corners, window, height, width)
    patches = patches_of(1, len(corners), 2, window, torch.float32).to(device).requires_grad_()
    dense = ops.window_dense(patches, corners.to(device), height, width)
    grad = torch.rand(dense.shape) + 1
    (gathered,) = torch.autograd.grad(dense, patches, grad.to(device))
    for k, t, u in (~outside).nonzero().tolist():
        assert torch.equal(gathered[:, k, :, t, u].cpu(), grad[:, k, :, corners[k, 0] + t, corners[k, 1] + u])
    assert gathered.cpu().masked_select(outside.unsqueeze(1)).count_nonzero() == 0


def test_the_native_ops_check_their_arguments() -> None:
    p, c = torch.zeros(2, 3, 4, 5, 6), torch.zeros(3, 2, dtype=torch.int64)
    native = torch.ops.zonocuda
    for call, message in (
        (
            lambda: native.window_dense(p, c, 7, -8),
            r"window_dense: height and width must not be negative, got 7 and -8",
        ),
        (
            lambda: native.window_dense(p, c[1:], 7, 8),
            r"window_dense: corners must have shape \[symbols, 2\] = \[3, 2\]",
        ),
        (
            lambda: native._window_dense_backward(p[0], c, 2, 2),
            r"window_dense_backward: grad must have shape \[batch, symbols, channels, height, width\]",
        ),
        (lambda: native._window_dense_backward(p, c, -1, 2), r"rows and columns must not be negative, got -1 and 2"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
