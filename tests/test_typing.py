"""A user's file is clean under ``mypy --strict``, with an editable install and with a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import zonocuda
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import Verdict


def proven(net: Path, spec: Path) -> bool:
    result = zonocuda.verify(net, spec, timeout=60, certificate=True)
    assert_type(result.verified, bool)
    assert_type(result.verdict, Verdict)
    result.save("result.json")
    return result.verified and zonocuda.check(result, net, spec).confirmed


def margins(model: nn.Module, x: Tensor) -> Tensor:
    box = zonocuda.Zonotope.from_ball(x, eps=0.1)
    bounds = zonocuda.compute_bounds(model, box)
    better = zonocuda.optimize_bounds(model, box, torch.eye(3))
    lower, upper = zonocuda.ops.concretize(bounds.lower, bounds.upper.unsqueeze(1))
    assert_type(lower, Tensor)
    return better.lower + lower + upper


def robust(model: nn.Module, x: Tensor) -> list[str]:
    specs = zonocuda.Spec.robust_batch(x, "8/255", labels=[0, 1], outputs=3)
    rows: list[LinearConstraint] = [row for one in specs for rows in one.regions[0].disjuncts for row in rows]
    return [str(row) for row in rows] + [zonocuda.verify(model, one).reason for one in specs]
"""


def environment(folder: Path) -> Path:
    """The site-packages of an environment that has what this one has, but not the package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    own = Path(sysconfig.get_paths()["purelib"])
    for entry in own.iterdir():  # links: a path file is looked at after folders, and this one has the package's
        if "zonocuda" not in entry.name and not entry.name.endswith(".pth"):
            (site / entry.name).symlink_to(entry)
    return site


def check(program: Path, folder: Path, cache: Path) -> str:
    """What mypy says of a program in an environment."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}"]
    done = subprocess.run(
        [*command, f"--python-executable={folder}/bin/python", str(program)],
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=900,
        env={"PATH": "/usr/bin:/bin"},
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_users_file_is_clean_with_either_install(tmp_path: Path) -> None:
    program = tmp_path / "user" / "program.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    wheel, editable = environment(tmp_path / "wheel"), environment(tmp_path / "editable")
    shutil.copytree(ROOT / "zonocuda", wheel / "zonocuda", ignore=shutil.ignore_patterns("__pycache__"))
    (editable / "__editable__.zonocuda.pth").write_text(f"{ROOT}\n")
    for folder in ("wheel", "editable"):
        assert check(program, tmp_path / folder, tmp_path / "cache") == "Success: no issues found in 1 source file\n"
    program.write_text(PROGRAM.replace("timeout=60", "timeout='a minute'"))
    assert 'has incompatible type "str"' in check(program, tmp_path / "wheel", tmp_path / "cache")


def test_an_editable_install_is_a_path_that_type_checkers_follow(tmp_path: Path) -> None:
    """Not a hook of imports, which they do not run."""
    for name in ("zonocuda", "pyproject.toml", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = (
        "from setuptools import Distribution\n"
        "from setuptools.command.editable_wheel import editable_wheel\n"
        "distribution = Distribution({'license_expression': 'BSD-3-Clause'})  # as setup.py does\n"
        "distribution.parse_config_files()\n"
        "distribution.set_defaults()\n"
        "command = editable_wheel(distribution)\n"
        "command.finalize_options()\n"
        "print(type(command._select_strategy('zonocuda', 'tag', '.')).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("_StaticPth\n"), done.stdout + done.stderr
