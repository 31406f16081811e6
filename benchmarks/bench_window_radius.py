"""The radius of windowed generators."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure
from benchmarks.table import Cost
from benchmarks.windows import WINDOWS, WindowSizes


@pytest.mark.parametrize("windows", WINDOWS, ids=lambda w: f"{w.window}x{w.window}")
def bench_window_radius(measure: Measure, windows: WindowSizes, device: torch.device) -> None:
    """Forward reads the patches and writes a map; backward reads patches and a map and writes patches."""
    patches, corners = windows.patches(device)
    p, n = windows.numbers(device)
    measure(
        "window_radius",
        {"patches": patches, "corners": corners, "height": windows.side, "width": windows.side},
        windows.name(device),
        forward=Cost(FLOAT * (p + n), p),
        backward=Cost(FLOAT * (2 * p + n), p),
    )
