"""One activation of the dual pass between two lines."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Cost, Measure, Sizes


@pytest.mark.parametrize("slopes", ["shared", "per row"])
def bench_dual_lines(measure: Measure, sizes: Sizes, device: torch.device, slopes: str) -> None:
    """Forward reads v (and where rows have lines of their own, a slope and two offsets) and writes the image.

    Backward reads those and the gradient of the image, and writes that of v (and of the lines).
    """
    center, rows = sizes.zonotope(device)
    per_row = slopes == "per row"
    like = rows if per_row else center.unsqueeze(1)
    inputs = {"rows": rows, "lower": torch.rand_like(like), "below": -torch.rand_like(like)}
    inputs["above"] = torch.rand_like(like)
    g, n = sizes.generators, sizes.neurons
    lines = 3 * (g if per_row else n)
    measure(
        "dual_lines",
        inputs,
        f"{slopes}, {sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * (2 * g + lines), 5 * g),
        backward=Cost(FLOAT * (3 * g + 2 * lines), 10 * g),
    )
