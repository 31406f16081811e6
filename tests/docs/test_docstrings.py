"""Every public name says what it does, and its examples run."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import zonocuda
from zonocuda import fleet, nonsmooth, ops, specs, verifier

ROOT = Path(__file__).parents[2]
ROOMS = {
    "zonocuda": zonocuda,
    "ops": ops,
    "nonsmooth": nonsmooth,
    "fleet": fleet,
    "specs": specs,
    "verifier": verifier,
}
GIVEN = {
    *("DualLinesOutput", "DualReluOutput", "DualSplitOutput", "Relaxation", "ReluOutput"),
    *("AuditReport", "Certificate", "DtypeReport", "LayerReport", "SlopeAudit", "SlopeReport"),
    *("Done", "Executor", "Record"),
    *("Counterexample", "LayerStats", "Ran", "RowBound", "Step"),
}
"""What functions return inside their results, and a protocol: the examples of these functions have them."""


def names(module: ModuleType) -> list[str]:
    """Public functions and classes; not errors, and not constants."""
    found = [name for name in module.__all__ if not name.startswith("_") and name not in GIVEN]
    callables = [name for name in found if callable(getattr(module, name))]
    return [name for name in callables if not is_error(getattr(module, name))] + ["check"] * (module is zonocuda)


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


CASES = [
    (room, name)
    for room, module in ROOMS.items()
    for name in names(module)
    if module is zonocuda or getattr(module, name) is not getattr(zonocuda, name, None)
]


@pytest.mark.parametrize(("room", "name"), CASES)
def test_the_examples_of_a_public_name_run(room: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "check":
        pytest.importorskip("flint", reason="python-flint is not installed")
    monkeypatch.chdir(ROOT)
    module = ROOMS[room]
    text = inspect.getdoc(getattr(module, name))
    assert text, f"{room}.{name} has no docstring"
    names = {entry: getattr(module, entry) for entry in dir(module) if not entry.startswith("_")}
    test = doctest.DocTestParser().get_doctest(text, {**names, "torch": torch}, f"{room}.{name}", None, None)
    assert test.examples, f"{room}.{name} has no example"
    result = doctest.DocTestRunner(verbose=False).run(test)
    assert not result.failed


def test_every_public_name_is_on_a_page_of_the_reference() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    listed = set(re.findall(r"^::: zonocuda\.([\w.]+)$", pages, re.MULTILINE))
    for room, name in CASES:
        ways = {name} if room == "zonocuda" else {room, f"{room}.{name}", name}
        assert ways & listed, f"{room}.{name}"
