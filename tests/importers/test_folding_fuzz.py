"""Constants of random modules are where their operators say, under every reading of their numbers."""

from __future__ import annotations

import pytest
import torch

from tests.fuzz.bounded import fuzz
from tests.importers.module_programs import TYPES, default_dtype, faults, random_programs


@pytest.mark.parametrize("out", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", TYPES)
def test_constants_of_random_modules_are_where_their_operators_say(default: torch.dtype, out: torch.dtype) -> None:
    with default_dtype(default):
        wrong, compared = faults(random_programs(100 * TYPES.index(default), out, 10))
    assert not wrong, wrong[0]
    assert compared >= 8


def test_a_bounded_run_of_the_fuzzer_finds_nothing() -> None:
    """A failure names the command that replays it."""
    assert "folding: " in fuzz("folding")
