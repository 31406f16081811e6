"""The relaxation of ReLU on given bounds."""

from __future__ import annotations

import torch

from benchmarks.conftest import FLOAT, Measure, Sizes, generator_bytes
from benchmarks.table import Cost


def bench_relu_relaxation(measure: Measure, device: torch.device) -> None:
    """Forward reads l, u, slope and writes two outputs; backward reads them and two gradients and writes three."""
    count = Sizes(
        1, 4, generator_bytes(device)
    ).features  # four such tensors are as large as the generators of other benchmarks
    lower, upper = torch.rand(1, count, device=device) - 0.75, torch.rand(1, count, device=device) - 0.25
    measure(
        "relu_relaxation",
        {"lower": torch.minimum(lower, upper), "upper": upper, "slope": torch.rand_like(lower)},
        f"1x{count}",
        forward=Cost(FLOAT * 5 * count, 5 * count),
        backward=Cost(FLOAT * 8 * count, 15 * count),
    )
