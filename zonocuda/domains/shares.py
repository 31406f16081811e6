"""Blocks whose symbols are shared out over ranks: what all ranks' blocks are together.

A block of a share (:meth:`zonocuda.domains.Symbols.share`) holds one rank's generators; other blocks are the same on
every rank. So a sum over generators is the sum over ranks of that over shares, and what is not shared, once.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from zonocuda.domains.blocks import Block
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.symbols import Symbols
from zonocuda.ranks import Ranks


def ranks_of(blocks: Sequence[Block]) -> Ranks | None:
    """The ranks that symbols are shared out over, if they are.

    Raises:
        ValueError: there are several.
    """
    found = {block.symbols.ranks for block in blocks} - {None}
    if len(found) > 1:
        raise ValueError("Zonotope: its symbols are shared out over different ranks")
    return next(iter(found), None)


def share_of(block: Block, ranks: Ranks) -> Block:
    """This rank's run of a block's symbols; the block itself where it is that already."""
    if block.symbols.ranks is not None:
        return block
    share = block.symbols.share(ranks)
    return block.narrow(share.offset, share)


def kinds(blocks: Sequence[Block]) -> dict[str, int]:
    """How many symbols all ranks have together, by the kind of block that they have on this one."""
    found: dict[str, int] = {}
    for block, count in _counts(blocks):
        found[block.kind] = found.get(block.kind, 0) + count
    return found


def _counts(blocks: Sequence[Block]) -> list[tuple[Block, int]]:
    """The number of each block's symbols; a group that is shared out counts as a whole, once."""
    groups: set[Symbols] = set()
    found = []
    for block in blocks:
        whole = block.symbols.whole
        if block.symbols.ranks is None:
            found.append((block, block.symbols.count))
        elif whole not in groups:
            groups.add(whole)
            found.append((block, whole.count))
    return found


def radius_terms(blocks: Sequence[Block]) -> int:
    """At least how many terms are added up in an entry of :func:`add_radius`.

    Over ranks, too: the sum of a rank with K symbols has K terms, and that of one without adds an exact 0.
    """
    terms = 0
    for block, count in _counts(blocks):
        alone = isinstance(block, Diagonal) and block.symbols.ranks is None  # another rank may have it dense
        terms += 1 if alone else count
    return terms


def add_radius(zeros: Tensor, blocks: Sequence[Block]) -> Tensor:
    """sum_k |G_k| over the blocks of all ranks, ``[B, *features]``, a collective where there are shares."""
    radius, ranks = zeros, ranks_of(blocks)
    if ranks is not None:
        for block in blocks:
            radius = radius if block.symbols.ranks is None else block.add_radius(radius)
        radius = ranks.sum(radius)
    for block in blocks:
        radius = block.add_radius(radius) if block.symbols.ranks is None else radius
    return radius
