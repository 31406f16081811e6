"""VNN-LIB 1.0: what each construct means, and that it means it exactly."""

from __future__ import annotations

import gzip
import math
from fractions import Fraction
from pathlib import Path

import pytest

from tests.specs.helpers import (
    DECLARATIONS,
    UNIT_BOX,
    assert_same,
    bounds,
    has_counterexample_at,
    load_assertion,
    load_text,
)
from zonocuda.specs import LinearConstraint, load_vnnlib


def row(
    outputs: dict[int, int | Fraction],
    inputs: dict[int, int | Fraction],
    constant: int | Fraction,
    strict: bool = False,
) -> LinearConstraint:
    return LinearConstraint(
        {i: Fraction(c) for i, c in outputs.items()},
        {j: Fraction(c) for j, c in inputs.items()},
        Fraction(constant),
        strict,
    )


def only_row(folder: Path, formula: str) -> LinearConstraint:
    (region,) = load_assertion(folder, formula).regions
    ((result,),) = region.disjuncts
    return result


def as_set(disjuncts: tuple[tuple[LinearConstraint, ...], ...]) -> set[frozenset[str]]:
    return {frozenset(map(repr, rows)) for rows in disjuncts}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(<= Y_0 Y_1)", row({0: 1, 1: -1}, {}, 0)),
        ("(>= Y_0 Y_1)", row({0: -1, 1: 1}, {}, 0)),
        ("(< Y_0 3)", row({0: 1}, {}, -3, strict=True)),
        ("(> Y_0 3)", row({0: -1}, {}, 3, strict=True)),
        ("(<= Y_0 0.1)", row({0: 1}, {}, Fraction(-1, 10))),
        ("(<= Y_0 -0.1)", row({0: 1}, {}, Fraction(1, 10))),
        ("(<= Y_0 (- 0.1))", row({0: 1}, {}, Fraction(1, 10))),
        ("(<= Y_0 +2.50e-1)", row({0: 1}, {}, Fraction(-1, 4))),
        ("(<= Y_0 1E2)", row({0: 1}, {}, -100)),
        ("(<= Y_0 .5)", row({0: 1}, {}, Fraction(-1, 2))),
        ("(<= Y_0 5.)", row({0: 1}, {}, -5)),
        ("(<= Y_0 1e-300)", row({0: 1}, {}, Fraction(-1, 10**300))),
        ("(<= 2 Y_0)", row({0: -1}, {}, 2)),
        ("(<= (+ Y_0 Y_1 X_0 1) 0)", row({0: 1, 1: 1}, {0: 1}, 1)),
        ("(<= (- Y_0 Y_1 X_0 1) 0)", row({0: 1, 1: -1}, {0: -1}, -1)),
        ("(<= (- Y_0) 0)", row({0: -1}, {}, 0)),
        ("(<= (* 2 Y_0) 0)", row({0: 2}, {}, 0)),
        ("(<= (* Y_0 2) 0)", row({0: 2}, {}, 0)),
        ("(<= (* 2 Y_0 3) 0)", row({0: 6}, {}, 0)),
        ("(<= (/ Y_0 3) 0)", row({0: Fraction(1, 3)}, {}, 0)),
        ("(<= (* 0.1 (+ Y_0 (- Y_1 2))) 0)", row({0: Fraction(1, 10), 1: Fraction(1, 10)}, {}, Fraction(-1, 5))),
        ("(<= (+ Y_0 Y_0) Y_1)", row({0: 2, 1: -1}, {}, 0)),
        ("(<= (+ Y_0 X_0) X_0)", row({0: 1}, {}, 0)),
        ("(<= (* (- X_1 X_1) X_0) Y_0)", row({0: -1}, {}, 0)),
        ("(>= Y_0 (* 2 X_1))", row({0: -1}, {1: 2}, 0)),
        ("(<= (+ X_0 X_1) 1)", row({}, {0: 1, 1: 1}, -1)),
        ("(not (<= Y_0 1))", row({0: -1}, {}, 1, strict=True)),
        ("(not (> Y_0 1))", row({0: 1}, {}, -1)),
        ("(and (<= Y_0 1))", row({0: 1}, {}, -1)),
        ("(or (<= Y_0 1))", row({0: 1}, {}, -1)),
    ],
)
def test_a_comparison_becomes_one_exact_row(tmp_path: Path, formula: str, expected: LinearConstraint) -> None:
    assert only_row(tmp_path, formula) == expected


@pytest.mark.parametrize(
    ("formula", "same"),
    [
        ("(<= 0 Y_0 Y_1)", "(and (<= 0 Y_0) (<= Y_0 Y_1))"),
        ("(> Y_0 Y_1 X_0 3)", "(and (> Y_0 Y_1) (> Y_1 X_0) (> X_0 3))"),
        ("(= Y_0 Y_1 2)", "(and (= Y_0 Y_1) (= Y_1 2))"),
        ("(distinct Y_0 Y_1)", "(!= Y_0 Y_1)"),
        ("(distinct Y_0 Y_1 1)", "(and (!= Y_0 Y_1) (!= Y_0 1) (!= Y_1 1))"),
        ("(=> (<= Y_0 1) (<= Y_1 1) (<= X_0 Y_0))", "(=> (<= Y_0 1) (=> (<= Y_1 1) (<= X_0 Y_0)))"),
        ("(ite (<= Y_0 1) (<= Y_1 1) (<= Y_1 2))", "(or (and (<= Y_0 1) (<= Y_1 1)) (and (> Y_0 1) (<= Y_1 2)))"),
        ("(xor (<= Y_0 1) (<= Y_1 1))", "(or (and (<= Y_0 1) (> Y_1 1)) (and (> Y_0 1) (<= Y_1 1)))"),
        ("(= true (<= Y_0 1))", "(<= Y_0 1)"),
        ("(and true (<= |Y_0| 1))", "(<= Y_0 1)"),
        ("(or false (<= Y_0 1))", "(<= Y_0 1)"),
    ],
)
def test_what_smt_lib_abbreviates_means_the_same_written_out(tmp_path: Path, formula: str, same: str) -> None:
    assert_same(load_assertion(tmp_path, formula), load_assertion(tmp_path, same))


def test_commands_that_say_nothing_of_the_property_are_passed_over(tmp_path: Path) -> None:
    plain = load_assertion(tmp_path, "(<= Y_0 1)")
    head = (
        '(set-logic QF_LRA)(set-info :source |a ; ( b|)\n(set-info :status "); unsat")(set-option :produce-models true)'
    )
    tail = "(assert true)(check-sat)(get-model)(get-value (Y_0 (- Y_1)))(check-sat)(exit)"
    assert_same(load_text(tmp_path, f"{head}\n{DECLARATIONS}{UNIT_BOX}(assert (<= Y_0 1)){tail}"), plain)


def test_a_false_assertion_leaves_no_region(tmp_path: Path) -> None:
    assert load_assertion(tmp_path, "false").regions == ()


def test_a_long_decimal_keeps_every_digit(tmp_path: Path) -> None:
    digits = "123456789" * 20
    assert only_row(tmp_path, f"(<= Y_0 0.{digits})").constant == -Fraction(int(digits), 10 ** len(digits))


def test_single_input_comparisons_are_bounds_of_the_box(tmp_path: Path) -> None:
    (region,) = load_text(
        tmp_path,
        DECLARATIONS + "(assert (and (<= X_0 0.75) (<= -0.5 X_0)))(assert (<= (* -2 X_1) 1))(assert (<= (/ X_1 2) 4))",
    ).regions
    assert bounds(region.box) == [(-0.5, 0.75), (-0.5, 8.0)]
    assert region.disjuncts == ((),)


def test_the_tightest_bounds_win_exactly(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(and (<= X_0 0.5) (<= X_0 0.50000000000000000001) (>= X_0 -7))").regions
    assert bounds(region.box) == [(0.0, 0.5), (0.0, 1.0)]


def test_decimal_bounds_are_enclosed(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(and (<= X_0 0.1) (>= X_0 0.1))").regions
    low, high = bounds(region.box)[0]
    assert Fraction(low) < Fraction(1, 10) < Fraction(high) == Fraction(math.nextafter(low, 1.0))
    assert region.disjuncts == ((),)


def test_an_equality_on_an_input_pins_it(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(= X_0 0.5)").regions
    assert bounds(region.box)[0] == (0.5, 0.5)


def test_an_equality_of_outputs_is_two_rows(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(= Y_0 Y_1)").regions
    assert region.disjuncts == ((row({0: 1, 1: -1}, {}, 0), row({0: -1, 1: 1}, {}, 0)),)


def test_an_inequality_of_outputs_is_two_strict_disjuncts(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(not (= Y_0 Y_1))").regions
    assert as_set(region.disjuncts) == as_set(((row({0: 1, 1: -1}, {}, 0, True),), (row({0: -1, 1: 1}, {}, 0, True),)))


@pytest.mark.parametrize(("formula", "edge"), [("(< X_0 0.5)", 0.5), ("(> X_0 0.5)", 0.5), ("(not (<= X_0 0.5))", 0.5)])
def test_a_strict_bound_is_closed_in_the_box_and_strict_for_a_counterexample(
    tmp_path: Path, formula: str, edge: float
) -> None:
    spec = load_assertion(tmp_path, formula)
    low, high = bounds(spec.regions[0].box)[0]
    assert edge in (low, high)
    inside = math.nextafter(edge, 0.0 if "<" in formula and "not" not in formula else 1.0)
    assert has_counterexample_at(spec, [inside, 0.0], [0.0, 0.0])
    assert not has_counterexample_at(spec, [edge, 0.0], [0.0, 0.0])


def test_a_global_box_is_shared_by_all_disjuncts(tmp_path: Path) -> None:
    spec = load_assertion(tmp_path, "(or (and (>= Y_0 Y_1)) (and (>= Y_1 2) (<= Y_0 0)))")
    (region,) = spec.regions
    assert bounds(region.box) == [(0.0, 1.0), (0.0, 1.0)]
    assert region.disjuncts == ((row({0: -1, 1: 1}, {}, 0),), (row({1: -1}, {}, 2), row({0: 1}, {}, 0)))


def test_an_interval_inside_an_or_is_one_conjunction(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(or (and (>= Y_0 41) (<= Y_0 236)))").regions
    assert region.disjuncts == ((row({0: -1}, {}, 41), row({0: 1}, {}, -236)),)


def test_two_input_boxes_are_two_regions_with_the_same_outputs(tmp_path: Path) -> None:
    text = f"""{DECLARATIONS}
    (assert (or
        (and (<= X_0 0.5) (>= X_0 0.25) (<= X_1 1) (>= X_1 0))
        (and (<= X_0 -0.25) (>= X_0 -0.5) (<= X_1 1) (>= X_1 0))
    ))
    (assert (or (and (<= Y_1 Y_0)) (and (<= Y_1 3))))
    """
    spec = load_text(tmp_path, text)
    assert [bounds(r.box) for r in spec.regions] == [[(0.25, 0.5), (0.0, 1.0)], [(-0.5, -0.25), (0.0, 1.0)]]
    outputs = ((row({1: 1, 0: -1}, {}, 0),), (row({1: 1}, {}, -3),))
    assert [r.disjuncts for r in spec.regions] == [outputs, outputs]


def test_disjuncts_with_equal_input_bounds_share_a_region_however_the_bounds_are_written(tmp_path: Path) -> None:
    spec = load_assertion(tmp_path, "(or (and (<= X_0 0.1) (<= Y_0 1)) (<= Y_0 2) (and (<= Y_0 3) (>= 1e-1 X_0)))")
    assert [len(r.disjuncts) for r in spec.regions] == [2, 1]


def test_a_bound_that_the_box_implies_does_not_split_a_region(tmp_path: Path) -> None:
    spec = load_assertion(tmp_path, "(or (and (<= X_0 2) (<= Y_0 1)) (<= Y_0 2))")
    assert [len(r.disjuncts) for r in spec.regions] == [2]


def test_without_output_constraints_every_output_is_unsafe(tmp_path: Path) -> None:
    (region,) = load_text(tmp_path, DECLARATIONS + UNIT_BOX).regions
    assert region.disjuncts == ((),)
    assert region.is_unsafe([0.0, 0.0], [1e30, -1e30])


def test_an_implication_is_the_negated_premise_or_the_conclusion(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(=> (<= Y_0 1) (< Y_1 0))").regions
    assert region.disjuncts == ((row({0: -1}, {}, 1, True),), (row({1: 1}, {}, 0, True),))


def test_a_negated_conjunction_is_a_disjunction(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(not (and (<= Y_0 1) (or (< Y_1 0) (<= 0 Y_0))))").regions
    expected = ((row({1: -1}, {}, 0), row({0: 1}, {}, 0, True)), (row({0: -1}, {}, 1, True),))
    assert as_set(region.disjuncts) == as_set(expected)


@pytest.mark.parametrize(
    "formula", ["(<= 1 0)", "(< 0 0)", "(and (<= Y_0 1) (> 0.1 1e-1))", "(= 1 2)", "(not (= 1 1))"]
)
def test_a_false_constant_leaves_no_region(tmp_path: Path, formula: str) -> None:
    assert load_assertion(tmp_path, formula).regions == ()


@pytest.mark.parametrize("formula", ["(<= 0 0)", "(or (<= 1 2) (<= 2 1))", "(= 0.1 1e-1)", "(<= Y_0 Y_0)"])
def test_a_true_constant_changes_nothing(tmp_path: Path, formula: str) -> None:
    assert_same(load_assertion(tmp_path, formula), load_text(tmp_path, DECLARATIONS + UNIT_BOX))


def test_a_false_disjunct_is_dropped(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(or (and (<= 1 0) (<= Y_0 1)) (<= Y_1 1))").regions
    assert region.disjuncts == ((row({1: 1}, {}, -1),),)


def test_bounds_that_cross_by_less_than_float64_can_tell_leave_an_empty_box(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(and (>= X_0 0.10000000000000000000001) (<= X_0 0.1))").regions
    assert region.box.is_empty
    assert region.box.float32_lower[0] > region.box.float32_upper[0]
    assert bounds(region.box)[1] == (0.0, 1.0)


def test_crossed_bounds_that_float64_holds_stay_as_written(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(and (>= X_0 0.75) (<= X_0 0.25))").regions
    assert bounds(region.box)[0] == (0.75, 0.25)


def test_an_empty_region_is_dropped_beside_others_even_if_unbounded(tmp_path: Path) -> None:
    boxes = "(or (and (>= X_0 1) (<= X_0 0)) (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)))"
    (region,) = load_text(tmp_path, f"{DECLARATIONS}(assert {boxes})").regions
    assert bounds(region.box) == [(0.0, 1.0), (0.0, 1.0)]


def test_an_empty_region_needs_no_bound_of_the_other_inputs(tmp_path: Path) -> None:
    (region,) = load_text(tmp_path, DECLARATIONS + "(assert (>= X_0 1))(assert (<= X_0 0))").regions
    assert region.box.is_empty
    assert bounds(region.box)[1] == (-math.inf, math.inf)


def test_only_empty_regions_leave_the_first_one(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(or (>= X_0 2) (>= X_1 3))").regions
    assert region.box.is_empty
    assert bounds(region.box) == [(2.0, 1.0), (0.0, 1.0)]


def test_an_empty_global_box_leaves_one_empty_region(tmp_path: Path) -> None:
    (region,) = load_assertion(tmp_path, "(and (>= X_0 2) (or (>= X_1 0.5) (<= X_1 0.25)))").regions
    assert region.box.is_empty
    assert region.disjuncts == ((),)


def test_declare_fun_comments_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    plain = load_assertion(tmp_path, "(<= Y_0 1)")
    text = DECLARATIONS.replace("(declare-const X_0 Real)", "; (assert\n(declare-fun X_0 () Real) ; )")
    other = load_text(
        tmp_path, f"\ufeff;\u00e9 comment\n{text}{UNIT_BOX}(assert\t(<=Y_0 1));end".replace("<=Y", "<= Y")
    )
    assert_same(plain, other)
    path = tmp_path / "crlf.vnnlib"
    path.write_bytes((tmp_path / "property.vnnlib").read_bytes().replace(b"\n", b"\r\n"))
    assert_same(plain, load_vnnlib(path))


def test_variables_may_be_declared_in_any_order_and_between_assertions(tmp_path: Path) -> None:
    text = (
        "(declare-const Y_1 Real)(declare-const X_0 Real)(assert (<= X_0 1))(declare-const Y_0 Real)(assert (>= X_0 0))"
    )
    spec = load_text(tmp_path, text)
    assert (spec.inputs, spec.outputs) == (1, 2)


def test_a_compressed_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    plain = load_assertion(tmp_path, "(<= Y_0 1)")
    packed = tmp_path / "property.vnnlib.gz"
    packed.write_bytes(gzip.compress((tmp_path / "property.vnnlib").read_bytes()))
    assert_same(plain, load_vnnlib(str(packed)))


def test_nesting_within_the_limit_needs_no_recursion(tmp_path: Path) -> None:
    deep = "(- " * 998 + "Y_0" + ")" * 998
    assert only_row(tmp_path, f"(<= {deep} 1)") == row({0: 1}, {}, -1)


def test_an_image_sized_box_is_one_region(tmp_path: Path) -> None:
    n = 3072
    text = "".join(f"(declare-const X_{j} Real)" for j in range(n)) + "(declare-const Y_0 Real)(declare-const Y_1 Real)"
    text += "".join(f"(assert (>= X_{j} {j}.25))\n(assert (<= X_{j} {j}.75))\n" for j in range(n))
    (region,) = load_text(tmp_path, text + f"(assert (or {'(>= Y_0 Y_1) (<= Y_0 3)' * 500}))").regions
    assert bounds(region.box) == [(j + 0.25, j + 0.75) for j in range(n)]
    assert len(region.disjuncts) == 1000
