"""Symbols are known by identity, and a group that was cut into parts still cancels what it shares."""

from __future__ import annotations

import pytest
import torch

from tests.domains.windows import whole
from zonocuda.domains import Dense, Diagonal, Symbols, Windowed, Zonotope
from zonocuda.domains.blocks import Block, leaves

FEATURES = (2, 8, 8)
KINDS = ("dense", "diagonal", "windowed")


def block(kind: str, symbols: Symbols, batch: int = 2) -> Block:
    """A block of that kind of whole numbers, on the features (2, 8, 8)."""
    count = symbols.count
    if kind == "dense":
        return Dense(symbols, whole(batch, count, *FEATURES))
    if kind == "diagonal":
        return Diagonal(symbols, whole(batch, count), torch.randperm(128)[:count])
    return Windowed(symbols, whole(batch, count, 2, 2, 2), torch.randint(0, 7, (count, 2)), (8, 8))


def zonotope(*blocks: Block) -> Zonotope:
    return Zonotope(whole(2, *FEATURES), blocks)


def test_groups_of_one_size_and_origin_are_different_symbols() -> None:
    a, b = Symbols(3, "input"), Symbols(3, "input")
    assert a != b
    assert len({a, b}) == 2
    x, y = zonotope(block("dense", a)), zonotope(block("dense", b))
    assert (x - y).symbols == 6


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (1, 1, [1]), (0, 4, [])]
)
def test_a_group_is_cut_into_consecutive_parts(count: int, size: int, sizes: list[int]) -> None:
    group = Symbols(count, "relu")
    assert group.parts is None
    parts = group.cut(size)
    assert [part.count for part in parts] == sizes
    assert [part.offset for part in parts] == [sum(sizes[:i]) for i in range(len(sizes))]
    assert all(part.parent is group and part.origin == "relu" for part in parts)


def test_a_group_is_cut_once_and_for_all() -> None:
    group = Symbols(7)
    parts = group.cut(3)
    assert group.cut(2) is parts
    assert group.parts is parts


@pytest.mark.parametrize("size", [0, -1])
def test_parts_without_symbols_are_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="at least one symbol"):
        Symbols(3).cut(size)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_block_are_its_generators_in_order(kind: str) -> None:
    whole_block = block(kind, Symbols(7))
    assert leaves([whole_block]) == [whole_block]
    parts = whole_block.symbols.cut(3)
    pieces = leaves([whole_block])
    assert tuple(piece.symbols for piece in pieces) == parts
    assert [piece.kind for piece in pieces] == [kind] * 3
    rows = torch.cat([piece.dense(FEATURES) for piece in pieces], 1)
    assert torch.equal(rows, whole_block.dense(FEATURES))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_tensor_that_was_cut_and_one_that_was_not_add_symbol_by_symbol(kind: str, other: str) -> None:
    group, alone = Symbols(7), Symbols(3)
    whole_one = zonotope(block(kind, group), block("diagonal", alone))
    second = block(other, group)
    noise = {s: (eps * 8).round() / 8 for s, eps in whole_one.noise(5).items()}  # exact in every sum
    expected = whole_one.at(noise), zonotope(second).at(noise)
    group.cut(3)[1].cut(2)  # and one of the parts again
    in_parts = Zonotope(whole_one.center, tuple(leaves(whole_one.blocks)))
    assert [b.symbols.count for b in in_parts.blocks] == [3, 2, 1, 1, 3]
    uncut = zonotope(second)
    for a, b in ((in_parts, uncut), (uncut, in_parts)):
        total = a + b
        assert total.symbols == 10
        assert torch.equal(total.at(noise), a.at(noise) + b.at(noise))
    assert torch.equal(in_parts.at(noise), expected[0])
    assert torch.equal((whole_one - in_parts).radius(), torch.zeros(2, *FEATURES, dtype=torch.float64))
    assert torch.equal((in_parts - whole_one).radius(), torch.zeros(2, *FEATURES, dtype=torch.float64))
    joined = Zonotope.cat([in_parts, uncut], 0)
    assert joined.symbols == 10
    assert torch.equal(joined.at(noise), torch.cat([in_parts.at(noise), uncut.at(noise)], 2))


def test_parts_of_one_branch_do_not_cancel_other_parts() -> None:
    group = Symbols(4)
    x = zonotope(block("dense", group))
    first, second = group.cut(2)
    one, two = (x.blocks[0].narrow(part.offset, part) for part in (first, second))
    assert torch.equal((x - zonotope(one)).radius(), two.dense(FEATURES).abs().sum(1))
    assert (zonotope(one) - zonotope(two)).symbols == 4


def test_what_was_cut_shares_no_memory_with_what_was_not() -> None:
    """A sweep may overwrite the parts while the whole block is still in use."""
    for kind in ("dense", "windowed"):
        uncut = block(kind, Symbols(6))
        kept = uncut.dense(FEATURES).clone()
        uncut.symbols.cut(2)
        for piece in leaves([uncut]):
            for tensor in piece.tensors:
                tensor.fill_(7.0)
        assert torch.equal(uncut.dense(FEATURES), kept)


def test_values_of_symbols_that_are_missing_are_an_error() -> None:
    x = zonotope(block("dense", Symbols(2)))
    with pytest.raises(KeyError):
        x.at({})
