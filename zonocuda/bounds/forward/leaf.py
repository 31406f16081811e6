"""Zonotopes of one block as leaves of autograd."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from zonocuda.domains import Block, Dense, Diagonal, Windowed, Zonotope
from zonocuda.domains.hosted import fetched


def with_numbers(block: Block, numbers: Tensor) -> Block:
    """The block with other numbers (see ``tensors``) in the same places."""
    match fetched(block):
        case Dense() as dense:
            return replace(dense, generators=numbers)
        case Diagonal() as diagonal:
            return replace(diagonal, coefficients=numbers)
        case Windowed() as windowed:
            return replace(windowed, patches=numbers)


def with_leaf(value: Zonotope) -> tuple[Tensor | None, Zonotope]:
    """A value whose generators, if it has any, are a new leaf of autograd."""
    if not value.blocks:
        return None, value
    (block,) = value.blocks
    leaf = block.tensors[0].detach().requires_grad_()
    return leaf, replace(value, blocks=(with_numbers(block, leaf),))


def detached(value: Zonotope) -> Zonotope:
    """A value without what autograd knows of it."""
    return replace(value, blocks=tuple(with_numbers(block, block.tensors[0].detach()) for block in value.blocks))
