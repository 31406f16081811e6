"""Blocks: generators that share a group of symbols, stored as their structure allows.

A block stands for K generators over the features of a zonotope, one for each symbol of its group; symbol k of a group
is generator k of every block of that group, so adding blocks of one group is exact.

Every kind of block defines ``kind``, ``symbols``, ``tensors``, ``check``, ``add_radius``, ``scale``, ``dense`` and
``narrow``. What a layer makes of a block is in :mod:`zonocuda.domains.maps`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from zonocuda.domains import memory
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.hosted import Hosted, Stored, fetched, kept, run_of
from zonocuda.domains.symbols import Symbols
from zonocuda.domains.windowed import Windowed, add_windows

Block = Stored | Hosted


def add_blocks(a: Stored, b: Stored, features: tuple[int, ...], in_place: bool = False) -> Stored:
    """The sum of two blocks of one group of symbols over the same features.

    Diagonal blocks on the same features stay diagonal, windows on the same map (and diagonal blocks with them) stay
    windows while their hull is narrow, all others become dense. ``in_place`` may overwrite both.

    Raises:
        ValueError: blocks of different groups.
    """
    if a.symbols is not b.symbols:
        raise ValueError(f"add_blocks: different symbols {a.symbols} and {b.symbols}")
    if isinstance(a, Diagonal) and isinstance(b, Diagonal) and torch.equal(a.index, b.index):
        return Diagonal(a.symbols, a.coefficients + b.coefficients, a.index)
    if isinstance(b, Dense) and not isinstance(a, Dense):
        a, b = b, a
    x, y = (as_windows(block, features) for block in (a, b))
    if x is not None and y is not None and (x.map, x.order) == (y.map, y.order):
        summed = add_windows(x, y)
        total: Stored = summed.reshape(features) if isinstance(summed, Dense) else summed
        return _consumed(total, (a, b)) if in_place else total
    if isinstance(a, Dense):
        total = a.plus(b.dense(features), in_place)
        return _consumed(total, (b,)) if in_place else total
    total = Dense(a.symbols, a.dense(features)).plus(b.dense(features), not torch.is_grad_enabled())
    return _consumed(total, (a, b)) if in_place else total


def sums(a: Iterable[Block], b: Iterable[Block], features: tuple[int, ...], in_place: bool) -> tuple[Block, ...]:
    """The blocks of a sum: what both share is added, what only one has stays; ``in_place`` may overwrite both."""
    ours = leaves(a)
    theirs = {id(block.symbols): block for block in leaves(b)}
    holders = Holders([*ours, *theirs.values()])
    blocks: list[Block] = []
    for block in ours:
        match = theirs.pop(id(block.symbols), None)
        if match is None:
            blocks.append(block)
            continue
        hosted = [term for term in (block, match) if isinstance(term, Hosted)]
        own = in_place or (len(hosted) == 2 and not torch.is_grad_enabled())  # what was fetched is a copy
        blocks.append(kept(add_blocks(fetched(block), fetched(match), features, own)))
        for term in hosted if in_place else ():
            holders.release(term)
    return (*blocks, *theirs.values())


def _consumed(total: Stored, terms: Iterable[Stored]) -> Stored:
    """``total``, after the memory of the ``terms`` that it was made of, and does not lie in, was given up."""
    kept = {id(tensor) for tensor in total.tensors}
    release_blocks(term for term in terms if not any(id(tensor) in kept for tensor in term.tensors))
    return total


def as_windows(block: Stored, features: tuple[int, ...]) -> Windowed | None:
    """A windowed or diagonal block as windows; None where the features of a diagonal one are no map."""
    if isinstance(block, Diagonal):
        return block.windowed((features[0], features[1], features[2])) if len(features) == 3 else None
    return block if isinstance(block, Windowed) else None


def leaves(blocks: Iterable[Block]) -> list[Block]:
    """The blocks, each whose symbols were cut as one block for each part."""
    result: list[Block] = []
    for block in blocks:
        if block.symbols.parts is None:
            result.append(block)
        else:
            result += leaves(block.narrow(part.offset, part) for part in block.symbols.parts)
    return result


def pieces(block: Block) -> list[Block]:
    """The leaves of one block, in its own memory: to look at."""
    if block.symbols.parts is None:
        return [block]
    return [piece for part in block.symbols.parts for piece in pieces(_view(block, part))]


def _view(block: Block, part: Symbols) -> Block:
    return run_of(block, part.offset, part) if isinstance(block, Dense | Windowed) else block.narrow(part.offset, part)


def present(block: Block) -> Stored:
    """The block, or the one that a block in host memory stands for, its numbers there."""
    return block.block if isinstance(block, Hosted) else block


def storage_of(tensor: Tensor) -> int:
    """A name of the storage that a tensor lies in, for as long as that is in use."""
    return tensor.untyped_storage().data_ptr()


class Holders:
    """How many of some blocks lie in each storage: the parts of a block that was cut in host memory share one.

    Those that stay beyond the others' last use are counted in and never leave.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._count = Counter(storage_of(tensor) for block in blocks for tensor in present(block).tensors)

    def leave(self, block: Block) -> bool:
        """Notes that a block is needed no more; true where its memory is free now."""
        places = {storage_of(tensor) for tensor in present(block).tensors}
        self._count.subtract(places)
        return not any(self._count[place] for place in places)

    def release(self, block: Block) -> None:
        """Notes that a block is needed no more, and gives its memory up where no other of them lies in it."""
        if self.leave(block):
            release_blocks([block])


def release_blocks(blocks: Iterable[Block]) -> None:
    """Gives up the storage of dense and windowed blocks, on a device or its host, that nobody may use any more."""
    for block in blocks:
        if isinstance(block, Hosted):
            block.release()
        if isinstance(block, Dense | Windowed):
            for tensor in block.tensors:
                memory.release(tensor)
