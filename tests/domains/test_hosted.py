"""Blocks in host memory are the blocks that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.devices import DEVICES, use_device
from tests.domains.test_symbols import FEATURES, block
from tests.domains.windows import whole
from zonocuda.domains import Dense, Diagonal, Hosted, Symbols, Windowed, Zonotope, memory
from zonocuda.domains.blocks import Block, leaves
from zonocuda.domains.hosted import kept, through
from zonocuda.domains.merge import merge_symbols

KINDS = ("dense", "windowed")


def hosted(kind: str, symbols: Symbols) -> tuple[Dense | Windowed, Hosted]:
    """A block, and the same one in host memory."""
    there = block(kind, symbols)
    assert isinstance(there, Dense | Windowed)
    return there, Hosted.store(there)


def same(a: Block, b: Block) -> None:
    assert a.symbols is b.symbols
    assert torch.equal(a.dense(FEATURES), b.dense(FEATURES))


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_comes_back_as_it_was_and_in_memory_of_its_own(kind: str) -> None:
    there, host = hosted(kind, Symbols(9))
    back = host.fetch()
    same(there, back)
    back.tensors[0].zero_()
    there.tensors[0].zero_()
    assert host.dense(FEATURES).any()
    assert host.tensors == ()


def test_a_block_in_another_order_of_dimensions_is_scaled() -> None:
    """In-place ops want contiguous numbers, which the caller's own need not be."""
    generators = whole(3, 2, *FEATURES).transpose(0, 1)
    host, factor = Hosted(Dense(Symbols(3), generators), generators.device), whole(2, *FEATURES)
    assert not generators.is_contiguous()
    with torch.no_grad():
        assert torch.equal(host.scale(factor).dense(FEATURES), generators * factor.unsqueeze(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_place", [True, False])
def test_it_is_scaled_bounded_cut_and_reshaped_like_the_block(kind: str, in_place: bool) -> None:
    there, host = hosted(kind, Symbols(9))
    before, factor, center = host.dense(FEATURES), whole(2, *FEATURES), whole(2, *FEATURES)
    with torch.no_grad():
        scaled = host.scale(factor, in_place)
    same(there.scale(factor), scaled)
    if in_place:
        assert scaled.block.tensors[0].data_ptr() == host.block.tensors[0].data_ptr()  # type: ignore[union-attr]
        host = Hosted.store(there)
    assert torch.equal(host.dense(FEATURES), before)
    assert torch.equal(there.add_radius(center), host.add_radius(center))
    there.symbols.cut(4)
    for a, b in zip(leaves([there]), leaves([host]), strict=True):
        assert isinstance(b, Hosted)
        same(a, b)
    assert torch.equal(host.reshape((16, 8)).dense((16, 8)), there.dense(FEATURES).reshape(2, 9, 16, 8))


def test_a_block_of_the_wrong_shape_is_refused() -> None:
    _, host = hosted("dense", Symbols(2))
    with pytest.raises(ValueError, match="do not fit a center"):
        Zonotope(whole(2, 3), (host,))


def test_images_are_kept_in_host_memory_where_the_pool_says_so_and_diagonal_ones_never() -> None:
    there, host = hosted("dense", Symbols(3))
    diagonal = block("diagonal", Symbols(3))
    assert isinstance(kept(there), Dense)
    assert isinstance(through(host, lambda b: b), Dense)
    with memory.recycled() as pool:
        pool.keeps_on_host = True
        assert isinstance(kept(there), Hosted)
        assert isinstance(through(host, lambda b: b), Hosted)
        assert isinstance(kept(diagonal), Diagonal)
    assert isinstance(kept(there), Dense)


WEIGHT, MATRIX, CHANNEL, OTHER = whole(3, 2, 3, 3), whole(5, 8), whole(2, 1, 1), whole(2, *FEATURES)
IMAGES: dict[str, Callable[[Zonotope, Zonotope], Zonotope]] = {
    "convolution": lambda z, _: z.conv2d(WEIGHT, padding=1),
    "linear": lambda z, _: z.linear(MATRIX),
    "pooling": lambda z, _: z.avg_pool2d(2),
    "transposition": lambda z, _: z.permute(1, 2, 0),
    "slice": lambda z, _: z.select(1, [2, 3, 4]),
    "mean": lambda z, _: z.reduce([1, 2], mean=True),
    "scaling": lambda z, _: z.scale_shift(CHANNEL, OTHER[0]),
    "reshape": lambda z, _: z.reshape(16, 8),
    "any map": lambda z, _: z.affine(lambda x: x.flip(-1), lambda x: x.flip(-1)),
    "relu": lambda z, _: z.relu(),
    "sum": lambda z, other: z + other,
    "difference": lambda z, other: other - z,
    "concatenation": lambda z, other: Zonotope.cat([z, other], 0),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [True, False])
def test_images_of_zonotopes_are_the_same_symbol_by_symbol(name: str, kind: str, keep: bool) -> None:
    symbols = Symbols(9)
    there, host = hosted(kind, symbols)
    extra, second = block("diagonal", Symbols(5)), Zonotope(OTHER, (block(kind, symbols),))
    with memory.recycled() as pool, torch.no_grad():
        expected = IMAGES[name](Zonotope(OTHER, (there, extra)), second)
        pool.keeps_on_host = keep
        image = IMAGES[name](Zonotope(OTHER, (host, extra)), second)
        assert torch.equal(image.center, expected.center)
        for a, b in zip(image.blocks, expected.blocks, strict=True):
            if name != "relu":
                assert a.symbols is b.symbols
            if keep:
                assert a.kind in ("hosted", "diagonal")
            assert torch.equal(a.dense(image.features), b.dense(image.features))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_takes_the_same_symbols(kind: str) -> None:
    there, host = hosted(kind, Symbols(9))
    center = whole(2, *FEATURES)
    merged = [merge_symbols(Zonotope(center, (b,)), 4) for b in (there, host)]
    for a, b in zip(merged[0].bounds(), merged[1].bounds(), strict=True):
        assert torch.equal(a, b)
    assert merged[0].symbols == merged[1].symbols


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_lie_on_the_host_and_come_back_to_the_device(device: str) -> None:
    where = use_device(device)
    there = Dense(Symbols(3), torch.ones(1, 3, 4, device=where))
    host = Hosted.store(there)
    assert host.block.tensors[0].device.type == "cpu"
    assert host.block.tensors[0].is_pinned() == (where.type == "cuda")
    assert host.fetch().generators.device.type == where.type
    assert torch.equal(host.fetch().generators, there.generators)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_parts_share_is_given_up_with_the_last_of_them(kind: str) -> None:
    there, host = hosted(kind, Symbols(9))
    expected = IMAGES["convolution"](Zonotope(OTHER, (there,)), Zonotope(OTHER, ()))
    there.symbols.cut(4)
    (numbers,) = host.block.tensors
    with memory.recycled() as pool, torch.no_grad():
        pool.keeps_on_host = True
        image = Zonotope(OTHER, tuple(leaves([host]))).conv2d(WEIGHT, padding=1, consume=True)
        assert not pool.free  # what lay on the host is no memory of the device
    assert numbers.untyped_storage().nbytes() == 0
    rows = torch.cat([piece.dense(image.features) for piece in image.blocks], 1)
    assert torch.equal(rows, expected.blocks[0].dense(image.features))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_in_place_gives_up_what_no_part_of_it_lies_in(kind: str) -> None:
    there, host = hosted(kind, Symbols(9))
    first, *others = there.symbols.cut(4)
    term, other = hosted(kind, first)
    expected = there.dense(FEATURES).clone()
    expected[:, :4] += term.dense(FEATURES)
    with memory.recycled() as pool, torch.no_grad():
        pool.keeps_on_host = True
        total = Zonotope(OTHER, (host,)).add(Zonotope(OTHER, (other,)), in_place=True)
        assert [piece.symbols for piece in total.blocks] == [first, *others]
        assert torch.equal(torch.cat([piece.dense(FEATURES) for piece in total.blocks], 1), expected)
    assert other.block.tensors[0].untyped_storage().nbytes() == 0
    assert host.block.tensors[0].untyped_storage().nbytes() > 0  # two parts of the sum lie there
