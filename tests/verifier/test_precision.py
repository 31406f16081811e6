"""Settings of torch under which bounds are computed, and rounding of boxes outward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from tests.verifier.graphs import conv, random_box
from zonocuda.domains import Zonotope
from zonocuda.verifier import compute_bounds
from zonocuda.verifier.decide import outward
from zonocuda.verifier.precision import full_precision


def state() -> dict[str, object]:
    """Everything that ``full_precision`` may touch."""
    cudnn = torch.backends.cudnn
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "cuda matmul": torch.backends.cuda.matmul.allow_tf32,
        "onednn convolution": torch.backends.mkldnn.conv.fp32_precision,
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
    }


@contextmanager
def sloppy(matmul: str) -> Iterator[None]:
    """Settings that a user may have, and that no float32 bound survives."""
    cudnn, onednn = torch.backends.cudnn, torch.backends.mkldnn.conv
    before = torch.get_float32_matmul_precision(), onednn.fp32_precision, cudnn.benchmark
    torch.set_float32_matmul_precision(matmul)
    onednn.fp32_precision = "bf16"
    cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        onednn.fp32_precision, cudnn.benchmark = before[1], before[2]


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
def test_full_precision_holds_inside_and_is_undone_outside(matmul: str) -> None:
    with sloppy(matmul):
        before = state()
        with full_precision():
            inside = state()
            assert inside["matmul"] == "highest"
            assert inside["cuda matmul"] is False
            assert inside["onednn convolution"] == "ieee"
            assert torch.backends.cudnn.allow_tf32 is False
        assert state() == before
        with pytest.raises(KeyError), full_precision():
            raise KeyError
        assert state() == before


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
