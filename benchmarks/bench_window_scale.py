"""Windowed generators times one factor for each neuron."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure
from benchmarks.table import Cost
from benchmarks.windows import WINDOWS, WindowSizes


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda w: f"{w.window}x{w.window}")
def bench_window_scale(measure: Measure, windows: WindowSizes, device: torch.device) -> None:
    """Forward reads and writes patches; backward reads them and their gradient and writes two gradients."""
    patches, corners = windows.patches(device)
    multiplier = torch.rand(1, windows.channels, windows.side, windows.side, device=device)
    p, n = windows.numbers(device)
    measure(
        "window_scale",
        {"patches": patches, "corners": corners, "multiplier": multiplier},
        windows.name(device),
        forward=Cost(FLOAT * (2 * p + n), p),
        backward=Cost(FLOAT * (3 * p + 2 * n), 3 * p),
    )


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda w: f"{w.window}x{w.window}")
def bench_window_scale_in_place(measure_once: Measure, windows: WindowSizes, device: torch.device) -> None:
    """Reads patches and writes them into the same memory."""
    patches, corners = windows.patches(device)
    multiplier = torch.rand(1, windows.channels, windows.side, windows.side, device=device)
    p, n = windows.numbers(device)
    measure_once.in_place(
        "window_scale_",
        {"patches": patches, "corners": corners, "multiplier": multiplier},
        windows.name(device),
        Cost(FLOAT * (2 * p + n), p),
    )
