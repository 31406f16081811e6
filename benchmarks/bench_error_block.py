"""Dense generators of symbols that each touch one neuron."""

from __future__ import annotations

import torch

from benchmarks.conftest import FLOAT, Measure, Sizes
from benchmarks.table import Cost

INDEX = 8  # bytes


def bench_error_block(measure: Measure, sizes: Sizes, device: torch.device) -> None:
    """Forward writes the generators; backward reads one entry of each row of their gradient."""
    rows = sizes.batch * sizes.symbols
    measure(
        "error_block",
        {
            "coefficients": torch.rand(sizes.batch, sizes.symbols, device=device),
            "index": torch.randint(0, sizes.features, (sizes.symbols,), device=device),
            "shape": (sizes.features,),
        },
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * (sizes.generators + rows) + INDEX * sizes.symbols, 0),
        backward=Cost(FLOAT * 2 * rows + INDEX * sizes.symbols, 0),
    )
