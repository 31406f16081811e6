"""The radius of windowed generators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.window_samples import FAR, border_corners, patches_of
from zonocuda import ops, reference

INF, NAN = float("inf"), float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    # Two patches of 2 x 2: one inside, at the right, one across the left border, whose first column lies outside.
    patches = torch.tensor([[[[1.0, -2.0], [3.0, -4.0]]], [[[50.0, 10.0], [60.0, -20.0]]]], device=device).unsqueeze(0)
    patches.requires_grad_()
    corners = torch.tensor([[0, 1], [0, -1]], device=device)
    radius = ops.window_radius(patches, corners, 2, 3)
    assert radius.tolist() == [[[[10.0, 1.0, 2.0], [20.0, 3.0, 4.0]]]]
    weights = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]], device=device)
    (radius * weights).sum().backward()
    assert patches.grad is not None
    assert patches.grad.tolist() == [[[[[2.0, -3.0], [5.0, -6.0]]], [[[0.0, 1.0], [0.0, -4.0]]]]]


def test_windows_that_are_the_map_give_the_radius_of_dense_generators(device: torch.device) -> None:
    generators = patches_of(2, 40, 3, (7, 19), torch.float64).to(device)
    radius = ops.window_radius(generators, torch.zeros(40, 2, dtype=torch.int64, device=device), 7, 19)
    torch.testing.assert_close(radius, generators.abs().sum(1), rtol=1e-13, atol=0)


@pytest.mark.parametrize("columns", range(1, 36))
def test_windows_of_every_width_are_added_at_every_offset(columns: int, device: torch.device) -> None:
    corners = torch.tensor([[1, x] for x in range(-columns, 41)], device=device)
    patches = torch.randint(-8, 9, (1, len(corners), 2, 2, columns)).float().to(device)  # sums are exact in any order
    radius = ops.window_radius(patches, corners, 4, 40)
    expected = torch.zeros(1, 2, 4, 40 + 2 * columns + 2)
    for k, x in enumerate(corners[:, 1].tolist()):
        expected[:, :, 1:3, x + columns : x + 2 * columns] += patches[:, k].cpu().abs()
    assert torch.equal(radius.cpu(), expected[..., columns : columns + 40])


def test_without_symbols_the_radius_is_zero(device: torch.device) -> None:
    patches = torch.empty(2, 0, 3, 4, 4, device=device)
    radius = ops.window_radius(patches, torch.empty(0, 2, dtype=torch.int64, device=device), 5, 6)
    assert radius.tolist() == torch.zeros(2, 3, 5, 6).tolist()


def outside_of(corners: Tensor, window: tuple[int, int], height: int, width: int) -> Tensor:
    """Which elements of the windows ``[K, rows, columns]`` lie outside the map."""
    outside = torch.ones(len(corners), *window, dtype=torch.bool)
    for k, (y, x) in enumerate(corners.tolist()):
        for t in range(window[0]):
            for u in range(window[1]):
                outside[k, t, u] = not (0 <= y + t < height and 0 <= x + u < width)
    return outside


@pytest.mark.parametrize("garbage", [NAN, INF, -1e30])
def test_what_a_patch_holds_outside_the_map_does_not_matter(garbage: float, device: torch.device) -> None:
    window, (height, width) = (3, 4), (5, 6)
    corners = border_corners(window, height, width)
    outside = outside_of(corners, window, height, width)
    clean = patches_of(2, len(corners), 3, window, torch.float32).masked_fill(outside.unsqueeze(1), 0.0)
    dirty = clean.masked_fill(outside.unsqueeze(1), garbage).to(device).requires_grad_()
    radius = ops.window_radius(dirty, corners.to(device), height, width)
    assert radius.isfinite().all()
    assert torch.equal(radius, ops.window_radius(clean.to(device), corners.to(device), height, width))
    (grad,) = torch.autograd.grad(radius, dirty, torch.ones_like(radius))
    assert torch.equal(grad.cpu(), clean.sign())


def test_nan_and_infinity_reach_their_own_place_alone(device: torch.device) -> None:
    patches = torch.ones(1, 3, 2, 2, 2, device=device)
    patches[0, 0, 1, 0, 1], patches[0, 1, 0, 1, 1], patches[0, 2, 0, 0, 0] = NAN, -INF, -0.0
    corners = torch.tensor([[0, 0], [1, 1], [2, 0]], device=device)
    radius = ops.window_radius(patches, corners, 4, 3)
    expected = torch.zeros(1, 2, 4, 3)
    for k, (y, x) in enumerate(corners.tolist()):
        expected[0, :, y : y + 2, x : x + 2] += patches[0, k].cpu().abs()
    assert expected.isnan().sum() == 1
    assert expected.isinf().sum() == 1
    torch.testing.assert_close(radius.cpu(), expected, rtol=0, atol=0, equal_nan=True)


def test_the_gradient_at_zero_is_zero(device: torch.device) -> None:
    patches = torch.zeros(1, 2, 1, 3, 3, device=device, requires_grad=True)
    corners = torch.tensor([[0, 0], [1, 1]], device=device)
    ops.window_radius(patches, corners, 4, 4).sum().backward()
    assert patches.grad is not None
    assert patches.grad.count_nonzero() == 0


def test_gradcheck_at_the_borders(device: torch.device) -> None:
    corners = border_corners((2, 2), 2, 3)[::5].to(device)
    patches = patches_of(1, len(corners), 2, (2, 2), torch.float64).to(device).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.window_radius(x, corners, 2, 3), patches)


def test_corners_at_the_ends_of_the_integers_lie_outside(device: torch.device) -> None:
    ends = torch.tensor([[FAR, 0], [0, FAR], [-FAR - 1, 0], [0, -FAR - 1], [FAR, -FAR - 1]], device=device)
    patches = torch.ones(1, 5, 1, 3, 3, device=device)
    assert ops.window_radius(patches, ends, 4, 4).count_nonzero() == 0
    assert reference.window_radius(patches, ends, 4, 4).count_nonzero() == 0


def test_the_native_ops_check_their_arguments() -> None:
    p, c, g = torch.zeros(2, 3, 4, 5, 6), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 4, 7, 8)
    native = torch.ops.zonocuda
    for call, message in (
        (
            lambda: native.window_radius(p[0], c, 7, 8),
            r"window_radius: patches must have shape \[batch, symbols, channels, rows, columns\], got \[3, 4, 5, 6\]",
        ),
        (
            lambda: native.window_radius(p, c[:2], 7, 8),
            r"window_radius: corners must have shape \[symbols, 2\] = \[3, 2\], got \[2, 2\]",
        ),
        (lambda: native.window_radius(p, c.float(), 7, 8), r"corners must have dtype int64, got Float"),
        (lambda: native.window_radius(p, c, -1, 8), r"height and width must not be negative, got -1 and 8"),
        (lambda: native.window_radius(p.mT, c, 7, 8), r"window_radius: patches must be contiguous"),
        (
            lambda: native._window_radius_backward(g[:1], p, c),
            r"window_radius_backward: grad must have shape \[batch, channels, height, width\], got \[1, 4, 7, 8\]",
        ),
        (lambda: native._window_radius_backward(g.double(), p, c), r"grad must have the other tensors' dtype Float"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
