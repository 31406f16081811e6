"""One ReLU of the dual pass whose rows are subproblems: one neuron in ten is split in each."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Cost, Measure, Sizes


@pytest.mark.parametrize("slopes", ["where v >= 0", "of both signs"])
def bench_dual_split(measure: Measure, sizes: Sizes, device: torch.device, slopes: str) -> None:
    """Forward reads v, the split, the multiplier and the slopes of each entry and writes the image.

    Backward reads those and the gradient of the image, and writes that of v, the multipliers and the slopes.
    """
    center, rows = sizes.zonotope(device)
    splits = torch.randint(0, 20, rows.shape, dtype=torch.int8, device=device)
    splits = (splits == 1).to(torch.int8) - (splits == 2).to(torch.int8)
    inputs = {
        "rows": rows,
        "lower": center - sizes.symbols / 2,
        "upper": center + sizes.symbols / 2,
        "splits": splits,
        "multipliers": torch.rand_like(rows),
        "nonnegative": torch.rand_like(rows),
    }
    both = slopes == "of both signs"
    if both:
        inputs["negative"] = torch.rand_like(rows)
    g, n = sizes.generators, sizes.neurons
    measure(
        "dual_split",
        inputs,
        f"{slopes}, {sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * ((4 + both) * g + 2 * n) + g, 10 * g),
        backward=Cost(FLOAT * ((7 + 2 * both) * g + 4 * n) + g, 20 * g),
    )
