"""Windowed blocks of whole numbers, and their definition in loops.

Whole numbers add and multiply exactly in any order, so that what is equal is equal bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from zonocuda.domains import Symbols, Windowed
from zonocuda.domains.windowed import CHANNELS_FIRST, Order

ORDERS = tuple(itertools.permutations(range(3)))


def whole(*shape: int, high: int = 4) -> Tensor:
    """Whole numbers from -high to high, in float64, from torch's default generator."""
    return torch.randint(-high, high + 1, shape).double()


def inside(block: Windowed) -> Tensor:
    """``[K, h, w]``, whether an entry of a window lies on the map."""
    flags = torch.zeros(block.symbols.count, *block.window, dtype=torch.bool)
    for k, (patch, _) in enumerate(_places(block)):
        flags[k][patch] = True
    return flags


def _places(block: Windowed) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For every symbol, the part of its patch that lies on the map, and where it lies."""
    for corner in block.corners.tolist():
        patch, place = [], []
        for begin, length, limit in zip(corner, block.window, block.size, strict=True):
            first, end = max(begin, 0), max(min(begin + length, limit), max(begin, 0))
            patch.append(slice(first - begin, end - begin))
            place.append(slice(first, end))
        yield (patch[0], patch[1]), (place[0], place[1])


def windows(
    channels: int = 3,
    size: tuple[int, int] = (5, 6),
    window: tuple[int, int] = (3, 2),
    count: int = 12,
    batch: int = 2,
    order: Order = CHANNELS_FIRST,
) -> Windowed:
    """Random patches anywhere on the map and over every border of it, zero outside."""
    corners = torch.stack([torch.randint(1 - m, n, (count,)) for n, m in zip(size, window, strict=True)], 1)
    block = Windowed(Symbols(count), whole(batch, count, channels, *window), corners, size, order)
    block.patches.mul_(inside(block).unsqueeze(1))
    return block


def on_map(block: Windowed) -> Tensor:
    """``[B, K, C, height, width]``: the generators on their map, by definition."""
    dense = block.patches.new_zeros(*block.patches.shape[:3], *block.size)
    for k, (patch, place) in enumerate(_places(block)):
        dense[:, k][..., *place] = block.patches[:, k][..., *patch]
    return dense


def by_hand(block: Windowed, *features: int) -> Tensor:
    """``[B, K, *features]``: the generators by definition; features by default those of the permuted map."""
    dense = on_map(block).permute(0, 1, *(d + 2 for d in block.order))
    return dense.reshape(*dense.shape[:2], *(features or dense.shape[2:]))


def zero_outside(block: Windowed) -> bool:
    """Whether every entry outside the map is zero."""
    return not bool(block.patches[:, ~inside(block).unsqueeze(1).expand(block.patches.shape[1:])].any())


def features_of(block: Windowed) -> tuple[int, ...]:
    """The shape of the features that the block belongs to: its map, permuted."""
    shape = tuple(block.map[d] for d in block.order)
    assert prod(shape) == prod(block.map)
    return shape
