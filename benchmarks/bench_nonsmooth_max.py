"""The maximum along a dimension, against torch.max and torch.amax."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.machine import Machine
from benchmarks.torch_twins import EACH_DTYPE, EACH_SIDE, Cost, forward_and_backward, input_bytes, ops

LENGTH = 64
FUNCTIONS = {
    "first": (lambda x, dim: ops.nonsmooth_max(x, dim), lambda x, dim: torch.max(x, dim).values),
    "even": (lambda x, dim: ops.nonsmooth_max(x, dim, "even"), torch.amax),
}


@EACH_DTYPE
@EACH_SIDE
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("ties", FUNCTIONS)
def bench_nonsmooth_max(
    benchmark: BenchmarkFixture, machine: Machine, ties: str, dim: int, dtype: torch.dtype, side: str
) -> None:
    """Reads x once forward and writes its gradient once backward; the rest is small."""
    size = (LENGTH, input_bytes(machine.device) // dtype.itemsize // LENGTH)
    x = torch.randn(size if dim == 0 else size[::-1], device=machine.device).to(dtype)
    ours, theirs = FUNCTIONS[ties]
    functions = (lambda t: ours(t, dim), lambda t: theirs(t, dim))
    cost = Cost(2 * x.nbytes, x.numel())
    forward_and_backward(benchmark, machine, side, f"max over dimension {dim}, {ties}", functions, [x], cost)
