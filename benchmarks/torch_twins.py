"""Ops with a chosen derivative against torch's own: the same numbers, forward and backward, in one group.

The column `of copy` counts the bytes that must move; the column `faster` is torch's time over ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.conftest import Cost
from benchmarks.machine import Machine, synchronised
from benchmarks.table import facts
from zonocuda import ops

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
EACH_SIDE = pytest.mark.parametrize("side", ["native", "torch"])
BYTES = 16 * 2**20  # of the input
ROUNDS, WARMUP_ROUNDS = 7, 2


def forward_and_backward(
    benchmark: BenchmarkFixture,
    machine: Machine,
    side: str,
    what: str,
    functions: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    inputs: Sequence[Tensor],
    cost: Cost,
) -> None:
    """Times the native function or torch's, with the gradients of all inputs."""
    function = functions[side == "torch"]
    leaves = [t.requires_grad_() for t in inputs]
    grad = torch.ones_like(function(*leaves))
    benchmark.group = f"nonsmooth {what}, {str(grad.dtype).removeprefix('torch.')}, {machine.device.type}"
    call = synchronised(lambda: torch.autograd.grad(function(*leaves), leaves, grad), machine.device)
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    if benchmark.stats is None:  # under --benchmark-disable
        return
    benchmark.extra_info.update(
        facts(machine, side, cost, cast(SimpleNamespace, benchmark.stats).stats.median),
        memory="recycled" if machine.recycles_memory else "fresh",
    )


__all__ = ["BYTES", "EACH_DTYPE", "EACH_SIDE", "Cost", "forward_and_backward", "ops"]
