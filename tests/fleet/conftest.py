"""A list of small instances, one for each thing that can come out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import files

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "safe.vnnlib": "verified",
    "unsafe.vnnlib": "falsified",
    "open.vnnlib": "timeout",
    "wide.vnnlib": "error",
    "broken.onnx": "error",
}
"""By the name of the property, or of the network that is none."""


def write_instances(folder: Path) -> Path:
    """The list: Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1."""
    files.fc_model(folder / "net.onnx", *files.DISTANCE)
    (folder / "broken.onnx").write_bytes(b"no network")
    files.save_spec(folder / "safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    files.save_spec(folder / "unsafe.vnnlib", [-0.1, -0.7], [0.3, 0.2], 2, "(>= Y_0 0.9)", "(>= Y_1 0)")
    files.save_spec(folder / "open.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")  # no float is, and no proof says so
    files.save_spec(folder / "wide.vnnlib", [-1], [1], 2, "(<= Y_0 -0.5)")
    rows = [f"net.onnx,{name},{0.5 if name == 'open.vnnlib' else 60}\n" for name in EXPECTED if name != "broken.onnx"]
    (folder / "instances.csv").write_text("".join([*rows, "broken.onnx,safe.vnnlib,60\n"]))
    return folder / "instances.csv"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the list, which no test changes."""
    folder = tmp_path_factory.mktemp("small")
    write_instances(folder)
    return folder


@pytest.fixture(scope="session")
def ran(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of results of a whole run of the program, and what it printed."""
    out = tmp_path_factory.mktemp("ran") / "out"
    command = ["-m", "zonocuda", "run", small, "--jobs", 2, "--out", out, "--certificates", "--split", "input"]
    ended = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    return out, ended
