"""A bounded run of the fuzzer, as a test: the same cases each time. ``make fuzz`` draws others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import SEED

ROOT = Path(__file__).parents[2]
SECONDS = 4


def fuzz(*kinds: str) -> str:
    """What ``python -m tests.fuzz`` prints for these kinds, from the seed of all tests; it must pass.

    In a process of its own, which a crash of a library ends.
    """
    command = [sys.executable, "-m", "tests.fuzz", *(word for kind in kinds for word in ("--kind", kind))]
    command += ["--minutes", str(SECONDS / 60), "--seed", str(SEED)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
