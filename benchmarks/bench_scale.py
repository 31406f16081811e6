"""Generators times one factor for each neuron."""

from __future__ import annotations

import torch

from benchmarks.conftest import FLOAT, Measure, Sizes
from benchmarks.table import Cost


def bench_scale(measure: Measure, sizes: Sizes, device: torch.device) -> None:
    """Forward reads and writes generators; backward reads them and their gradient and writes two gradients."""
    multiplier, generators = sizes.zonotope(device)
    g, n = sizes.generators, sizes.neurons
    measure(
        "scale",
        {"generators": generators, "multiplier": multiplier},
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        forward=Cost(FLOAT * (2 * g + n), g),
        backward=Cost(FLOAT * (3 * g + 2 * n), 3 * g),
    )


def bench_scale_in_place(measure_once: Measure, sizes: Sizes, device: torch.device) -> None:
    """Reads generators and writes them into the same memory."""
    multiplier, generators = sizes.zonotope(device)
    g, n = sizes.generators, sizes.neurons
    measure_once.in_place(
        "scale_",
        {"generators": generators, "multiplier": multiplier},
        f"{sizes.batch}x{sizes.symbols}x{sizes.features}",
        Cost(FLOAT * (2 * g + n), g),
    )
