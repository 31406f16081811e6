"""A convolution of generators that each touch one neuron."""

from __future__ import annotations

import pytest
import torch

from benchmarks.conftest import FLOAT, Measure
from benchmarks.table import Cost
from benchmarks.windows import WindowSizes

INPUTS = 8  # channels


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (5, 2)])
def bench_diagonal_conv(measure: Measure, kernel: int, stride: int, device: torch.device) -> None:
    """Forward writes patches; backward reads their gradient for each of two gradients. Weights stay in the cache."""
    windows = WindowSizes(channels=32, window=-(-kernel // stride), side=16)
    p, _ = windows.numbers(device)
    symbols, features = windows.symbols(device), INPUTS * windows.side**2
    index = torch.arange(symbols, device=device) * features // symbols  # in order, each some times or not at all
    side = -(-windows.side // stride)
    measure(
        "diagonal_conv",
        {
            "coefficients": torch.rand(1, symbols, device=device),
            "index": index,
            "weight": torch.rand(windows.channels, INPUTS, kernel, kernel, device=device) - 0.5,
            "channels": INPUTS,
            "height": windows.side,
            "width": windows.side,
            "stride": (stride, stride),
            "padding": (kernel // 2, kernel // 2),
            "dilation": (1, 1),
            "groups": 1,
            "out_height": side,
            "out_width": side,
        },
        f"{symbols}x{windows.channels}, {kernel}x{kernel} stride {stride}",
        forward=Cost(FLOAT * p, p),
        backward=Cost(FLOAT * 2 * p, 4 * p),
    )
