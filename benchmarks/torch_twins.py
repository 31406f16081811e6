"""Ops with a chosen derivative, and elementary functions, against torch's own: forward and backward, in one group.

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

from benchmarks.conftest import Cost, generator_bytes, pedantic
from benchmarks.machine import Machine
from benchmarks.table import facts
from zonocuda import ops

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
EACH_SIDE = pytest.mark.parametrize("side", ["native", "torch"])
ROUNDS, WARMUP_ROUNDS = 7, 2


def input_bytes(device: torch.device) -> int:
    """Of the input: beyond the caches of a GPU, and what a CPU does in little time."""
    return 16 * 2**20 if device.type == "cpu" else generator_bytes(device)


def forward_and_backward(
    benchmark: BenchmarkFixture,
    machine: Machine,
    side: str,
    what: str,
    functions: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    inputs: Sequence[Tensor],
    cost: Cost,
    family: str = "nonsmooth",
) -> None:
    """Times the native function or torch's, with the gradients of all inputs."""
    function = functions[side == "torch"]
    leaves = [t.requires_grad_() for t in inputs]
    grad = torch.ones_like(function(*leaves))
    benchmark.group = f"{family} {what}, {str(grad.dtype).removeprefix('torch.')}, {machine.device.type}"

    def call() -> object:
        return torch.autograd.grad(function(*leaves), leaves, grad)

    host = pedantic(benchmark, call, machine.device, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    if benchmark.stats is None:  # under --benchmark-disable
        return
    benchmark.extra_info.update(
        facts(machine, side, cost, cast(SimpleNamespace, benchmark.stats).stats.median, host),
        memory="recycled" if machine.recycles_memory else "fresh",
    )


__all__ = ["EACH_DTYPE", "EACH_SIDE", "Cost", "forward_and_backward", "input_bytes", "ops"]
