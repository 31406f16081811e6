"""Boxes, linear constraints, regions and robustness properties."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Rational, Real
from typing import Any

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


X = [[0.25, 0.5], [0.75, 1.0]]


@pytest.mark.parametrize(
    "x",
    [
        X,
        np.array(X),
        np.array(X, dtype=np.float32),
        torch.tensor(X),
        torch.tensor(X, dtype=torch.float16, requires_grad=True),
        [["1/4", "0.5"], ["75e-2", Fraction(1)]],
        [[Decimal("0.25"), Fraction(1, 2)], [0.75, 1]],
    ],
    ids=lambda x: type(x).__name__,
)
def test_numbers_of_any_kind_give_the_same_box(x: Any) -> None:
    spec = Spec.robust(x, "1/4", np.int64(1), outputs=2)
    assert (spec.inputs, spec.input_shape) == (4, (2, 2))
    assert spec.regions[0].box.lower.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert spec.regions[0].box.upper.tolist() == [0.5, 0.75, 1.0, 1.0]


class Third:
    """A number of another library: it says that it is rational."""

    numerator, denominator = 1, 3

    def __float__(self) -> float:
        return 1 / 3


class Unknown:
    """A real number that tells no more than a float near it."""

    def __float__(self) -> float:
        return 0.5


Rational.register(Third)
Real.register(Unknown)


@pytest.mark.parametrize("number", [np.longdouble("0.1"), np.longdouble("0.3"), Third()])
def test_numbers_of_more_digits_than_a_float_are_enclosed(number: Any) -> None:
    value = Fraction(*number.as_integer_ratio()) if isinstance(number, np.longdouble) else Fraction(1, 3)
    for one in (number, [number], np.array([number], dtype=np.longdouble if value != Fraction(1, 3) else object)):
        box = Spec.linear(one, one, [1], 0).regions[0].box
        assert Fraction(box.lower.item()) < value < Fraction(box.upper.item())


def test_a_number_whose_exact_value_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bound: the exact value of a Unknown is unknown; give a Fraction"):
        Spec.linear([0], [1], [1], Unknown())  # type: ignore[arg-type]


def test_a_radius_that_is_spelled_is_exact_and_a_float_is_its_value() -> None:
    for eps, exact in (("8/255", Fraction(8, 255)), (Fraction(8, 255), Fraction(8, 255)), (8 / 255, Fraction(8 / 255))):
        box = Spec.robust([0.5], eps, 0, clip=None).regions[0].box
        assert box.upper.item() == Box.exact([None], [Fraction(1, 2) + exact]).upper.item()
    assert (
        Spec.robust(["0.1"], 0, 0).regions[0].box.lower.item()
        < TENTH
        < Spec.robust(["0.1"], 0, 0).regions[0].box.upper.item()
    )


def test_a_normalised_box_of_spelled_numbers_encloses_the_exact_one() -> None:
    box = Spec.robust([["0.5"], ["0.5"]], "2/255", 0, mean=["0.1307", "0.4"], std=["0.3081", "0.2"]).regions[0].box
    for i, (mean, std) in enumerate(((Fraction(1307, 10000), Fraction(3081, 10000)), (Fraction(2, 5), Fraction(1, 5)))):
        low = (Fraction(1, 2) - Fraction(2, 255) - mean) / std
        assert math.nextafter(float(low), -math.inf) <= Fraction(box.lower[i].item()) <= low


def test_targets_are_the_only_rivals() -> None:
    (region,) = Spec.robust([0.5], 0.1, 1, outputs=5, targets=[4, 2]).regions
    assert [str(row) for (row,) in region.disjuncts] == ["Y_1 - Y_4 <= 0", "Y_1 - Y_2 <= 0"]


def test_a_batch_is_a_list_of_specs() -> None:
    images = torch.rand(3, 1, 2, 2)
    specs = Spec.robust_batch(images, "1/10", torch.tensor([2, 0, 1]), outputs=3)
    assert [spec.input_shape for spec in specs] == [(1, 2, 2)] * 3
    for spec, image, label in zip(specs, images, (2, 0, 1), strict=True):
        same = Spec.robust(image, "1/10", label, outputs=3)
        assert torch.equal(spec.regions[0].box.lower, same.regions[0].box.lower)
        assert spec.regions[0].disjuncts == same.regions[0].disjuncts
    with pytest.raises(ValueError, match="3 inputs and 2 labels"):
        Spec.robust_batch(images, 0.1, [0, 1])


def test_linear_inequalities_are_violated_where_one_of_them_is() -> None:
    spec = Spec.linear([[0, 0.5]], 1, [[1, 0, "1/3"], [0, -1, 0]], [Fraction(1, 2), "0.1"])
    assert (spec.inputs, spec.outputs, spec.input_shape) == (2, 3, (1, 2))
    (region,) = spec.regions
    assert region.box.lower.tolist() == [0.0, 0.5]
    assert region.box.upper.tolist() == [1.0, 1.0]
    first, second = (rows[0] for rows in region.disjuncts)
    assert first == LinearConstraint({0: Fraction(-1), 2: Fraction(-1, 3)}, {}, Fraction(1, 2), True)
    assert second == LinearConstraint({1: Fraction(1)}, {}, TENTH, True)
    assert not region.is_unsafe([0.0, 0.5], [0.5, 0.0, 0.0])
    assert region.is_unsafe([0.0, 0.5], [0.5, -0.2, 0.0])


def test_one_inequality_may_be_a_vector() -> None:
    (region,) = Spec.linear(np.zeros(2), np.ones(2), torch.tensor([1.0, -1.0]), 3).regions
    assert [str(row) for (row,) in region.disjuncts] == ["-Y_0 + Y_1 + 3 < 0"]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (
            lambda: Spec.linear([0, 0], [1], [[1, 0]], 0) and Spec.linear([0, 0], [1, 1, 1], [[1]], 0),
            "shapes do not fit",
        ),
        (lambda: Spec.linear([0], [1], [[1, 0]], [0, 1, 2]), "shapes do not fit"),
        (lambda: Spec.linear([0], [1], [[[1]]], 0), "matrix must have shape"),
        (lambda: Spec.linear([2], [1], [[1]], 0), "a lower bound exceeds"),
        (lambda: Spec.linear([0], [math.inf], [[1]], 0), "upper holds a NaN or an infinity"),
        (lambda: Spec.linear([0], [1], [[math.nan]], 0), "matrix holds a NaN or an infinity"),
        (lambda: Spec.linear([0], [1], [[1], [2, 3]], 0), "matrix: must be"),
        (lambda: Spec.linear([0], [None], [[1]], 0), "upper: must be a number, got NoneType"),
        (lambda: Spec.linear([0], ["1e999999"], [[1]], 0), "is not a number such as"),
        (lambda: Spec.linear([0], ["1/0"], [[1]], 0), "is not a number such as"),
        (lambda: Spec.robust([0.5], "8/0", 0), "is not a number such as"),
        (lambda: Spec.robust([0.5], "eight", 0), "'eight' is not a number such as"),
        (lambda: Spec.robust([True], 0.1, 0), "x: must be a number, got bool"),
        (lambda: Spec.robust([0.5], 0.1, 0.5), "label must be one of the 10 outputs"),
        (lambda: Spec.robust([0.5], 0.1, 0, targets=[10]), "a target must be one of the 10 outputs"),
        (lambda: Spec.robust([0.5], 0.1, 0, targets=[0]), "targets must be outputs other than"),
        (lambda: Spec.robust([0.5], 0.1, 0, targets=[]), "targets must be outputs other than"),
        (lambda: Spec.robust([0.5], 0.1, 0, norm=2), "norm 2 is not supported"),
        (lambda: Spec.robust([0.5], 0.1, 0, clip=("1", "0.5")), "clip must be a range"),
        (lambda: Spec.robust([0.5], 0.1, 0, clip=(math.inf, math.inf)), "clip holds"),
    ],
)
def test_what_makes_no_property_is_refused_in_one_line(make: Callable[[], Spec], fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1


def test_specs_are_copied_and_pickled_and_shown_in_a_line() -> None:
    spec = Spec.robust(torch.full((1, 28, 28), 0.5), "8/255", 3)
    assert len(repr(spec)) < 200
    for other in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert torch.equal(other.regions[0].box.lower, spec.regions[0].box.lower)
        assert other.regions[0].disjuncts == spec.regions[0].disjuncts
        assert other.input_shape == (1, 28, 28)
