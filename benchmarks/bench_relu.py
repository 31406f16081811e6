"""The zonotope ReLU with a free slope, fused for one dense block."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure, Sizes
from benchmarks.table import Cost


@pytest.mark.parametrize("memory", ["recycled", "fresh"])
def bench_relu(measure: Measure, sizes: Sizes, device: torch.device) -> None:
    """Forward reads G, c, slope and writes G', c', mu; backward reads G, the outputs' gradients, c, l, u and slope, and
    writes three gradients.
    """
    center, generators = sizes.zonotope(device)
    g, n = sizes.generators, sizes.neurons
    measure(
        "relu",
        {"center": center, "generators": generators, "slope": torch.rand_like(center)},
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * (2 * g + 4 * n), 3 * g + 10 * n),
        backward=Cost(FLOAT * (3 * g + 8 * n), 6 * g + 20 * n),
    )


def bench_relu_in_place(measure_once: Measure, sizes: Sizes, device: torch.device) -> None:
    """Reads G and c, and writes G' and c' into their memory, and mu."""
    center, generators = sizes.zonotope(device)
    g, n = sizes.generators, sizes.neurons
    measure_once.in_place(
        "relu_",
        {"center": center, "generators": generators},
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        Cost(FLOAT * (2 * g + 3 * n), 3 * g + 10 * n),
    )
