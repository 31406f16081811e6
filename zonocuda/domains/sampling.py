"""Points of zonotopes: values of their symbols, and which block they are meant for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zonocuda.domains.symbols import Symbols

if TYPE_CHECKING:
    from zonocuda.domains.zonotope import Zonotope


def draw(zonotope: Zonotope, n: int, generator: torch.Generator | None) -> dict[Symbols, Tensor]:
    """``n`` random values ``[n, B, K]`` in [-1, 1] for every group of symbols; every second draw is a vertex."""
    center, draws = zonotope.center, {}
    for block in zonotope.blocks:
        shape = (n, len(center), block.symbols.count)
        eps = torch.rand(shape, dtype=center.dtype, device=center.device, generator=generator) * 2 - 1
        eps[::2] = torch.where(eps[::2] < 0, -1.0, 1.0).to(eps.dtype)
        draws[block.symbols] = eps
    return draws


def values(noise: Mapping[Symbols, Tensor], symbols: Symbols) -> Tensor:
    """The values ``[n, B, K]`` of a group, of a part of a group that was cut, or of a group from those of its parts."""
    if symbols in noise:
        return noise[symbols]
    if symbols.parts and all(_has_values(noise, part) for part in symbols.parts):
        return torch.cat([values(noise, part) for part in symbols.parts], -1)
    if symbols.parent is None:
        return noise[symbols]
    return values(noise, symbols.parent)[..., symbols.offset : symbols.offset + symbols.count]


def _has_values(noise: Mapping[Symbols, Tensor], symbols: Symbols) -> bool:
    """Whether a group, or every part of it, has values."""
    return symbols in noise or (bool(symbols.parts) and all(_has_values(noise, part) for part in symbols.parts or ()))
