"""A bounded run of the soundness fuzzer (``make fuzz`` runs it for longer), and that it finds what is wrong."""

from __future__ import annotations

import pytest

from tests.fuzz.bounded import fuzz
from tests.soundness.fuzz import CONTROLS, LARGE, SMALL, trial
from tests.soundness.random_networks import RandomNetwork
from zonocuda import graph as ops


def test_no_bound_and_no_verdict_on_random_networks_is_contradicted() -> None:
    """A failure names the command that replays it."""
    assert "bounds: " in fuzz("bounds")


def test_trials_reach_every_end() -> None:
    """Exact comparisons, planted points, and verdicts on sampled networks."""
    ends = set()
    for seed in range(40):
        end, fault = trial(seed)
        assert not fault, fault
        ends.add(end)
    assert {"exact bounds, all hold", "planted, not verified", "sampled, verified"} <= ends


@pytest.mark.parametrize("control", [name for name in CONTROLS if name])
def test_an_unsoundness_that_is_put_in_is_found(control: str) -> None:
    """Within the first trials, one of which is wrong with it and right without."""
    found = next((seed for seed in range(200) if trial(seed, control)[1]), None)
    assert found is not None, f"nothing found wrong with {control}"
    assert not trial(found)[1]


def test_random_networks_have_every_operator() -> None:
    """But smooth functions, what is stated of them, and products, which tests/relaxations, test_assumed,
    test_smooth_networks and test_transformers attack."""
    kinds = {type(node.op).__name__ for seed in range(60) for node in RandomNetwork(seed, LARGE).graph().nodes}
    kinds |= {type(node.op).__name__ for seed in range(60) for node in RandomNetwork(seed, SMALL).graph().nodes}
    abstract = {
        "Assumed",
        "Bilinear",
        "Elementary",
        "Elementwise",
        "Op",
        "Affine",
        "Rearrangement",
        "Graph",
        "Node",
        "Part",
    }
    exported = {name for name in ops.__all__ if isinstance(getattr(ops, name), type)}
    assert kinds == exported - abstract
