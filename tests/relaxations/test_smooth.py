"""Rules of smooth functions: lines and ranges against ball arithmetic, their tightness and derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from flint import arb
from torch import Tensor

from tests.relaxations.functions import CASES, Case, intervals, sampled, slopes
from zonocuda.relaxations import Lines
from zonocuda.relaxations.rule import Start, _raised

EACH = pytest.mark.parametrize("case", CASES, ids=str)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def wrong_points(case: Case, points: Tensor, slope: Tensor, lines: Lines) -> list[str]:
    """Where, of points ``[P, N]``, the function is outside its lines, by balls."""
    assert lines.below is not None
    found = []
    rows = zip(points.T.tolist(), slope.tolist(), lines.below.tolist(), lines.above.tolist(), strict=True)
    for xs, s, below, above in rows:
        for x in set(xs):
            h = case.exact(x) - arb(s) * arb(x)
            if not (math.isinf(below) or arb(below) <= h.upper()) or not (math.isinf(above) or h.lower() <= arb(above)):
                found.append(f"{x!r} slope {s!r}: {h} not in [{below!r}, {above!r}]")
    return found


@DTYPES
@EACH
def test_lines_and_ranges_enclose_the_function(case: Case, dtype: torch.dtype) -> None:
    lower, upper = intervals(case, dtype, 5, seed=1)
    for name, slope in slopes(case, lower, upper, seed=2).items():
        lines = case.rule.lines(lower, upper, slope)
        points, _, _ = sampled(case, lower, upper, lines.slope, 9)
        assert lines.below is not None
        assert not bool((lines.below.isnan() | lines.above.isnan()).any())
        assert not wrong_points(case, points, lines.slope, lines), name
        if name == "zero":
            low, high = case.rule.range(lower, upper)
            assert not wrong_points(case, points, torch.zeros_like(lower), Lines(slope, low, high)), "range"


@EACH
def test_lines_are_as_tight_as_the_function_allows(case: Case) -> None:
    """Within 1.01 of the least distance for the slope, and what rounding of the numbers themselves costs."""
    lower, upper = intervals(case, torch.float64, 40, seed=3)
    for name, slope in slopes(case, lower, upper, seed=4).items():
        lines = case.rule.lines(lower, upper, slope)
        assert lines.below is not None
        points, least, most = sampled(case, lower, upper, lines.slope)
        size = case.value(points).abs().amax(0) + (lines.slope * points).abs().amax(0)
        allowed = 1.01 * (most - least) + 1e-13 * size + 1e-18
        wrong = ~((lines.above - lines.below <= allowed) & size.isfinite())
        assert not bool(wrong.any()), (name, lower[wrong][:3], upper[wrong][:3], lines.slope[wrong][:3])


@EACH
def test_slopes_to_begin_with_are_better_than_others(case: Case) -> None:
    """Minimum area: no slope of a grid gives a distance smaller by 2 %; the other two: no line is better by 2 % of the
    width in the middle of [l, u]."""
    lower, upper = intervals(case, torch.float64, 8, seed=5)
    chosen = (upper - lower > 1e-2) & (upper - lower < 50)
    lower, upper = lower[chosen], upper[chosen]
    rule, middle = case.rule, (lower + upper) / 2
    ends = rule.reach(lower, upper)
    assert ends is not None
    grid = torch.linspace(0, 1, 41, dtype=torch.float64).unsqueeze(1)
    given = rule.lines(lower, upper, ends[0] + grid * (ends[1] - ends[0]))
    own = {name: rule.lines(lower, upper, s) for name, s in slopes(case, lower, upper).items()}
    assert given.below is not None
    if case.function not in ("exp", "reciprocal"):  # those keep their lines positive
        values = {"minimum_area": lambda x: x.below - x.above, "adaptive": lambda x: x.slope * middle + x.below}
        for name, value in values.items():
            best, found = value(given).amax(0), value(own[name])
            scale = (own[name].above - own[name].below).abs()
            assert bool((found >= best - 0.02 * scale - 1e-12).all()), name
    best, found = (given.slope * middle + given.above).amin(0), own["above"].slope * middle + own["above"].above
    assert bool((found <= best + 0.02 * (own["above"].above - own["above"].below).abs() + 1e-12 * best.abs()).all())


@EACH
def test_project_is_idempotent_and_keeps_slopes_that_lines_take(case: Case) -> None:
    slope = torch.tensor([-math.inf, -3.0, -0.1, 0.0, 0.2, 0.9, 5.0, math.inf], dtype=torch.float64)
    once = case.rule.project(slope)
    assert torch.equal(case.rule.project(once), once)
    inside = (slope >= case.rule.limits[0]) & (slope <= case.rule.limits[1])
    assert torch.equal(once[inside], slope[inside])


@EACH
def test_derivatives_of_lines_are_those_of_finite_differences(case: Case) -> None:
    lower, upper = intervals(case, torch.float64, 6, seed=7)
    chosen = (upper - lower > 0.05) & (upper - lower < 10)
    lower, upper = lower[chosen], upper[chosen]
    slope = slopes(case, lower, upper, seed=8)["random"].clamp(*case.rule.limits)
    inputs = [t.clone().requires_grad_() for t in (lower, upper, slope)]
    lines = case.rule.lines(*inputs)
    assert lines.below is not None
    step, count = 1e-6, 0
    for name in ("below", "above"):
        gradients = torch.autograd.grad(getattr(lines, name).sum(), inputs, retain_graph=True)
        for position, gradient in enumerate(gradients):
            moved = [
                [t + sign * step * (i == position) for i, t in enumerate((lower, upper, slope))] for sign in (-1, 1)
            ]
            values = [getattr(case.rule.lines(*given), name) for given in moved]
            here = getattr(lines, name).detach()
            sides = torch.stack([(here - values[0]) / step, (values[1] - here) / step])
            low, high = sides.amin(0), sides.amax(0)  # at a kink the derivatives of either side
            slack = 1e-4 * (1 + sides.abs().amax(0)) + 1e-8 * here.abs() / step * 1e-6
            inside = (gradient >= low - slack) & (gradient <= high + slack)
            edge = (slope <= case.rule.limits[0] + step) | (slope >= case.rule.limits[1] - step)
            assert bool((inside | edge).all()), (name, position)
            count += int((~edge).sum())
    assert count > 20


@EACH
def test_derivatives_of_ranges_are_those_of_finite_differences(case: Case) -> None:
    lower, upper = intervals(case, torch.float64, 6, seed=13)
    chosen = (upper - lower > 0.05) & (upper - lower < 10)
    inputs = [t[chosen].requires_grad_() for t in (lower, upper)]
    step, count = 1e-6, 0
    for side in (0, 1):
        gradients = torch.autograd.grad(case.rule.range(*inputs)[side].sum(), inputs, allow_unused=True)
        for position, gradient in enumerate(gradients):
            assert gradient is not None
            moved = [[t.detach() + sign * step * (i == position) for i, t in enumerate(inputs)] for sign in (-1, 0, 1)]
            before, here, behind = (case.rule.range(*ends)[side] for ends in moved)
            sides = torch.stack([(here - before) / step, (behind - here) / step])
            slack = 1e-4 * (1 + sides.abs().amax(0)) + 1e-8 * here.abs()
            assert bool(((gradient >= sides.amin(0) - slack) & (gradient <= sides.amax(0) + slack)).all())
            count += int((gradient != 0).sum())
    assert count > 5


@EACH
def test_nan_reaches_every_bound_and_infinities_are_sound(case: Case) -> None:
    rule, nan = case.rule, math.nan
    for dtype in (torch.float32, torch.float64):
        lower, upper = (torch.tensor(t, dtype=dtype) for t in ([nan, 0.5, nan], [0.75, nan, nan]))
        if case.most <= 0:
            lower, upper = -upper, -lower
        for slope in (None, torch.full((3,), 0.3, dtype=dtype)):
            lines = rule.lines(lower, upper, slope)
            assert lines.below is not None
            offsets = [lines.below, lines.above, *rule.band(lower, upper, slope)[1:]]
            assert bool(torch.stack([*offsets, *rule.range(lower, upper)]).isnan().all())
        assert not bool(rule.settled(lower, upper).any())
        lower, upper = (torch.tensor(t, dtype=dtype) for t in ([-math.inf, 0.5, -math.inf], [0.75, math.inf, math.inf]))
        low, high = rule.range(lower, upper)
        lines = rule.lines(lower, upper, torch.full((3,), 0.3, dtype=dtype))
        assert lines.below is not None
        for x in (-1e30, -2.0, 0.6, 0.75, 3.0, 1e30):
            inside = (lower <= x) & (upper >= x)
            if not case.least < x < case.most:
                continue
            y = float(case.exact(x).mid())
            for least, most in ((low, high), (lines.slope * x + lines.below, lines.slope * x + lines.above)):
                assert not bool((inside & ((least > y + 1e-6 * abs(y)) | (most < y - 1e-6 * abs(y)))).any())


@EACH
def test_nothing_is_settled_at_infinity(case: Case) -> None:
    ends = torch.tensor([-math.inf, math.inf])
    known = case.rule.settled(ends, ends)
    assert known.tolist() == [case.function == "hardswish", case.function in ("elu", "celu", "hardswish")]


@pytest.mark.parametrize("start", ["minimum_area", "adaptive"])
def test_an_alpha_that_float32_does_not_hold_leaves_lines_that_hold(start: Start) -> None:
    alpha = 2.0**200
    rule = Case("elu", alpha).rule
    lower, upper = torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([1.0, -1.0, 0.0])
    lines = rule.lines(lower, upper, rule.initial(lower, upper, start))
    assert lines.below is not None
    for x in (lower, upper, (lower + upper) / 2):
        y = torch.where(x < 0, alpha * x.double().expm1(), x.double())
        line = lines.slope.double() * x.double()
        assert bool((line + lines.below <= y + 1e-6 * y.abs()).all())
        assert bool((line + lines.above >= y - 1e-6 * y.abs()).all())


def test_a_radius_is_rounded_up_at_the_end_of_the_range_as_well() -> None:
    most = torch.finfo(torch.float32).max
    raised = _raised(torch.tensor([most, math.inf, 1.0]))
    assert raised.tolist() == [math.inf, math.inf, 1.0 + 2**-23]


@pytest.mark.parametrize(
    ("function", "lower", "upper"),
    [("log", -1.0, 2.0), ("log", 0.0, 1.0), ("log1p", -1.5, 2.0), ("sqrt", -1e-9, 1.0), ("rsqrt", -1.0, 1.0),
     ("rsqrt", 0.0, 1.0), ("reciprocal", -1.0, 1.0), ("reciprocal", 0.0, 1.0), ("reciprocal", -1.0, 0.0)],
)  # fmt: skip
def test_outside_the_domain_no_bound_is_finite(function: str, lower: float, upper: float) -> None:
    case = Case(function)  # type: ignore[arg-type]
    for dtype in (torch.float32, torch.float64):
        low, high = (torch.tensor([t], dtype=dtype) for t in (lower, upper))
        for slope in (None, torch.tensor([0.5], dtype=dtype)):
            lines = case.rule.lines(low, high, slope)
            assert lines.below is not None
            first, last = case.rule.range(low, high)
            assert not bool(lines.below.isfinite())
            assert not bool(first.isfinite())
            assert function == "sqrt" or not bool(lines.above.isfinite() & last.isfinite())


@EACH
def test_rows_of_slopes_give_the_lines_of_each(case: Case) -> None:
    lower, upper = intervals(case, torch.float64, 2, seed=9)
    several = torch.stack(list(slopes(case, lower, upper).values()))
    together = case.rule.lines(lower, upper, several)
    for row, slope in enumerate(several):
        one = case.rule.lines(lower, upper, slope)
        for both, alone in ((together.below, one.below), (together.above, one.above)):
            assert both is not None
            assert alone is not None
            assert torch.equal(both[row], alone)
