"""Cases that a run leaves out: pairs of values all meet, and the number is said."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import thorough

AXES = {"first": range(7), "second": "abcde", "third": (True, False), "fourth": range(3)}


@pytest.mark.parametrize("seed", range(3))
def test_every_two_values_meet_in_few_combinations(seed: int) -> None:
    axes = [list(axis) for axis in AXES.values()]
    chosen = thorough.pairwise(axes, seed)
    assert len(set(chosen)) == len(chosen) < 60 < 210
    for (a, first), (b, second) in itertools.combinations(enumerate(axes), 2):
        assert {(one[a], one[b]) for one in chosen} == set(itertools.product(first, second))


def test_a_thorough_run_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thorough, "left_out", 0)
    names, every = thorough.pairs(thorough=True, **AXES).args
    assert names == tuple(AXES)
    assert every == list(itertools.product(*AXES.values()))
    assert thorough.few(2, range(9), thorough=True) == list(range(9))
    assert thorough.left_out == 0
    _, chosen = thorough.pairs(thorough=False, **AXES).args
    assert thorough.few(2, range(9), thorough=False) == [0, 4]
    assert thorough.left_out == 7 + 210 - len(chosen)


def test_the_end_of_a_run_says_how_many_were_left_out(tmp_path: Path) -> None:
    """What a worker left out, told by the process that prints."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom tests.thorough import few\n\n\n"
        "@pytest.mark.parametrize('case', few(2, range(9)))\ndef test_it(case):\n    pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "ZONOCUDA_TEST_THOROUGH": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "7 like cases were left out: make thorough has them all" in done.stdout
