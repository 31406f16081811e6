"""What README says of commands, targets, extras and modules is what there is; its Python runs in test_pages."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from zonocuda.cli.completion import commands_of
from zonocuda.cli.main import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = commands_of(build_parser())
BLOCKS = [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if not kind]


def synopsis() -> dict[str, str]:
    """By command, what README says that it takes."""
    (block,) = (text for text in BLOCKS if text.startswith("zonocuda verify "))
    lines = re.sub(r"\n +", " ", block).splitlines()
    return {line.split()[1]: line for line in lines if not line.split()[1].startswith("-")}


def actions(command: str) -> list[argparse.Action]:
    return [action for action in COMMANDS[command]._actions if action.dest != "help"]


def test_the_synopsis_has_every_command_and_the_program_has_every_one_of_it() -> None:
    assert set(synopsis()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_synopsis_of_a_command_has_its_options_and_their_choices(command: str) -> None:
    line = synopsis()[command]
    shared = {flag for action in actions("verify") for flag in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line))
    for action in actions(command):
        flags = set(action.option_strings)
        if not flags:
            assert (action.metavar or "|".join(action.choices or ())) in line
        elif "[verify's options]" not in line or not flags <= shared:
            assert flags & named, f"README lacks {flags}"
        for choices in re.findall(rf"(?:{'|'.join(flags) or action.dest}) ([a-z0-9]+(?:\|[a-z0-9]+)+)", line):
            assert set(choices.split("|")) <= set(action.choices or ()), action.dest
    known = {flag for action in actions(command) for flag in action.option_strings}
    assert named <= known, "README names what the program does not know"


def test_every_target_of_make_is_one() -> None:
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join([*BLOCKS, *re.findall(r"`[^`\n]+`", README)])))
    targets |= set(re.findall(r"`(gpu-[a-z]+)`", README))
    assert {"demo", "test", "gpu", "gpu-bench"} <= targets
    for target in targets:
        done = subprocess.run(["make", "-n", target, "PYTHON=python"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_extra_and_every_module_that_is_named_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"(?:zonocuda|'\.)\[([a-z,]+)\]", README) for name in group.split(",")}
    assert {"check", "plot"} <= named <= set(extras)
    modules = set(re.findall(r"python -m ([\w.]+)", README))
    assert "benchmarks.startup" in modules
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
