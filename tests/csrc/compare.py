"""Comparison within rounding errors, and the shapes that the kernels are run on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import Plan

DTYPES = [pytest.param(torch.float32, id="float32"), pytest.param(torch.float64, id="float64")]


def gamma(roundings: int, dtype: torch.dtype) -> float:
    """γ_n = n u / (1 - n u), which bounds the relative error of n roundings in a row."""
    unit = torch.finfo(dtype).eps / 2
    return roundings * unit / (1 - roundings * unit)


def assert_within(actual: Tensor, expected: Tensor, magnitude: Tensor | float = 0.0, roundings: int = 0) -> None:
    """NaN and infinities in the same places, and elsewhere a distance of at most 2 γ_n ``magnitude``.

    ``magnitude`` bounds the sum of the absolute values that enter the result, and n = ``roundings`` the operations
    between an input and the result, so that each of the two is within γ_n ``magnitude`` of the exact value. n = 0 asks
    for equal numbers.
    """
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite), f"finite in other places:\n{actual}\n{expected}"
    torch.testing.assert_close(actual[~finite], expected[~finite], rtol=0, atol=0, equal_nan=True)
    bound = torch.as_tensor(2 * gamma(roundings, expected.dtype) * magnitude, dtype=expected.dtype).expand_as(expected)
    excess = (actual - expected).abs()[finite] - bound[finite]
    assert not (excess > 0).any(), f"{int((excess > 0).sum())} of {excess.numel()} too far, by up to {excess.max():.3e}"


@dataclass(frozen=True)
class Case:
    """Generators [B, K, N] and how they are launched."""

    batch: int
    symbols: int
    features: int
    plan: Plan

    def __str__(self) -> str:
        wide, one_block = "-wide" * self.plan.wide, "-one_block" * self.plan.one_block
        return f"{self.batch}x{self.symbols}x{self.features}-splits{self.plan.splits}{wide}{one_block}"


# What each is for: one element; no symbols; more splits than symbols; nothing divides anything; a row of 16 bytes; many
# rows in flight (4 strips of 8) and a rest; several blocks; segments of the symbols, looped over or not; columns, rows
# and neurons looped over by one block.
CASES = [
    Case(1, 1, 1, Plan()),
    Case(1, 0, 5, Plan()),
    Case(2, 0, 8, Plan(wide=True, splits=2, one_block=True)),
    Case(2, 3, 7, Plan(splits=5)),
    Case(3, 37, 33, Plan(one_block=True)),
    Case(3, 37, 33, Plan(splits=3)),
    Case(1, 31, 4, Plan(wide=True)),
    Case(3, 37, 36, Plan(wide=True, splits=2)),
    Case(2, 259, 12, Plan(wide=True, splits=3, one_block=True)),
    Case(2, 777, 5, Plan(splits=2)),
    Case(1, 777, 132, Plan(wide=True, one_block=True)),
    Case(2, 64, 130, Plan(splits=2)),
    Case(5, 33, 128, Plan(wide=True, one_block=True)),
    Case(1, 9, 1027, Plan(one_block=True)),
]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=str)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Standard normal numbers; the same for the same arguments."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
