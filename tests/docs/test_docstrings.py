"""Every public name says what it does, and its examples run."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from types import ModuleType

import pytest
import torch

import zonocuda
from zonocuda import nonsmooth, ops

ROOT = Path(__file__).parents[2]
RESULTS = {"NetworkBounds", "OptimizedBounds", "VerifyResult"}
"""What functions return: the examples are theirs."""


def names(module: ModuleType) -> list[str]:
    """Public functions, and classes that users make; not what functions return."""
    listed = [name for name in module.__all__ if not name.startswith("_") and name not in RESULTS]
    found = [name for name in listed if module is zonocuda or inspect.isfunction(getattr(module, name))]
    return found + (["check"] if module is zonocuda else [])


ROOMS = {"zonocuda": zonocuda, "ops": ops, "nonsmooth": nonsmooth}
CASES = [(room, name) for room, module in ROOMS.items() for name in names(module)]
WITHOUT = {("nonsmooth", "html_page"), ("nonsmooth", "audit_slopes")}
"""A page to write to a file, and what needs a verifier's sweep; docs/nonsmooth.md has both."""


@pytest.mark.parametrize(("room", "name"), [case for case in CASES if case not in WITHOUT])
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
