"""A linear layer on generators that each touch one neuron."""

from __future__ import annotations

from math import isqrt

import torch

from benchmarks.conftest import FLOAT, Measure, generator_bytes
from benchmarks.table import Cost


def bench_diagonal_linear(measure: Measure, device: torch.device) -> None:
    """Forward reads a square weight and writes as many generators; backward reads the weight and their gradient and
    writes the gradient of the weight.
    """
    width = isqrt(generator_bytes(device) // FLOAT)
    g = width * width
    measure(
        "diagonal_linear",
        {
            "coefficients": torch.rand(1, width, device=device),
            "index": torch.arange(width, device=device),  # symbols come in the order of their neurons
            "weight": torch.rand(width, width, device=device),
        },
        f"1x{width}x{width}",
        forward=Cost(FLOAT * (2 * g + 3 * width), g),
        backward=Cost(FLOAT * (3 * g + 4 * width), 4 * g),
    )
