"""The bodies of the CUDA kernels on windowed generators, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import pytest
import torch
from torch import Tensor

from tests.csrc import window_chains as chains
from tests.csrc.compare import EACH_DTYPE, assert_within, normal
from tests.csrc.host import HostKernels
from tests.csrc.window_chains import Convolution, WindowPlan
from tests.ops.window_samples import CONVOLUTIONS, border_corners
from zonocuda import reference

NAN, INF = torch.nan, torch.inf


@dataclass(frozen=True)
class Case:
    """Patches [B, K, C, rows, columns] on maps [C, H, W], and how they are launched."""

    batch: int
    symbols: int
    channels: int
    window: tuple[int, int]
    size: tuple[int, int]
    plan: WindowPlan

    def __str__(self) -> str:
        window, size = ("x".join(map(str, pair)) for pair in (self.window, self.size))
        return f"{self.batch}x{self.symbols}x{self.channels}x{window}-on-{size}-{self.plan}"

    def patches(self, dtype: torch.dtype, seed: int = 0) -> Tensor:
        """Normal numbers; a few are zero."""
        patches = normal(self.batch, self.symbols, self.channels, *self.window, dtype=dtype, seed=seed)
        patches[:, ::3, ::2] = 0
        return patches

    def corners(self) -> Tensor:
        """Inside, across every border and far outside, in no order."""
        places = border_corners(self.window, *self.size)
        chosen = torch.randint(len(places), (self.symbols,), generator=torch.Generator().manual_seed(5))
        inside = [
            torch.randint(max(1, length - size + 1), (self.symbols,), generator=torch.Generator().manual_seed(6))
            for size, length in zip(self.window, self.size, strict=True)
        ]
        at_border = torch.arange(self.symbols).unsqueeze(1) % 2 == 0
        return torch.where(at_border, places[chosen], torch.stack(inside, dim=1))

    def maps(self, dtype: torch.dtype, seed: int) -> Tensor:
        """Normal numbers, one map for each batch element."""
        return normal(self.batch, self.channels, *self.size, dtype=dtype, seed=seed)


# What each is for: one element; no symbols; more splits than symbols; channels that fill no block, with 1, 2 and 4 for
# each warp; several tiles in x and y, and a window larger than one; more symbols than a list holds; windows larger than
# the map; patches, and rows of the map, that 16 bytes divide. Each with both widths of the indices.
CASES = [
    Case(1, 1, 1, (1, 1), (1, 1), WindowPlan()),
    Case(2, 0, 3, (2, 2), (3, 4), WindowPlan(splits=2)),
    Case(2, 3, 3, (2, 3), (4, 5), WindowPlan(splits=5, strips=2)),
    Case(2, 29, 11, (3, 3), (6, 7), WindowPlan(splits=3, warp_planes=2)),
    Case(1, 40, 13, (2, 2), (5, 4), WindowPlan(warp_planes=4, one_block=True, wide=True)),
    Case(2, 12, 2, (5, 5), (70, 67), WindowPlan(splits=2, one_block=True)),
    Case(1, 4, 2, (37, 36), (40, 45), WindowPlan(strips=2, wide=True)),
    Case(1, 530, 2, (2, 1), (4, 3), WindowPlan(warp_planes=4, one_block=True, strips=3, wide=True)),
    Case(1, 270, 1, (3, 3), (5, 5), WindowPlan()),
    Case(2, 19, 8, (3, 3), (5, 12), WindowPlan(wide=True)),
    Case(3, 17, 2, (7, 6), (3, 2), WindowPlan(splits=2, one_block=True, wide=True)),
]
CASES = [replace(case, plan=replace(case.plan, narrow=narrow)) for case in CASES for narrow in (False, True)]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=str)


@EACH_CASE
@EACH_DTYPE
def test_window_radius_and_its_gradient_agree_with_the_reference(
    host: HostKernels, case: Case, dtype: torch.dtype
) -> None:
    patches, corners, grad = case.patches(dtype).requires_grad_(), case.corners(), case.maps(dtype, 2)
    expected = reference.window_radius(patches, corners, *case.size)
    actual = chains.window_radius(host, case.plan, patches, corners, *case.size)
    assert_within(actual, expected.detach(), expected.detach(), case.symbols + 1)
    (gradient,) = torch.autograd.grad(expected, patches, grad)
    assert_within(chains.window_radius_backward(host, case.plan, grad, patches, corners), gradient)


@EACH_CASE
@EACH_DTYPE
def test_window_scale_and_its_gradients_agree_with_the_reference(
    host: HostKernels, case: Case, dtype: torch.dtype
) -> None:
    patches, corners, grad = case.patches(dtype).requires_grad_(), case.corners(), case.patches(dtype, 2)
    multiplier = case.maps(dtype, 1).requires_grad_()
    expected = reference.window_scale(patches, corners, multiplier)
    assert_within(chains.window_scale(host, case.plan, patches, corners, multiplier), expected.detach())
    gradients = torch.autograd.grad(expected, [patches, multiplier], grad)
    actual = chains.window_scale_backward(host, case.plan, grad, patches, corners, multiplier)
    assert_within(actual[0], gradients[0])
    magnitude = reference.window_radius((grad * patches).detach(), corners, *case.size)
    assert_within(actual[1], gradients[1], magnitude, case.symbols + 1)


@EACH_CASE
@EACH_DTYPE
def test_window_dense_and_its_gradient_equal_the_reference(host: HostKernels, case: Case, dtype: torch.dtype) -> None:
    patches, corners = case.patches(dtype).requires_grad_(), case.corners()
    expected = reference.window_dense(patches, corners, *case.size)
    assert_within(chains.window_dense(host, case.plan, patches, corners, *case.size), expected.detach())
    grad = normal(*expected.shape, dtype=dtype, seed=2)
    (gradient,) = torch.autograd.grad(expected, patches, grad)
    assert_within(chains.window_dense_backward(host, case.plan, grad, corners, *case.window), gradient)


@EACH_DTYPE
def test_nothing_outside_the_map_is_read_or_kept(host: HostKernels, dtype: torch.dtype) -> None:
    window, size = (3, 4), (5, 6)
    corners = border_corners(window, *size)
    inside = reference.window_scale(
        torch.ones(1, len(corners), 2, *window, dtype=dtype), corners, torch.ones(1, 2, *size)
    )
    clean = normal(1, len(corners), 2, *window, dtype=dtype) * inside
    dirty = clean.masked_fill(inside == 0, NAN)
    assert dirty.isnan().any()
    multiplier, plan = normal(1, 2, *size, dtype=dtype, seed=1), WindowPlan(splits=2)
    for function, arguments in (
        (chains.window_radius, (corners, *size)),
        (chains.window_dense, (corners, *size)),
        (chains.window_scale, (corners, multiplier)),
    ):
        assert_within(function(host, plan, dirty, *arguments), function(host, plan, clean, *arguments))
    actual = chains.window_scale_backward(host, plan, dirty, dirty, corners, multiplier)
    for ours, theirs in zip(
        actual, chains.window_scale_backward(host, plan, clean, clean, corners, multiplier), strict=True
    ):
        assert_within(ours, theirs)
    gradient = chains.window_radius_backward(host, plan, multiplier, dirty, corners)
    assert_within(gradient, chains.window_radius_backward(host, plan, multiplier, clean, corners))


def test_nan_and_infinity_reach_the_radius_as_in_the_reference(host: HostKernels) -> None:
    patches = normal(1, 12, 2, 3, 3, dtype=torch.float32)
    patches[0, 2, 0, 1, 1], patches[0, 5, 1, 0, 2], patches[0, 7, 1, 2, 0] = NAN, INF, -INF
    corners = torch.stack([torch.arange(12) % 4, torch.arange(12) % 3], dim=1)
    expected = reference.window_radius(patches, corners, 6, 5)
    assert expected.isnan().any()
    assert expected.isinf().any()
    for splits in (1, 3):
        actual = chains.window_radius(host, WindowPlan(splits=splits), patches, corners, 6, 5)
        assert_within(actual, expected, expected, 13)


# ---- diagonal_conv ---------------------------------------------------------------------------------------------------

PLANS = (
    WindowPlan(),
    WindowPlan(narrow=True),
    WindowPlan(splits=3, strips=2, one_block=True),
    WindowPlan(splits=3, strips=2, one_block=True, narrow=True),
)
EACH_CONVOLUTION = pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=lambda c: c[0])


@EACH_CONVOLUTION
@pytest.mark.parametrize("plan", PLANS, ids=str)
@EACH_DTYPE
def test_diagonal_conv_and_its_gradients_agree_with_the_reference(
    host: HostKernels, convolution: tuple, plan: WindowPlan, dtype: torch.dtype
) -> None:
    _, size, out, kernel, stride, padding, dilation, groups, output = convolution
    conv = Convolution(*size, stride, padding, dilation, groups, *output)
    index = torch.randint(prod(size), (30,), generator=torch.Generator().manual_seed(3))
    coefficients = normal(2, len(index), dtype=dtype).requires_grad_()
    weight = normal(out, size[0] // groups, *kernel, dtype=dtype, seed=1).requires_grad_()
    expected = reference.diagonal_conv(coefficients, index, weight, *conv.arguments())
    actual = chains.diagonal_conv(host, plan, coefficients, index, weight, conv)
    assert_within(actual, expected.detach(), expected.detach().abs(), prod(kernel) * size[0])
    grad = normal(*expected.shape, dtype=dtype, seed=2)
    gradients = torch.autograd.grad(expected, [coefficients, weight], grad)
    absolute = reference.diagonal_conv(coefficients.abs(), index, weight.abs(), *conv.arguments())
    magnitudes = torch.autograd.grad(absolute, [coefficients, weight], grad.abs())
    own = chains.diagonal_conv_backward(host, plan, grad, coefficients, index, weight, conv)
    assert_within(own[0], gradients[0], magnitudes[0].abs(), out * prod(kernel) + 1)
    assert_within(own[1], gradients[1], magnitudes[1].abs(), coefficients.numel() + 1)


def test_many_symbols_and_outputs_need_several_lists_and_pieces(host: HostKernels) -> None:
    conv = Convolution(2, 4, 5, (1, 1), (1, 1), (1, 1), 1, 4, 5)
    index = torch.randint(40, (600,), generator=torch.Generator().manual_seed(3))
    coefficients = normal(1, 600, dtype=torch.float32).requires_grad_()
    weight = normal(70, 2, 2, 2, dtype=torch.float32, seed=1).requires_grad_()  # 280 numbers for each input channel
    expected = reference.diagonal_conv(coefficients, index, weight, *conv.arguments())
    grad = normal(*expected.shape, dtype=torch.float32, seed=2)
    gradients = torch.autograd.grad(expected, [coefficients, weight], grad)
    absolute = reference.diagonal_conv(coefficients.abs(), index, weight.abs(), *conv.arguments())
    magnitudes = torch.autograd.grad(absolute, [coefficients, weight], grad.abs())
    for plan in (WindowPlan(), WindowPlan(strips=3, splits=4, one_block=True, narrow=True)):
        actual = chains.diagonal_conv(host, plan, coefficients, index, weight, conv)
        assert_within(actual, expected.detach(), expected.detach().abs(), 8)
        own = chains.diagonal_conv_backward(host, plan, grad, coefficients, index, weight, conv)
        assert_within(own[0], gradients[0], magnitudes[0].abs(), 281)
        assert_within(own[1], gradients[1], magnitudes[1].abs(), 601)


@EACH_DTYPE
def test_an_index_that_is_no_neuron_poisons_its_symbol_and_no_other(host: HostKernels, dtype: torch.dtype) -> None:
    conv = Convolution(2, 3, 3, (1, 1), (1, 1), (1, 1), 1, 3, 3)
    index = torch.randint(18, (12,), generator=torch.Generator().manual_seed(3))
    bad = torch.zeros(12, dtype=torch.bool)
    bad[[0, 3, 7, 11]] = True
    wrong = index.clone()
    wrong[bad] = torch.tensor([-1, 18, 2**40, -(2**63)])
    coefficients, weight = normal(2, 12, dtype=dtype), normal(5, 2, 3, 3, dtype=dtype, seed=1)
    good = chains.diagonal_conv(host, WindowPlan(), coefficients, index, weight, conv)
    actual = chains.diagonal_conv(host, WindowPlan(), coefficients, wrong, weight, conv)
    assert_within(actual, good.masked_fill(bad[:, None, None, None], NAN))
    grad = normal(*good.shape, dtype=dtype, seed=2)
    of_good = chains.diagonal_conv_backward(host, WindowPlan(), grad, coefficients, index, weight, conv)
    own = chains.diagonal_conv_backward(host, WindowPlan(), grad, coefficients, wrong, weight, conv)
    assert_within(own[0], of_good[0].masked_fill(bad, NAN))
    kept = chains.diagonal_conv_backward(
        host, WindowPlan(), grad[:, ~bad].contiguous(), coefficients[:, ~bad].contiguous(), index[~bad], weight, conv
    )
    assert_within(own[1], kept[1])  # what belongs to no input is left out


@pytest.mark.parametrize("special", [NAN, INF])
def test_specials_reach_what_exists_and_nothing_else(host: HostKernels, special: float) -> None:
    conv = Convolution(1, 5, 5, (2, 2), (1, 1), (2, 1), 1, 2, 3)
    index = torch.arange(25)
    weight = normal(3, 1, 3, 3, dtype=torch.float32).abs() + 0.1
    ones = chains.diagonal_conv(host, WindowPlan(), torch.ones(1, 25), index, weight, conv)
    patches = chains.diagonal_conv(host, WindowPlan(), torch.full((1, 25), special), index, weight, conv)
    assert_within(patches, torch.where(ones != 0, special, 0.0))
    grad = torch.where(ones != 0, 1.0, special)
    assert grad.isfinite().sum() < grad.numel()
    for ours in chains.diagonal_conv_backward(host, WindowPlan(), grad, torch.ones(1, 25), index, weight, conv):
        assert ours.isfinite().all()
