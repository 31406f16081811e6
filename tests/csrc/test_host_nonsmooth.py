"""The bodies of the CUDA kernels with a chosen derivative, run on the CPU by host_cuda.h, against the CPU kernels.

The two do the same operations in the same order, so that they must agree bit for bit.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import Plan
from tests.csrc.host import HostKernels, Out
from tests.ops.nonsmooth_samples import tied
from zonocuda.ties import TIE_RULES, pooled_length, tie_weights

ops = pytest.importorskip("zonocuda.ops", reason="the native ops are not built")
NATIVE = torch.ops.zonocuda
NAN, INF = float("nan"), float("inf")
DTYPES = (torch.float16, torch.float32, torch.float64)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
EACH_PLAN = pytest.mark.parametrize("plan", [Plan(), Plan(one_block=True)], ids=["grid", "one block"])
RULES = [*((ties, None) for ties in TIE_RULES), ("first", 0.25), ("first", 3.0)]


def assert_same(ours: Tensor, cpu: Tensor) -> None:
    assert ours.dtype == cpu.dtype
    torch.testing.assert_close(ours.reshape(cpu.shape), cpu, rtol=0, atol=0, equal_nan=True)
    if ours.is_floating_point():
        assert torch.equal(ours.reshape(cpu.shape).signbit()[~cpu.isnan()], cpu.signbit()[~cpu.isnan()])


def unwritten(like: Tensor) -> Out:
    """NaN, or -1 in integers."""
    return Out(torch.full_like(like, NAN if like.is_floating_point() else -1))


def numbers(*size: int, dtype: torch.dtype) -> Tensor:
    """Few different numbers, with specials."""
    x = tied(*size, dtype=dtype)
    flat = x.view(-1)
    for i, special in enumerate((NAN, INF, -INF, -0.0, NAN)):
        flat[i * flat.numel() // 5] = special
    return x


@EACH_DTYPE
@EACH_PLAN
@pytest.mark.parametrize(("left", "at_zero"), [(0.0, 0.0), (0.0, 0.3), (-1.0, 1.0), (0.01, 0.5)])
def test_nonsmooth_relu(host: HostKernels, plan: Plan, left: float, at_zero: float, dtype: torch.dtype) -> None:
    x, g = numbers(700, dtype=dtype), torch.randn(700).to(dtype)
    run = lambda name, arguments, reals: host.run(  # noqa: E731
        name, plan.pointwise(700), arguments, [700], reals, dtype=dtype
    )
    (y,) = run("nonsmooth_relu_kernel", [x, unwritten(x)], [left])
    assert_same(y, NATIVE.nonsmooth_relu(x, left, at_zero))
    (grad,) = run("nonsmooth_relu_backward_kernel", [g, x, unwritten(x)], [left, at_zero])
    assert_same(grad, NATIVE._nonsmooth_relu_backward(g, x, left, at_zero))


@EACH_DTYPE
@EACH_PLAN
@pytest.mark.parametrize("first", [0.0, 0.3, 1.0])
def test_nonsmooth_maximum(host: HostKernels, plan: Plan, first: float, dtype: torch.dtype) -> None:
    a, b, g = numbers(700, dtype=dtype), numbers(700, dtype=dtype).roll(1), torch.randn(700).to(dtype)
    values, sides = NATIVE.nonsmooth_maximum(a, b, first)
    launch = plan.pointwise(700)
    out = host.run("nonsmooth_maximum_kernel", launch, [a, b, unwritten(values), unwritten(sides)], [700], dtype=dtype)
    for ours, cpu in zip(out, (values, sides), strict=True):
        assert_same(ours, cpu)
    arguments = [g, sides, unwritten(g), unwritten(g)]
    out = host.run("nonsmooth_maximum_backward_kernel", launch, arguments, [700], [first], dtype=dtype)
    for ours, cpu in zip(out, NATIVE._nonsmooth_maximum_backward(g, sides, first), strict=True):
        assert_same(ours, cpu)


@EACH_DTYPE
@EACH_PLAN
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 40, 5), (7, 32, 1), (1, 70, 300)], ids=str)
def test_nonsmooth_max(host: HostKernels, plan: Plan, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = numbers(*size, dtype=dtype)
    g = torch.randn(size[0], size[2]).to(dtype)
    values, winners = NATIVE.nonsmooth_max(x, 1.0, 0.0, 0.0)
    launch = plan.pointwise(size[0] * size[2])
    out = host.run("nonsmooth_max_kernel", launch, [x, unwritten(values), unwritten(winners)], size, dtype=dtype)
    for ours, cpu in zip(out, (values, winners), strict=True):
        assert_same(ours, cpu)
    for ties in TIE_RULES:
        weights = tie_weights(ties)
        arguments = [g, winners, unwritten(x)]
        (grad,) = host.run("nonsmooth_max_backward_kernel", launch, arguments, size, weights, dtype=dtype)
        assert_same(grad, NATIVE._nonsmooth_max_backward(g, winners, size[1], *weights))


WINDOWS: list[Any] = [
    *itertools.product([((2, 2), (2, 2), (0, 0), (1, 1)), ((3, 2), (1, 2), (1, 1), (1, 2))], [1, 3]),
    (((6, 7), (2, 3), (3, 3), (1, 1)), 2),
    (((2, 3), (3, 4), (0, 0), (2, 1)), 1),
]


@EACH_DTYPE
@EACH_PLAN
@pytest.mark.parametrize(("window", "inner"), WINDOWS, ids=str)
def test_nonsmooth_max_pool2d(host: HostKernels, plan: Plan, window: Any, inner: int, dtype: torch.dtype) -> None:
    x = numbers(2, 9, 8, inner, dtype=dtype)
    kernel, stride, padding, dilation = window
    size = [pooled_length(x.shape[1 + i], *(w[i] for w in window), ceil_mode=False) for i in range(2)]
    values, winners = NATIVE.nonsmooth_max_pool2d(x, *window, size, 1.0, 0.0, 0.0)
    axes = [[x.shape[1 + i], size[i], kernel[i], stride[i], padding[i], dilation[i]] for i in range(2)]
    integers = [2, inner, *axes[0], *axes[1]]
    arguments = [x, unwritten(values), unwritten(winners)]
    out = host.run("nonsmooth_max_pool2d_kernel", plan.pointwise(values.numel()), arguments, integers, dtype=dtype)
    for ours, cpu in zip(out, (values, winners), strict=True):
        assert_same(ours, cpu)
    g = torch.randn(values.shape).to(dtype)
    for ties, beta in RULES:
        weights = tie_weights(ties, beta)
        cpu = NATIVE._nonsmooth_max_pool2d_backward(g, winners, [9, 8], *window, *weights)
        (grad,) = host.run(
            "nonsmooth_max_pool2d_backward_kernel",
            plan.pointwise(x.numel()),
            [g, winners, unwritten(x)],
            integers,
            weights,
            dtype=dtype,
        )
        assert_same(grad, cpu)
