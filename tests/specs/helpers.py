"""What the tests of the VNN-LIB readers share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from zonocuda.specs import Box, Spec, load_vnnlib

DECLARATIONS = "".join(f"(declare-const {v} Real)\n" for v in ("X_0", "X_1", "Y_0", "Y_1"))
UNIT_BOX = "".join(f"(assert (>= X_{j} 0))\n(assert (<= X_{j} 1))\n" for j in (0, 1))


def load_text(folder: Path, text: str) -> Spec:
    """The property of a file that holds ``text``."""
    path = folder / "property.vnnlib"
    path.write_text(text, encoding="utf-8")
    return load_vnnlib(path)


def load_assertion(folder: Path, formula: str) -> Spec:
    """The property of ``formula`` over X_0, X_1 in [0, 1] and Y_0, Y_1."""
    return load_text(folder, f"{DECLARATIONS}{UNIT_BOX}(assert {formula})\n")


def bounds(box: Box) -> list[tuple[float, float]]:
    """Lower and upper bound of each input."""
    return list(zip(box.lower.tolist(), box.upper.tolist(), strict=True))


def has_counterexample_at(spec: Spec, x: Sequence[float], y: Sequence[float]) -> bool:
    """Whether some region accepts the point."""
    return any(
        all(low <= v <= high for v, (low, high) in zip(x, bounds(region.box), strict=True)) and region.is_unsafe(x, y)
        for region in spec.regions
    )


def assert_same(one: Spec, other: Spec) -> None:
    """The two properties agree exactly, in the order of their regions and disjuncts as well."""
    assert (one.inputs, one.outputs, len(one.regions)) == (other.inputs, other.outputs, len(other.regions))
    for a, b in zip(one.regions, other.regions, strict=True):
        for name in ("lower", "upper", "float32_lower", "float32_upper"):
            assert torch.equal(getattr(a.box, name), getattr(b.box, name)), name
        assert a.disjuncts == b.disjuncts
