"""Boxes, linear constraints, regions and robustness properties."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zonocuda.specs import Box, LinearConstraint, Region, Spec

TENTH = Fraction(1, 10)
decimals = st.builds(lambda n, k: Fraction(n, 10**k), st.integers(-(10**20), 10**20), st.integers(0, 40))


@given(decimals)
def test_an_exact_box_encloses_its_bounds_by_at_most_one_float(bound: Fraction) -> None:
    box = Box.exact([bound], [bound])
    lower, upper = box.lower.item(), box.upper.item()
    assert Fraction(lower) <= bound <= Fraction(upper)
    if lower == upper:
        assert Fraction(lower) == bound
    else:
        assert math.nextafter(lower, math.inf) == upper


@given(decimals)
def test_the_float32_box_is_the_decimal_rounded_to_float64_and_then_to_float32(bound: Fraction) -> None:
    box = Box.exact([bound], [bound])
    expected = np.float32(np.float64(f"{bound.numerator}") / np.float64(f"{bound.denominator}"))
    if abs(bound.numerator) < 2**53 and bound.denominator < 10**22:  # then the quotient is rounded once
        assert box.float32_lower.item() == box.float32_upper.item() == expected
    assert box.float32_lower.dtype == box.float32_upper.dtype == torch.float32


def test_a_bound_that_float64_holds_is_kept() -> None:
    box = Box.exact([Fraction(-1, 2)], [Fraction(3, 4)])
    assert (box.lower.item(), box.upper.item()) == (-0.5, 0.75)
    assert not box.is_empty


def test_no_bound_is_an_infinite_bound() -> None:
    box = Box.exact([None], [None])
    assert (box.lower.item(), box.upper.item()) == (-math.inf, math.inf)


def test_one_crossed_pair_of_bounds_empties_a_box() -> None:
    assert Box.exact([Fraction(0), Fraction(1)], [Fraction(1), Fraction(0)]).is_empty


def test_a_box_with_nan_is_not_empty() -> None:
    nan = torch.tensor([math.nan])
    assert not Box.from_tensors(nan, torch.zeros(1)).is_empty


def test_a_constraint_drops_zero_coefficients_and_evaluates_without_rounding() -> None:
    row = LinearConstraint({1: Fraction(0), 0: Fraction(1)}, {0: TENTH}, Fraction(-1, 10))
    assert dict(row.outputs) == {0: 1}
    assert row.value([0.1], [0.0]) == TENTH * Fraction(0.1) - TENTH


def test_a_constraint_tells_a_decimal_from_the_float_next_to_it() -> None:
    at_most_tenth = LinearConstraint({0: Fraction(1)}, {}, -TENTH)
    assert Fraction(0.1) > TENTH
    assert not at_most_tenth.holds([], [0.1])
    assert at_most_tenth.holds([], [math.nextafter(0.1, 0.0)])


@pytest.mark.parametrize(("strict", "at_zero"), [(False, True), (True, False)])
def test_strictness_decides_the_boundary(strict: bool, at_zero: bool) -> None:
    row = LinearConstraint({0: Fraction(1)}, {0: Fraction(-1)}, Fraction(0), strict)
    assert row.holds([0.1], [0.1]) is at_zero
    assert row.holds([0.1], [0.0])
    assert not row.holds([0.0], [0.1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_constraint_never_holds_at_a_value_that_is_not_finite(value: float) -> None:
    row = LinearConstraint({0: Fraction(1)}, {}, Fraction(-1))
    assert not row.holds([], [value])
    assert row.holds([], [0.0, value])


def test_a_region_without_disjuncts_is_safe_and_an_empty_conjunction_is_unsafe() -> None:
    box = Box.exact([Fraction(0)], [Fraction(1)])
    assert not Region(box, ()).is_unsafe([0.5], [0.0])
    assert Region(box, ((),)).is_unsafe([0.5], [0.0])


def test_robustness_is_a_clipped_ball_and_one_disjunct_for_each_other_label() -> None:
    spec = Spec.robust(torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64), 0.25, label=1, outputs=3)
    (region,) = spec.regions
    assert (spec.inputs, spec.outputs) == (3, 3)
    assert region.box.lower.tolist() == [0.0, 0.25, 0.75]
    assert region.box.upper.tolist() == [0.25, 0.75, 1.0]
    assert len(region.disjuncts) == 2
    assert not region.is_unsafe([0.0] * 3, [0.0, 1.0, 0.5])
    assert region.is_unsafe([0.0] * 3, [0.0, 1.0, 1.5])


def test_a_tie_with_the_label_is_unsafe() -> None:
    (region,) = Spec.robust(torch.zeros(1), 0.0, label=0, outputs=2).regions
    assert region.is_unsafe([0.0], [1.0, 1.0])


def test_robustness_normalises_after_clipping() -> None:
    spec = Spec.robust(torch.full((2, 1), 0.75), 0.5, label=0, mean=[0.5, 0.0], std=[0.25, 2.0])
    box = spec.regions[0].box
    assert box.lower.tolist() == [-1.0, 0.125]
    assert box.upper.tolist() == [2.0, 0.5]


def test_robustness_without_clipping_is_the_whole_ball() -> None:
    box = Spec.robust(torch.zeros(1), 2.0, label=0, clip=None).regions[0].box
    assert (box.lower.item(), box.upper.item()) == (-2.0, 2.0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"eps": -0.1, "label": 0}, "eps must be finite and nonnegative"),
        ({"eps": math.nan, "label": 0}, "eps must be finite and nonnegative"),
        ({"eps": 0.1, "label": 10}, "label must be one of the 10 outputs"),
        ({"eps": 0.1, "label": -1}, "label must be one of the 10 outputs"),
        ({"eps": 0.1, "label": 0, "mean": [0.0]}, "mean and std go together"),
        ({"eps": 0.1, "label": 0, "mean": [0.0], "std": [1.0]}, "one value for each channel"),
        ({"eps": 0.1, "label": 0, "mean": [0.0, 0.0], "std": [1.0, -1.0]}, "mean must be finite and std positive"),
        ({"eps": torch.full((3, 2, 1), 0.1), "label": 0}, "does not fit"),
        ({"eps": 0.1, "label": 0, "clip": (1.0, 0.0)}, "clip must be a range"),
    ],
)
def test_a_robustness_property_that_makes_no_sense_is_refused(options: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Spec.robust(torch.zeros(2, 1), **options)  # type: ignore[arg-type]
