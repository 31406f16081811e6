"""The image of every kind of block under every map: the map of its dense generators, and the structure that is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.domains.test_symbols import FEATURES, block
from tests.domains.windows import whole
from zonocuda.bounds.plan.forecast import SCRATCH_BYTES
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed, Zonotope, maps, use_backend
from zonocuda.domains.blocks import Block, add_blocks
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.windowed import is_convolved_dense

Image = Callable[[Block], Block]
Rows = Callable[[Tensor], Tensor]
WEIGHT, MATRIX, LAST = whole(3, 2, 3, 3), whole(5, 128), whole(4, 8)
HOW = Convolution((3, 3), (2, 1), ((1, 0), (0, 2)))
CHANNEL, EVERY, ROW = whole(2, 1, 1), whole(*FEATURES), whole(1, 8)


def _pad(*pads: tuple[int, int]) -> tuple[Image, Rows]:
    return lambda b: maps.pad(b, FEATURES, pads), lambda x: F.pad(x, maps.flat_pads(pads))


def _select(dim: int, *index: int) -> tuple[Image, Rows]:
    places = torch.tensor(index, dtype=torch.int64)
    return lambda b: maps.select(b, FEATURES, dim, index), lambda x: x.index_select(dim + 1, places)


def _permute(*order: int) -> tuple[Image, Rows]:
    return lambda b: maps.permute(b, FEATURES, order), lambda x: x.permute(0, *(d + 1 for d in order))


def _scale(factor: Tensor) -> tuple[Image, Rows]:
    return lambda b: maps.scale(b, FEATURES, factor), lambda x: x * factor


def _reduce(*dims: int, mean: bool = False, keepdim: bool = False) -> tuple[Image, Rows]:
    function = torch.mean if mean else torch.sum
    return (
        lambda b: maps.reduce(b, FEATURES, dims, mean, keepdim),
        lambda x: function(x, dim=[d + 1 for d in dims], keepdim=keepdim),
    )


def _pool(kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[Image, Rows]:
    return lambda b: maps.average_pool(b, FEATURES, kernel, stride), lambda x: F.avg_pool2d(x, kernel, stride)


W, D, G = "windowed", "diagonal", "dense"
CASES: dict[str, tuple[tuple[Image, Rows], str, str]] = {
    "convolution": (
        (lambda b: maps.convolve(b, FEATURES, WEIGHT, HOW), lambda x: maps.convolve_map(x, WEIGHT, None, HOW)),
        W,
        G,  # windows of 3 x 4 positions on a map of 4 x 8
    ),
    "average pool": (_pool((2, 2), (2, 2)), W, W),
    "average pool with gaps": (_pool((1, 2), (3, 3)), W, G),
    "scale per channel": (_scale(CHANNEL), D, W),
    "scale per neuron": (_scale(EVERY), D, W),
    "scale per column": (_scale(ROW), D, W),
    "scale all": (_scale(torch.tensor(-2.0, dtype=torch.float64)), D, W),
    "pad": (_pad((0, 0), (1, 2), (0, 3)), D, W),
    "pad channels": (_pad((1, 2), (0, 0), (0, 0)), D, W),
    "pad nothing": (_pad((0, 0), (0, 0), (0, 0)), D, W),
    "crop": (_pad((0, 0), (-3, 0), (0, -3)), W, W),
    "crop and pad": (_pad((-1, 2), (-3, 2), (4, -3)), W, W),
    "crop everything": (_pad((0, 0), (-8, 0), (0, 0)), W, W),
    "slice rows": (_select(1, 2, 3, 4, 5), W, W),
    "slice channels": (_select(0, 1), W, W),
    "all columns": (_select(2, *range(8)), D, W),
    "channels in another order": (_select(0, 1, 0, 0), G, W),
    "columns in another order": (_select(2, 3, 0), G, G),
    "every other row": (_select(1, 1, 3), W, W),
    "every third column": (_select(2, 1, 4, 7), W, W),
    "columns backwards": (_select(2, 5, 3, 1), G, G),
    "nothing": (_select(0), G, W),
    "transpose rows and columns": (_permute(0, 2, 1), D, W),
    "channels last": (_permute(1, 2, 0), D, W),
    "reversed": (_permute(2, 1, 0), D, W),
    "sum over the map": (_reduce(1, 2), G, G),
    "sum over the map, turned": (_reduce(2, 1, keepdim=True), G, G),
    "mean over the map": (_reduce(1, 2, mean=True, keepdim=True), G, G),
    "sum over channels": (_reduce(0), G, G),
    "linear on columns": ((lambda b: maps.linear(b, FEATURES, LAST), lambda x: F.linear(x, LAST)), G, G),
}
"""Map, and the kinds of the images of a diagonal and of a windowed block."""


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["dense", "diagonal", "windowed"])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("count", [0, 40])
def test_the_image_of_a_block_is_that_of_its_dense_generators(name: str, kind: str, grad: bool, count: int) -> None:
    (image, rows), diagonal, windowed = CASES[name]
    start = block(kind, Symbols(count))
    before = start.dense(FEATURES).clone()
    expected = rows(before.flatten(0, 1)).unflatten(0, (2, count)) if count else None
    with torch.set_grad_enabled(grad):
        got = image(start)
    features = tuple(rows(torch.zeros(1, *FEATURES, dtype=torch.float64)).shape[1:])
    assert got.symbols is start.symbols
    got.check(torch.zeros(2, *features))
    assert got.dense(features).shape == (2, count, *features)
    assert expected is None or torch.equal(got.dense(features), expected)
    assert torch.equal(start.dense(FEATURES), before)
    if count:
        assert got.kind == {"dense": "dense", "diagonal": diagonal, "windowed": windowed}[kind]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("kind", ["dense", "diagonal", "windowed"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_transposed_and_flattened_block_enters_a_linear_layer(
    backend: str, kind: str, order: tuple[int, int, int]
) -> None:
    start = block(kind, Symbols(40))
    expected = start.dense(FEATURES).permute(0, 1, *(d + 2 for d in order)).flatten(2) @ MATRIX.T
    with use_backend(backend):  # type: ignore[arg-type]
        flat = maps.reshape(maps.permute(start, FEATURES, order), (128,))
        assert torch.equal(maps.linear(flat, (128,), MATRIX).generators, expected)


def test_features_that_are_no_longer_the_map_are_not_treated_as_one() -> None:
    """The same numbers under another shape: a convolution or a crop of them is not one of the windows."""
    start = block("windowed", Symbols(40))
    for moved, features in (
        (maps.reshape(start, (2, 4, 16)), (2, 4, 16)),
        (maps.reshape(maps.permute(start, FEATURES, (1, 2, 0)), FEATURES), FEATURES),
    ):
        rows = moved.dense(features)
        for (image, expected), shape in (
            (
                (
                    maps.convolve(moved, features, WEIGHT, HOW),
                    maps.convolve_map(rows.flatten(0, 1), WEIGHT, None, HOW),
                ),
                (3, *HOW.output_size((features[1], features[2]))),
            ),
            (
                (
                    maps.pad(moved, features, ((0, 0), (-1, 0), (0, 1))),
                    F.pad(rows.flatten(0, 1), (0, 1, -1, 0)),
                ),
                (2, features[1] - 1, features[2] + 1),
            ),
            ((maps.permute(moved, features, (2, 0, 1)), rows.flatten(0, 1).permute(0, 3, 1, 2)), None),
            ((maps.select(moved, features, 1, (1, 2)), rows.flatten(0, 1)[:, :, 1:3]), (2, 2, features[2])),
            ((maps.reduce(moved, features, (1, 2), False, False), rows.flatten(0, 1).sum((2, 3))), (2,)),
        ):
            out = tuple(expected.shape[1:]) if shape is None else shape
            assert torch.equal(image.dense(out), expected.unflatten(0, (2, 40)))
        factor = whole(features[0], 1, 1)
        assert torch.equal(maps.scale(moved, features, factor).dense(features), rows * factor)


@pytest.mark.parametrize("one", ["dense", "diagonal", "windowed"])
@pytest.mark.parametrize("two", ["dense", "diagonal", "windowed"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("in_place", [True, False])
def test_sums_of_two_kinds_add_generator_by_generator(
    one: str, two: str, order: tuple[int, int, int], in_place: bool
) -> None:
    symbols = Symbols(40)
    features = tuple(FEATURES[d] for d in order)
    with torch.no_grad():
        a, b = (maps.permute(block(kind, symbols), FEATURES, order) for kind in (one, two))
        expected = a.dense(features) + b.dense(features)
        total = add_blocks(a, b, features, in_place)
        assert torch.equal(total.dense(features), expected)
        assert all(tensor.is_contiguous() for tensor in total.tensors)  # what follows may work in place
    if order == (0, 1, 2):
        far = {one, two} == {"windowed"}  # the hulls of windows at random places are wide
        assert isinstance(total, Dense if "dense" in (one, two) or far else (Windowed, Diagonal, Dense))


def test_windows_of_one_map_in_two_orders_add_feature_by_feature() -> None:
    symbols = Symbols(40)
    a, b = block("windowed", symbols), block("windowed", symbols)
    turned = maps.reshape(maps.permute(b, FEATURES, (1, 2, 0)), FEATURES)
    assert isinstance(turned, Windowed)
    expected = a.dense(FEATURES) + b.dense(FEATURES).permute(0, 1, 3, 4, 2).reshape(2, 40, *FEATURES)
    for one, two in ((a, turned), (turned, a)):
        assert torch.equal(add_blocks(one, two, FEATURES).dense(FEATURES), expected)


def test_concatenation_keeps_windows_and_shared_symbols() -> None:
    symbols, center = Symbols(40), whole(2, *FEATURES)
    a, b = (Zonotope(center, (block("windowed", symbols),)) for _ in range(2))
    noise = {symbols: (a.noise(4)[symbols] * 8).round() / 8}
    alone = Zonotope(center, (block("windowed", Symbols(7)),))
    every = noise | {s: (eps * 8).round() / 8 for s, eps in alone.noise(4).items()}
    for dim in range(3):
        joined = Zonotope.cat([a, alone, b], dim)
        assert joined.symbols == 47
        assert torch.equal(joined.at(every), torch.cat([a.at(every), alone.at(every), b.at(every)], dim + 2))
    apart = Zonotope.cat([a, alone], 0)
    assert [kind.kind for kind in apart.blocks] == ["windowed", "windowed"]


def test_scaling_in_place_writes_into_the_block_and_not_elsewhere() -> None:
    for kind in ("dense", "windowed"):
        for factor in (CHANNEL, EVERY, ROW):
            start = block(kind, Symbols(9))
            expected = start.dense(FEATURES) * factor
            with torch.no_grad():
                scaled = maps.scale(start, FEATURES, factor, in_place=True)
            assert scaled.tensors[0].data_ptr() == start.tensors[0].data_ptr()
            assert torch.equal(scaled.dense(FEATURES), expected)


PRODUCTS = {
    "2 x 2 under 3 x 3": ((2, 2), Convolution((3, 3), padding=((1, 1), (1, 1)))),
    "one position": ((1, 1), Convolution((3, 3), padding=((1, 1), (1, 1)))),
    "as many positions as taps": ((3, 3), Convolution((3, 3), padding=((0, 2), (1, 0)))),
    "stride 2": ((2, 2), Convolution((3, 3), (2, 2), ((1, 1), (1, 1)))),
    "dilation": ((3, 1), Convolution((3, 2), dilation=(2, 3), padding=((2, 3), (3, 1)))),
    "all of it": ((2, 4), Convolution((5, 5), (3, 2), ((4, 4), (4, 2)), (2, 1))),
    "a row": ((1, 5), Convolution((3, 3), (1, 2), ((1, 1), (2, 0)))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_on_small_maps_a_convolution_is_a_product(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, how = PRODUCTS[name]
    features, weight = (3, *size), whole(4, 3, *how.kernel).requires_grad_()
    generators = whole(2, 7, *features)
    expected = maps.convolve_map(generators.flatten(0, 1), weight, None, how).unflatten(0, (2, 7))
    zonotope = Zonotope(whole(2, *features), [Dense(Symbols(7), generators)])
    monkeypatch.setattr(maps, "generic", None)
    monkeypatch.setattr(maps, "PRODUCT_ROWS", 14)
    with torch.no_grad():
        (got,) = zonotope.conv2d(weight, None, how.stride, how.padding, how.dilation).blocks
    assert torch.equal(got.dense(expected.shape[2:]), expected)
    factor = whole(*expected.shape)
    (gradient,) = torch.autograd.grad((expected * factor).sum(), weight)
    (got,) = zonotope.conv2d(weight, None, how.stride, how.padding, how.dilation).blocks
    assert torch.equal(torch.autograd.grad((got.dense(expected.shape[2:]) * factor).sum(), weight)[0], gradient)


@pytest.mark.parametrize(
    ("size", "how", "rows"),
    [
        ((2, 5), Convolution((3, 3), padding=((1, 1), (1, 1))), 1000),
        ((2, 2), Convolution((3, 3), padding=((1, 1), (1, 1)), groups=2), 1000),
        ((2, 2), Convolution((3, 3), padding=((1, 1), (1, 1))), maps.PRODUCT_ROWS - 1),
        ((2, 2), Convolution((3, 3), padding=((500, 500), (500, 500))), 1000),
    ],
    ids=["more positions than taps", "groups", "few generators", "a large matrix"],
)
def test_other_convolutions_are_no_products(size: tuple[int, int], how: Convolution, rows: int) -> None:
    assert maps.product_of(whole(4, 4 // how.groups, 3, 3), how, (4, *size), rows) is None


def test_making_the_matrix_takes_no_more_than_a_forecast_allows() -> None:
    assert maps.PRODUCT_BYTES <= SCRATCH_BYTES


@pytest.mark.parametrize(("batch", "count"), [(0, 3), (2, 0), (0, 0)])
def test_windows_that_become_dense_may_be_none(batch: int, count: int) -> None:
    windows = Windowed(Symbols(count), whole(batch, count, 2, 3, 3), whole(count, 2).long(), (5, 5))
    for stride in (1, 2):
        how = Convolution((5, 5), (stride, stride), ((2, 2), (2, 2)))
        assert is_convolved_dense(windows.window, windows.size, how)
        image = maps.convolve(windows, (2, 5, 5), whole(3, 2, 5, 5), how)
        assert image.dense((3, *how.output_size((5, 5)))).shape == (batch, count, 3, *how.output_size((5, 5)))
