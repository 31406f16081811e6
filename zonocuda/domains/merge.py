"""Fewer symbols for less memory: the least harmful ones become one error for each feature."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from zonocuda.domains import hosted, memory
from zonocuda.domains.blocks import Block, Holders
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal, flat_features
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed
from zonocuda.domains.zonotope import Zonotope


def merge_symbols(zonotope: Zonotope, count: int, consume: bool = False) -> Zonotope:
    """A zonotope around the given one in which ``count`` symbols of its dense and windowed blocks are merged.

    Symbols with the smallest sum_n |G_kn| go: their generators are replaced by one fresh symbol for each feature n,
    with the coefficient sum_k |G_kn| over those that went (Girard 2005). The symbols that stay are fresh too: a
    zonotope that was computed from the same symbols no longer cancels with this one, and nothing that it shares with
    others is changed.

    Args:
        zonotope: the zonotope to reduce.
        count: how many symbols to merge.
        consume: the memory of its generators is free for the result.

    Raises:
        ValueError: fewer such symbols than ``count``, or symbols that are shared out over ranks.
    """
    if zonotope.ranks is not None:
        raise ValueError("merge_symbols: what one rank merges of its share, the others would not know of")
    stored = [block for block in zonotope.blocks if not isinstance(block, Diagonal)]  # on a device or its host
    available = sum(block.symbols.count for block in stored)
    if not 0 <= count <= available:
        raise ValueError(f"merge_symbols: cannot merge {count} of {available} symbols")
    scores = torch.cat([_scores(hosted.fetched(block)) for block in stored]) if stored else zonotope.center.new_zeros(0)
    gone = torch.zeros(available, dtype=torch.bool, device=scores.device)
    gone[scores.argsort(stable=True)[:count]] = True
    blocks: list[Block] = [block for block in zonotope.blocks if isinstance(block, Diagonal)]
    radius = torch.zeros_like(zonotope.center)
    holders = Holders(stored)
    for block, leaves in zip(stored, torch.split(gone, [block.symbols.count for block in stored]), strict=True):
        merged, kept = leaves.nonzero().squeeze(1), (~leaves).nonzero().squeeze(1)
        present: Dense | Windowed = hosted.fetched(block)
        step = memory.chunk_length(present.tensors[0].nbytes // max(1, block.symbols.count), zonotope.center.device)
        for run in torch.split(merged, step):
            radius = _take(present, run).add_radius(radius)
        blocks.append(hosted.kept(_take(present, kept)))
        del present
        if consume:
            holders.release(block)
    flat = flat_features(radius)
    index = (flat != 0).any(0).nonzero().squeeze(1)
    return Zonotope(zonotope.center, (*blocks, Diagonal(Symbols(len(index), "merged"), flat[:, index], index)))


def _scores(block: Dense | Windowed) -> Tensor:
    """sum_n |G_kn| ``[K]``, the largest over the batch; NaN counts as infinite."""
    (numbers,) = block.tensors
    rows = numbers.flatten(2) if numbers.dim() > 2 else numbers.unsqueeze(2)
    scores: Tensor = torch.linalg.vector_norm(rows, 1, dim=2).amax(0)
    return scores.nan_to_num(nan=torch.inf)


def _take(block: Dense | Windowed, index: Tensor) -> Dense | Windowed:
    """The generators of some symbols, as a block of fresh ones."""
    symbols = Symbols(len(index), block.symbols.origin)
    if isinstance(block, Dense):
        return Dense(symbols, block.generators[:, index])
    return replace(block, symbols=symbols, patches=block.patches[:, index], corners=block.corners[index])
