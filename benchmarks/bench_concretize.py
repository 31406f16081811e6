"""Interval bounds of a zonotope."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure, Sizes
from benchmarks.table import Cost


@pytest.mark.parametrize("memory", ["recycled", "fresh"])
def bench_concretize(measure: Measure, sizes: Sizes, device: torch.device) -> None:
    """Forward reads G and c and writes l and u; backward reads G and two gradients and writes two."""
    center, generators = sizes.zonotope(device)
    g, n = sizes.generators, sizes.neurons
    measure(
        "concretize",
        {"center": center, "generators": generators},
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * (g + 3 * n), 2 * g + 2 * n),
        backward=Cost(FLOAT * (2 * g + 3 * n), 2 * g + 2 * n),
    )
