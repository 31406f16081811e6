"""The reader in bulk means what the reader of single tokens means, exactly, and needs little memory."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.vnnlib import KINDS
from tests.specs.helpers import assert_same
from zonocuda.specs import VnnlibError, load_vnnlib, vnnlib1
from zonocuda.specs.bulk import Regions
from zonocuda.specs.decimals import read_decimals
from zonocuda.specs.formula import FormulaError, number
from zonocuda.specs.tokens import read_commands

LITERALS = st.one_of(
    st.from_regex(r"\A[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?\Z").filter(bool),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(min_value=-10, max_value=10).map(repr),
    st.sampled_from(
        ["-0", "0.0", "1e400", "-1e-400", "5.", ".5", ".", "1.2.3", "e5", "1e", "--1", "1-2", "1e5.0", "0e5000"]
    ),
)


@settings(max_examples=500, deadline=None)
@given(texts=st.lists(LITERALS, min_size=1, max_size=6))
def test_literals_in_bulk_are_the_exact_numbers_and_the_nearest_floats(texts: list[str]) -> None:
    data = np.frombuffer(" ".join(texts).encode(), dtype=np.uint8)
    length = np.array([len(text) for text in texts])
    begin = np.cumsum(length + 1) - length - 1
    read = read_decimals(data, begin, length)
    try:
        exact = [number(text) for text in texts]
        floats = [float(value) for value in exact]
    except (FormulaError, OverflowError):
        assert read is None
        return
    if read is None:
        assert max(map(len, texts)) > 40 or any("e" in text.lower() for text in texts)
        return
    for i, value in enumerate(exact):
        assert read.exact(i) == value
        assert read.nearest[i] == floats[i]
        assert read.side[i] == (value > Fraction(floats[i])) - (value < Fraction(floats[i]))
        written = Fraction(int(read.mantissa[i])) * Fraction(10) ** int(read.exponent[i])
        assert i in read.others or (written == value and (read.mantissa[i] % 10 or not value))


def read_both(text: str) -> bool:
    """Whether the text is read in bulk; asserts that both readers agree on it."""
    commands = read_commands(text.encode()) if text.isascii() else None
    found = None if commands is None else vnnlib1.spec_in_bulk(commands)
    try:
        expected = vnnlib1._Reader(text, "file").spec()
    except VnnlibError:
        assert found is None
        return False
    if found is not None:
        assert_same(found, expected)
    return found is not None


NUMBERS = (
    "0.1",
    "0.10",
    "1e-1",
    "0.1000000000000000055511151231257827",
    "0.10000000000000000001",
    "-0.1",
    "0",
    "-0.0",
    "(- 0.1)",
    "(- 1e-1)",
    "2",
    "+.5",
)


def random_file(rng: random.Random) -> str:
    """A file of the usual commands, in unusual mixtures."""
    inputs, outputs = rng.choice((1, 2, 3)), rng.choice((1, 2))
    variables = [f"X_{j}" for j in range(inputs)] + [f"Y_{i}" for i in range(outputs)]

    def atom() -> str:
        left = rng.choice(variables)
        right = rng.choice(NUMBERS) if rng.random() < 0.8 else rng.choice(variables)
        if rng.random() < 0.2:
            left, right = right, left
        return f"({rng.choice(('<=', '>=', '<=', '>=', '<', '>'))} {left} {right})"

    def term() -> str:
        return atom() if rng.random() < 0.2 else f"(and {' '.join(atom() for _ in range(rng.choice((1, 2, 4))))})"

    lines = [f"(declare-const {v} Real)" for v in variables]
    for j in range(inputs):
        if rng.random() < 0.8:
            low, high = rng.choice((("-0.1", "0.1"), ("-3", "3"), ("0.1", "1e-1"), ("-1", "0.30000000000000001")))
            lines += [f"(assert (>= X_{j} {low}))", f"(assert (<= X_{j} {high}))"]
    for _ in range(rng.choice((0, 1, 2))):
        lines.append(f"(assert {rng.choice((atom, term))()})")
    if rng.random() < 0.8:
        terms = [term() for _ in range(rng.choice((1, 2, 5)))]
        if rng.random() < 0.5:
            box = [f"(>= X_{j} {rng.choice(('-0.5', '-0.50', '0.1'))}) (<= X_{j} 0.75)" for j in range(inputs)]
            terms = [f"(and {' '.join(box)} {atom()})" for _ in terms]
        lines.append(f"(assert (or {' '.join(terms)}))")
    if rng.random() < 0.2:
        extra = (
            "(assert (<= (+ Y_0 X_0) 1))",
            "(check-sat)",
            "(set-logic QF_LRA)",
            "(assert (or (<= Y_0 1) (<= Y_0 2)))",
        )
        lines.insert(rng.randrange(len(lines)), rng.choice(extra))
    if rng.random() < 0.1:
        del lines[rng.randrange(len(lines))]
    if rng.random() < 0.1:
        lines[-1] = lines[-1].replace(rng.choice("()_ 01"), rng.choice("() "), 1)
    return rng.choice(("\n", " ", "\n\n")).join(lines)


def test_both_readers_agree_on_random_files() -> None:
    rng = random.Random(0)
    in_bulk = sum(read_both(random_file(rng)) for _ in range(1000))
    assert in_bulk > 200  # many others are empty or unbounded, which is left to the reader of tokens


def image(inputs: int, rng: random.Random) -> str:
    """Bounds of every input, as for an image, and a class that wins."""
    lines = [f"(declare-const X_{j} Real)\n" for j in range(inputs)] + [
        f"(declare-const Y_{i} Real)\n" for i in range(10)
    ]
    for j in range(inputs):
        center = rng.random()
        lines.append(f"(assert (<= X_{j} {center + 0.01!r}))\n(assert (>= X_{j} {center - 0.01!r}))\n")
    rows = "".join(f"    (and (>= Y_{i} Y_3))\n" for i in range(10) if i != 3)
    return "".join([*lines, f"(assert (or\n{rows}))\n"])


def lookups(disjuncts: int, rng: random.Random) -> str:
    """Very many small boxes, each with its own bounds of the output."""
    lines = ["(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (or\n"]
    for k in range(disjuncts):
        low, y = k + rng.random() / 2, rng.random()
        lines.append(f"    (and (>= X_0 {low!r}) (<= X_0 {low + 0.5!r}) (<= Y_0 {y!r}))\n")
        lines.append(f"    (and (>= X_0 {low!r}) (<= X_0 {low + 0.5!r}) (>= Y_0 {y + 0.25!r}))\n")
    return "".join([*lines, "))\n"])


@pytest.mark.parametrize("text", [image(300, random.Random(1)), lookups(200, random.Random(2))])
def test_the_usual_files_are_read_in_bulk(text: str) -> None:
    assert read_both(text)
    assert read_both("(set-logic QF_LRA)\n" + text.replace("\n", "\r\n") + "(check-sat)")


@pytest.mark.parametrize("kind", KINDS)
def test_files_whose_reading_is_measured_are_read_in_bulk(kind: str) -> None:
    assert read_both("".join(KINDS[kind](random.Random(kind), 3000)))


def test_negative_numbers_as_smt_lib_writes_them_are_read_in_bulk() -> None:
    box = "".join(f"(assert (>= X_{j} (- 0.{j + 1}5)))(assert (<= X_{j} (- .1)))\n" for j in range(3))
    names = (*(f"X_{j}" for j in range(3)), "Y_0")
    declared = "".join(f"(declare-const {name} Real)\n" for name in names)
    assert read_both(f"{declared}{box}(assert (or (<= Y_0 (- 1e-1)) (>= (- 0.30000000000000000001) Y_0)))")


def test_more_than_100000_disjuncts_are_regions_that_are_made_when_they_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "many.vnnlib"
    path.write_text(lookups(60_000, random.Random(3)))
    spec = load_vnnlib(path)
    assert isinstance(spec.regions, Regions)
    assert len(spec.regions) == 60_000
    last = spec.regions[-1]
    assert 59_999 < last.box.lower.item() < last.box.upper.item() < 60_001
    assert [len(rows) for rows in last.disjuncts] == [1, 1]
    with pytest.raises(IndexError):
        spec.regions[60_000]
    again = pickle.loads(pickle.dumps(spec))
    assert again.regions[-1].disjuncts == last.disjuncts


PEAK = """
import resource, sys
from zonocuda.specs import load_vnnlib
load_vnnlib(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spec = load_vnnlib(sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("kind", ["disjuncts", "regions", "regions of 12 inputs", "inputs, 17 digits"])
def test_a_file_takes_at_most_five_times_its_size_of_memory(tmp_path: Path, kind: str) -> None:
    small, large = tmp_path / "small.vnnlib", tmp_path / "large.vnnlib"
    for path, size in ((small, 500_000), (large, 4_000_000)):  # buffers of a chunk are the same for every size
        path.write_text("".join(KINDS[kind](random.Random(4), size)))
    ran = subprocess.run([sys.executable, "-c", PEAK, small, large], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 5 * large.stat().st_size
