"""Blocks of generators against their definition: the dense generator matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zonocuda.domains import Dense, Diagonal, Symbols, use_backend
from zonocuda.domains.blocks import add_blocks

FEATURES = (2, 3)
Map = Callable[[Tensor], Tensor]
DTYPES = (torch.float64, torch.float32)


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def diagonal(dtype: torch.dtype = torch.float64) -> Diagonal:
    """Four symbols on six features, in no order, for a batch of two."""
    return Diagonal(Symbols(4), torch.randn(2, 4, dtype=dtype), torch.tensor([5, 0, 3, 2]))


def by_hand(block: Diagonal) -> Tensor:
    """The generators of a diagonal block, by its definition."""
    rows = torch.zeros(2, 4, 6, dtype=block.coefficients.dtype)
    for k, feature in enumerate(block.index.tolist()):
        rows[:, k, feature] = block.coefficients[:, k]
    return rows.reshape(2, 4, *FEATURES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_diagonal_block_is_its_dense_matrix(backend: str, dtype: torch.dtype) -> None:
    block = diagonal(dtype)
    center = torch.zeros(2, *FEATURES, dtype=dtype)
    with use_backend(backend):
        assert torch.equal(block.dense(FEATURES), by_hand(block))
        assert torch.equal(block.add_radius(center), by_hand(block).abs().sum(1))  # one nonzero in every sum


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_radius_of_a_dense_block_is_the_sum_of_magnitudes(backend: str, dtype: torch.dtype) -> None:
    generators = torch.randint(-8, 9, (2, 5, *FEATURES)).to(dtype)  # integers: exact in every order of summation
    with use_backend(backend):
        radius = Dense(Symbols(5), generators).add_radius(torch.zeros(2, *FEATURES, dtype=dtype))
    assert torch.equal(radius, generators.abs().sum(1))


def test_scaling_scales_every_generator_of_both_kinds(backend: str) -> None:
    multiplier = torch.randn(2, *FEATURES, dtype=torch.float64)
    block = diagonal()
    with use_backend(backend):
        scaled = block.scale(multiplier)
        dense = Dense(block.symbols, by_hand(block)).scale(multiplier)
        assert isinstance(scaled, Diagonal)
        assert torch.equal(scaled.dense(FEATURES), by_hand(block) * multiplier.unsqueeze(1))
        assert torch.equal(dense.generators, by_hand(block) * multiplier.unsqueeze(1))
    assert scaled.symbols is block.symbols
    assert dense.symbols is block.symbols


def test_a_diagonal_block_times_a_matrix_is_the_product_of_its_dense_form(backend: str) -> None:
    block, weight = diagonal(), torch.randn(5, 6, dtype=torch.float64)
    with use_backend(backend):
        image = block.linear(weight)
    assert torch.equal(image.generators, by_hand(block).flatten(2) @ weight.T)  # one product in every sum
    assert image.symbols is block.symbols


def test_adding_blocks_of_one_group_adds_generator_by_generator(backend: str) -> None:
    one, group = diagonal(), Symbols(4)
    same_place = Diagonal(one.symbols, torch.randn(2, 4, dtype=torch.float64), one.index)
    elsewhere = Diagonal(one.symbols, torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 5, 3, 2]))
    full = Dense(one.symbols, torch.randn(2, 4, *FEATURES, dtype=torch.float64))
    with use_backend(backend):
        for other, kind in ((same_place, Diagonal), (elsewhere, Dense), (full, Dense)):
            total = add_blocks(one, other, FEATURES)
            assert isinstance(total, kind)
            assert torch.equal(total.dense(FEATURES), one.dense(FEATURES) + other.dense(FEATURES))
        with pytest.raises(ValueError, match="different symbols"):
            add_blocks(one, Diagonal(group, one.coefficients, one.index), FEATURES)


@pytest.mark.parametrize(
    ("move", "out"),
    [
        (lambda x: x.reshape(x.shape[0], 3, 2), (3, 2)),
        (lambda x: x.transpose(1, 2), (3, 2)),
        (lambda x: torch.nn.functional.pad(x, (1, 0, 0, 2)), (4, 4)),
        (lambda x: x.flip(2).reshape(x.shape[0], 6, 1), (6, 1)),
    ],
    ids=["reshape", "permute", "pad", "flip"],
)
def test_a_map_that_moves_features_keeps_a_block_diagonal_and_drops_nothing(move: Map, out: tuple[int, ...]) -> None:
    block = diagonal()
    moved = block.rearrange(move, FEATURES)
    assert isinstance(moved, Diagonal)
    assert moved.symbols is block.symbols
    assert torch.equal(moved.dense(out), move(by_hand(block).flatten(0, 1)).unflatten(0, (2, 4)))


def test_a_map_that_drops_a_feature_with_a_symbol_is_no_rearrangement() -> None:
    block = diagonal()  # features 1 and 4 have no symbol
    assert block.rearrange(lambda x: x.flatten(1)[:, :5], FEATURES) is None
    kept = block.rearrange(lambda x: x.flatten(1)[:, [0, 2, 3, 5]], FEATURES)
    assert kept is not None
    assert torch.equal(kept.dense((4,)), by_hand(block).flatten(2)[:, :, [0, 2, 3, 5]])


def test_fresh_symbols_go_to_features_that_are_not_zero_in_every_element() -> None:
    values = torch.tensor([[0.0, 1.0, 0.0, torch.nan], [0.0, 0.0, -2.0, 0.0]])
    block = Diagonal.of(values)
    assert block.index.tolist() == [1, 2, 3]
    assert torch.equal(block.coefficients[1], torch.tensor([0.0, -2.0, 0.0]))
    assert bool(block.coefficients[0, 2].isnan())
    assert Diagonal.of(values).symbols is not block.symbols


def test_blocks_without_symbols_have_zero_radius(backend: str) -> None:
    center = torch.zeros(2, *FEATURES, dtype=torch.float64)
    empty = Diagonal.of(center)
    with use_backend(backend):
        assert empty.symbols.count == 0
        assert empty.dense(FEATURES).shape == (2, 0, *FEATURES)
        for block in (empty, empty.scale(center + 2), Dense(empty.symbols, empty.dense(FEATURES))):
            assert torch.equal(block.add_radius(center), center)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(Symbols(3), torch.zeros(2, 4, 5)), r"\[batch, 3, \*features\], got \[2, 4, 5\]"),
        (lambda: Dense(Symbols(3), torch.zeros(3)), "Dense: generators must have shape"),
        (lambda: Diagonal(Symbols(3), torch.zeros(2, 3), torch.arange(2)), r"index \[3\]"),
        (
            lambda: Diagonal(Symbols(3), torch.zeros(2, 2), torch.arange(3)),
            r"coefficients must have shape \[batch, 3\]",
        ),
    ],
)
def test_generators_that_do_not_fit_their_symbols_are_an_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
