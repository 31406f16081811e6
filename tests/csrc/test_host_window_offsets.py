"""Offsets beyond 2^32 in the kernels on windowed generators, and offsets just below the limit of 32-bit indices, which
must not overflow there: see test_host_offsets.py.
"""

from __future__ import annotations

import pytest
import torch

from tests.csrc.chains import LANES, STRIPS
from tests.csrc.compare import assert_within, normal
from tests.csrc.host import HostKernels, Launch, Out, Tail
from tests.csrc.test_host_offsets import LIMIT, F
from tests.csrc.window_chains import OUTPUTS, PLANES, Convolution
from zonocuda import reference

NARROW_LIMIT = 2**30  # kNarrowLimit
EACH_WIDTH = pytest.mark.parametrize("narrow", [False, True], ids=["64-bit", "32-bit"])
WINDOW, SIZE = (2, 3), (3, 4)
CORNERS = torch.tensor([[0, 1], [-1, 0], [1, 2], [2, -2], [1, 1], [2**40, -(2**40)]])


def repeats(narrow: bool, *numbers: int) -> int:
    """How many batch elements: the smallest array goes beyond 2^32, or the largest just not to the limit.

    Args:
        narrow: which of the two.
        numbers: those of a batch element in each array.
    """
    return (NARROW_LIMIT - 1) // max(numbers) if narrow else LIMIT // min(numbers) + 3


def is_narrow(host: HostKernels, what: str, integers: list[int], limit: int = NARROW_LIMIT) -> bool:
    """What the launch decides."""
    out = Out(torch.zeros(1, dtype=torch.int64))
    return bool(host.run(f"is_narrow/{what}", Launch((1, 1), (1, 1)), [out], [*integers, limit])[0].item())


@EACH_WIDTH
def test_sums_over_many_batch_elements(host: HostKernels, narrow: bool) -> None:
    symbols, channels, splits = len(CORNERS), 3, 2
    patch, size = channels * 6, channels * 12
    batch = repeats(narrow, symbols * patch, splits * size) if narrow else repeats(narrow, symbols * patch, size)
    skip, partial_skip = (batch - 1) * symbols * patch, (splits * batch - 1) * size
    assert is_narrow(host, "Windows", [batch, symbols, channels, *WINDOW, *SIZE, splits]) == narrow
    x = normal(1, symbols, channels, *WINDOW, dtype=F)
    launch = Launch((batch, splits), (LANES, PLANES), last_block_only=True, narrow=narrow)
    sizes = [batch, symbols, channels, *WINDOW, *SIZE, splits, 1]
    for term, inputs, terms in (("AbsTerm", [x], x.abs()), ("ProductTerm", [x, -2 * x], 2 * x * x)):
        out = Out.unwritten(1, channels, *SIZE, dtype=F, skip=partial_skip)
        arguments = [*(Tail(t, skip) for t in inputs), CORNERS, out]
        (actual,) = host.run(f"sum_windows_kernel/{term}", launch, arguments, sizes)
        first = symbols * (splits - 1) // splits
        expected = reference.window_radius(terms[:, first:], CORNERS[first:], *SIZE)
        assert_within(actual.abs(), expected, expected, symbols)


@EACH_WIDTH
@pytest.mark.parametrize("wide", [False, True])
def test_maps_over_many_batch_elements(host: HostKernels, narrow: bool, wide: bool) -> None:
    symbols, channels = len(CORNERS), 4
    patch, size = channels * 6, channels * 12
    batch = repeats(narrow, symbols * patch, size)
    skip, map_skip = (batch - 1) * symbols * patch, (batch - 1) * size
    assert is_narrow(host, "Windows", [batch, symbols, channels, *WINDOW, *SIZE, 1]) == narrow
    x, maps = normal(1, symbols, channels, *WINDOW, dtype=F), normal(1, channels, *SIZE, dtype=F, seed=1)
    # a patch has no more numbers than lanes
    launch = Launch((batch, 1), (LANES, STRIPS), wide, last_block_only=True, narrow=narrow)
    sizes = [batch, symbols, channels, *WINDOW, *SIZE]
    for name, factor in (("WindowScaleMap", x), ("WindowSignMap", x.sign())):
        out = Out.unwritten(*x.shape, dtype=F, skip=skip)
        arguments = [Tail(x, skip), Tail(maps, map_skip), CORNERS, out]
        (actual,) = host.run(f"map_windows_kernel/{name}", launch, arguments, sizes)
        assert_within(actual, reference.window_scale(factor, CORNERS, maps))


@EACH_WIDTH
@pytest.mark.parametrize("wide", [False, True])
def test_dense_generators_of_many_batch_elements(host: HostKernels, narrow: bool, wide: bool) -> None:
    symbols, channels = len(CORNERS), 2
    batch = repeats(narrow, symbols * channels * 6, symbols * channels * 12)
    skip, dense_skip = (batch - 1) * symbols * channels * 6, (batch - 1) * symbols * channels * 12
    assert is_narrow(host, "Windows", [batch, symbols, channels, *WINDOW, *SIZE, symbols]) == narrow
    x = normal(1, symbols, channels, *WINDOW, dtype=F)
    dense = reference.window_dense(x, CORNERS, *SIZE)
    launch = Launch((batch, 1), (LANES, STRIPS), wide, last_block_only=True, narrow=narrow)
    sizes = [batch, symbols, channels, *WINDOW, *SIZE]
    out = Out.unwritten(*dense.shape, dtype=F, skip=dense_skip)
    (actual,) = host.run("window_dense_kernel", launch, [Tail(x, skip), CORNERS, out], sizes)
    assert_within(actual, dense)
    out = Out.unwritten(*x.shape, dtype=F, skip=skip)
    arguments = [Tail(dense, dense_skip), CORNERS, out]
    (actual,) = host.run("map_windows_kernel/WindowGatherMap", launch, arguments, sizes)
    assert_within(actual, reference.window_scale(x, CORNERS, torch.ones(1, channels, *SIZE)))


@EACH_WIDTH
def test_windows_and_maps_with_many_rows(host: HostKernels, narrow: bool) -> None:
    # Corners are moved to where a window of many rows just ends, or a map of many rows does.
    rows = 2**24 - 3 if narrow else 2**32
    corners = torch.tensor([[-(2**62), 0], [2**62, 0]])
    launch = Launch((1, 1), (LANES, STRIPS), narrow=narrow)
    for window, size in (((1, 1), (rows, 1)), ((rows, 1), (1, 1))):
        sizes = [1, 2, 1, *window, *size]
        assert is_narrow(host, "Windows", [*sizes, 1]) == narrow
        if window == (1, 1):
            out = Out.unwritten(1, 2, 1, 1, 1, dtype=F)
            (actual,) = host.run(
                "map_windows_kernel/WindowGatherMap", launch, [Tail(torch.empty(0), 2 * rows), corners, out], sizes
            )
        else:
            out = Out.unwritten(1, 2, 1, 1, 1, dtype=F)
            (actual,) = host.run("window_dense_kernel", launch, [Tail(torch.empty(0), 2 * rows), corners, out], sizes)
        assert not actual.any()


def test_partial_sums_of_many_numbers_are_added(host: HostKernels) -> None:
    count = LIMIT + 37
    items = count % 256
    launch = Launch((-(-count // 256), 1), (256, 1), last_block_only=True)
    partial = normal(items, dtype=F)  # one split: of several, no array could hold the ends alone
    out = Out.unwritten(items, dtype=F, skip=count - items)
    (actual,) = host.run("add_splits_kernel", launch, [Tail(partial, count - items), out], [1, count])
    assert_within(actual, partial)


CONV = Convolution(1, 3, 4, (1, 1), (1, 1), (1, 1), 1, 3, 4)


@EACH_WIDTH
def test_a_convolution_of_many_batch_elements(host: HostKernels, narrow: bool) -> None:
    index, outputs = torch.tensor([0, 5, 11, 6]), 3
    symbols, patch = len(index), outputs * 9
    batch = repeats(narrow, symbols * patch)
    skip, coefficient_skip = (batch - 1) * symbols * patch, (batch - 1) * symbols
    coefficients, weight = normal(1, symbols, dtype=F), normal(outputs, 1, 3, 3, dtype=F, seed=1)
    expected = reference.diagonal_conv(coefficients, index, weight, *CONV.arguments())
    out = Out.unwritten(*expected.shape, dtype=F, skip=skip)
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True, narrow=narrow)
    assert outputs <= OUTPUTS  # one block for a batch element
    sizes = CONV.integers(batch, symbols, weight)
    assert is_narrow(host, "DiagonalConv", [*sizes, 1]) == narrow
    arguments = [Tail(coefficients, coefficient_skip), index, weight, out]
    (actual,) = host.run("diagonal_conv_kernel", launch, arguments, sizes)
    assert_within(actual, expected, expected.abs(), 9)

    grad = normal(*expected.shape, dtype=F, seed=2)
    rows = batch * symbols
    launch = Launch((-(-rows // STRIPS), 1), (LANES, STRIPS), last_block_only=True, narrow=narrow)
    last = (rows - 1) % STRIPS + 1  # of the last block
    assert last % symbols == 0
    grads, factors = torch.cat([grad] * (last // symbols)), torch.ones(last // symbols, symbols)
    arguments = [
        Tail(grads, rows * patch - grads.numel()),
        index,
        weight,
        Out.unwritten(last // symbols, symbols, dtype=F, skip=rows - last),
    ]
    (actual,) = host.run("diagonal_conv_coefficients_kernel", launch, arguments, sizes)
    terms = reference.diagonal_conv(factors, index, weight, *CONV.arguments()) * grads
    assert_within(actual, terms.sum((2, 3, 4)), terms.abs().sum((2, 3, 4)), patch)


@EACH_WIDTH
def test_the_gradient_of_a_weight_with_many_outputs(host: HostKernels, narrow: bool) -> None:
    # The last numbers of the weight, in the last split, and one symbol that has a share in them.
    symbols, splits, kernel, owned = 40, 64, 9, 4
    outputs = (2**30 // (splits * kernel) - 1) // 256 * 256 + 4 - 256 if narrow else 2**24 + 4
    numbers = outputs * kernel
    items = numbers % 256
    assert items == owned * kernel  # outputs that the last block reaches
    skip, weight_skip = symbols * outputs * kernel - items, splits * numbers - items
    index = torch.full((symbols,), 99)  # no neuron, but the last
    index[-1] = 5
    grad, coefficients = normal(1, 1, owned, 3, 3, dtype=F), torch.full((1, symbols), 2.0)
    launch = Launch((-(-numbers // 256), splits), (LANES, STRIPS), last_block_only=True, narrow=narrow)
    sizes = CONV.integers(1, symbols, torch.empty(0, 1, 3, 3))
    sizes[3] = outputs
    assert is_narrow(host, "DiagonalConv", [*sizes, splits]) == narrow
    arguments = [Tail(grad, skip), coefficients, index, Out.unwritten(owned, 1, 3, 3, dtype=F, skip=weight_skip)]
    (actual,) = host.run("diagonal_conv_weight_kernel", launch, arguments, [*sizes, splits])
    weight = torch.zeros(owned, 1, 3, 3, requires_grad=True)
    patches = reference.diagonal_conv(torch.tensor([[2.0]]), index[-1:], weight, *CONV.arguments())
    (expected,) = torch.autograd.grad(patches, weight, grad)
    assert_within(actual, expected)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("axis", [5, 11])
def test_an_axis_with_large_numbers_needs_wide_indices(host: HostKernels, axis: int, place: int) -> None:
    sizes = [1, 1, 1, 1, 1, *(1, 1, 1, 1, 0, 1), *(1, 1, 1, 1, 0, 1)]
    assert is_narrow(host, "DiagonalConv", [*sizes, 1])
    sizes[axis + place] = 2**30
    assert not is_narrow(host, "DiagonalConv", [*sizes, 1])


def test_a_small_limit_tells_which_sizes_need_wide_indices(host: HostKernels) -> None:
    sizes = [20, 5, 3, 2, 2, 4, 6]  # patches of 1200 numbers, maps of 1440, 5 parts of which are 7200
    assert [is_narrow(host, "Windows", [*sizes, 1], limit) for limit in (1440, 1441)] == [False, True]
    assert [is_narrow(host, "Windows", [*sizes, 5], limit) for limit in (7200, 7201)] == [False, True]
    sizes = [2, 5, 3, 4, 1, *(4, 4, 3, 1, 1, 1), *(6, 6, 3, 1, 1, 1)]  # patches of 360 numbers, 108 weights
    assert [is_narrow(host, "DiagonalConv", [*sizes, 1], limit) for limit in (360, 361)] == [False, True]
    assert [is_narrow(host, "DiagonalConv", [*sizes, 4], limit) for limit in (432, 433)] == [False, True]
