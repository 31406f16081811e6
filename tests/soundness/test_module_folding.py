"""Proofs are about a module whose constants are computed in real arithmetic, its numbers rounded as torch rounds them.

At a box of one point exact arithmetic knows the output, and a property that it violates by a hair is never verified.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from tests.importers.module_programs import TYPES, default_dtype, nearest
from zonocuda import Spec, Verdict, from_module, verify
from zonocuda.graph import Graph
from zonocuda.specs import Box, LinearConstraint, Region

NUMBERS = [1 / 3, -2 / 7]


class Weighted(nn.Module):
    """A linear layer whose weight is computed from a parameter."""

    def __init__(self, weight: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([NUMBERS], dtype=dtype))
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(self.w))


def point_spec(x: Tensor, sign: int, threshold: Fraction) -> Spec:
    """sign y <= threshold is to be excluded at one point."""
    row = LinearConstraint({0: Fraction(sign)}, {}, -threshold)
    return Spec(2, 1, (Region(Box.from_tensors(x, x), ((row,),)),))


def verdicts(graph: Graph, dtype: torch.dtype, true: Fraction, excess: Fraction) -> list[Verdict]:
    """At the point (1, 1), for both signs: the property is violated by ``excess``, or holds by it where negative."""
    x = torch.ones(2, dtype=dtype)
    return [verify(graph, point_spec(x, sign, sign * true + excess), dtype=torch.float64).verdict for sign in (1, -1)]


def numbers(dtype: torch.dtype) -> list[Fraction]:
    return [Fraction(v) for v in torch.tensor(NUMBERS, dtype=dtype).tolist()]


SCALED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Fraction, Fraction], Fraction]]] = {
    "times": (lambda w: w * 0.1, lambda w, n: w * n),
    "minus": (lambda w: w - 0.1, lambda w, n: w - n),
    "from": (lambda w: 0.1 - w, lambda w, n: n - w),
    "over": (lambda w: w / 0.1, lambda w, n: w / n),
    "alpha": (lambda w: torch.add(w, w, alpha=0.1), lambda w, n: w + n * w),
}


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("default", TYPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_of_a_module_proves_nothing_that_is_false(dtype: torch.dtype, default: torch.dtype) -> None:
    for name, (weight, truth) in SCALED.items():
        with default_dtype(default):
            graph = from_module(Weighted(weight, dtype), (2,))
        number = nearest(Fraction(0.1), dtype)
        true = sum((truth(w, number) for w in numbers(dtype)), Fraction(0))
        assert Verdict.VERIFIED not in verdicts(graph, dtype, true, Fraction(1, 10**17)), name
        assert set(verdicts(graph, dtype, true, Fraction(-1, 10**12))) == {Verdict.VERIFIED}, name


PICKS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int]]] = {
    "max": (lambda t: t.max(1, keepdim=True)[0], (0, 0)),
    "min": (lambda t: t.min(1, keepdim=True)[0], (1, 1)),
    "sort": (lambda t: t.sort(1)[0], (1, 0)),
    "topk": (lambda t: t.topk(1, 1)[0], (0, 0)),
    "median": (lambda t: t.median(1, keepdim=True)[0], (1, 1)),
    "kthvalue": (lambda t: t.kthvalue(2, 1, keepdim=True)[0], (0, 0)),
    "cummax": (lambda t: t.cummax(1)[0], (0, 0)),
    "aminmax": (lambda t: t.aminmax(dim=1, keepdim=True)[1], (0, 0)),
    "amax": (lambda t: t.amax(1, keepdim=True), (0, 0)),
}


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("name", PICKS)
def test_what_is_picked_from_computed_constants_proves_nothing_that_is_false(name: str) -> None:
    """The squares, one of them picked for each weight, times the weights."""
    pick, positions = PICKS[name]
    graph = from_module(Weighted(lambda w: pick(w * w) * w, torch.float32), (2,))
    own = numbers(torch.float32)
    true = sum((own[p] ** 2 * w for p, w in zip(positions, own, strict=True)), Fraction(0))
    assert Verdict.VERIFIED not in verdicts(graph, torch.float32, true, Fraction(1, 10**16))
    assert set(verdicts(graph, torch.float32, true, Fraction(-1, 10**12))) == {Verdict.VERIFIED}
