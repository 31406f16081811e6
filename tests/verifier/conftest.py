"""What the tests of the verifier share."""

from __future__ import annotations

import pytest

from zonocuda.verifier import verification


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only proofs, and the dual's corners, decide."""
    monkeypatch.setattr(verification, "falsify", lambda *args, **options: None)
    monkeypatch.setattr(verification, "wants_split", lambda split, region: False)
