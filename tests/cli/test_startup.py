"""What a verdict on a small network loads: none of what torch needs to trace, compile or differentiate symbolically."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import startup

ROOT = Path(__file__).parents[2]
HEAVY = ("sympy", "scipy", "torch._dynamo", "torch._inductor", "torch.fx.experimental.symbolic_shapes", "rich", "flint")
"""Each takes from a twentieth of a second to a second to load."""


def loaded(*lines: str) -> list[str]:
    """Those of HEAVY that a program has loaded at its end."""
    text = "; ".join(["import sys", *lines, f"print([name for name in {HEAVY!r} if name in sys.modules])"])
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[str] = eval(done.stdout.splitlines()[-1])
    return found


def test_a_verdict_on_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    arguments = ["verify", *startup.problem(tmp_path)]
    assert loaded("from zonocuda.cli.main import main", f"assert main({arguments!r}) == 0") == []


def test_slopes_that_climb_load_nothing_heavy(tmp_path: Path) -> None:
    """Not what torch loads for gradients of other than a number."""
    net, _ = startup.problem(tmp_path)
    bounds = "zonocuda.optimize_bounds(net, zonocuda.Zonotope.from_ball(torch.zeros(1, 3), 1.0), torch.eye(2))"
    steps = f"best = {bounds}", "assert len(best.history) > 1"
    assert loaded("import torch, zonocuda", f"net = zonocuda.load_onnx({net!r})", *steps) == []


def test_the_list_names_what_can_be_loaded() -> None:
    """Guards the test above: a name that is misspelt is never loaded."""
    assert all(find_spec(name) is not None for name in HEAVY)


def test_the_benchmark_measures_cpu_time_and_imports() -> None:
    assert 0.05 < startup.cpu_seconds(["-c", "import time\nwhile time.process_time() < 0.1: pass"]) < 5.0
    assert {"json", "json.decoder"} <= startup.imported(["-c", "import json"]).keys()
    with pytest.raises(RuntimeError, match="ValueError: no"):
        startup.cpu_seconds(["-c", "raise ValueError('no')"])
