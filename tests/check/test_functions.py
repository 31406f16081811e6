"""The checker's smooth functions: how they bend, and bounds of f(x) - s x, against power series and values in balls."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from flint import arb, arb_series

from tests.relaxations.functions import CASES, Case, intervals, sampled, slopes
from zonocuda.checker.arithmetic import ONE, precisely
from zonocuda.checker.functions import SEAM, Piece, each, function_of, least, most
from zonocuda.graph import Elementary

FAR = 40.0
ENDS = {"sin": 8.0, "cos": 8.0, "gelu_tanh": 20.0, "softplus": 3.0}
"""Of softplus, whose power series cancels, f'' = g (1 - g) says it everywhere."""
NEAR = 2.0**-30
"""About a break that is exact, where f'' is 0: there f''' tells."""


def coefficient(piece: Piece, low: float, high: float, number: int) -> arb:
    """A coefficient of the power series at every point of [low, high]."""
    try:
        found = piece.value(arb_series([arb(low).union(arb(high)), ONE], number + 1))
    except ValueError:  # a divisor may be 0
        return arb("nan")
    return found[number] if isinstance(found, arb_series) else arb(0)


def undecided(piece: Piece, low: float, high: float) -> Iterator[tuple[float, float]]:
    """Parts of [low, high], each very short, where f'' is not seen to have the sign of the bend."""
    pending = [(low, high)]
    while pending:
        a, b = pending.pop()
        bent = coefficient(piece, a, b, 2)
        if bent.is_zero() if piece.bend == 0 else bool(bent * piece.bend > 0):
            continue
        if b - a < 2.0**-50:
            yield a, b
        else:
            middle = a / 2 + b / 2
            pending += [(a, middle), (middle, b)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_functions_bend_as_their_pieces_say(case: Case) -> None:
    end = ENDS.get(case.function, FAR)
    low, high = max(-end, case.least + NEAR), min(end, case.most - NEAR)
    reached = low
    with precisely():
        for piece in function_of(case.op).pieces(low, high):
            a, b = max(piece.first, low), min(piece.last, high)
            if a > b:
                continue
            assert a <= reached, "pieces lie side by side"
            reached = b
            if piece.bend is None:
                assert b - a <= 2.1 * SEAM
                continue
            for first, last in undecided(piece, a, b):
                assert -NEAR <= first <= last <= NEAR, "f'' is 0 at 0 alone"
                assert 0 in (a, b) or case.function == "power"
                third = coefficient(piece, -NEAR, NEAR, 3)
                assert bool(third * piece.bend * (1 if a == 0 else -1) >= 0) or case.function == "power"
    assert reached == high


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lines_enclose_the_function_and_touch_it(case: Case) -> None:
    lower, upper = intervals(case, torch.float64, 6, seed=5)
    for slope in slopes(case, lower, upper, seed=5).values():
        points, _, _ = sampled(case, lower, upper, slope, count=65)
        with precisely():
            bounds = [each(bound, case.op, slope.numpy(), lower.numpy(), upper.numpy()) for bound in (least, most)]
        for i, (s, d, e) in enumerate(zip(slope.tolist(), *(b.tolist() for b in bounds), strict=True)):
            assert d <= e
            rest = [case.exact(x) - arb(s) * arb(x) for x in points[:, i].tolist()]
            lowest, highest = min(rest, key=lambda v: v.mid()), max(rest, key=lambda v: v.mid())
            assert not arb(d) > lowest, f"{case} on [{lower[i]}, {upper[i]}]"
            assert not arb(e) < highest, f"{case} on [{lower[i]}, {upper[i]}]"
            if upper[i] - lower[i] < 100:
                size = max(abs(float(lowest)), abs(float(highest)), abs(s * float(upper[i])), 1e-300)
                room = 1e-2 * float(highest - lowest) + 1e-12 * size + 1e-29
                assert arb(d) >= lowest - room, f"{case} on [{lower[i]}, {upper[i]}]"
                assert arb(e) <= highest + room, f"{case} on [{lower[i]}, {upper[i]}]"


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        ("log", -1.0, 1.0),
        ("log", 0.0, 1.0),
        ("sqrt", -1e-300, 1.0),
        ("reciprocal", -1.0, 1.0),
        ("reciprocal", 0.0, 1.0),
        ("rsqrt", 0.0, 1.0),
        ("tanh", math.nan, 1.0),
        ("exp", 0.0, math.inf),
        ("exp", 1.0, 0.0),
        ("power", -math.inf, 0.0),
        ("exp", 1e300, 2e300),
        ("softplus", 1e300, 2e300),
    ],
)
def test_nothing_is_known_where_a_function_is_not_finite(function: str, low: float, high: float) -> None:
    op = Elementary(function, 2.0)  # type: ignore[arg-type]
    with precisely():
        for slope in (0.0, 0.5):
            assert (least(op, slope, low, high), most(op, slope, low, high)) == (-math.inf, math.inf)
        assert (least(op, math.nan, 0.5, 1.0), most(op, math.inf, 0.5, 1.0)) == (-math.inf, math.inf)


def test_values_of_functions_with_limits_lie_between_them_whatever_the_interval() -> None:
    with precisely():
        for function, ends in (("tanh", (-1, 1)), ("sigmoid", (0, 1)), ("sin", (-1, 1))):
            op = Elementary(function)  # type: ignore[arg-type]
            for low, high in ((-math.inf, math.inf), (-1e300, 1e300), (1e12, 1e13)):
                found = least(op, 0.0, low, high), most(op, 0.0, low, high)
                assert ends[0] <= found[0] <= found[1] <= ends[1]


def test_a_function_that_is_not_known_is_refused() -> None:
    for op in (Elementary("erfc"), Elementary("power", 1.5), Elementary("elu", -1.0)):
        with pytest.raises(NotImplementedError, match="zonocuda check"):
            each(least, op, 0.0, np.zeros(1), np.ones(1))
