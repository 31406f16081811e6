"""Windowed blocks against their definition: patches at their places on a map of zeros."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from torch import Tensor

from tests.domains.windows import ORDERS, by_hand, features_of, inside, on_map, whole, windows, zero_outside
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed, memory, use_backend, windowed
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.windowed import Order, add_windows


@pytest.fixture(autouse=True)
def windows_stay_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever share of these small maps they cover."""
    monkeypatch.setattr(windowed, "DENSE_SHARE", 1e9)


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["grad", "no_grad"])
def grad(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def convolved(maps: Tensor, weight: Tensor, how: Convolution) -> Tensor:
    """torch's convolution of ``[B, K, C, height, width]``."""
    (top, bottom), (left, right) = how.padding
    image = F.conv2d(
        F.pad(maps.flatten(0, 1), (left, right, top, bottom)), weight, None, how.stride, 0, how.dilation, how.groups
    )
    return image.unflatten(0, maps.shape[:2])


def check_convolution(block: Windowed, how: Convolution, outputs: int = 4) -> Windowed:
    """The image has the generators of torch's convolution bit for bit, and zeros outside the map."""
    weight = whole(outputs, block.map[0] // how.groups, *how.kernel)
    image = block.convolve(weight, how)
    expected = convolved(on_map(block), weight, how)
    assert image.symbols is block.symbols
    assert image.map == tuple(expected.shape[2:])
    assert torch.equal(on_map(image), expected)
    assert zero_outside(image)
    return image


# ---- what every kind of block does -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_windows_are_their_dense_generators_in_every_order(backend: str, order: Order) -> None:
    block = windows(order=order)
    shape = features_of(block)
    with use_backend(backend):
        for features in (shape, (shape[0], shape[1] * shape[2]), (90,)):
            rows = block.dense(features)
            assert torch.equal(rows, by_hand(block, *features))
            assert rows.is_contiguous()  # what works in place refuses anything else
            radius = block.add_radius(torch.zeros(2, *features, dtype=torch.float64))
            assert torch.equal(radius, by_hand(block, *features).abs().sum(1))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("in_place", [True, False])
def test_scaling_reads_the_factor_at_the_place_of_each_window(backend: str, order: Order, in_place: bool) -> None:
    block = windows(order=order)
    before, factor = block.patches.clone(), whole(2, *features_of(block))
    expected = by_hand(block) * factor.unsqueeze(1)
    with use_backend(backend), torch.no_grad():
        scaled = block.scale(factor, in_place)
        flat = windowed.replace(block, patches=before).scale(factor.flatten(1))
    assert torch.equal(by_hand(scaled), expected)
    assert torch.equal(by_hand(flat), expected)
    assert zero_outside(scaled)
    assert (scaled.patches.data_ptr() == block.patches.data_ptr()) is in_place
    assert in_place or torch.equal(block.patches, before)


def test_a_slice_of_the_symbols_has_memory_of_its_own() -> None:
    block, part = windows(), Symbols(4)
    piece = block.narrow(3, part)
    assert piece.symbols is part
    assert torch.equal(by_hand(piece), by_hand(block)[:, 3:7])
    kept = by_hand(block)
    piece.patches.fill_(7.0)
    assert torch.equal(by_hand(block), kept)


# ---- convolutions ----------------------------------------------------------------------------------------------------


def test_entries_outside_the_map_are_set_to_zero_after_every_convolution(grad: bool) -> None:
    """A pixel in a corner, twice through ones: 4 positions of the map lead from it to itself; of the plane, 9."""
    start = Diagonal(Symbols(1), torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])).windowed((1, 5, 5))
    ones, how = torch.ones(1, 1, 3, 3, dtype=torch.float64), Convolution((3, 3), padding=((1, 1), (1, 1)))
    with torch.set_grad_enabled(grad):
        once = start.convolve(ones, how)
        twice = once.convolve(ones, how)
    unmasked = F.conv2d(torch.ones(1, 1, 3, 3, dtype=torch.float64), ones, padding=2)[0, 0, 2, 2]
    assert unmasked == 9
    assert on_map(twice)[0, 0, 0, 0, 0] == 4
    assert zero_outside(once)
    assert zero_outside(twice)
    assert once.corners.tolist() == [[-1, -1]]


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 3), (1, 3)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 0), (1, 3))])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_a_convolution_of_windows_is_the_convolution_of_their_dense_form(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    grad: bool,
) -> None:
    how = Convolution(kernel, stride, padding, dilation)
    with torch.set_grad_enabled(grad):
        check_convolution(windows(2, (7, 8), (2, 3), count=20), how)


def test_every_phase_of_a_stride_has_its_generators(grad: bool) -> None:
    corners = torch.tensor(list(itertools.product(range(-2, 7), repeat=2)))  # every phase of 2 and 3, on every border
    patches = whole(2, len(corners), 1, 3, 3)
    block = Windowed(Symbols(len(corners)), patches, corners, (7, 7))
    block.patches.mul_(inside(block).unsqueeze(1))
    with torch.set_grad_enabled(grad):
        for stride in (2, 3):
            for kernel in (1, 2, 3, 5):
                check_convolution(block, Convolution((kernel, kernel), (stride, stride), ((1, 2), (2, 1))))


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_a_stride_that_steps_over_a_window_leaves_zeros_where_no_output_sees_it(stride: int, grad: bool) -> None:
    corners = torch.tensor(list(itertools.product(range(7), repeat=2)))
    block = Windowed(Symbols(49), torch.ones(1, 49, 2, 1, 1, dtype=torch.float64), corners, (7, 7))
    with torch.set_grad_enabled(grad):
        image = check_convolution(block, Convolution((1, 1), (stride, stride)))
    seen = (corners % stride == 0).all(1)
    assert not bool(on_map(image)[:, ~seen].any())
    assert bool(on_map(image)[:, seen].flatten(2).any(2).all())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_and_depthwise_convolutions_keep_channels_apart(groups: int, grad: bool) -> None:
    how = Convolution((3, 2), (2, 1), ((1, 0), (0, 1)), groups=groups)
    with torch.set_grad_enabled(grad):
        check_convolution(windows(4), how, outputs=8)


@pytest.mark.parametrize("kernel", [(5, 5), (7, 6)])
def test_a_kernel_larger_than_the_map_sees_all_of_it(kernel: tuple[int, int], grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        check_convolution(windows(1, (3, 4), (2, 2)), Convolution(kernel, padding=((4, 3), (3, 3))))


def test_windows_larger_than_the_map_are_convolved_too(grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        check_convolution(windows(2, (3, 3), (5, 4)), Convolution((2, 2), (2, 2), ((1, 1), (0, 1))))


def test_long_blocks_go_through_a_convolution_in_runs(monkeypatch: pytest.MonkeyPatch, grad: bool) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", 1)  # one symbol at a time
    with torch.set_grad_enabled(grad):
        check_convolution(windows(), Convolution((3, 3), (2, 2), ((1, 1), (1, 1))))
        check_convolution(windows(), Convolution((3, 3)))


def test_blocks_without_symbols_go_through_everything(backend: str, grad: bool) -> None:
    block = windows(count=0)
    with use_backend(backend), torch.set_grad_enabled(grad):
        check_convolution(block, Convolution((3, 3), (2, 2)))
        assert block.linear(whole(4, 90)).generators.shape == (2, 0, 4)
        assert block.dense((90,)).shape == (2, 0, 90)
        assert add_windows(block, windowed.replace(block)).symbols.count == 0
        assert block.pad((1, -1), (0, 2)).map == (3, 5, 8)
        assert torch.equal(block.add_radius(torch.ones(2, 90)), torch.ones(2, 90))


sides = st.tuples(st.integers(1, 4), st.integers(1, 4))
amounts = st.tuples(st.integers(0, 3), st.integers(0, 3))


@hypothesis_seed(20250211)
@settings(max_examples=80, deadline=None, database=None)
@given(sides, sides, st.tuples(amounts, amounts), st.tuples(st.integers(1, 3), st.integers(1, 3)), sides, st.booleans())
def test_any_geometry_of_a_convolution_agrees_with_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    window: tuple[int, int],
    depthwise: bool,
) -> None:
    how = Convolution(kernel, stride, padding, dilation, 2 if depthwise else 1)
    if min(how.output_size((6, 5))) < 1:
        return
    with torch.no_grad():
        check_convolution(windows(2, (6, 5), window, count=8), how)


@hypothesis_seed(20250212)
@settings(max_examples=60, deadline=None, database=None)
@given(sides, sides, st.tuples(amounts, amounts), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.booleans())
def test_scaled_kernels_of_single_neurons_agree_with_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    dilation: tuple[int, int],
    depthwise: bool,
) -> None:
    how = Convolution(kernel, stride, padding, dilation, 2 if depthwise else 1)
    if min(how.output_size((4, 5))) < 1:
        return
    index = torch.randperm(40)[:15]
    block, weight = Diagonal(Symbols(15), whole(2, 15), index), whole(4, 2 // how.groups, *kernel)
    image = block.convolve(weight, how, (2, 4, 5))
    assert torch.equal(on_map(image), convolved(block.dense((2, 4, 5)), weight, how))
    assert torch.equal(on_map(block.windowed((2, 4, 5))), block.dense((2, 4, 5)))
    assert zero_outside(image)


# ---- other maps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [(0, 0), (2, 1), (-1, 0), (0, -2), (-2, 3)])
@pytest.mark.parametrize("columns", [(0, 0), (1, 4), (-1, -3), (2, -2)])
def test_padding_and_cropping_move_the_windows(rows: tuple[int, int], columns: tuple[int, int], grad: bool) -> None:
    block = windows()
    kept = block.patches.clone()
    with torch.set_grad_enabled(grad):
        moved = block.pad(rows, columns)
    expected = F.pad(on_map(block), (*columns, *rows))
    assert torch.equal(on_map(moved), expected)
    assert zero_outside(moved)
    assert torch.equal(block.patches, kept)
    grown = moved.pad((5, 5), (5, 5))  # what was cut off does not come back
    assert torch.equal(on_map(grown), F.pad(expected, (5, 5, 5, 5)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("then", ORDERS)
def test_transpositions_follow_each_other(order: Order, then: Order) -> None:
    block = windows()
    turned = block.permute(order).permute(then)
    expected = on_map(block).permute(0, 1, *(d + 2 for d in order)).permute(0, 1, *(d + 2 for d in then))
    assert torch.equal(turned.dense(tuple(expected.shape[2:])), expected)
    assert turned.view == tuple(expected.shape[2:])
    assert zero_outside(turned)


def test_channels_are_chosen_repeated_and_added() -> None:
    block = windows()
    assert torch.equal(on_map(block.channels(torch.tensor([2, 0, 0]))), on_map(block)[:, :, [2, 0, 0]])
    assert torch.equal(on_map(block.pad_channels(1, 2)), F.pad(on_map(block), (0, 0, 0, 0, 1, 2)))
    assert torch.equal(block.sums(), on_map(block).sum((3, 4)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("chunk", [1, 2**12, 2**30])
def test_a_linear_layer_reads_windows_in_the_order_of_the_features(
    monkeypatch: pytest.MonkeyPatch, order: Order, chunk: int
) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", chunk)
    block, weight = windows(order=order), whole(7, 90)
    assert torch.equal(block.linear(weight).generators, by_hand(block, 90) @ weight.T)


# ---- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(("first", "second"), [((3, 2), (3, 2)), ((1, 1), (4, 3)), ((2, 5), (3, 1))])
def test_a_sum_lies_in_the_hull_of_both_windows(
    backend: str, grad: bool, order: Order, first: tuple[int, int], second: tuple[int, int]
) -> None:
    a, other = windows(window=first, order=order), windows(window=second, order=order)
    b = Windowed(a.symbols, other.patches, other.corners, other.size, order)
    with use_backend(backend), torch.set_grad_enabled(grad):
        total = add_windows(a, b)
    assert torch.equal(on_map(total), on_map(a) + on_map(b))
    assert zero_outside(total)
    assert total.order == order
    assert torch.equal(total.corners, torch.minimum(a.corners, b.corners))
    needed = torch.maximum(a.corners + torch.tensor(first), b.corners + torch.tensor(second)) - total.corners
    assert total.window == tuple(needed.amax(0).tolist())


def test_a_sum_leaves_both_terms_as_they_were() -> None:
    a = windows()
    b = windowed.replace(a, patches=a.patches.clone())
    kept = a.patches.clone()
    with torch.no_grad():
        add_windows(a, b)
    assert torch.equal(a.patches, kept)
    assert torch.equal(b.patches, kept)


def test_sums_on_different_maps_are_an_error() -> None:
    a = windows()
    with pytest.raises(ValueError, match="add_windows: maps"):
        add_windows(a, windowed.replace(a, size=(6, 5)))
    with pytest.raises(ValueError, match="add_windows: maps"):
        add_windows(a, windowed.replace(a, order=(1, 2, 0)))


# ---- the transition to dense -----------------------------------------------------------------------------------------


def test_windows_become_dense_above_their_share_of_the_map(monkeypatch: pytest.MonkeyPatch, grad: bool) -> None:
    block = windows(order=(2, 0, 1))  # windows of 2 x 3 positions on maps of 30
    weight, how = whole(4, block.map[0], 1, 1), Convolution((1, 1))
    for share, kind in ((0.2, Windowed), (0.19, Dense), (-1.0, Dense), (1e9, Windowed)):
        monkeypatch.setattr(windowed, "DENSE_SHARE", share)
        with torch.set_grad_enabled(grad):
            images = [block.convolve(weight, how), add_windows(block, block)]
        for image, expected in zip(images, (convolved(on_map(block), weight, how), None), strict=True):
            assert isinstance(image, kind)
            assert image.symbols is block.symbols
            shape = tuple(expected.shape[2:]) if expected is not None else block.view
            assert torch.equal(image.dense(shape), by_hand(block) * 2 if expected is None else expected)


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_dense_form(backend: str) -> None:
    """Through a convolution with phases, a factor for each neuron, a sum of two windows, a crop and the radius."""
    block = windows(2, (6, 5), (2, 2))
    start = block.patches.requires_grad_()
    weight, small = whole(3, 2, 3, 3).requires_grad_(), whole(3, 2, 1, 1).requires_grad_()
    factor, shares = whole(2, 3, 3, 3).requires_grad_(), whole(2, 3, 2, 4)
    how, thin = Convolution((3, 3), (2, 2), ((1, 1), (1, 1))), Convolution((1, 1), (2, 2))
    variables = (start, weight, small, factor)
    with use_backend(backend):
        image = add_windows(block.convolve(weight, how).scale(factor), block.convolve(small, thin)).pad((-1, 0), (0, 1))
        ours = torch.autograd.grad((image.add_radius(torch.zeros_like(shares)) * shares).sum(), variables)
    rows = convolved(on_map(block), weight, how) * factor.unsqueeze(1) + convolved(on_map(block), small, thin)
    dense = torch.autograd.grad((F.pad(rows, (0, 1, -1, 0)).abs().sum(1) * shares).sum(), variables)
    flags = inside(block).unsqueeze(1)  # what lies outside is zero by definition, and no variable
    for got, expected in zip((ours[0] * flags, *ours[1:]), dense, strict=True):
        assert bool(expected.any())
        assert torch.equal(got, expected)


def test_patches_and_corners_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"corners \[3, 2\]"):
        Windowed(Symbols(3), torch.zeros(1, 3, 2, 1, 1), torch.zeros(2, 2, dtype=torch.int64), (4, 4))
    with pytest.raises(ValueError, match=r"\[batch, 3, channels, rows, columns\]"):
        Windowed(Symbols(3), torch.zeros(1, 2, 2, 1, 1), torch.zeros(3, 2, dtype=torch.int64), (4, 4))
    with pytest.raises(ValueError, match="do not fit a center"):
        windows().check(torch.zeros(2, 3, 5, 5))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("start", "step", "count"), [(0, 2, 3), (1, 2, 2), (0, 3, 2), (2, 3, 1), (1, 4, 2)])
@pytest.mark.parametrize("window", [(1, 1), (2, 3), (5, 4)])
def test_every_so_many_rows_or_columns(
    axis: int, start: int, step: int, count: int, window: tuple[int, int], grad: bool
) -> None:
    block = windows(size=(7, 6), window=window)
    index = torch.tensor([start + step * i for i in range(count)])
    with torch.set_grad_enabled(grad):
        part = block.every(axis, start, step, count)
    assert torch.equal(on_map(part), on_map(block).index_select(3 + axis, index))
    assert zero_outside(part)
    back = part.every_adjoint(axis, start, step, block.size)
    expected = torch.zeros_like(on_map(block)).index_copy(3 + axis, index, on_map(part))
    assert torch.equal(on_map(back), expected)
