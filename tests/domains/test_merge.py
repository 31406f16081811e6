"""Merged symbols: the result encloses what it was made of, and depends on nothing else."""

from __future__ import annotations

import pytest
import torch

from zonocuda.domains import Dense, Diagonal, Symbols, Zonotope
from zonocuda.domains.merge import merge_symbols

SEED = 7


def some_zonotope(batch: int = 2) -> Zonotope:
    """Two dense blocks and a diagonal one over ``[3, 4, 4]``, some of the symbols windowed."""
    g = torch.Generator().manual_seed(SEED)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    image = Zonotope.from_box(rand(batch, 2, 6, 6) - 3, rand(batch, 2, 6, 6) + 3).conv2d(rand(3, 2, 3, 3))
    extra = Dense(Symbols(9), rand(batch, 9, 3, 4, 4))
    return Zonotope(image.center, (*image.blocks, extra, Diagonal.of(rand(batch, 3, 4, 4).abs())))


@pytest.mark.parametrize("count", [0, 1, 40, 81])
def test_a_merged_zonotope_encloses_every_point_of_the_old_one(count: int) -> None:
    old = some_zonotope()
    new = merge_symbols(old, count)
    fresh = new.blocks[-1].symbols
    assert new.symbols == old.symbols - count + fresh.count
    assert (fresh.count > 0) == (count > 0)
    assert fresh.count <= 48
    points = old.sample(50, torch.Generator().manual_seed(SEED))
    lower, upper = new.bounds()
    assert bool((points >= lower - 1e-12).all())
    assert bool((points <= upper + 1e-12).all())
    torch.testing.assert_close(new.radius(), old.radius())  # merging changes no bound, only what follows
    weight = torch.randn(5, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = points.reshape(50, 2, 48) @ weight.T
    lower, upper = new.reshape(48).linear(weight).bounds()
    assert bool((images >= lower - 1e-10).all())
    assert bool((images <= upper + 1e-10).all())


def test_the_symbols_with_the_smallest_sums_go_first() -> None:
    generators = torch.tensor([[[3.0, 0.0], [0.5, -0.5], [0.0, 2.0]]], dtype=torch.float64)
    merged = merge_symbols(Zonotope.from_generators(torch.zeros(1, 2, dtype=torch.float64), generators), 2)
    dense, diagonal = merged.blocks
    assert isinstance(dense, Dense)
    assert torch.equal(dense.generators, generators[:, :1])
    assert isinstance(diagonal, Diagonal)
    assert diagonal.coefficients.tolist() == [[0.5, 2.5]]


def test_other_zonotopes_no_longer_cancel_with_a_merged_one() -> None:
    """One shared new symbol for A = eps_1 and B = -eps_2 would make A + B zero: terms that were merged are fresh."""
    old = some_zonotope()
    merged = merge_symbols(old, 10)
    difference = merged - old
    assert not {id(b.symbols) for b in merged.blocks[1:]} & {id(b.symbols) for b in old.blocks if b.kind != "diagonal"}
    diagonal = next(b for b in old.blocks if b.kind == "diagonal")
    expected = (
        merged.radius() + old.radius() - 2 * diagonal.add_radius(torch.zeros_like(old.center))
    )  # the diagonal block was not touched
    torch.testing.assert_close(difference.radius(), expected)


def test_the_old_zonotope_is_unchanged() -> None:
    old = some_zonotope()
    before = [t.clone() for block in old.blocks for t in block.tensors]
    merge_symbols(old, 30)
    assert all(torch.equal(a, b) for a, b in zip(before, (t for k in old.blocks for t in k.tensors), strict=True))


def test_a_nan_generator_is_kept() -> None:
    generators = torch.tensor([[[torch.nan, 0.0], [1.0, 1.0]]], dtype=torch.float64)
    merged = merge_symbols(Zonotope.from_generators(torch.zeros(1, 2, dtype=torch.float64), generators), 1)
    assert bool(merged.radius()[0, 0].isnan())


def test_more_symbols_than_there_are_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="cannot merge 91 of 81 symbols"):
        merge_symbols(some_zonotope(), 91)
