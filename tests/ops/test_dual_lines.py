"""One activation between two lines: by hand, its bounds in rational arithmetic, and its messages."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.ops.dual_samples import dual_rows
from tests.ops.lines_samples import KINDS, lines
from tests.ops.samples import Shape
from zonocuda import ops

NAN, INF = float("nan"), float("inf")


def test_an_example_by_hand(device: torch.device) -> None:
    """x / 2 - 1 <= f(x) <= 2 x + 3 at v = 4, -4 and 0."""
    rows = torch.tensor([[[4.0], [-4.0], [0.0]]], device=device)
    parts = [torch.full((1, 1, 1), x, device=device) for x in (0.5, -1.0, 3.0, 2.0)]
    out = ops.dual_lines(rows, *parts)
    assert out.rows.tolist() == [[[2.0], [-8.0], [0.0]]]
    assert out.low.tolist() == [[-4.0, -12.0, 0.0]]
    assert out.high.tolist() == [[12.0, 4.0, 0.0]]
    assert ops.dual_lines(rows, *parts[:3]).rows.tolist() == [[[2.0], [-2.0], [0.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_forms_bound_every_value_between_the_lines_in_rational_arithmetic(
    kind: str, dtype: torch.dtype, device: torch.device
) -> None:
    """At points x, with f(x) on either line: v f(x) >= v' x + low, and <= v' x + high where there is one slope."""
    shape = Shape(1, 5, (30,))
    rows, given = dual_rows(shape, dtype), lines(shape, kind, dtype)
    out = ops.dual_lines(rows.to(device), **{name: t.to(device) for name, t in given.items()})
    unit = Fraction(torch.finfo(dtype).eps) / 2
    points = torch.linspace(-3, 3, 30, dtype=dtype)
    for r in range(5):
        least = most = scale = Fraction(0)
        for n in range(30):
            v, image, x = (Fraction(t.item()) for t in (rows[0, r, n], out.rows[0, r, n], points[n]))
            lower, below, above = (Fraction(t[0, min(r, t.shape[1] - 1), n].item()) for t in list(given.values())[:3])
            over = given.get("upper")
            upper = lower if over is None else Fraction(over[0, min(r, over.shape[1] - 1), n].item())
            ends = [v * (lower * x + below) - image * x, v * (upper * x + above) - image * x]
            # f(x) may be anything between the lines: the one that v sees from its own side is the end
            least, most = least + (ends[0] if v >= 0 else ends[1]), most + max(ends)
            scale += abs(v) * (abs(below) + abs(above) + abs(x))
        allowed = 60 * unit * scale  # of 30 terms in order, and the roundings of one
        assert abs(Fraction(out.low[0, r].item()) - least) <= allowed
        if "upper" not in given:
            assert Fraction(out.high[0, r].item()) >= most - allowed


def test_offsets_that_are_no_numbers_do_not_reach_a_zero(device: torch.device) -> None:
    rows = torch.tensor([[[0.0], [1.0], [-1.0], [NAN]]], device=device)
    slope = torch.ones(1, 1, 1, device=device)
    out = ops.dual_lines(rows, slope, slope * -INF, slope * NAN)
    assert out.low.isnan().tolist() == [[False, False, True, True]]
    assert out.low[0, :2].tolist() == [0.0, -INF]
    assert out.high.isnan().tolist() == [[False, True, False, True]]


def test_a_backward_that_nobody_needs_lines_of_allocates_none(device: torch.device) -> None:
    v, sums, part = (torch.ones(s, device=device) for s in ((2, 3, 4), (2, 3), (2, 1, 4)))
    grads = torch.ops.zonocuda._dual_lines_backward(v, sums, sums, v, part, part, part, None, False)
    assert grads[0].shape == v.shape
    assert all(g.numel() == 0 for g in grads[1:])


def test_zero_rows_and_zero_features(device: torch.device) -> None:
    for rows, features in ((0, 4), (3, 0)):
        v, part = torch.ones(2, rows, features, device=device), torch.ones(2, 1, features, device=device)
        slope = part.clone().requires_grad_()
        out = ops.dual_lines(v, slope, part, part)
        assert out.rows.shape == v.shape
        assert out.low.tolist() == out.high.tolist() == [[0.0] * rows] * 2
        (grad,) = torch.autograd.grad(out.rows.sum() + out.low.sum(), slope)
        assert grad.shape == slope.shape
        assert not bool(grad.any())


@pytest.mark.parametrize("name", ["lower", "below", "above", "upper"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    rows = torch.zeros(2, 3, 4)
    parts = dict.fromkeys(("lower", "below", "above", "upper"), torch.zeros(2, 1, 4))
    with pytest.raises(ops.ArgumentError, match=rf"^dual_lines: {name} must have shape .* got \[2, 1, 5\]"):
        ops.dual_lines(rows, **{**parts, name: torch.zeros(2, 1, 5)})
    with pytest.raises(ops.ArgumentError, match=rf"^dual_lines: {name} must have shape .* got \[2, 2, 4\]"):
        ops.dual_lines(rows, **{**parts, name: torch.zeros(2, 2, 4)})
    with pytest.raises(ops.ArgumentError, match=r"^dual_lines: rows must have shape"):
        ops.dual_lines(rows[0, 0], **parts)
