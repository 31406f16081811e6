"""One ReLU of the dual pass."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Cost, Measure, Sizes


@pytest.mark.parametrize("slopes", ["tied", "per row"])
def bench_dual_relu(measure: Measure, sizes: Sizes, device: torch.device, slopes: str) -> None:
    """Forward reads v (and a slope for each entry) and writes the image.

    Backward reads those and the gradient of the image, and writes that of v (and of the slopes).
    """
    center, rows = sizes.zonotope(device)
    inputs = {"rows": rows, "lower": center - sizes.symbols / 2, "upper": center + sizes.symbols / 2}
    per_row = slopes == "per row"
    if per_row:
        inputs["nonnegative"] = torch.rand_like(rows)
    g, n = sizes.generators, sizes.neurons
    measure(
        "dual_relu",
        inputs,
        f"{slopes}, {sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * ((2 + per_row) * g + 2 * n), 5 * g),
        backward=Cost(FLOAT * ((3 + 2 * per_row) * g + 4 * n), 10 * g),
    )
