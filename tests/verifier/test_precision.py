"""Settings of torch under which bounds are computed, and rounding of boxes outward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from tests.verifier.graphs import conv, random_box
from zonocuda.bounds.interval import outward
from zonocuda.domains import Zonotope
from zonocuda.precision import full_precision, summed_products
from zonocuda.verifier import compute_bounds


def settings_of_torch() -> dict[str, str]:
    """How torch computes float32 products, on the CPU (oneDNN) and on CUDA."""
    backends: Any = torch.backends
    return {
        f"{backend}.{operation}": getattr(getattr(backends, backend), operation).fp32_precision
        for backend, operation in itertools.product(("cuda", "cudnn", "mkldnn"), ("matmul", "conv", "rnn"))
        if hasattr(getattr(backends, backend), operation)
    }


def older_settings() -> tuple[object, ...]:
    """The same, by the older names, and what else may be touched."""
    cudnn = torch.backends.cudnn
    autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    return torch.get_float32_matmul_precision(), cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32, *autocast


@contextmanager
def sloppy(matmul: str) -> Iterator[None]:
    """Settings that a user may have, and that no float32 bound survives."""
    convolution: Any = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    before = torch.get_float32_matmul_precision(), convolution.fp32_precision, torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision(matmul)
    convolution.fp32_precision = "bf16"
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        convolution.fp32_precision, torch.backends.cudnn.benchmark = before[1], before[2]


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_full_precision_holds_inside_and_is_undone_outside(matmul: str) -> None:
    with sloppy(matmul):
        before = settings_of_torch(), older_settings()
        assert set(before[0].values()) != {"ieee"}
        with full_precision():
            assert len(settings_of_torch()) >= 6
            assert set(settings_of_torch().values()) == {"ieee"}
        assert (settings_of_torch(), older_settings()) == before
        with pytest.raises(KeyError), full_precision():
            raise KeyError
        assert (settings_of_torch(), older_settings()) == before


def test_full_precision_may_be_nested() -> None:
    before = settings_of_torch()
    with full_precision():
        with full_precision():
            pass
        assert set(settings_of_torch().values()) == {"ieee"}
    assert settings_of_torch() == before


def test_autocast_does_not_reach_the_bounds() -> None:
    graph = conv(0).to(torch.float32)
    z = Zonotope.from_box(*(b.float() for b in random_box(graph)))
    expected = compute_bounds(graph, z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.is_autocast_enabled("cpu")
        result = compute_bounds(graph, z)
        assert torch.is_autocast_enabled("cpu")
    assert result.lower.dtype == torch.float32
    assert torch.equal(result.lower, expected.lower)
    assert torch.equal(result.upper, expected.upper)


@hypothesis_seed(20240613)
@settings(max_examples=300, deadline=None, database=None)
@given(st.floats(allow_nan=False), st.booleans())
def test_a_bound_is_rounded_outward_to_float32_by_at_most_one_step(value: float, up: bool) -> None:
    bound = torch.tensor([value], dtype=torch.float64)
    assert torch.equal(outward(bound, torch.float64, up), bound)
    rounded = outward(bound, torch.float32, up)
    assert rounded.dtype == torch.float32
    got = rounded.item()
    assert got >= value if up else got <= value
    inward = torch.nextafter(rounded, torch.tensor([-math.inf if up else math.inf])).item()
    if got != value and math.isfinite(got) and math.isfinite(inward):
        assert inward < value if up else inward > value
        assert Fraction(got) != Fraction(value)


def test_a_nan_stays_a_nan() -> None:
    assert outward(torch.tensor([math.nan], dtype=torch.float64), torch.float32, True).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_of_proofs_are_matrix_products(dtype: torch.dtype) -> None:
    """Inside ``summed_products`` torch takes its own im2col and col2im, and every setting is as before afterwards."""
    x, w = torch.randn(32, 8, 9, 9, dtype=dtype), torch.randn(8, 8, 3, 3, dtype=dtype)
    backends: Any = torch.backends
    before = backends.cudnn.enabled, backends.mkldnn.enabled
    with summed_products():
        assert not backends.cudnn.enabled
        assert not backends.mkldnn.enabled
        with torch.autograd.profiler.profile() as profile:
            torch.nn.functional.conv2d(x, w)
            torch.nn.functional.conv_transpose2d(x, w)
    assert (backends.cudnn.enabled, backends.mkldnn.enabled) == before
    ops = {event.name for event in profile.function_events}
    assert {"aten::_slow_conv2d_forward", "aten::slow_conv_transpose2d"} <= ops
    assert not any(library in op for op in ops for library in ("mkldnn_conv", "cudnn_conv", "_nnpack_spatial"))
