"""Every operator of the graph against the definition of its adjoint, and against plain torch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from zonocuda.graph import (
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Expand,
    Gather,
    Linear,
    Pad,
    Reduce,
    Relu,
    Reshape,
    ScaleShift,
    Transpose,
)
from zonocuda.graph.ops import Shape

SEED = 20240611
EPS = torch.finfo(torch.float64).eps
Case = tuple[Affine, Shape]


def rand(*shape: int) -> Tensor:
    """Standard normal float64 numbers; tests seed the global generator."""
    return torch.randn(shape, dtype=torch.float64)


def check_affine(op: Affine, shape: Shape) -> None:
    """<A x, v> = <x, A^T v>, A is linear, and apply(x) = A x + b.

    Both inner products sum the same products A_ij x_j v_i in different orders: each differs from the exact one by at
    most gamma_n of the sum of their magnitudes, with n the number of terms, here bounded by (outputs + inputs + 64).
    """
    x = rand(3, *shape)
    out = op.linear(x)
    v = torch.randn_like(out)
    back = op.adjoint(v, shape)
    assert back.shape == x.shape
    magnitude = _absolute(op).linear(x.abs())
    terms = out[0].numel() + x[0].numel() + 64
    left, right = (out * v).sum(), (x * back).sum()
    assert abs(left - right) <= terms * EPS * (magnitude * v.abs()).sum()
    rounding = 4 * terms * EPS * (1 + _absolute(op).apply(x.abs()))
    offset = op.offset(shape, x)
    assert offset.shape == (1, *out.shape[1:])
    assert ((op.apply(x) - (out + offset)).abs() <= rounding).all()
    assert ((op.linear(-2 * x) + 2 * out).abs() <= rounding).all()
    assert (op.linear(torch.zeros_like(x)) == 0).all()
    if not op.has_offset:
        assert (offset == 0).all()


def _absolute(op: Affine) -> Affine:
    fields = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    tensors = {name: value.abs() for name, value in fields.items() if isinstance(value, Tensor)}
    return dataclasses.replace(op, **tensors)


def simple_cases() -> list[Case]:
    """One of each operator without many parameters, at several shapes."""
    torch.manual_seed(SEED)
    return [
        (Linear(rand(4, 5), rand(4)), (5,)),
        (Linear(rand(4, 5)), (2, 3, 5)),
        (ScaleShift(rand(3, 1, 1), rand(3, 4, 5)), (3, 4, 5)),
        (ScaleShift(None, rand(4)), (3, 4)),
        (ScaleShift(rand(1, 1), None), (3, 4)),
        (AveragePool((2,), (1,)), (3, 7)),
        (AveragePool((3, 2), (2, 3)), (2, 8, 9)),
        (AveragePool((2, 2, 2), (2, 1, 2)), (2, 5, 4, 6)),
        (AveragePool((2, 2), (5, 5)), (1, 9, 9)),
        (Reduce((1, 2), mean=True, keepdim=True), (3, 4, 5)),
        (Reduce((0,), mean=False, keepdim=False), (3, 4, 5)),
        (Reduce((0, 2), mean=True, keepdim=False), (3, 4, 5)),
        (Expand((2, 4, 5)), (4, 1)),
        (Expand((3, 4)), (3, 4)),
        (Expand((3, 4, 2)), (3, 1, 1)),
        (Reshape((6, 2)), (3, 4)),
        (Reshape(()), (1,)),
        (Transpose((2, 0, 1)), (3, 4, 5)),
        (Transpose((1, 3, 0, 2)), (2, 3, 4, 5)),
        (Pad(((0, 0), (1, 2), (3, 0)), 0.5), (2, 3, 4)),
        (Pad(((2, 1),)), (3,)),
        (Gather(1, (3, 0, 0, 2)), (2, 4, 3)),
        (Gather(0, (1,)), (2, 4)),
    ]


@pytest.mark.parametrize("case", simple_cases(), ids=lambda case: f"{case[0].kind}-{case[1]}")
def test_the_adjoint_of_an_operator_satisfies_its_definition(case: Case) -> None:
    torch.manual_seed(SEED)
    check_affine(*case)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, object]:
    """Parameters of a convolution over 1 to 3 dimensions whose window fits."""
    spatial = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_dim = {
        name: tuple(draw(st.integers(*limits)) for _ in range(spatial))
        for name, limits in {
            "kernel": (1, 3),
            "stride": (1, 3),
            "dilation": (1, 2),
            "begin": (0, 3),
            "end": (0, 3),
        }.items()
    }
    reach = [d * (k - 1) + 1 for d, k in zip(per_dim["dilation"], per_dim["kernel"], strict=True)]
    extents = tuple(
        max(1, r - b - e) + draw(st.integers(0, 4))
        for r, b, e in zip(reach, per_dim["begin"], per_dim["end"], strict=True)
    )
    return {
        **per_dim,
        "reach": reach,
        "extents": extents,
        "groups": groups,
        "channels": groups * draw(st.integers(1, 2)),
        "out": groups * draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "extra": tuple(draw(st.integers(0, 2)) for _ in range(spatial)),
    }


@seed(SEED)
@settings(max_examples=150, deadline=None)
@given(windows())
def test_the_adjoint_of_a_convolution_satisfies_its_definition(w: dict) -> None:
    torch.manual_seed(SEED)
    op = Conv(
        rand(w["out"], w["channels"] // w["groups"], *w["kernel"]),
        rand(w["out"]) if w["bias"] else None,
        w["stride"],
        tuple(zip(w["begin"], w["end"], strict=True)),
        w["dilation"],
        w["groups"],
    )
    check_affine(op, (w["channels"], *w["extents"]))


@seed(SEED)
@settings(max_examples=150, deadline=None)
@given(windows())
def test_the_adjoint_of_a_transposed_convolution_satisfies_its_definition(w: dict) -> None:
    torch.manual_seed(SEED)
    full = [(n - 1) * s + r for n, s, r in zip(w["extents"], w["stride"], w["reach"], strict=True)]
    begin = tuple(min(b, f - 1) for b, f in zip(w["begin"], full, strict=True))
    end = tuple(min(e, f - 1 - b) for e, f, b in zip(w["end"], full, begin, strict=True))
    op = ConvTranspose(
        rand(w["channels"], w["out"] // w["groups"], *w["kernel"]),
        rand(w["out"]) if w["bias"] else None,
        w["stride"],
        tuple(zip(begin, end, strict=True)),
        w["extra"],
        w["dilation"],
        w["groups"],
    )
    check_affine(op, (w["channels"], *w["extents"]))


@pytest.mark.parametrize(
    ("stride", "padding", "extra", "dilation"), [(1, 0, 0, 1), (2, 1, 1, 1), (3, 2, 2, 2), (2, 2, 0, 1)]
)
def test_a_transposed_convolution_is_that_of_torch(stride: int, padding: int, extra: int, dilation: int) -> None:
    torch.manual_seed(SEED)
    weight, bias, x = rand(4, 3, 3, 3), rand(6), rand(2, 4, 6, 6)
    op = ConvTranspose(weight, bias, (stride,) * 2, ((padding,) * 2,) * 2, (extra,) * 2, (dilation,) * 2, groups=2)
    expected = F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups=2, dilation=dilation)
    torch.testing.assert_close(op.apply(x), expected, rtol=1e-13, atol=1e-13)


def test_a_convolution_pads_at_the_begin_and_the_end_as_told() -> None:
    torch.manual_seed(SEED)
    weight, x = rand(2, 1, 2, 2), rand(1, 1, 3, 4)
    op = Conv(weight, None, (2, 1), ((1, 0), (0, 2)), (1, 1), 1)
    expected = F.conv2d(F.pad(x, (0, 2, 1, 0)), weight, stride=(2, 1))
    torch.testing.assert_close(op.apply(x), expected, rtol=1e-14, atol=1e-14)


def test_operators_of_several_inputs_compute_what_they_say() -> None:
    x, y = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    assert Add().apply(x, y).tolist() == [[4.0, 3.0]]
    assert Add(-1).apply(x, y).tolist() == [[-2.0, -7.0]]
    assert Concat(0).apply(x, y, x).tolist() == [[1.0, -2.0, 3.0, 5.0, 1.0, -2.0]]
    assert Relu().apply(x).tolist() == [[1.0, 0.0]]
