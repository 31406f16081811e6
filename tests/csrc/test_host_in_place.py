"""The CUDA kernels that may write into what they read, on the CPU: the same bits as into new memory."""

from __future__ import annotations

import pytest
import torch

from tests.csrc import chains, test_host_relu, test_host_windows, window_chains
from tests.csrc.chains import STRIPS
from tests.csrc.compare import EACH_CASE, EACH_DTYPE, Case, normal
from tests.csrc.host import HostKernels, Out


@EACH_CASE
@EACH_DTYPE
def test_scaled_rows(host: HostKernels, case: Case, dtype: torch.dtype) -> None:
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype)
    multiplier = normal(case.batch, case.features, dtype=dtype, seed=1)
    expected = chains.scale(host, case.plan, generators, multiplier)
    if case.symbols == 0:
        return
    strips = 1 if case.plan.one_block else -(-case.symbols // STRIPS)
    launch = case.plan.columns(case.batch, case.features, dtype, strips)
    sizes = list(generators.shape)
    (actual,) = host.run("map_rows_kernel/ScaleMap/in_place", launch, [Out(generators), multiplier], sizes, (), dtype)
    assert torch.equal(actual, expected)


@EACH_CASE
@EACH_DTYPE
@pytest.mark.parametrize("external", [False, True], ids=["own", "external"])
def test_the_center_of_relu(host: HostKernels, case: Case, external: bool, dtype: torch.dtype) -> None:
    a = test_host_relu.zonotope(case, dtype, free=True, external=external)
    expected = chains.relu(host, case.plan, a)
    partial = None if external else chains.sum_columns(host, case.plan, "AbsTerm", a.generators)
    actual = host.run(
        "relu_kernel/in_place",
        case.plan.pointwise(a.center.numel()),
        [partial, *chains.outputs(1, a.center), Out(a.center), a.slope, a.lower, a.upper, *chains.outputs(3, a.center)],
        list(a.generators.shape),
        dtype=dtype,
    )
    for ours, theirs in zip(actual[1:], [expected[0], *expected[2:]], strict=True):
        assert torch.equal(ours, theirs)


@test_host_windows.EACH_CASE
@EACH_DTYPE
def test_scaled_patches(host: HostKernels, case: test_host_windows.Case, dtype: torch.dtype) -> None:
    patches, corners, multiplier = case.patches(dtype), case.corners(), case.maps(dtype, 1)
    expected = window_chains.window_scale(host, case.plan, patches, corners, multiplier)
    if patches.numel() == 0:
        return
    launch = window_chains.listed_launch(case.plan, patches.shape[0], patches[0, 0].numel(), dtype)
    sizes = window_chains.sizes_of(patches, *case.size)
    arguments = [Out(patches), multiplier, corners]
    (actual,) = host.run("map_windows_kernel/WindowScaleMap/in_place", launch, arguments, sizes, dtype=dtype)
    assert torch.equal(actual, expected)
