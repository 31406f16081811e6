"""What the planner foresees, against what a sweep takes: peak resident memory of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GIB = 2**30
_PROGRAM = """
import json, sys, torch
from zonocuda.domains import Zonotope
from zonocuda.verifier.forward import sweep
from tests.peak import peak_growth
from tests.verifier.graphs import Builder
from zonocuda.graph import Add, Relu

def network(side, channels):
    b = Builder(3, side, side)
    b(b.conv(3, channels, stride=2))
    for _ in range(3):
        b(Relu())
        b(b.conv(channels, channels, kernel=5, pad=2))
    skip = b(Relu())
    b(Add(), b(b.conv(channels, channels, kernel=5, pad=2), skip), skip)
    b(Relu())
    b(b.conv(channels, 4, kernel=3, stride=2))
    return b.graph().to(torch.float32)

def swept(side, channels, budget):
    graph = network(side, channels)
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sweep(graph, Zonotope.from_box(x - 1e-4, x + 1e-4), memory_budget=budget)

swept(16, 4, 2**30)  # so that nothing is loaded while it is measured
result, measured = peak_growth(lambda: swept(44, 40, int(sys.argv[1])))
actions = [action for step in result.plan for action in step.actions]
print(json.dumps(dict(planned=max(step.bytes for step in result.plan), measured=measured, actions=actions)))
"""


def run(budget: int) -> tuple[int, int, list[str]]:
    """Bytes planned and measured, and what the budget asked for."""
    if sys.platform != "linux":
        pytest.skip("anonymous memory is read from /proc, which Linux alone has")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(budget)], cwd=root, capture_output=True, text=True, timeout=300, check=True
    )
    report = json.loads(done.stdout)
    return report["planned"], report["measured"], report["actions"]


def test_peak_memory_is_what_was_planned_within_a_tenth() -> None:
    planned, measured, actions = run(8 * GIB)
    assert planned > GIB
    assert not actions
    assert abs(measured - planned) <= 0.1 * planned, f"planned {planned / GIB:.2f} GiB, measured {measured / GIB:.2f}"


def test_a_budget_that_is_too_small_for_the_generators_is_kept() -> None:
    budget = 3 * GIB // 4
    planned, measured, actions = run(budget)
    assert planned <= budget
    assert any("merged" in action or action == "box" for action in actions)
    assert measured <= 1.1 * budget
