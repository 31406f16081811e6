"""A bounded run of the soundness fuzzer (``make fuzz`` runs it for longer), and that it finds what is wrong."""

from __future__ import annotations

import pytest

from tests.fuzz.bounded import fuzz
from tests.soundness.fuzz import CONTROLS, LARGE, SMALL, trial
from tests.soundness.operators import kinds_of, kinds_to_attack, wholes_of, wholes_to_attack
from tests.soundness.random_networks import RandomNetwork


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
    networks = [RandomNetwork(seed, size).graph() for size in (LARGE, SMALL) for seed in range(60)]
    assert kinds_of(networks) == kinds_to_attack()
    assert wholes_of(networks) == wholes_to_attack()
