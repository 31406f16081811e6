"""One ReLU of the dual pass with splits: by hand, its bounds in rational arithmetic, and its messages."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.ops.dual_samples import dual_rows, row_multipliers, row_slopes, row_splits
from tests.ops.samples import Shape, uniform, zonotope
from zonocuda import ops

NAN, INF = float("nan"), float("inf")


def int8(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.int8)


def test_an_example_by_hand(device: torch.device) -> None:
    """l = -1, u = 3 (mu = 3/8 tied): free, split to active and to dead, with a multiplier of 1/2 or none."""
    rows = torch.tensor([[[2.0, 2.0, 2.0], [-2.0, -2.0, -2.0]]], device=device)
    lower, upper = (torch.full((1, 3), x, device=device) for x in (-1.0, 3.0))
    splits = int8([[0, 1, -1], [0, 1, -1]]).to(device)
    plain = ops.dual_split(rows, lower, upper, splits)
    assert plain.rows.tolist() == [[[1.5, 2.0, 0.0], [-1.5, -2.0, 0.0]]]
    assert plain.low.tolist() == [[0.0, -1.5]]
    moved = ops.dual_split(rows, lower, upper, splits, torch.full_like(rows, 0.5))
    assert moved.rows.tolist() == [[[1.5, 1.5, 0.5], [-1.5, -2.5, 0.5]]]
    assert moved.low.tolist() == [[0.0, -1.5]]
    clamped = ops.dual_split(rows, lower, upper, splits, torch.full_like(rows, -0.5))
    assert torch.equal(clamped.rows, plain.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lines_bound_every_vertex_of_a_subproblem_in_rational_arithmetic(
    dtype: torch.dtype, device: torch.device
) -> None:
    """v relu(x) - v' x is linear between l, 0 and u. Where a neuron is split no rounding is allowed for: its term is
    at least 0, exactly, at both ends of what the split leaves of [l, u]."""
    shape = Shape(1, 6, (40,))
    lower, upper = uniform(-3, 0, 1, 40, dtype=dtype), uniform(0.01, 3, 1, 40, dtype=dtype)
    rows, splits, beta = dual_rows(shape, dtype), row_splits(shape), row_multipliers(shape, dtype)
    beta[0, 0] = beta[0, 0] * 2.0 ** torch.randint(-30, 30, (40,)).to(dtype)  # differences that round
    one, other = row_slopes(lower, upper, 6), row_slopes(lower, upper, 1)
    unit = Fraction(torch.finfo(dtype).eps) / 2
    rounded = 0
    for negative, nonnegative in ((None, None), (one, None), (other, one), (one, other)):
        given = [None if s is None else s.to(device) for s in (beta, negative, nonnegative)]
        out = ops.dual_split(rows.to(device), lower.to(device), upper.to(device), splits.to(device), *given)
        for r in range(6):
            least = scale = Fraction(0)
            for n in range(40):
                values = (t[n].item() for t in (rows[0, r], out.rows[0, r], lower[0], upper[0], beta[0, r]))
                v, image, l, u, b = map(Fraction, values)  # noqa: E741
                split = splits[0, r, n].item()
                ends = {0: [l, Fraction(0), u], 1: [Fraction(0), u], -1: [l, Fraction(0)]}[int(split)]
                term = min(v * max(x, Fraction(0)) - image * x for x in ends)
                if split == 0:
                    least, scale = least + term, scale + abs(v) * (u - l)
                else:
                    assert term >= 0
                    rounded += split == 1 and image != v - max(b, 0)
            assert Fraction(out.low[0, r].item()) <= least + 60 * unit * scale
    assert rounded > 20  # the claim of no charge was put to the test


def test_without_splits_it_is_dual_relu_bit_by_bit(device: torch.device) -> None:
    center, generators = (t.to(device) for t in zonotope(Shape(2, 4, (600,)), torch.float32))
    radius = generators.abs().sum(1)
    lower, upper = center - radius, center + radius
    rows = dual_rows(Shape(2, 20, (600,)), torch.float32).to(device)
    slopes = row_slopes(lower, upper, 20), row_slopes(lower, upper, 1)
    for below, above in ((None, None), slopes, slopes[::-1], (None, slopes[0]), (slopes[1], None)):
        expected = ops.dual_relu(rows, lower, upper, below, above)
        out = ops.dual_split(rows, lower, upper, torch.zeros_like(rows, dtype=torch.int8), None, below, above)
        assert torch.equal(out.rows, expected.rows)
        assert torch.equal(out.low, expected.low)


@pytest.mark.parametrize(("l", "u"), [(1.0, 2.0), (-2.0, -1.0), (0.0, 0.0), (2.0, -2.0), (NAN, 1.0), (-INF, INF)])
def test_bounds_of_a_split_neuron_are_not_read(l: float, u: float, device: torch.device) -> None:  # noqa: E741
    """Bounds that the split contradicts belong to an empty subproblem: no NaN comes of them."""
    rows = torch.tensor([[[3.0], [3.0], [-3.0], [-3.0]]], device=device, requires_grad=True)
    ends = [torch.tensor([[x]], device=device, requires_grad=True) for x in (l, u)]
    beta = torch.ones_like(rows, requires_grad=True)
    slope = torch.full_like(rows, NAN, requires_grad=True)
    out = ops.dual_split(rows, *ends, int8([[1], [-1], [1], [-1]]).to(device), beta, slope)
    assert out.rows.flatten().tolist() == [2.0, 1.0, -4.0, 1.0]
    assert out.low.tolist() == [[0.0] * 4]
    v, d_beta = torch.autograd.grad(out.rows.sum() + out.low.sum(), [rows, beta])
    assert v.flatten().tolist() == [1.0, 0.0, 1.0, 0.0]
    assert d_beta.flatten().tolist() == [-1.0, 1.0, -1.0, 1.0]


def test_a_split_neuron_hands_nothing_to_slopes_and_bounds(device: torch.device) -> None:
    rows = torch.tensor([[[3.0], [3.0], [-3.0], [-3.0]]], device=device)
    splits = int8([[1], [-1], [1], [-1]]).to(device)
    for l, u in ((-1.0, 2.0), (1.0, 2.0), (-2.0, -1.0)):  # noqa: E741
        ends = [torch.tensor([[x]], device=device, requires_grad=True) for x in (l, u)]
        slope = torch.full_like(rows, 0.75, requires_grad=True)
        for slopes in ((slope,), (slope, slope), (None, slope)):
            out = ops.dual_split(rows, *ends, splits, rows.abs(), *slopes)
            grads = torch.autograd.grad(out.rows.sum() + out.low.sum(), [*ends, slope])
            assert not any(bool(t.any()) for t in grads)


@pytest.mark.parametrize("split", [1, -1])
def test_a_nan_stays_one(split: int, device: torch.device) -> None:
    """A multiplier, or a row, that is NaN (or, before a dead neuron, infinite) leaves no coefficient."""
    bound = torch.ones(1, 1, device=device)
    for v, beta in ((NAN, 1.0), (1.0, NAN), (INF, INF)):
        rows, given = (torch.tensor([[[x]]], device=device) for x in (v, beta))
        assert ops.dual_split(rows, -bound, bound, int8([[split]]).to(device), given).rows.isnan().all()


def test_at_zero_a_multiplier_may_rise(device: torch.device) -> None:
    """The derivative at beta = 0 is that of beta > 0, so that an ascent can start there; below it is 0."""
    beta = torch.tensor([[[0.0, -0.0, -1.0, 1.0]]], device=device, requires_grad=True)
    bound = torch.ones(1, 4, device=device)
    for split in (1, -1):
        out = ops.dual_split(torch.ones(1, 1, 4, device=device), -bound, bound, int8([[split] * 4]).to(device), beta)
        (grad,) = torch.autograd.grad(out.rows.sum(), beta)
        assert grad.flatten().tolist() == [-split, -split, 0.0, -split]


def test_any_positive_split_is_active_and_any_negative_one_dead(device: torch.device) -> None:
    rows, bound = torch.full((1, 1, 4), 5.0, device=device), torch.ones(1, 4, device=device)
    out = ops.dual_split(rows, -bound, bound, int8([[127, 2, -2, -128]]).to(device))
    assert out.rows.tolist() == [[[5.0, 5.0, 0.0, 0.0]]]


def test_a_backward_allocates_only_what_is_wanted(device: torch.device) -> None:
    v, bound, sums = (torch.ones(s, device=device) for s in ((2, 3, 4), (2, 4), (2, 3)))
    splits = torch.zeros(2, 3, 4, dtype=torch.int8, device=device)
    backward = torch.ops.zonocuda._dual_split_backward
    for bounds, slopes in ((False, False), (True, False), (False, True), (True, True)):
        grads = backward(v, sums, v, -bound, bound, splits, v, v, v[:, :1].contiguous(), 0, 0.0, bounds, slopes)
        rows = slopes * 3, slopes * 1
        assert [tuple(t.shape) for t in grads] == [
            (2, 3, 4), (2, bounds * 4), (2, bounds * 4), (2, 3, 4), *((2, r, 4) for r in rows)
        ]  # fmt: skip


def test_the_gradients_do_not_depend_on_what_else_is_wanted(device: torch.device) -> None:
    shape = Shape(2, 70, (90,))
    v, g, beta = dual_rows(shape, torch.float32), dual_rows(shape, torch.float32), row_multipliers(shape, torch.float32)
    bound = uniform(0.1, 2, 2, 90, dtype=torch.float32)
    tensors = [g, g[:, :, 0].contiguous(), v, -bound, bound.flip(1), row_splits(shape), beta]
    tensors = [t.to(device) for t in tensors]
    for slopes in ((v.abs(), v[:, :1].abs()), (None, None), (None, v.abs()), (v[:, :1].abs(), None)):
        given = [None if s is None else s.to(device).contiguous() for s in slopes]
        backward = lambda *w, s=given: torch.ops.zonocuda._dual_split_backward(*tensors, *s, 0, 1e-6, *w)  # noqa: E731
        everything = backward(True, True)
        for wanted in ((True, False), (False, True), (False, False)):
            for one, other in zip(backward(*wanted), everything, strict=True):
                assert one.numel() == 0 or torch.equal(one, other)


def test_zero_rows_and_zero_features(device: torch.device) -> None:
    for rows, features in ((0, 4), (3, 0)):
        v, bound = torch.ones(2, rows, features, device=device), torch.ones(2, features, device=device)
        slope = torch.ones(2, 1, features, device=device, requires_grad=True)
        out = ops.dual_split(v, -bound, bound, torch.ones_like(v, dtype=torch.int8), None, None, slope)
        assert out.rows.shape == v.shape
        assert out.low.tolist() == [[0.0] * rows] * 2
        (grad,) = torch.autograd.grad(out.rows.sum() + out.low.sum(), slope)
        assert grad.shape == slope.shape
        assert not bool(grad.any())


@pytest.mark.parametrize("name", ["splits", "multipliers"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    rows, bound, splits = torch.zeros(1, 3, 2), torch.zeros(1, 2), torch.zeros(1, 3, 2, dtype=torch.int8)
    wrong = {"splits": splits, name: (splits if name == "splits" else rows)[:, :1]}
    with pytest.raises(
        ValueError, match=rf"^dual_split: {name} must have the shape \[1, 3, 2\] of rows, got \[1, 1, 2"
    ):
        ops.dual_split(rows, bound, bound, **wrong)
    with pytest.raises(ValueError, match=r"^dual_split: negative must have shape \[batch, 1 or rows, \*features\]"):
        ops.dual_split(rows, bound, bound, splits, None, rows[0])
    with pytest.raises(ValueError, match=r"^dual_split: rows must have shape \[batch, rows, \*features\]"):
        ops.dual_split(rows[0], bound, bound, splits)


def test_the_native_op_checks_its_arguments() -> None:
    v, bound, splits = torch.zeros(2, 3, 4), torch.zeros(2, 4), torch.zeros(2, 3, 4, dtype=torch.int8)

    def call(splits: Tensor, beta: Tensor | None = None) -> None:
        torch.ops.zonocuda.dual_split(v, bound, bound, splits, beta, None, None, 0, 0.0)

    for arguments, message in (
        ((splits[:1],), r"splits must have shape \[batch, rows, features\], got \[1, 3, 4\]"),
        ((splits.int(),), r"splits must have dtype int8, got Int"),
        ((splits.transpose(1, 2).contiguous().transpose(1, 2),), r"splits must be contiguous"),
        ((splits, v[:, :1]), r"multipliers must have shape \[batch, rows, features\], got \[2, 1, 4\]"),
    ):
        with pytest.raises(RuntimeError, match=rf"dual_split: {message}"):
            call(*arguments)
