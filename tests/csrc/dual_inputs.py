"""Rows, bounds and slopes for the kernels of dual_relu and dual_split."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import Plan
from tests.csrc.compare import normal

Slopes = tuple[Tensor | None, Tensor | None]
CHOICES = ("tied", "shared", "rows", "tied+shared", "tied+rows", "shared+rows", "rows+shared")
DUAL_PART, DUAL_SEGMENT, DUAL_SUMS, DUAL_ROWS = 1024, 64, 6, 16  # constants of csrc/cuda/dual_relu.cuh
# One entry; rows and neurons that divide nothing; a warp and a bit, by loops of one block. Then several parts of the
# features, and several segments of the rows, looped over or not.
SMALL = [(1, 1, 1, False), (2, 5, 7, False), (1, 3, 300, False), (2, 9, 33, True)]
PARTS = [(1, 3, 2500, False), (2, 2, 1030, True)]
SEGMENTS = [(1, 130, 33, False), (2, 65, 5, True)]


def each_size_and_choice(large: list[tuple[int, int, int, bool]]) -> pytest.MarkDecorator:
    """All choices on small sizes, and some on large ones."""
    cases = [*itertools.product(SMALL, CHOICES), *itertools.product(large, ("tied", "shared+rows"))]
    return pytest.mark.parametrize(("sizes", "choice"), cases, ids=str)


def inputs(sizes: tuple[int, int, int, bool], choice: str, dtype: torch.dtype) -> tuple[list[Tensor], Slopes, Plan]:
    """v, l and u with dead, active and crossing neurons in turn, and slopes for the signs."""
    batch, rows, features, one_block = sizes
    v = normal(batch, rows, features, dtype=dtype)
    kind = torch.arange(batch * features).reshape(batch, features) % 3
    center = torch.tensor([0.1, -2.0, 2.0], dtype=dtype)[kind]
    radius = 0.5 + normal(batch, features, dtype=dtype, seed=1).sigmoid()

    def slope(which: str, seed: int) -> Tensor | None:
        if which == "tied":
            return None
        count = rows if which == "rows" else 1
        return normal(batch, count, features, dtype=dtype, seed=seed).sigmoid()

    first, _, second = choice.partition("+")
    slopes = slope(first, 2), slope(second, 3) if second else None
    return [v, center - radius, center + radius], slopes, Plan(one_block=one_block)


def integers(v: Tensor, slopes: Slopes) -> list[int]:
    """Sizes, which slopes are per row, and whether the first ones serve both signs."""
    per_row = [int(s is not None and s.shape[1] > 1) for s in slopes]
    return [*v.shape, *per_row, int(slopes[1] is None)]
