"""CUDA kernel bodies on the CPU, under AddressSanitizer, with values that nobody meant: indices that are no neurons,
corners anywhere in 64 bits, winners and sides of any bits.

What belongs to an index that is no neuron becomes NaN; everything else must be what the CPU kernels find.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.csrc import chains
from tests.csrc import window_chains as w
from tests.csrc.chains import Plan
from tests.csrc.compare import assert_within
from tests.csrc.host import HostKernels, Out
from tests.csrc.hostile_calls import Draw, nonsmooth_max_backward, nonsmooth_max_pool2d_backward
from tests.csrc.window_chains import Convolution, WindowPlan

pytest.importorskip("zonocuda.ops", reason="the native ops are not built")
NATIVE = torch.ops.zonocuda
NAN = float("nan")
EACH_TRIAL = pytest.mark.parametrize("trial", range(12))
EACH_PLAN = pytest.mark.parametrize("one_block", [False, True], ids=["grid", "one block"])


def whole(d: Draw, *size: int) -> Tensor:
    """Small whole numbers, whose sums are exact in any order, and now and then a NaN or an infinity."""
    specials = (NAN, float("inf"), -float("inf"))
    count = int(torch.Size(size).numel())
    values = [d.random.choice(specials) if d.random.random() < 0.02 else d.random.randint(-9, 9) for _ in range(count)]
    return torch.tensor(values, dtype=torch.float32).reshape(size)


@EACH_TRIAL
@EACH_PLAN
def test_corners_anywhere_are_those_of_the_cpu_kernels(host: HostKernels, trial: int, one_block: bool) -> None:
    d = Draw(trial)
    plan = WindowPlan(splits=1 + trial % 3, one_block=one_block, strips=1 + trial % 2)
    batch, symbols, channels, rows, columns = shape = [1 + d.size(2) % 3, 1 + d.size(), 1 + d.size(2) % 3, 3, 2]
    height, width = 1 + d.size(), 1 + d.size()
    corners = d.corners(symbols, 6)
    x, y, maps = whole(d, *shape), whole(d, *shape), whole(d, batch, channels, height, width)
    dense = whole(d, batch, symbols, channels, height, width)
    size = height, width
    pairs = [
        (w.window_radius(host, plan, x, corners, *size), NATIVE.window_radius(x, corners, *size)),
        (w.window_radius_backward(host, plan, maps, x, corners), NATIVE._window_radius_backward(maps, x, corners)),
        (w.window_scale(host, plan, x, corners, maps), NATIVE.window_scale(x, corners, maps)),
        (w.window_dense(host, plan, x, corners, *size), NATIVE.window_dense(x, corners, *size)),
        (
            w.window_dense_backward(host, plan, dense, corners, rows, columns),
            NATIVE._window_dense_backward(dense, corners, rows, columns),
        ),
        *zip(
            w.window_scale_backward(host, plan, y, x, corners, maps),
            NATIVE._window_scale_backward(y, x, corners, maps, True, True),
            strict=True,
        ),
    ]
    for ours, cpu in pairs:
        assert_within(ours, cpu)


@EACH_TRIAL
@EACH_PLAN
def test_an_index_that_is_no_neuron_makes_nan_and_touches_nothing_else(
    host: HostKernels, trial: int, one_block: bool
) -> None:
    d = Draw(trial)
    plan, batch, symbols, features, out = Plan(one_block=one_block), 2, 1 + d.size(), 1 + d.size(), 1 + d.size()
    index = d.index(symbols, features)
    good = (index >= 0) & (index < features)
    coefficients, weight, grad = whole(d, batch, symbols), whole(d, out, features), whole(d, batch, symbols, out)
    dense, kept = whole(d, batch, symbols, features), index.where(good, torch.zeros(1, dtype=torch.int64))

    expected = NATIVE.diagonal_linear(coefficients, kept, weight).where(good[:, None], NAN)
    assert_within(chains.diagonal_linear(host, plan, coefficients, index, weight), expected)
    ours = chains.diagonal_linear_backward(host, plan, grad, coefficients, index, weight)
    of_coefficients, _ = NATIVE._diagonal_linear_backward(grad, coefficients, kept, weight, True)
    assert_within(ours[0], of_coefficients.where(good, NAN))
    some = [t.contiguous() for t in (grad[:, good], coefficients[:, good], index[good])]
    assert_within(ours[1], NATIVE._diagonal_linear_backward(*some, weight, True)[1])

    expected = NATIVE.error_block(coefficients, kept, features).where(good[:, None], NAN)
    assert_within(chains.error_block(host, plan, coefficients, index, features), expected)
    expected = NATIVE._error_block_backward(dense, kept).where(good, NAN)
    assert_within(chains.error_block_backward(host, plan, dense, index), expected)


@EACH_TRIAL
@EACH_PLAN
def test_a_convolution_of_an_index_that_is_no_neuron_is_nan(host: HostKernels, trial: int, one_block: bool) -> None:
    d = Draw(trial)
    groups = 1 + trial % 2
    conv = Convolution(2 * groups, 4, 5, (1 + trial % 3, 2), (1, -1), (1, 1 + trial % 2), groups, 3, 2)
    plan, symbols = WindowPlan(splits=1 + trial % 3, one_block=one_block, strips=1 + trial % 2), 1 + d.size()
    index = d.index(symbols, conv.channels * 20)
    good = (index >= 0) & (index < conv.channels * 20)
    coefficients, weight = whole(d, 2, symbols), whole(d, 3 * groups, 2, 3, 2)
    sizes = [conv.channels, 4, 5], conv.stride, conv.padding, conv.dilation, groups, [3, 2]
    kept = index.where(good, torch.zeros(1, dtype=torch.int64))
    cpu = NATIVE.diagonal_conv(coefficients, kept, weight, *sizes)
    ours = w.diagonal_conv(host, plan, coefficients, index, weight, conv)
    assert_within(ours[:, good], cpu[:, good])
    assert ours[:, ~good].isnan().all()
    grad = whole(d, *cpu.shape)
    ours_c, ours_w = w.diagonal_conv_backward(host, plan, grad, coefficients, index, weight, conv)
    cpu_c, _ = NATIVE._diagonal_conv_backward(grad, coefficients, kept, weight, *sizes, True)
    assert_within(ours_c, cpu_c.where(good, NAN))
    some = [t.contiguous() for t in (grad[:, good], coefficients[:, good], index[good])]
    assert_within(ours_w, NATIVE._diagonal_conv_backward(*some, weight, *sizes, True)[1])


@pytest.mark.parametrize("trial", range(60))
def test_winners_of_any_bits_are_those_of_the_cpu_kernels(host: HostKernels, trial: int) -> None:
    d = Draw(trial)
    d.dtype = (torch.float32, torch.float64, torch.float16)[trial % 3]
    grad, words, length, *weights = nonsmooth_max_backward(d)
    if 0 < length < 100:
        sizes = [grad.shape[0], length, grad.shape[1]]
        launch = Plan(one_block=trial % 2 == 0).pointwise(grad.numel())
        arguments = [grad, words, Out.unwritten(*sizes, dtype=d.dtype)]
        (ours,) = host.run("nonsmooth_max_backward_kernel", launch, arguments, sizes, weights, dtype=d.dtype)
        assert_within(ours, NATIVE._nonsmooth_max_backward(grad, words, length, *weights))

    grad, words, images, *lists_and_weights = nonsmooth_max_pool2d_backward(d)
    lists, weights = lists_and_weights[:4], lists_and_weights[4:]
    if all(0 < n < 100 for n in (*images, *lists[0], *lists[1], *lists[3])) and max(map(abs, lists[2])) < 100:
        axes = [[images[i], grad.shape[1 + i], *(numbers[i] for numbers in lists)] for i in range(2)]
        sizes = [grad.shape[0], grad.shape[3], *axes[0], *axes[1]]
        out = Out.unwritten(grad.shape[0], *images, grad.shape[3], dtype=d.dtype)
        launch = Plan(one_block=trial % 2 == 0).pointwise(out.before.numel())
        arguments = [grad, words, out]
        (ours,) = host.run("nonsmooth_max_pool2d_backward_kernel", launch, arguments, sizes, weights, dtype=d.dtype)
        assert_within(ours, NATIVE._nonsmooth_max_pool2d_backward(grad, words, images, *lists, *weights))


def test_sides_of_any_byte_are_those_of_the_cpu_kernel(host: HostKernels) -> None:
    d = Draw(0)
    sides = torch.arange(-128, 128).to(torch.int8)
    for first in (0.0, 0.25, 1.0, NAN):
        grad = d.floats(256)
        arguments = [grad, sides, Out.unwritten(256, dtype=torch.float32), Out.unwritten(256, dtype=torch.float32)]
        launch = Plan().pointwise(256)
        out = host.run("nonsmooth_maximum_backward_kernel", launch, arguments, [256], [first])
        for ours, cpu in zip(out, NATIVE._nonsmooth_maximum_backward(grad, sides, first), strict=True):
            assert_within(ours, cpu)
