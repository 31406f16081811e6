"""Max pooling, against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.machine import Machine
from benchmarks.torch_twins import EACH_DTYPE, EACH_SIDE, Cost, forward_and_backward, input_bytes, ops

WINDOWS = {"2x2": (2, 2, 0), "3x3 stride 2": (3, 2, 1), "3x3 stride 1": (3, 1, 1)}
CHOICES: dict[str, dict[str, Any]] = {"first": {}, "even": {"ties": "even"}}


@EACH_DTYPE
@EACH_SIDE
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("window", WINDOWS)
def bench_nonsmooth_max_pool2d(
    benchmark: BenchmarkFixture,
    machine: Machine,
    window: str,
    layout: str,
    choice: str,
    dtype: torch.dtype,
    side: str,
) -> None:
    """Half of the numbers are zeros, as after a ReLU. Reads x and writes values; reads gradients and writes them."""
    x = (
        torch.randn(input_bytes(machine.device) // dtype.itemsize // (32 * 64 * 64), 32, 64, 64, device=machine.device)
        .relu()
        .to(dtype)
    )
    if layout == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    sizes = WINDOWS[window]

    def ours(t: Tensor) -> Tensor:
        return ops.nonsmooth_max_pool2d(t, *sizes, **CHOICES[choice])

    def theirs(t: Tensor) -> Tensor:
        return F.max_pool2d(t, *sizes)

    outputs = theirs(x)
    cost = Cost(2 * x.nbytes + 2 * outputs.nbytes + 8 * outputs.numel(), outputs.numel() * sizes[0] ** 2)
    what = f"max_pool2d {window}, {layout}, {choice}"
    forward_and_backward(benchmark, machine, side, what, (ours, theirs), [x], cost)
