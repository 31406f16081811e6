"""Windowed generators as dense ones."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure
from benchmarks.table import Cost
from benchmarks.windows import WINDOWS, WindowSizes


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda w: f"{w.window}x{w.window}")
def bench_window_dense(measure: Measure, windows: WindowSizes, device: torch.device) -> None:
    """Forward reads patches and writes dense generators; backward reads the windows of their gradient alone."""
    patches, corners = windows.patches(device)
    p, n = windows.numbers(device)
    measure(
        "window_dense",
        {"patches": patches, "corners": corners, "height": windows.side, "width": windows.side},
        windows.name(device),
        forward=Cost(FLOAT * (p + windows.symbols(device) * n), 0),
        backward=Cost(FLOAT * 2 * p, 0),
    )
