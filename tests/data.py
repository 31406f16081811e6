"""Where the real networks and specifications are, which the project does not ship."""

import os
from pathlib import Path

import pytest


def data_root() -> Path:
    """The folder named by ZONOCUDA_TEST_DATA; skips the test, saying so, where it is not set."""
    root = os.environ.get("ZONOCUDA_TEST_DATA")
    if not root:
        pytest.skip("real networks absent: ZONOCUDA_TEST_DATA is not set")
    path = Path(root)
    if not path.is_dir():
        pytest.fail(f"ZONOCUDA_TEST_DATA={root} is not a folder")
    return path
