"""Sign, floor, ceil and round: lines, images and the checker's own bounds, against rationals at every jump."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.relaxations.ways import check_claims
from tests.verifier.exact import STEPS
from tests.verifier.graphs import fc, random_box, residual, sample_box
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.functions import each, least, most
from zonocuda.checker.slopes import by_rule
from zonocuda.graph import Graph, Relu, Staircase
from zonocuda.graph.elementwise import StepName
from zonocuda.relaxations.rule import Lines
from zonocuda.relaxations.steps import DOUBLED, NORMAL, StepRule
from zonocuda.roundoff import unit_roundoff

NAMES: tuple[StepName, ...] = ("sign", "floor", "ceil", "round")
EACH = pytest.mark.parametrize("name", NAMES)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SUBNORMAL = 1e-40
ENDS = [
    -7.5,
    -2.0,
    -1.5,
    -1.0,
    -0.51,
    -0.5,
    -0.25,
    -SUBNORMAL,
    0.0,
    SUBNORMAL,
    0.3,
    0.5,
    1.0,
    1.25,
    1.5,
    2.5,
    3.0,
    9.75,
]


def intervals(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Between all pairs of ends, which are jumps and numbers beside them, and some that are large."""
    near = torch.tensor(ENDS, dtype=torch.float64).to(dtype)
    inward = torch.nextafter(near, torch.full_like(near, math.inf))
    ends = torch.cat([near, inward]).sort().values
    pairs = torch.combinations(ends, with_replacement=True)
    far = [
        [-3e5, 4e5],
        [2.0**22 + 0.5, 2.0**22 + 8],
        [-1e20, 3.0],
        [0.75, 1e30],
        [-1e30, -SUBNORMAL],
        [SUBNORMAL, 1e30],
    ]
    pairs = torch.cat([pairs, torch.tensor(far, dtype=dtype)])
    return pairs[:, 0], pairs[:, 1]


def limits(name: StepName, low: float, high: float) -> list[tuple[Fraction, Fraction]]:
    """x and values that f has there, or comes near to, on [low, high]; between them, in order, f is constant. Of
    subnormal numbers also what f is at 0."""
    f, a, b = STEPS[name], Fraction(low), Fraction(high)
    half = Fraction(1, 2)
    jumps = [Fraction(0)] if name == "sign" else []
    if name != "sign":
        shift = half if name == "round" else Fraction(0)
        first, last = math.floor(a - shift), math.ceil(b - shift)
        numbers = (
            range(first, last + 1) if last - first < 40 else [*range(first, first + 9), *range(last - 8, last + 1)]
        )
        jumps = [k + shift for k in numbers]
    found = [(a, f(a)), (b, f(b))]
    for p in jumps:
        if a <= p <= b:
            found.append((p, f(p)))
        found += [(p, f(p - half * half))] if a < p <= b else []
        found += [(p, f(p + half * half))] if a <= p < b else []
    small = Fraction(SUBNORMAL)
    found += [(x, f(Fraction(0))) for x in (a, b, -small, small) if a <= x <= b and abs(x) < NORMAL]
    return found


@EACH
@DTYPES
def test_lines_and_images_are_those_of_rational_arithmetic(name: StepName, dtype: torch.dtype) -> None:
    """Never smaller; and no larger than rounding, where nothing is said of subnormal numbers."""
    rule, (lower, upper) = StepRule(Staircase(name)), intervals(dtype)
    low, high = rule.range(lower, upper)
    generator = torch.Generator().manual_seed(0)
    tried = [None, rule.initial(lower, upper, "adaptive"), rule.above(lower, upper)]
    tried += [scale * torch.rand(lower.shape, generator=generator, dtype=torch.float64).to(dtype) for scale in (1, 4)]
    lines = [rule.lines(lower, upper, slope) for slope in tried]
    u = Fraction(unit_roundoff(dtype))
    for i, (a, b) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        seen = limits(name, a, b)
        values = [y for _, y in seen]
        assert (Fraction(float(low[i])), Fraction(float(high[i]))) == (min(values), max(values))
        for line in lines:
            assert line.below is not None
            s, d, e = (Fraction(float(t[i])) for t in (line.slope, line.below, line.above))
            rest = [y - s * x for x, y in seen]
            assert d <= min(rest)
            assert max(rest) <= e
            size = max(abs(y) + abs(s * x) for x, y in seen)
            if max(-a, b) < 1e15:
                assert max(min(rest) - d, e - max(rest)) <= 8 * u * (size + 1) + 2 * s * Fraction(NORMAL)


@EACH
def test_the_checker_s_own_bounds_are_those_of_rational_arithmetic(name: StepName) -> None:
    lower, upper = (end.numpy() for end in intervals(torch.float64))
    op, rule = Staircase(name), StepRule(Staircase(name))
    area, over = rule.initial(*intervals(torch.float64)).numpy(), np.full(len(lower), 1.7)
    with precisely():
        for slope in (np.zeros(len(lower)), area, over, -over):
            below, above = (each(bound, op, slope, lower, upper) for bound in (least, most))
            for s, d, e, a, b in zip(slope.tolist(), below.tolist(), above.tolist(), lower, upper, strict=True):
                rest = [y - Fraction(s) * x for x, y in limits(name, float(a), float(b))]
                if not math.isfinite(d) or not math.isfinite(e):
                    assert max(-a, b) > 1e15
                    continue
                assert Fraction(d) <= min(rest)
                assert max(rest) <= Fraction(e)
                if max(-a, b) < 1e15:
                    assert max(min(rest) - Fraction(d), Fraction(e) - max(rest)) <= Fraction(1, 2**49) * (
                        20 + max(-a, b)
                    )


@EACH
def test_the_checker_s_images_are_exactly_the_least_and_the_largest_value(name: StepName) -> None:
    """Also where no float lies between integers, and of numbers that a machine may take for 0."""
    ends = [*(end.numpy() for end in intervals(torch.float64))]
    far = [2.0**50 + 0.5, 2.0**51 + 0.5, 2.0**52 - 0.5, 2.0**52 + 1, 2.0**53 + 2, 1e30]
    lower, upper = (np.concatenate([end, far, np.negative(far)]) for end in ends)
    with precisely():
        below, above = (each(bound, Staircase(name), 0.0, lower, upper) for bound in (least, most))
    for d, e, a, b in zip(below.tolist(), above.tolist(), lower.tolist(), upper.tolist(), strict=True):
        values = [y for _, y in limits(name, a, b)]
        assert (Fraction(d), Fraction(e)) == (min(values), max(values)), (a, b)


@EACH
def test_the_checker_chooses_slopes_no_worse_than_those_that_bounds_begin_with(name: StepName) -> None:
    lower, upper = (end[end.abs() < 1e6] for end in intervals(torch.float64))
    lower, upper = lower[: len(upper)], upper[: len(lower)]
    lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    op, rule = Staircase(name), StepRule(Staircase(name))
    middle = (lower / 2 + upper / 2).numpy()
    area, below, above = by_rule(op, lower.numpy(), upper.numpy())
    own = [rule.initial(lower, upper), rule.initial(lower, upper, "adaptive"), rule.above(lower, upper)]
    with precisely():

        def lines(slope: Any) -> tuple[Any, Any]:
            return each(least, op, slope, lower.numpy(), upper.numpy()), each(
                most, op, slope, lower.numpy(), upper.numpy()
            )

        (d, e), (own_d, own_e) = lines(area), lines(own[0].numpy())
        assert bool((e - d <= (own_e - own_d) * (1 + 1e-12) + 1e-12).all())
        own_low, own_high = (
            lines(own[1].numpy())[0] + own[1].numpy() * middle,
            lines(own[2].numpy())[1] + own[2].numpy() * middle,
        )
        low = lines(below)[0] + below * middle
        worse = np.flatnonzero(~(low >= own_low - 1e-9 * (1 + abs(own_low))))
        assert not len(worse), [(lower[i], upper[i], below[i], own[1][i], low[i], own_low[i]) for i in worse]
        assert bool((lines(above)[1] + above * middle <= own_high + 1e-9 * (1 + abs(own_high))).all())


@EACH
def test_nan_and_infinite_ends_stay(name: StepName) -> None:
    rule = StepRule(Staircase(name))
    lower, upper = torch.tensor([math.nan, 0.25, -math.inf, 0.0]), torch.tensor([1.0, math.nan, 0.25, math.inf])
    for slope in (None, torch.tensor(0.5), torch.tensor(math.inf), torch.tensor(math.nan)):
        lines = rule.lines(lower, upper, slope)
        assert lines.below is not None
        assert bool((lines.below[0].isnan() | lines.above[0].isnan()).all())
        assert bool((lines.below[1].isnan() | lines.above[1].isnan()).all())
        assert float(lines.slope[2]) == float(lines.slope[3]) == 0
    assert not bool(rule.settled(lower[:2], upper[:2]).any())
    assert rule.range(lower, upper)[0][2] == (-1 if name == "sign" else -math.inf)


def stepped(build: Callable[[int], Graph], seed: int, names: tuple[StepName, ...]) -> Graph:
    """A network whose ReLUs are steps, in turn, but for the first."""
    graph = build(seed)
    ops = {node.name: Staircase(names[k % len(names)]) for k, node in enumerate(graph.relus[1:])}
    return Graph(tuple(replace(n, op=ops.get(n.name, n.op)) for n in graph.nodes), graph.output)


@DTYPES
@pytest.mark.parametrize("build", [fc, residual])
def test_proven_bounds_hold_in_rational_arithmetic(build: Callable[[int], Graph], dtype: torch.dtype) -> None:
    for width, names in ((2.0**-20, NAMES[:2]), (0.5, NAMES[2:]), (30.0, NAMES)):
        graph = stepped(build, 3, names)
        assert any(isinstance(node.op, Relu) for node in graph.nodes)
        low, high = (b.to(dtype) for b in random_box(graph, 1, width))
        points = [low[0], high[0], *sample_box(low, high, 2, seed=1)[:2].reshape(2, *low[0].shape)]
        assert check_claims(graph, dtype, (low, high), points) >= 5 * 4 * 6


# ---- where to split --------------------------------------------------------------------------------------------------


@EACH
def test_every_interval_with_a_jump_is_split(name: StepName) -> None:
    """Rows of one sign at least gain by it, wherever the middle of the interval and its ends lie."""
    lower, upper = intervals(torch.float64)
    rule = StepRule(Staircase(name))
    wide = (upper - lower > 1e-6) & (lower > -1e6) & (upper < 1e6) & ~rule.settled(lower, upper)
    lower, upper = lower[wide], upper[wide]
    gains = []
    for sign in (1.0, -1.0):
        weight = torch.full_like(lower, sign)
        point, gain = rule.split_at(lower, upper, weight, rule.costs(lower, upper, weight))
        assert bool(((lower < point) & (point < upper))[gain > 0].all())
        gains.append(gain)
    assert len(lower) > 100
    assert bool((torch.maximum(*gains) > 1e-3).all())


@EACH
def test_lines_waste_what_they_lie_from_the_function_in_the_mean(name: StepName) -> None:
    generator = torch.Generator().manual_seed(1)
    ends = (torch.rand(2, 200, generator=generator, dtype=torch.float64) * 8 - 4).sort(0).values
    rule = StepRule(Staircase(name))
    for lower, upper in ends.T.tolist():
        slope, below, above = random.Random(lower).uniform(0, 2), lower - 9.0, upper + 9.0
        lines = Lines(*(torch.tensor(x, dtype=torch.float64) for x in (slope, below, above)))
        low, high = rule.waste(*(torch.tensor(x, dtype=torch.float64) for x in (lower, upper)), lines, lines)
        places = sorted({x for x, _ in limits(name, lower, upper)})
        area = sum((b - a) * STEPS[name]((a + b) / 2) for a, b in pairwise(places))
        mean = float(area / (places[-1] - places[0]))
        middle = slope * (lower + upper) / 2
        doubled = 0.0 if name == "sign" else math.log2(max(1, STEPS[name](places[-1]) - STEPS[name](places[0])))
        factor = 1 + DOUBLED * doubled
        assert float(low) == pytest.approx(factor * max(0.0, mean - middle - below), abs=1e-12)
        assert float(high) == pytest.approx(factor * max(0.0, middle + above - mean), abs=1e-12)
