"""Elementary functions with a proven error, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.machine import Machine
from benchmarks.torch_twins import EACH_DTYPE, EACH_SIDE, Cost, forward_and_backward, input_bytes, ops

TORCH = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": lambda x: torch.log(x.abs()),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "sin": torch.sin,
    "atan": torch.atan,
}


@EACH_DTYPE
@EACH_SIDE
@pytest.mark.parametrize("name", TORCH)
def bench_elementary(benchmark: BenchmarkFixture, machine: Machine, name: str, dtype: torch.dtype, side: str) -> None:
    """Forward reads x and writes y, with some fifty operations between; backward reads x and the gradient and writes
    one. Beside it log pays for |x| too, on both sides."""
    if dtype not in (torch.float32, torch.float64):
        pytest.skip("elementary has float32 and float64")
    x = torch.randn(input_bytes(machine.device) // dtype.itemsize, device=machine.device).to(dtype)
    own = (lambda x: ops.elementary(x.abs(), name)) if name == "log" else (lambda x: ops.elementary(x, name))
    cost = Cost(5 * x.nbytes, 100 * x.numel())
    forward_and_backward(benchmark, machine, side, name, (own, TORCH[name]), [x], cost, "elementary")
