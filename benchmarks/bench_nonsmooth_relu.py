"""A line with a kink, against torch.relu, leaky_relu and abs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.machine import Machine
from benchmarks.torch_twins import EACH_DTYPE, EACH_SIDE, Cost, forward_and_backward, input_bytes, ops

FUNCTIONS = {
    "relu": (lambda x: ops.nonsmooth_relu(x), torch.relu),
    "relu with 1/2 at 0": (lambda x: ops.nonsmooth_relu(x, 0.0, 0.5), torch.relu),
    "leaky_relu": (lambda x: ops.nonsmooth_relu(x, 0.01, 0.01), lambda x: F.leaky_relu(x, 0.01)),
    "abs": (lambda x: ops.nonsmooth_relu(x, -1.0, 0.0), torch.abs),
}


@EACH_DTYPE
@EACH_SIDE
@pytest.mark.parametrize("name", FUNCTIONS)
def bench_nonsmooth_relu(
    benchmark: BenchmarkFixture, machine: Machine, name: str, dtype: torch.dtype, side: str
) -> None:
    """Forward reads x and writes y; backward reads x and the gradient and writes one."""
    x = torch.randn(input_bytes(machine.device) // dtype.itemsize, device=machine.device).to(dtype)
    cost = Cost(5 * x.nbytes, 2 * x.numel())
    forward_and_backward(benchmark, machine, side, name, FUNCTIONS[name], [x], cost)
