"""Constants of random modules are where their operators say, under every reading of their numbers."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor, nn

from tests.fuzz.bounded import fuzz
from tests.importers.module_programs import TYPES, default_dtype, faults, operators, random_programs
from tests.thorough import few
from zonocuda.importers.aten import constants as aten_constants
from zonocuda.importers.constants import rules as constant_rules


@pytest.mark.parametrize(("default", "out"), few(3, itertools.product(TYPES, (torch.float32, torch.float64))))
def test_constants_of_random_modules_are_where_their_operators_say(default: torch.dtype, out: torch.dtype) -> None:
    with default_dtype(default):
        wrong, compared = faults(random_programs(100 * TYPES.index(default), out, 10))
    assert not wrong, wrong[0]
    assert compared >= 8


def test_a_bounded_run_of_the_fuzzer_finds_nothing() -> None:
    """A failure names the command that replays it."""
    assert "folding: " in fuzz("folding")


class _Everything(nn.Module):
    """Every operator that the random modules are made of, on the same vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([0.1, 0.7, 1.3, 2.1])), nn.Parameter(torch.tensor([1.0, 3, 2, 5]))

    def forward(self, x: Tensor) -> Tensor:
        for seed in range(3):
            for own, _ in operators(random.Random(seed)).values():
                x = x + own(*(self.a, self.b)[: own.__code__.co_argcount])
        return x


def test_random_modules_have_every_operator_that_computes_contracts_or_selects() -> None:
    """Of operators with one rule, one of each rule."""
    program = torch.export.export(_Everything(), (torch.zeros(2, 4),), strict=False).run_decompositions({})
    met = {str(node.target).removeprefix("aten.") for node in program.graph_module.graph.nodes}
    rules = {**constant_rules.ARITHMETIC, **constant_rules.CONTRACTIONS}
    assert {rules[name] for name in met & rules.keys()} == set(rules.values())
    selecting = {name.split(".")[0] for name in aten_constants.SELECTING}
    assert selecting <= {name.split(".")[0] for name in met} | {"amin"}
