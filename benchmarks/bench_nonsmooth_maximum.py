"""The larger of two, against torch.maximum."""

from __future__ import annotations

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.machine import Machine
from benchmarks.torch_twins import EACH_DTYPE, EACH_SIDE, Cost, forward_and_backward, input_bytes, ops


@EACH_DTYPE
@EACH_SIDE
def bench_nonsmooth_maximum(benchmark: BenchmarkFixture, machine: Machine, dtype: torch.dtype, side: str) -> None:
    """Forward reads two and writes one and a byte; backward reads one and the byte and writes two."""
    a, b = (
        torch.randn(input_bytes(machine.device) // dtype.itemsize, device=machine.device).to(dtype) for _ in range(2)
    )
    cost = Cost(6 * a.nbytes + 2 * a.numel(), 3 * a.numel())
    functions = (ops.nonsmooth_maximum, torch.maximum)
    forward_and_backward(benchmark, machine, side, "maximum", functions, [a, b], cost)
