"""The notebooks of examples/: every cell runs, and prints what is stored with it."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
DIGITS = re.compile(r"(?<=\.\d{2})\d+")
"""Digits of a number that another machine may print differently."""


def test_there_are_the_two_notebooks_that_the_project_grew_from_and_a_tour() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["nonsmooth", "tour", "zonotope"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_prints_what_is_stored_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem == "tour":
        pytest.importorskip("flint", reason="python-flint is not installed")
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), names)
        stored = "".join(line for output in cell["outputs"] for line in output["text"])
        assert DIGITS.sub("", printed.getvalue()) == DIGITS.sub("", stored), number
    assert len(cells) >= 4
