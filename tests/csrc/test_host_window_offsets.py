"""Offsets beyond 2^32 in the kernels on windowed generators: see test_host_offsets.py."""

from __future__ import annotations

import torch

from tests.csrc.chains import LANES, STRIPS
from tests.csrc.compare import assert_within, normal
from tests.csrc.host import HostKernels, Launch, Out, Tail
from tests.csrc.test_host_offsets import LIMIT, F
from tests.csrc.window_chains import PLANES, Convolution
from zonocuda import reference

WINDOW, SIZE = (2, 3), (3, 4)
CORNERS = torch.tensor([[0, 1], [-1, 0], [1, 2], [2, -2], [1, 1]])


def test_sums_over_many_batch_elements(host: HostKernels) -> None:
    batch, symbols, channels, splits = 2**26 + 3, len(CORNERS), 3, 2
    patch, size = channels * 6, channels * 12
    skip, partial_skip = (batch - 1) * symbols * patch, (splits * batch - 1) * size
    assert min(skip, partial_skip) > LIMIT
    x = normal(1, symbols, channels, *WINDOW, dtype=F)
    launch = Launch((batch, splits), (LANES, PLANES), last_block_only=True)
    sizes = [batch, symbols, channels, *WINDOW, *SIZE, splits, 1]
    for term, inputs, terms in (("AbsTerm", [x], x.abs()), ("ProductTerm", [x, -2 * x], 2 * x * x)):
        out = Out.unwritten(1, channels, *SIZE, dtype=F, skip=partial_skip)
        arguments = [*(Tail(t, skip) for t in inputs), CORNERS, out]
        (actual,) = host.run(f"sum_windows_kernel/{term}", launch, arguments, sizes)
        first = symbols * (splits - 1) // splits
        expected = reference.window_radius(terms[:, first:], CORNERS[first:], *SIZE)
        assert_within(actual.abs(), expected, expected, symbols)


def test_maps_over_many_batch_elements(host: HostKernels) -> None:
    batch, symbols, channels = 2**27 + 3, len(CORNERS), 3
    patch, size = channels * 6, channels * 12
    skip, map_skip = (batch - 1) * symbols * patch, (batch - 1) * size
    assert min(skip, map_skip) > LIMIT
    x, maps = normal(1, symbols, channels, *WINDOW, dtype=F), normal(1, channels, *SIZE, dtype=F, seed=1)
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True)  # a patch has fewer numbers than lanes
    sizes = [batch, symbols, channels, *WINDOW, *SIZE]
    for name, factor in (("WindowScaleMap", x), ("WindowSignMap", x.sign())):
        out = Out.unwritten(*x.shape, dtype=F, skip=skip)
        arguments = [Tail(x, skip), Tail(maps, map_skip), CORNERS, out]
        (actual,) = host.run(f"map_windows_kernel/{name}", launch, arguments, sizes)
        assert_within(actual, reference.window_scale(factor, CORNERS, maps))


def test_dense_generators_of_many_batch_elements(host: HostKernels) -> None:
    batch, symbols, channels = 2**27 + 3, len(CORNERS), 2
    skip, dense_skip = (batch - 1) * symbols * channels * 6, (batch - 1) * symbols * channels * 12
    assert min(skip, dense_skip) > LIMIT
    x = normal(1, symbols, channels, *WINDOW, dtype=F)
    dense = reference.window_dense(x, CORNERS, *SIZE)
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True)
    sizes = [batch, symbols, channels, *WINDOW, *SIZE]
    out = Out.unwritten(*dense.shape, dtype=F, skip=dense_skip)
    (actual,) = host.run("window_dense_kernel", launch, [Tail(x, skip), CORNERS, out], sizes)
    assert_within(actual, dense)
    out = Out.unwritten(*x.shape, dtype=F, skip=skip)
    arguments = [Tail(dense, dense_skip), CORNERS, out]
    (actual,) = host.run("map_windows_kernel/WindowGatherMap", launch, arguments, sizes)
    assert_within(actual, reference.window_scale(x, CORNERS, torch.ones(1, channels, *SIZE)))


def test_partial_sums_of_many_numbers_are_added(host: HostKernels) -> None:
    count = LIMIT + 37
    items = count % 256
    launch = Launch((-(-count // 256), 1), (256, 1), last_block_only=True)
    partial = normal(items, dtype=F)  # one split: of several, no array could hold the ends alone
    out = Out.unwritten(items, dtype=F, skip=count - items)
    (actual,) = host.run("add_splits_kernel", launch, [Tail(partial, count - items), out], [1, count])
    assert_within(actual, partial)


CONV = Convolution(1, 3, 4, (1, 1), (1, 1), (1, 1), 1, 3, 4)


def test_a_convolution_of_many_batch_elements(host: HostKernels) -> None:
    index, outputs = torch.tensor([0, 5, 11, 6]), 3
    batch, symbols, patch = 2**26 + 3, len(index), outputs * 9
    skip, coefficient_skip = (batch - 1) * symbols * patch, (batch - 1) * symbols
    assert skip > LIMIT
    coefficients, weight = normal(1, symbols, dtype=F), normal(outputs, 1, 3, 3, dtype=F, seed=1)
    expected = reference.diagonal_conv(coefficients, index, weight, *CONV.arguments())
    out = Out.unwritten(*expected.shape, dtype=F, skip=skip)
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True)
    sizes = CONV.integers(batch, symbols, weight)
    arguments = [Tail(coefficients, coefficient_skip), index, weight, out]
    (actual,) = host.run("diagonal_conv_kernel", launch, arguments, sizes)
    assert_within(actual, expected, expected.abs(), 9)

    grad = normal(*expected.shape, dtype=F, seed=2)
    rows = batch * symbols
    launch = Launch((-(-rows // STRIPS), 1), (LANES, STRIPS), last_block_only=True)
    assert rows % STRIPS == symbols  # the last block has the last batch element alone
    arguments = [Tail(grad, skip), index, weight, Out.unwritten(1, symbols, dtype=F, skip=coefficient_skip)]
    (actual,) = host.run("diagonal_conv_coefficients_kernel", launch, arguments, sizes)
    terms = reference.diagonal_conv(torch.ones(1, symbols), index, weight, *CONV.arguments()) * grad
    assert_within(actual, terms.sum((2, 3, 4)), terms.abs().sum((2, 3, 4)), patch)


def test_the_gradient_of_a_weight_with_many_outputs(host: HostKernels) -> None:
    # The last numbers of the weight, in the last split, and one symbol that has a share in them.
    outputs, symbols, splits = 2**24 + 4, 40, 64
    kernel, owned = 9, 4  # outputs that the last block reaches
    numbers = outputs * kernel
    items = numbers % 256
    assert items == owned * kernel
    skip, weight_skip = symbols * outputs * kernel - items, splits * numbers - items
    assert min(skip, weight_skip) > LIMIT
    index = torch.full((symbols,), 99)  # no neuron, but the last
    index[-1] = 5
    grad, coefficients = normal(1, 1, owned, 3, 3, dtype=F), torch.full((1, symbols), 2.0)
    launch = Launch((-(-numbers // 256), splits), (LANES, STRIPS), last_block_only=True)
    sizes = CONV.integers(1, symbols, torch.empty(0, 1, 3, 3))
    sizes[3] = outputs
    arguments = [Tail(grad, skip), coefficients, index, Out.unwritten(owned, 1, 3, 3, dtype=F, skip=weight_skip)]
    (actual,) = host.run("diagonal_conv_weight_kernel", launch, arguments, [*sizes, splits])
    weight = torch.zeros(owned, 1, 3, 3, requires_grad=True)
    patches = reference.diagonal_conv(torch.tensor([[2.0]]), index[-1:], weight, *CONV.arguments())
    (expected,) = torch.autograd.grad(patches, weight, grad)
    assert_within(actual, expected)
