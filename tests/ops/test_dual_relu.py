"""One ReLU of the dual pass: by hand, its bounds in rational arithmetic, and its messages."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.ops.dual_samples import dual_rows, row_slopes
from tests.ops.samples import Shape, uniform, zonotope
from zonocuda import ops
from zonocuda.kink import KinkRule

NAN = float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    """Neurons crossing (mu = 3/8 tied, lam = 3/4), dead and active; rows of both signs."""
    lower, upper = torch.tensor([[-1.0, -2.0, 1.0]], device=device), torch.tensor([[3.0, -1.0, 2.0]], device=device)
    rows = torch.tensor([[[2.0, 5.0, 3.0], [-2.0, -5.0, -3.0]]], device=device)
    tied = ops.dual_relu(rows, lower, upper)
    assert tied.rows.tolist() == [[[1.5, 0.0, 3.0], [-1.5, -0.0, -3.0]]]
    assert tied.low.tolist() == [[0.0, -1.5]]
    assert tied.high.tolist() == [[1.5, 0.0]]
    signs = ops.dual_relu(rows, lower, upper, None, torch.full((1, 1, 3), 1.0, device=device))
    assert signs.rows.tolist() == [[[2.0, 0.0, 3.0], [-1.5, -0.0, -3.0]]]
    assert signs.low.tolist() == [[0.0, -1.5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lines_bound_every_vertex_in_rational_arithmetic(dtype: torch.dtype, device: torch.device) -> None:
    """v relu(x) - v' x is piecewise linear in x: its minimum over [l, u] is at l, 0 or u."""
    shape = Shape(1, 6, (40,))
    lower, upper = uniform(-3, 0, 1, 40, dtype=dtype), uniform(0.01, 3, 1, 40, dtype=dtype)
    rows = dual_rows(shape, dtype)
    one, other = row_slopes(lower, upper, 6), row_slopes(lower, upper, 1)
    unit = Fraction(torch.finfo(dtype).eps) / 2
    for negative, nonnegative in ((None, None), (one, None), (None, one), (other, one), (one, other)):
        given = [None if s is None else s.to(device) for s in (negative, nonnegative)]
        out = ops.dual_relu(rows.to(device), lower.to(device), upper.to(device), *given)
        for r in range(6):
            least = most = scale = Fraction(0)
            for v, image, l, u in zip(  # noqa: E741
                *(map(Fraction, t.tolist()) for t in (rows[0, r], out.rows[0, r], lower[0], upper[0])), strict=True
            ):
                gaps = [v * max(x, Fraction(0)) - image * x for x in (l, Fraction(0), u)]
                least, most, scale = least + min(gaps), most + max(gaps), scale + abs(v) * (u - l)
            allowed = 60 * unit * scale  # of 40 terms in order, and the roundings of one
            assert Fraction(out.low[0, r].item()) <= least + allowed
            if nonnegative is None:
                assert Fraction(out.high[0, r].item()) >= most - allowed


@pytest.mark.parametrize(("kink", "value"), [("left", 3.0), ("right", -1.0), ("even", 1.0), ("envelope", 0.0)])
def test_on_the_kink_the_rule_chooses(kink: KinkRule, value: float, device: torch.device) -> None:
    """v = -1, l = -1, u = 3: dlow/dlam = -2 dmu/dlam is 3 from the left and -1 from the right of lam = 3/4."""
    slope = torch.tensor([[[0.75]]], device=device, requires_grad=True)
    args = [torch.tensor(x, device=device) for x in ([[[-1.0]]], [[-1.0]], [[3.0]])]
    ops.dual_relu(*args, slope, kink=kink).low.sum().backward()
    assert slope.grad is not None
    assert slope.grad.item() == value


def test_min_norm_on_shared_slopes_looks_at_the_sum_over_the_rows(device: torch.device) -> None:
    """Each row alone could be balanced to 0; so can their sum, 3 + 3 from the left and -1 - 1 from the right."""
    slope = torch.tensor([[[0.75]]], device=device, requires_grad=True)
    args = [torch.tensor(x, device=device) for x in ([[[-1.0], [-1.0]]], [[-1.0]], [[3.0]])]
    out = ops.dual_relu(*args, slope, kink="min_norm")
    (out.low.sum() + out.rows.sum()).backward()
    assert slope.grad is not None
    assert slope.grad.item() == 0
    slope.grad = None
    out = ops.dual_relu(*args, slope, kink="min_norm")
    (out.low.sum() + 10 * out.rows.sum()).backward()
    assert slope.grad is not None
    assert slope.grad.item() == -20 + 6


def test_a_backward_that_nobody_needs_slopes_of_allocates_none(device: torch.device) -> None:
    v, bound, sums = (torch.ones(s, device=device) for s in ((2, 3, 4), (2, 4), (2, 3)))
    slope = torch.ones(2, 3, 4, device=device)
    grads = torch.ops.zonocuda._dual_relu_backward(v, sums, sums, v, -bound, bound, slope, None, 0, 0.0, False)
    assert grads[0].shape == v.shape
    assert all(g.numel() == 0 for g in grads[1:])


def test_zero_rows_and_zero_features(device: torch.device) -> None:
    for rows, features in ((0, 4), (3, 0)):
        v, bound = torch.ones(2, rows, features, device=device), torch.ones(2, features, device=device)
        slope = torch.ones(2, 1, features, device=device, requires_grad=True)
        out = ops.dual_relu(v, -bound, bound, None, slope)
        assert out.rows.shape == v.shape
        assert out.low.tolist() == out.high.tolist() == [[0.0] * rows] * 2
        (grad,) = torch.autograd.grad(out.rows.sum() + out.low.sum(), slope)
        assert grad.shape == slope.shape
        assert not bool(grad.any())


def test_a_nan_bound_is_no_constant_but_leaves_a_valid_lower_line(device: torch.device) -> None:
    """lam x <= relu(x) needs no bounds: only what uses mu, or a tied slope, is NaN."""
    lower, upper = torch.tensor([[NAN]], device=device), torch.tensor([[1.0]], device=device)
    rows = torch.tensor([[[1.0], [-1.0]]], device=device)
    given = ops.dual_relu(rows, lower, upper, torch.full((1, 1, 1), 0.5, device=device))
    assert given.rows.tolist() == [[[0.5], [-0.5]]]
    assert given.low.isnan().tolist() == [[False, True]]
    assert ops.dual_relu(rows, lower, upper).rows.isnan().all()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 2), (2,), None), r"rows must have shape \[batch, rows, \*features\] for a lower of shape \[2\], got"),
        (((1, 3, 2), (1, 3), None), r"rows must have shape .* got \[1, 3, 2\]"),
        (((1, 3, 2), (1, 2), (1, 2)), r"negative must have shape \[batch, 1 or rows, \*features\] .* got \[1, 2\]"),
        (((1, 3, 2), (1, 2), (2, 3, 2)), r"negative must have shape .* got \[2, 3, 2\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None], message: str
) -> None:
    rows, bound, slope = (None if s is None else torch.zeros(s) for s in shapes)
    assert rows is not None
    assert bound is not None
    with pytest.raises(ValueError, match=rf"^dual_relu: {message}"):
        ops.dual_relu(rows, bound, bound, slope)


def test_the_native_op_checks_its_arguments() -> None:
    v, bound, slope = torch.zeros(2, 3, 4), torch.zeros(2, 4), torch.zeros(2, 2, 4)
    native = torch.ops.zonocuda
    for call, message in (
        (lambda: native.dual_relu(bound, bound, bound, None, None, 0, 0.0), r"rows must have shape \[batch, rows, f"),
        (lambda: native.dual_relu(v, bound[:1], bound, None, None, 0, 0.0), r"lower must have shape .* got \[1, 4\]"),
        (
            lambda: native.dual_relu(v, bound, bound, slope, None, 0, 0.0),
            r"negative must have shape .* got \[2, 2, 4\]",
        ),
        (lambda: native.dual_relu(v, bound, bound, None, slope, 0, 0.0), r"nonnegative must have shape \[batch, 1 or"),
    ):
        with pytest.raises(RuntimeError, match=rf"dual_relu: {message}"):
            call()


def test_dead_neurons_have_zero_columns_and_active_ones_pass(device: torch.device) -> None:
    center, generators = (t.to(device) for t in zonotope(Shape(2, 4, (30,)), torch.float64))
    radius = generators.abs().sum(1)
    lower, upper = center - radius, center + radius
    rows = dual_rows(Shape(2, 5, (30,)), torch.float64).to(device)
    out = ops.dual_relu(rows, lower, upper)
    dead, active = (t.unsqueeze(1).expand_as(rows) for t in (upper <= 0, lower >= 0))
    assert bool(dead.any())
    assert bool(active.any())
    assert not bool(out.rows[dead].any())
    assert torch.equal(out.rows[active], rows[active])
