"""What csrc/math/elementary.h claims of each function."""

from __future__ import annotations

import re
from pathlib import Path

CLAIMS = (Path(__file__).parents[2] / "csrc" / "math" / "elementary.h").read_text(encoding="utf-8")


def claimed_units(name: str) -> float:
    """The units of a function that csrc/math/elementary.h inflates by."""
    if name in ("sin", "cos"):
        found = re.search(r"enclose\(value, ([\d.]+), magnitude\(x\)", CLAIMS)
    else:
        found = re.search(rf"enclose\({name}_value\(x(?:, p)?\), ([\d.]+)", CLAIMS)
    assert found, name
    return float(found[1])
