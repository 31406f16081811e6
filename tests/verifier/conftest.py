"""What the tests of the verifier share."""

from __future__ import annotations

import pytest

from zonocuda.verifier import decide


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only proofs, and the dual's corners, decide."""
    monkeypatch.setattr(decide, "falsify", lambda *args, **options: None)
    monkeypatch.setattr(decide, "wants_split", lambda split, region: False)
