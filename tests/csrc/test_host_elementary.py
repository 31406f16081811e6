"""The bodies of the CUDA kernels of the elementary functions, run on the CPU, against the CPU kernels: bit for bit."""

from __future__ import annotations

import pytest
import torch

from tests.csrc.chains import Plan
from tests.csrc.host import HostKernels
from tests.csrc.test_host_nonsmooth import assert_same, unwritten
from tests.elementary import points
from zonocuda.functions import FUNCTIONS, ROUNDINGS, FunctionName

pytest.importorskip("zonocuda.ops", reason="the native ops are not built")
NATIVE = torch.ops.zonocuda
SPECIAL = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0, -2.0], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_elementary(host: HostKernels, function: FunctionName, dtype: torch.dtype) -> None:
    x = torch.cat([points.random_points(function, 150, 3), points.hard_points()[::100], SPECIAL]).to(dtype)
    number, parameter, count = FUNCTIONS.index(function), 3.0, x.numel()
    for plan in (Plan(), Plan(one_block=True)):
        launch = plan.pointwise(count)
        for rounding in range(len(ROUNDINGS)):
            integers = [count, number, rounding]
            (y,) = host.run("elementary_kernel", launch, [x, unwritten(x)], integers, [parameter], dtype=dtype)
            assert_same(y, NATIVE.elementary(x, number, parameter, rounding))
        g = torch.randn(count, dtype=dtype)
        (grad,) = host.run(
            "elementary_backward_kernel", launch, [g, x, unwritten(x)], [count, number], [parameter], dtype=dtype
        )
        assert_same(grad, NATIVE._elementary_backward(g, x, number, parameter))
