"""Every malformed or unsupported file is refused in one line that names it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.specs.helpers import DECLARATIONS, UNIT_BOX, load_text
from zonocuda.specs import VnnlibError, load_vnnlib

# Text after four lines of declarations, the line of the fault (None: of the whole file), and the fault.
FAULTS = [
    ("(assert (<= Y_2 0))", 5, "'Y_2' is not a declared variable"),
    ("\n(assert (<= Z 0))", 6, "'Z' is not a declared variable"),
    ("(assert (<= X_00 0))", 5, "'X_00' is not a declared variable"),
    ("(assert (<= Y_0 nan))", 5, "'nan' is not a declared variable"),
    ("(assert (<= Y_0 1.2.3))", 5, "'1.2.3' is not a number"),
    ("(assert (<= Y_0 -))", 5, "'-' is not a number"),
    ("(assert (<= Y_0 .))", 5, "'.' is not a number"),
    ("(assert (<= Y_0 0x10))", 5, "'0x10' is not a number"),
    ("(assert (<= Y_0 1_000))", 5, "'1_000' is not a number"),
    ("(assert (<= Y_0 \u0661))", 5, "is not a declared variable"),
    ("(assert (<= Y_0 1e999999999))", 5, "an exponent beyond 1000"),
    ("(assert (<= Y_0 1e-999999999))", 5, "an exponent beyond 1000"),
    (f"(assert (<= Y_0 1e{'9' * 5000}))", 5, "an exponent beyond 1000"),
    (f"(assert (<= Y_0 {'9' * 5000}))", 5, "more than 1000 digits"),
    ("(assert (<= Y_0 1e400))", 5, "beyond the range of float64"),
    ("(assert (<= (* 1e400 Y_0) 1))", 5, "beyond the range of float64"),
    (f"(assert (<= Y_0 (* {'1e900 ' * 50})))", 5, "more than 16384 bits"),
    ("(declare-const X_0 Real)", 5, "X_0 is declared twice"),
    ("(declare-fun X_0 () Real)", 5, "X_0 is declared twice"),
    ("(declare-const Z_0 Real)", 5, "'Z_0': names must be"),
    ("(declare-const X_01 Real)", 5, "'X_01': names must be"),
    ("(declare-const X_2 Int)", 5, "expected the type Real"),
    ("(declare-const X_2)", 5, "expected the type Real"),
    ("(declare-const X_2 Real Real)", 5, "expected the end of declare-const, got 'Real'"),
    ("(declare-fun X_2 (Real) Real)", 5, "expected () after the name"),
    (f"(declare-const X_{'1' * 5000} Real)", 5, "the index is too large"),
    ("(declare-const X_3 Real)", None, "X_2 is not declared, but X_3 is"),
    ("(declare-const Y_9 Real)", None, "Y_2 is not declared, but Y_9 is"),
    ("(push 1)", 5, "command 'push' is not supported"),
    ("(check-sat)\n(assert (<= Y_0 1))", 6, "assert after check-sat"),
    ("(exit)(declare-const X_2 Real)", 5, "declare-const after check-sat"),
    ("(set-info :source (", 5, "the file ends before a parenthesis is closed"),
    ('(set-info :source "a', 5, "the file ends before a parenthesis is closed"),
    ("()", 5, "command ')' is not supported"),
    ("(assert (<= Y_0 1)", 5, "the file ends before a parenthesis is closed"),
    ("(assert (<= Y_0 1)\n(assert (<= Y_0 1))", 6, "expected the end of assert, got '('"),
    ("(assert (<= Y_0 1)))", 5, "expected a command, got ')'"),
    ("(assert (<= Y_0 1)) junk", 5, "expected a command, got 'junk'"),
    ("(assert (<= Y_0 1) (<= Y_1 1))", 5, "expected the end of assert"),
    ("(assert)", 5, "assert has no formula"),
    ("(assert Y_0)", 5, "assert takes a formula, got an arithmetic term"),
    ("(assert (+ Y_0 1))", 5, "assert takes a formula, got an arithmetic term"),
    ("(assert (<= (* X_0 X_1) 1))", 5, "only linear terms"),
    ("(assert (<= (* X_0 X_0) 1))", 5, "only linear terms"),
    ("(assert (<= (/ 1 X_0) 1))", 5, "divides by a variable"),
    ("(assert (<= (/ X_0 0.0) 1))", 5, "divides by zero"),
    ("(assert (<= (/ X_0 2 2) 1))", 5, "'/' takes 2 arguments, got 3"),
    ("(assert (<= Y_0))", 5, "'<=' takes at least 2 argument(s), got 1"),
    ("(assert (!= Y_0 Y_1 1))", 5, "'!=' takes 2 argument(s), got 3"),
    ("(assert (=> (<= Y_0 1)))", 5, "'=>' takes at least 2 argument(s), got 1"),
    ("(assert (ite (<= Y_0 1) (<= Y_0 1)))", 5, "'ite' takes 3 argument(s), got 2"),
    ("(assert (= (<= Y_0 1) Y_0))", 5, "'=' takes formulas, got an arithmetic term"),
    ("(assert (<= true Y_0))", 5, "'<=' takes arithmetic terms, got a formula"),
    ("(assert (and))", 5, "'and' takes at least 1 argument(s), got 0"),
    ("(assert (not (<= Y_0 1) (<= Y_1 1)))", 5, "'not' takes 1 argument(s), got 2"),
    ("(assert (and (<= Y_0 1) Y_1))", 5, "'and' takes formulas"),
    ("(assert (<= (<= Y_0 1) 1))", 5, "'<=' takes arithmetic terms"),
    ("(assert (let ((a Y_0)) (<= a 1)))", 5, "operator 'let' is not supported"),
    ("(assert (<= (ite (<= Y_0 1) Y_0 Y_1) 1))", 5, "'ite' takes formulas, got an arithmetic term"),
    ("(assert (<= (sin Y_0) 1))", 5, "operator 'sin' is not supported"),
    ("(assert ((<= Y_0 1)))", 5, "operator '(' is not supported"),
    ("(assert (and () (<= Y_0 1)))", 5, "operator ')' is not supported"),
    ("(assert (<= |Y 0| 1))", 5, "is not a declared variable"),
    ("(assert " + "(and " * 100_000, 5, "nested more than 1000 deep"),
    ("(assert (<= " + "(- " * 100_000, 5, "nested more than 1000 deep"),
    ("(assert (and" + " (or (<= Y_0 1) (<= Y_1 1))" * 20 + "))", 5, "more than 1000000 disjuncts"),
    ("(assert (and" + " (or (<= Y_0 1) (<= Y_1 1))" * 20_000 + "))", 5, "more than 1000000 disjuncts"),
    ("(assert (or (<= Y_0 1) (<= Y_1 1)))" * 20, None, "more than 1000000 disjuncts"),
    ("(assert (not (or" + " (and (<= Y_0 1) (<= Y_1 1))" * 20 + ")))", 5, "more than 1000000 disjuncts"),
    ("(assert (<= Y_0 1))\n\x00(assert (<= Y_1 1))", 6, "a null byte"),
    ("(assert (<= Y_0 1)) ; note\r(assert (<= Y_1 1))\n", 5, "a carriage return without a line feed"),
]


@pytest.mark.parametrize(("text", "line", "fault"), FAULTS, ids=lambda v: str(v)[:40])
def test_a_fault_is_one_line_with_the_file_and_the_line(
    tmp_path: Path, text: str, line: int | None, fault: str
) -> None:
    path = tmp_path / "bad.vnnlib"
    path.write_bytes((DECLARATIONS + text).encode())
    with pytest.raises(VnnlibError) as caught:
        load_vnnlib(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: " if line is None else f"{path}, line {line}: ")
    assert fault in message
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("assertions", "fault"),
    [
        ("(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))", "input X_0 has no lower bound"),
        ("(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= X_1 0))", "input X_1 has no upper bound"),
        ("(assert (<= Y_0 1))", "input X_0 has no lower bound"),
        ("(assert (<= (+ X_0 X_1) 1))", "input X_0 has no lower bound"),
        (
            UNIT_BOX.replace("(assert (<= X_1 1))", "(assert (or (<= X_1 1) (<= Y_0 1)))"),
            "input X_1 has no upper bound",
        ),
        (UNIT_BOX + "(assert (<= (* 1e-300 X_0) 1e300))(assert (>= (* 1e-300 X_0) 1e300))", "input X_0 is beyond"),
    ],
)
def test_a_missing_bound_is_an_error(tmp_path: Path, assertions: str, fault: str) -> None:
    with pytest.raises(VnnlibError, match=fault) as caught:
        load_text(tmp_path, DECLARATIONS + assertions)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("(declare-const Y_0 Real)(assert (<= Y_0 1))", "no input X_0 is declared"),
        ("(declare-const X_0 Real)(assert (<= X_0 1))", "no output Y_0 is declared"),
        ("", "the file is empty"),
        (" \n; only a comment\n", "the file is empty"),
        ("hello", "expected a command, got 'hello'"),
        ("(", "the file ends before a parenthesis is closed"),
        ("(declare-const", "the file ends before a parenthesis is closed"),
    ],
)
def test_a_file_without_a_property_is_an_error(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(VnnlibError, match=fault):
        load_text(tmp_path, text)


def test_too_many_regions_of_many_inputs_are_refused(tmp_path: Path) -> None:
    n = 4000
    text = "".join(f"(declare-const X_{j} Real)(assert (<= X_{j} 1))(assert (>= X_{j} 0))" for j in range(n))
    split = " ".join(f"(<= X_{j} 0.5)" for j in range(n))
    with pytest.raises(VnnlibError, match="4001 input regions of 4000 inputs"):
        load_text(tmp_path, f"{text}(declare-const Y_0 Real)(assert (or {split} (and (or (<= Y_0 1)))))")


def test_rows_shared_by_many_disjuncts_are_counted(tmp_path: Path) -> None:
    shared = "(assert (<= Y_0 1))" * 1000
    choice = "(assert (or (<= Y_0 1) (<= Y_0 2)))"
    with pytest.raises(VnnlibError, match="50000000 constraints"):
        load_text(tmp_path, f"{DECLARATIONS}{UNIT_BOX}{shared}{choice}(assert (or {'(<= Y_1 1)' * 30_000}))")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.vnnlib", b"(assert \xff)", "not UTF-8 text (byte 8 is 0xff)"),
        ("a.vnnlib", gzip.compress(b"(assert)", mtime=0), "not UTF-8 text"),
        ("a.vnnlib.gz", b"(assert)", "cannot be read: Not a gzipped file"),
        ("a.vnnlib.gz", gzip.compress((DECLARATIONS + UNIT_BOX).encode(), mtime=0)[:-20], "cannot be read: "),
        ("a.vnnlib.gz", gzip.compress((DECLARATIONS + UNIT_BOX).encode(), mtime=0) + b"junk", "cannot be read: "),
        ("a.vnnlib.gz", b"", "the file is empty"),
        ("new\nline.vnnlib", b"junk", "expected a command"),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VnnlibError) as caught:
        load_vnnlib(path)
    message = str(caught.value)
    assert fault in message
    assert name.encode("unicode_escape").decode() in message
    assert len(message.splitlines()) == 1


def test_a_flipped_bit_in_a_compressed_file_is_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress((DECLARATIONS + UNIT_BOX).encode(), mtime=0))
    content[-6] ^= 1  # in the checksum
    path = tmp_path / "a.vnnlib.gz"
    path.write_bytes(bytes(content))
    with pytest.raises(VnnlibError, match="CRC check failed"):
        load_vnnlib(path)


@pytest.mark.parametrize("name", ["missing.vnnlib", "missing.vnnlib.gz"])
def test_a_missing_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(VnnlibError, match=r"missing\.vnnlib.*No such file"):
        load_vnnlib(tmp_path / name)


@pytest.mark.parametrize("name", ["folder.vnnlib", "folder.vnnlib.gz"])
def test_a_folder_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(VnnlibError, match=r"folder\.vnnlib.*Is a directory"):
        load_vnnlib(tmp_path / name)


def test_a_path_with_a_null_byte_is_an_error() -> None:
    with pytest.raises(VnnlibError, match="null byte"):
        load_vnnlib("a\0b.vnnlib")


WORDS = [
    *("(", ")", "(", ")", "(", ")", "assert", "declare-const", "declare-fun", "Real", "and", "or", "not", "=>"),
    *("+", "-", "*", "/", "<=", ">=", "<", ">", "=", "X_0", "X_1", "X_2", "Y_0", "Y_1"),
    *("0", "1", "-0.5", "1e3", "1e999999999", "nan", ";", "\n", "\x00", "\r", "\u00e9", "|"),
    *("vnnlib-version", "<2.0>", "declare-network", "declare-input", "real", "[0]"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), max_size=30), declared=st.booleans(), cut=st.integers(0, 40))
def test_no_text_raises_anything_else(tmp_path: Path, words: list[str], declared: bool, cut: int) -> None:
    text = (DECLARATIONS + UNIT_BOX if declared else "") + " ".join(words)
    try:
        spec = load_text(tmp_path, text[: len(text) - cut])
    except VnnlibError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert spec.inputs >= 1
        assert spec.outputs >= 1
