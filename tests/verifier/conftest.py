"""What the tests of the verifier share."""

from __future__ import annotations

import pytest

from zonocuda.verifier import decide, splitting


@pytest.fixture(autouse=True)
def short_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of boxes that no timeout ends takes a tenth of a second."""
    monkeypatch.setattr(splitting, "SECONDS", 0.1)


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only proofs, and the dual's corners, decide."""
    monkeypatch.setattr(decide, "falsify", lambda *args, **options: None)
    monkeypatch.setattr(decide, "wants_split", lambda split, region: False)
