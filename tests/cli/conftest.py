"""Files that the tests of several commands open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import files


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1."""
    return files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """A property that holds: Y_0 is never below -1/2."""
    return files.save_spec(tmp_path / "safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
