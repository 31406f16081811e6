"""What `make gpu` runs is there to be run: where no GPU is, on an installation of only what README names for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("flint", "sklearn", "matplotlib", "auto_LiRPA", "vnnlib")
"""Packages that a GPU machine is not asked to have."""


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, where none of the optional packages can be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))"
    code = f"{blocked}; import pytest; sys.exit(pytest.main({['-q', '-p', 'no:cacheprovider', *arguments]!r}))"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=500
    )


def gpu_tests() -> list[str]:
    found = re.search(r"^GPU_TESTS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


@pytest.mark.slow
@pytest.mark.parametrize("folders", [gpu_tests(), ["benchmarks"]], ids=["tests", "benchmarks"])
def test_the_tests_and_benchmarks_of_gpus_are_collected_without_optional_packages(folders: list[str]) -> None:
    done = run([*folders, "-m", "gpu", "--collect-only"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "[cuda" in done.stdout


@pytest.mark.slow
def test_every_benchmark_of_an_op_runs() -> None:
    """On the CPU, with small tensors, without its clock."""
    chosen = ["-k", "native and not float16 and not float64", "-m", "not slow and not gpu"]
    done = run(["benchmarks", *chosen, "--benchmark-disable"], ZONOCUDA_BENCH_MB="1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
