"""VNN-LIB 2.0 means what the same property means in version 1.0, or is refused."""

from __future__ import annotations

import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.specs.helpers import DECLARATIONS, assert_same, bounds, load_text
from zonocuda.specs import Spec, VnnlibError

HEADER = """(vnnlib-version <2.0>)
(declare-network N
    (declare-input X real [1, 2])
    (declare-output Y real [2])
)
"""
BOX_1 = "".join(f"(assert (and (>= X_{j} -0.1) (<= X_{j} 0.1)))\n" for j in (0, 1))
BOX_2 = "".join(f"(assert (and (>= X[0,{j}] -0.1) (<= X[0,{j}] 0.1)))\n" for j in (0, 1))

needs_package = pytest.mark.skipif(importlib.util.find_spec("vnnlib") is None, reason="the vnnlib package is absent")


def load_2(folder: Path, assertion: str) -> Spec:
    return load_text(folder, f"{HEADER}{BOX_2}(assert {assertion})")


@needs_package
@pytest.mark.parametrize(
    ("version_1", "version_2"),
    [
        ("(<= Y_0 Y_1)", "(<= Y[0] Y[1])"),
        ("(>= Y_0 3.991125645861615)", "(>= Y[0] 3.991125645861615)"),
        ("(< Y_0 -0.1)", "(< Y[0] -0.1)"),
        ("(> (+ Y_0 1.0 (- Y_1 2.5 X_1)) X_0)", "(> (+ Y[0] 1.0 (- Y[1] 2.5 X[0,1])) X[0,0])"),
        ("(<= (* 0.1 (- Y_0) 3.0) 1.0)", "(<= (* 0.1 (- Y[0]) 3.0) 1.0)"),
        ("(= Y_0 Y_1)", "(== Y[0] Y[1])"),
        ("(!= Y_0 Y_1)", "(!= Y[0] Y[1])"),
        ("(< X_0 0.05)", "(< X[0,0] 0.05)"),
        ("(<= 1 0)", "(<= 1 0)"),
        ("(or (and (>= Y_0 41) (<= Y_0 236)))", "(or (and (>= Y[0] 41.0) (<= Y[0] 236.0)))"),
        (
            "(or (and (<= X_0 0) (<= Y_0 1)) (and (>= X_1 0.05) (or (<= Y_1 2) (<= Y_0 3))))",
            "(or (and (<= X[0,0] 0.0) (<= Y[0] 1.0)) (and (>= X[0,1] 0.05) (or (<= Y[1] 2.0) (<= Y[0] 3.0))))",
        ),
    ],
)
def test_both_versions_give_the_same_property(tmp_path: Path, version_1: str, version_2: str) -> None:
    one = load_text(tmp_path, f"{DECLARATIONS}{BOX_1}(assert {version_1})")
    two = load_2(tmp_path, version_2)
    assert_same(one, two)


@needs_package
@pytest.mark.parametrize("element", ["float32", "float64"])
def test_an_element_type_of_floats_means_the_same_exact_decimals(tmp_path: Path, element: str) -> None:
    row = "(assert (<= Y[0] 0.1))"
    real = load_text(tmp_path, HEADER + BOX_2 + row)
    assert_same(load_text(tmp_path, HEADER.replace("real", element) + BOX_2 + row), real)
    assert real.regions[0].disjuncts[0][0].constant == Fraction(-1, 10)


@needs_package
def test_tensors_may_have_the_names_of_a_file(tmp_path: Path) -> None:
    text = (HEADER + BOX_2 + "(assert (<= Y[0] 0.1))").replace("X", "input_1").replace("Y", "logits")
    assert_same(load_text(tmp_path, text), load_2(tmp_path, "(<= Y[0] 0.1)"))


@needs_package
def test_the_quoted_name_that_a_tensor_has_in_its_file_may_follow_it(tmp_path: Path) -> None:
    text = HEADER + BOX_2 + "(assert (<= Y[0] 0.1))"
    named = re.sub(r"(declare-(?:in|out)put \w+ \w+ \[[\d, ]*\])", r'\1 "/model.0/Gemm_output_0:0"', text)
    assert named.count('"') == 4
    assert_same(load_text(tmp_path, named), load_2(tmp_path, "(<= Y[0] 0.1)"))
    assert load_text(tmp_path, named).names == ("/model.0/Gemm_output_0:0",) * 2
    assert load_text(tmp_path, text.replace("[2])", '[2] "y")')).names == (None, "y")
    with pytest.raises(VnnlibError, match="syntax error at line 8"):
        load_text(tmp_path, text + '(assert (<= "Y" 0.1))')


@needs_package
def test_decimals_do_not_pass_through_floats(tmp_path: Path) -> None:
    (region,) = load_2(tmp_path, "(<= Y[0] 0.1000000000000000000000000001)").regions
    assert region.disjuncts[0][0].constant == -Fraction(10**27 + 1, 10**28)
    (low, high), _ = bounds(region.box)
    assert Fraction(low) < Fraction(-1, 10)
    assert Fraction(1, 10) < Fraction(high)


@needs_package
def test_tensors_are_flattened_in_row_major_order(tmp_path: Path) -> None:
    header = "(vnnlib-version <2.0>)(declare-network N (declare-input A real [2,3]) (declare-output B real []))"
    text = "".join(
        f"(assert (>= A[{i},{j}] {i}{j}.0))(assert (<= A[{i},{j}] {i}{j}.5))" for i in range(2) for j in range(3)
    )
    spec = load_text(tmp_path, f"; a comment first\n{header}{text}(assert (<= B 0.5))")
    assert (spec.inputs, spec.outputs) == (6, 1)
    assert bounds(spec.regions[0].box) == [(v, v + 0.5) for v in (0.0, 1.0, 2.0, 10.0, 11.0, 12.0)]
    assert dict(spec.regions[0].disjuncts[0][0].outputs) == {0: 1}


@needs_package
def test_an_unbounded_element_is_named_as_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(VnnlibError, match=r"input X\[0,1\] has no lower bound"):
        load_text(tmp_path, HEADER + "(assert (>= X[0,0] 0.0))(assert (<= X[0,0] 1.0))(assert (<= Y[0] 1.0))")


@needs_package
def test_nesting_within_the_limit_needs_no_recursion(tmp_path: Path) -> None:
    (region,) = load_2(tmp_path, "(and " * 990 + "(<= Y[0] 1.0)" + ")" * 990).regions
    assert len(region.disjuncts) == 1


NETWORK = "(declare-input X {0} [1,2]) (declare-output Y {1} [2])"
REAL = NETWORK.format("real", "real")
TAIL = "(assert (<= X[0,0] 1.0))"


@needs_package
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HEADER + "(assert (<= (* X[0,0] Y[0]) 1.0))", "line 6: '*' multiplies variables"),
        (HEADER + "(assert\n(<= (* 1.0 (* Y[0] Y[0]))\n 1.0))", "line 7: '*' multiplies variables"),
        (HEADER + "(assert (<= X[0,-1] 1.0))", "line 6: '[0,-1]' is not a list of nonnegative integers"),
        (HEADER + "(assert (<= X[0,0.7] 1.0))", "line 6: '[0,0.7]' is not a list"),
        (HEADER + "(assert (<= X[0,4294967296] 1.0))", "line 6: '[0,4294967296]' is not a list"),
        (HEADER + "(assert (<= X[0,2] 1.0))", "line 6: Index out of bounds"),
        (HEADER + "(assert (<= X[0] 1.0))", "line 6: Not enough indices"),
        (HEADER + "(assert (<= X_0 1.0))", "line 6: Undeclared variable"),
        (HEADER + "(assert (<= X[0,0] 1))", "line 6: Type mismatch"),
        (HEADER + "(assert (<= X[0,0] 1.0e5))", "syntax error at line 6"),
        (HEADER + "(assert (not (<= X[0,0] 1.0)))", "syntax error at line 6"),
        (HEADER + "(assert (<= X[0,0] 1.0)) junk", "syntax error at line 6"),
        (HEADER + "(assert (<= X[0,0] 1.0)", "syntax error at line 6"),
        (HEADER + "(assert (<= X[0,0] \u00e9))", "the vnnlib package cannot"),
        (HEADER + f"(assert (<= X[0,0] {'9' * 400}.0))", "the vnnlib package cannot"),
        (HEADER + "(assert (<= X[0,0] 1.0))\x00(assert (<= Y[0] 1.0))", "line 6: a null byte"),
        (HEADER + "(assert " + "(and " * 100_000, "line 6: parentheses are nested more than 1000 deep"),
        (HEADER + '(assert "', "line 6: a string does not end"),
        (HEADER, "syntax error"),
        ("(vnnlib-version <3.0>)" + HEADER, "versions 1.0 and 2.0 are supported"),
        ("(vnnlib-version <2.1>)" + HEADER, "versions 1.0 and 2.0 are supported"),
        ("(vnnlib-version 1.0)", "versions 1.0 and 2.0 are supported"),
        (f"(declare-network N {REAL}){TAIL}", "versions 1.0 and 2.0 are supported"),
        (f"(vnnlib-version <2.0>)(declare-network N {NETWORK.format('float16', 'real')}){TAIL}", "type 'float16'"),
        (f"(vnnlib-version <2.0>)(declare-network N {NETWORK.format('real', 'int8')}){TAIL}", "output Y has element"),
        (f"(vnnlib-version <2.0>)(declare-network N {NETWORK.format('Real', 'real')}){TAIL}", "type 'Real'"),
        (
            "(vnnlib-version <2.0>)(declare-network N (declare-input X real [99999,99999]) (declare-output Y real []))"
            "(assert (<= Y 1.0))",
            "more than 10000000 elements",
        ),
        (
            "(vnnlib-version <2.0>)(declare-network N (declare-input X real [1]) (declare-input Z real [1]) "
            "(declare-output Y real []))(assert (<= Y 1.0))",
            "2 input tensors are declared ('X', 'Z')",
        ),
        (
            "(vnnlib-version <2.0>)(declare-network N (declare-input X real [1]) (declare-output Z real [1]) "
            "(declare-output Y real []))(assert (<= Y 1.0))",
            "2 output tensors are declared",
        ),
        (
            '(vnnlib-version <2.0>)(declare-network N (declare-input X real [1]) (declare-hidden H real [1] "h") '
            "(declare-output Y real []))(assert (<= Y 1.0))",
            "hidden node H is declared",
        ),
        (
            f"(vnnlib-version <2.0>)(declare-network N {REAL})"
            f"(declare-network M {REAL.replace('X', 'V').replace('Y', 'W')}){TAIL}",
            "2 networks are declared ('N', 'M')",
        ),
    ],
    ids=lambda v: str(v)[-60:],
)
def test_what_is_malformed_or_not_supported_is_one_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(VnnlibError) as caught:
        load_text(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "property.vnnlib"))
    assert fault in message
    assert len(message.splitlines()) == 1


def test_an_absent_package_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vnnlib", None)
    with pytest.raises(VnnlibError, match="pip install vnnlib"):
        load_2(tmp_path, "(<= Y[0] 1.0)")
