"""What the tests of soundness share."""

from __future__ import annotations

import pytest

from zonocuda.verifier import splitting, verification


@pytest.fixture
def prover_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """``verify`` proves or does not: the search, which would answer ``falsified`` first, finds nothing."""
    monkeypatch.setattr(verification, "falsify", lambda *args, **options: None)
    for room in (verification, splitting):
        monkeypatch.setattr(room, "replay", lambda *args, **options: None)
