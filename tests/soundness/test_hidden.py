"""No network that hides a neuron behind rounding is verified wrongly, at any effort and in either direction."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.soundness.hidden import FAMILIES
from tests.thorough import THOROUGH
from zonocuda.precision import check_arithmetic
from zonocuda.verifier import Verdict, verify

DTYPES = (torch.float32, torch.float64)
WAYS: list[Any] = list(itertools.product(DTYPES, ("fast", "standard", "max"), ("forward", "dual")))
"""The dtype of the bounds, the effort and the direction."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("prover_only")
def test_a_hidden_violation_is_never_verified(family: str, dtype: torch.dtype) -> None:
    """Hidden from ``dtype``, bounded in it and in the other one, in every way, of which each network has a third."""
    for seed in range(6):
        hidden = FAMILIES[family](dtype, seed)
        problem = hidden.spec()
        for bounded_in, effort, direction in WAYS if THOROUGH else WAYS[seed % 3 :: 3]:
            result = verify(hidden.graph, problem, dtype=bounded_in, effort=effort, direction=direction)
            assert result.verdict is Verdict.UNKNOWN, (seed, bounded_in, effort, direction)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_hidden_is_lost_in_some_execution(family: str, dtype: torch.dtype) -> None:
    """As executed in ``dtype`` the point is no counterexample, for some seed: the networks do hide something."""
    lost = 0
    for seed in range(6):
        hidden = FAMILIES[family](dtype, seed)
        y = hidden.graph.to(dtype)(hidden.x.to(dtype).unsqueeze(0)).flatten().tolist()
        lost += not hidden.row.holds(hidden.x.tolist(), y)
    assert lost > 0


def test_subnormal_numbers_flushed_to_zero_are_refused() -> None:
    hidden = FAMILIES["absorption"](torch.float64, 0)
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(ValueError, match="flushed to zero"):
            verify(hidden.graph, hidden.spec())
    finally:
        torch.set_flush_denormal(False)
    check_arithmetic(torch.device("cpu"))
