"""Offsets beyond 2^32 in the kernels: the last block of a launch over huge tensors, of which only the end exists.

A kernel gets the address of the whole tensor, and any access outside the end faults; an offset that wraps at 32 bits
lies billions of elements away. (tests/csrc/test_host_cuda.py shows that such a kernel is caught.)
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.csrc import chains
from tests.csrc.chains import LANES, MOST_SEGMENTS, SEGMENT, STRIPS, THREADS, TILE, TILE_ROWS
from tests.csrc.compare import assert_within, normal
from tests.csrc.host import Argument, HostKernels, Launch, Out, Tail
from zonocuda import reference

F = torch.float32
LIMIT = 2**32  # beyond it, unsigned numbers of 32 bits wrap too
WIDE = pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])


def last_block(items: int, block: tuple[int, int], rows: int = 1, wide: bool = False) -> Launch:
    """The last of the blocks of a launch with ``items`` in x and ``rows`` blocks in y."""
    return Launch((-(-items // block[0]), rows), block, wide, last_block_only=True)


def last_columns(batch: int, features: int, wide: bool) -> tuple[Launch, int]:
    """The last block of columns, and how many columns it has."""
    vector = 4 if wide else 1
    groups = batch * features // vector
    launch = last_block(groups, (LANES, STRIPS), 1, wide)
    return launch, (groups - (launch.grid[0] - 1) * LANES) * vector


@WIDE
@pytest.mark.parametrize(("batch", "symbols"), [(2**28 + 3, SEGMENT + 44), (2**29 + 3, 3)])
def test_sums_over_many_batch_elements(host: HostKernels, batch: int, symbols: int, wide: bool) -> None:
    features, segments = 12, chains.segments(symbols)
    skip = (batch - 16) * symbols * features
    partial_skip = (segments * batch - 16) * features
    assert min(skip, partial_skip) > LIMIT
    x = normal(16, symbols, features, dtype=F)
    launch, columns = last_columns(batch, features, wide)
    launch = replace(launch, grid=(launch.grid[0], segments))
    out = Out.unwritten(16, features, dtype=F, skip=partial_skip)
    sizes = [batch, symbols, features]
    for term, inputs, expected in [("AbsTerm", [x], x.abs()), ("ProductTerm", [x, -2 * x], -2 * x * x)]:
        (actual,) = host.run(f"sum_columns_kernel/{term}", launch, [*(Tail(t, skip) for t in inputs), out], sizes)
        last = expected[:, SEGMENT * (segments - 1) :].sum(1).flatten()
        assert_within(actual.flatten()[-columns:], last[-columns:], last[-columns:].abs(), 14)
        assert actual.flatten()[:-columns].isnan().all()


@WIDE
def test_sums_and_maps_over_many_symbols(host: HostKernels, wide: bool) -> None:
    features, rows = 9004, 40
    launch, columns = last_columns(1, features, wide)
    x = normal(rows, features, dtype=F)
    symbols = (MOST_SEGMENTS - 1) * 32 * SEGMENT + rows  # of the last segment
    assert chains.segments(symbols) == MOST_SEGMENTS
    skip = (symbols - rows) * features
    assert skip > LIMIT
    partial = Out.unwritten(features, dtype=F, skip=(MOST_SEGMENTS - 1) * features)
    summed = replace(launch, grid=(launch.grid[0], MOST_SEGMENTS))
    (actual,) = host.run("sum_columns_kernel/AbsTerm", summed, [Tail(x, skip), partial], [1, symbols, features])
    total = x.abs().sum(0)
    assert_within(actual[-columns:], total[-columns:], total[-columns:], rows // STRIPS + STRIPS)
    symbols = 65535 * STRIPS  # the most blocks in y
    x, skip = x[-STRIPS:], (symbols - STRIPS) * features
    factor = normal(features, dtype=F, seed=1)
    out = Out.unwritten(STRIPS, features, dtype=F, skip=skip)
    launch = replace(launch, grid=(launch.grid[0], 65535))
    (scaled,) = host.run("map_rows_kernel/ScaleMap", launch, [Tail(x, skip), factor, out], [1, symbols, features])
    assert_within(scaled[:, -columns:], (factor * x)[:, -columns:])


@WIDE
def test_one_pass_over_many_batch_elements(host: HostKernels, wide: bool) -> None:
    batch, symbols, features, columns = 2**29 + 3, 3, 12, 16
    skip, neurons = (batch - 16) * symbols * features, (batch - 16) * features
    assert neurons > LIMIT
    last = batch * features % columns
    shared = columns * F.itemsize * (symbols + STRIPS + 1)
    launch = Launch((-(-batch * features // columns), 1), (THREADS, 1), wide, last_block_only=True, shared=shared)
    x, center = normal(16, symbols, features, dtype=F), normal(16, features, dtype=F, seed=1)
    outs = [Out.unwritten(16, features, dtype=F, skip=neurons) for _ in range(4)]
    arguments: list[Argument] = [Tail(x, skip), Out.unwritten(*x.shape, dtype=F, skip=skip), Tail(center, neurons)]
    arguments += [None, None, None, *outs]
    sizes = [batch, symbols, features, columns]
    scaled, *actual = host.run("one_pass_kernel/ReluPass", launch, arguments, sizes)
    expected, offset = reference.relu(center, x)[1:]
    written = [t.transpose(1, 2).reshape(-1, symbols)[-last:] for t in (scaled, expected)]
    assert_within(*written, x.abs().max(), 8)
    assert_within(actual[1].flatten()[-last:], offset.flatten()[-last:], center.abs().max() + x.abs().sum(), 12)
    assert all(t.flatten()[:-last].isnan().all() for t in actual)


@WIDE
def test_maps_over_many_batch_elements(host: HostKernels, wide: bool) -> None:
    batch, symbols, features = 2**29 + 3, 3, 12
    skip, neurons = (batch - 16) * symbols * features, (batch - 16) * features
    assert neurons > LIMIT
    launch, columns = last_columns(batch, features, wide)
    x, grad = normal(16, symbols, features, dtype=F), normal(16, symbols, features, dtype=F, seed=1)
    factor, shift = normal(16, features, dtype=F, seed=2), normal(16, features, dtype=F, seed=3)
    for name, generators, factors, expected in [
        ("ScaleMap", [x], [factor], factor.unsqueeze(1) * x),
        ("SignMap", [x], [shift], shift.unsqueeze(1) * x.sign()),
        ("ReluGradMap", [grad, x], [factor, shift], factor.unsqueeze(1) * grad + x.sign() * shift.unsqueeze(1)),
    ]:
        inputs = [*(Tail(t, skip) for t in generators), *(Tail(t, neurons) for t in factors)]
        out = Out.unwritten(16, symbols, features, dtype=F, skip=skip)
        (actual,) = host.run(f"map_rows_kernel/{name}", launch, [*inputs, out], [batch, symbols, features])
        written = actual.transpose(1, 2).reshape(-1, symbols)[-columns:]
        assert_within(written, expected.transpose(1, 2).reshape(-1, symbols)[-columns:])


def test_pointwise_kernels_over_many_neurons(host: HostKernels) -> None:
    batch, features = 120_000, 40_007
    count = batch * features
    assert count > LIMIT
    items = count % 256
    skip = count - items
    launch = last_block(count, (256, 1))
    x, y, z = (normal(items, dtype=F, seed=seed) for seed in range(3))
    xs, ys, zs = (Tail(t, skip) for t in (x, y, z))
    radius = y.abs()
    layout = [batch, 1, features]

    def outs(number: int) -> list[Out]:
        return [Out.unwritten(items, dtype=F, skip=skip) for _ in range(number)]

    lower, upper = host.run("concretize_kernel", launch, [xs, Tail(radius, skip), *outs(2)], layout)
    assert_within(lower, x - radius)
    assert_within(upper, x + radius)
    center, shift = host.run("concretize_backward_kernel", launch, [xs, ys, *outs(2)], [count])
    assert_within(center, x + y)
    assert_within(shift, y - x)
    (grad,) = host.run("scale_backward_kernel", launch, [xs, *outs(1)], layout)
    assert_within(grad, x)

    bounds = [Tail(lower, skip), Tail(upper, skip)]
    multiplier, offset = reference.relu_relaxation(lower, upper)
    actual = host.run("relu_relaxation_kernel", launch, [*bounds, None, *outs(2)], [count])
    for ours, theirs in zip(actual, (multiplier, offset), strict=True):
        assert_within(ours, theirs)
    arguments: list[Argument] = [Tail(radius, skip), *outs(1), xs, None, None, None, *outs(4)]
    actual = host.run("relu_kernel", launch, arguments, layout)
    for ours, theirs in zip(actual, (multiplier, multiplier * x + offset, offset, lower, upper), strict=True):
        assert_within(ours, theirs)

    leaves = [lower.requires_grad_(), upper.requires_grad_()]
    grads = torch.autograd.grad(reference.relu_relaxation(*leaves), leaves, [y, z])
    magnitude = 8 * (y.abs() + z.abs()) / (upper - lower).detach().clamp(max=1)
    arguments = [ys, zs, *bounds, None, *outs(3)]
    actual = host.run("relu_relaxation_backward_kernel", launch, arguments, [count, 0], [0.0])
    for ours, theirs in zip(actual[1:], grads, strict=True):
        assert_within(ours, theirs, magnitude, 12)
    # relu: the multiplier's gradient is gc c + products, the offset's gc + gmu
    products, gc, gmu = Tail(y - x * z, skip), zs, Tail(torch.zeros(items), skip)
    arguments = [products, *outs(2), gc, gmu, xs, *bounds, None, *outs(4)]
    actual = host.run("relu_backward_kernel", launch, arguments, [*layout, 0, 1], [0.0])
    for ours, theirs in zip(actual[4:], grads, strict=True):
        assert_within(ours, theirs, magnitude * (1 + 2 * x.abs()), 16)


def test_diagonal_linear_over_a_huge_weight_and_result(host: HostKernels) -> None:
    batch, symbols, features, out = 4000, 33, 120_001, 40_007
    k0, m0 = TILE, out // TILE * TILE  # the last tile
    rows, columns = symbols - k0, out - m0
    weight_skip, result_skip = m0 * features, batch * symbols * out - columns
    assert min(weight_skip, result_skip) > LIMIT
    coefficients, weight = normal(batch, symbols, dtype=F), normal(columns, features, dtype=F, seed=1)
    index = torch.full((symbols,), features - 1)
    tiles = batch * -(-symbols // TILE) * -(-out // TILE)
    launch = Launch((tiles, 1), (TILE, TILE_ROWS), last_block_only=True)
    arguments: list[Argument] = [
        coefficients,
        index,
        Tail(weight, weight_skip),
        Out.unwritten(rows, columns, dtype=F, skip=result_skip),
    ]
    (actual,) = host.run("diagonal_linear_kernel", launch, arguments, [batch, symbols, features, out])
    assert_within(actual, coefficients[-1, -1] * weight[:, -1].unsqueeze(0))


def test_diagonal_linear_backward_over_a_huge_gradient(host: HostKernels) -> None:
    batch, symbols, features, out = 70_000, 33, 3, 2003
    rows = batch * symbols
    skip = (rows - 1) * out
    assert skip > LIMIT
    grad, weight = normal(out, dtype=F), normal(out, features, dtype=F, seed=1)
    index = torch.full((symbols,), 2)
    launch = Launch((rows, 1), (TILE, 1), last_block_only=True)
    arguments: list[Argument] = [Tail(grad, skip), index, weight, Out.unwritten(1, dtype=F, skip=rows - 1)]
    sizes = [batch, symbols, features, out]
    (actual,) = host.run("diagonal_linear_coefficients_kernel", launch, arguments, sizes)
    terms = grad * weight[:, 2]
    assert_within(actual, terms.sum(0, keepdim=True), terms.abs().sum(), out)


def test_diagonal_linear_weight_gradient_over_huge_outputs(host: HostKernels) -> None:
    features, out = 3, LIMIT + 37
    items = out % TILE
    launch = Launch((-(-out // TILE), 1), (TILE, TILE_ROWS), last_block_only=True)
    grad = normal(items, dtype=F)
    ends = torch.tensor([-1, 0, -1]), torch.tensor([-1, ~0, -1])  # the only symbol is the first and the last one
    before = Out(torch.zeros(items, features), (out - items) * features)
    arguments: list[Argument] = [Tail(grad, out - items), torch.tensor([2.0]), torch.tensor([1]), *ends, before]
    (actual,) = host.run("diagonal_linear_weight_kernel", launch, arguments, [1, 1, features, out])
    expected = torch.zeros(items, features)
    expected[:, 1] = 2 * grad
    assert_within(actual, expected)


def test_error_block_and_its_gradient_over_many_elements(host: HostKernels) -> None:
    batch, symbols, features = 70_000, 5, 40_007
    index = torch.tensor([0, 0, 0, 0, features - 2])
    coefficients = normal(batch, symbols, dtype=F)
    sizes = [batch, symbols, features]
    rows = batch * symbols
    last = rows % 256
    skip = (rows - last) * features
    assert skip > LIMIT
    out = Out(torch.zeros(last, features), skip)
    (actual,) = host.run("error_block_kernel", last_block(rows, (256, 1)), [coefficients, index, out], sizes)
    at = index[torch.arange(rows - last, rows) % symbols]
    expected = torch.zeros(last, features).scatter(1, at.unsqueeze(1), coefficients.flatten()[-last:].unsqueeze(1))
    assert_within(actual, expected)

    grad = Tail(normal(last * features, dtype=F), (rows - last) * features)
    out = Out.unwritten(last, dtype=F, skip=rows - last)
    (actual,) = host.run("error_block_backward_kernel", last_block(rows, (256, 1)), [grad, index, out], sizes)
    assert_within(actual, grad.values.reshape(last, features).gather(1, at.unsqueeze(1))[:, 0])


def test_dual_relu_over_many_rows(host: HostKernels) -> None:
    rows, features, last = 2**27 + 5, 33, 5
    skip = (rows - last) * features
    assert skip > LIMIT
    assert rows % 16 == last
    v, lower, upper = normal(1, last, features, dtype=F), -torch.ones(1, features), torch.full((1, features), 2.0)
    sums = [Out.unwritten(1, last, dtype=F, skip=rows - last) for _ in range(2)]
    image = Out.unwritten(1, last, features, dtype=F, skip=skip)
    arguments: list[Argument] = [Tail(v, skip), lower, upper, None, None, image, *sums]
    launch = Launch((-(-rows // 16), 1), (256, 1), last_block_only=True)
    actual = host.run("dual_relu_kernel", launch, arguments, [1, rows, features, 0, 0, 1, 16])
    expected = reference.dual_relu(v, lower, upper)
    assert_within(actual[0], expected.rows, v.abs(), 4)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        assert_within(one, other, 3 * v.abs().sum(2), features + 8)


def test_dual_relu_backward_over_many_batch_elements(host: HostKernels) -> None:
    batch, rows, features = 2**27 + 3, 2, 32
    skip, neurons = (batch - 1) * rows * features, (batch - 1) * features
    assert min(skip, neurons) >= LIMIT
    v, grad = (normal(1, rows, features, dtype=F, seed=seed).requires_grad_() for seed in range(2))
    lower, upper = (torch.full((1, features), x, requires_grad=True) for x in (-1.0, 2.0))
    low, high = (normal(1, rows, dtype=F, seed=seed) for seed in (2, 3))
    outs = [Out.unwritten(1, rows, features, dtype=F, skip=skip)]
    outs += [Out.unwritten(1, features, dtype=F, skip=neurons) for _ in range(2)]
    arguments: list[Argument] = [Tail(v, skip), Tail(lower, neurons), Tail(upper, neurons), None, None]
    arguments += [Tail(grad, skip), *(Tail(t, (batch - 1) * rows) for t in (low, high)), *outs, None, None, None]
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True)
    actual = host.run("dual_relu_backward_kernel", launch, arguments, [batch, rows, features, 0, 0, 1, 0], [0.0])
    outputs = reference.dual_relu(v, lower, upper)
    expected = torch.autograd.grad(outputs, [v, lower, upper], [grad.detach(), low, high])
    constants = (low.abs() + high.abs()).unsqueeze(2)
    of_lines = (v.abs() * (grad.abs() + 2 * constants)).sum(1).detach()
    magnitudes = [grad.detach().abs() + 2 * constants, of_lines, of_lines]
    for one, other, magnitude in zip(actual, expected, magnitudes, strict=True):
        assert_within(one, other, magnitude, 16)


def test_dual_split_over_many_rows(host: HostKernels) -> None:
    rows, features, last = 2**27 + 5, 33, 5
    skip = (rows - last) * features
    v, lower, upper = normal(1, last, features, dtype=F), -torch.ones(1, features), torch.full((1, features), 2.0)
    beta, slope = (normal(1, last, features, dtype=F, seed=seed) for seed in (1, 2))
    splits = (torch.arange(v.numel()) % 3 - 1).to(torch.int8).reshape(v.shape)
    image = Out.unwritten(1, last, features, dtype=F, skip=skip)
    low = Out.unwritten(1, last, dtype=F, skip=rows - last)
    arguments: list[Argument] = [Tail(v, skip), lower, upper, None, Tail(slope, skip), Tail(splits, skip)]
    launch = Launch((-(-rows // 16), 1), (256, 1), last_block_only=True)
    sizes = [1, rows, features, 0, 1, 0, 16]
    actual = host.run("dual_split_kernel", launch, [*arguments, Tail(beta, skip), image, low], sizes)
    expected = reference.dual_split(v, lower, upper, splits, beta, None, slope)
    assert_within(actual[0], expected.rows, v.abs() + beta.abs(), 4)
    assert_within(actual[1], expected.low, 3 * v.abs().sum(2), features + 8)


def test_dual_split_backward_over_many_batch_elements(host: HostKernels) -> None:
    batch, rows, features = 2**27 + 3, 2, 32
    skip, neurons = (batch - 1) * rows * features, (batch - 1) * features
    leaves = [normal(1, rows, features, dtype=F, seed=seed).requires_grad_() for seed in range(3)]
    lower, upper = -torch.ones(1, features), torch.full((1, features), 2.0)
    splits = (torch.arange(rows * features) % 3 - 1).to(torch.int8).reshape(1, rows, features)
    grad, low = normal(1, rows, features, dtype=F, seed=3), normal(1, rows, dtype=F, seed=4)
    v, beta, slope = (Tail(t.detach(), skip) for t in leaves)
    arguments: list[Argument] = [v, Tail(lower, neurons), Tail(upper, neurons), None, slope, Tail(splits, skip), beta]
    outs = [Out.unwritten(1, rows, features, dtype=F, skip=skip) for _ in range(3)]
    arguments += [Tail(grad, skip), Tail(low, (batch - 1) * rows), None, outs[0], None, None, None, *outs[1:], None]
    launch = Launch((batch, 1), (LANES, STRIPS), last_block_only=True)
    actual = host.run("dual_split_backward_kernel", launch, arguments, [batch, rows, features, 0, 1, 0, 0, 0], [0.0])
    outputs = reference.dual_split(leaves[0], lower, upper, splits, leaves[1], None, leaves[2])
    expected = torch.autograd.grad(outputs, [leaves[0], leaves[2], leaves[1]], [grad, low])
    magnitude = grad.abs() * (1 + v.values.abs()) + 3 * low.abs().unsqueeze(2)
    for one, other in zip(actual, expected, strict=True):
        assert_within(one, other, magnitude, 16)
