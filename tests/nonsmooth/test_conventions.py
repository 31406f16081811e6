"""torch's own conventions at ties, as golden data: if one of these changes, the documentation is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda import nonsmooth, ops
from zonocuda.ties import TieRule

GOLDEN: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "relu": (torch.relu, [0.0], [0.0]),
    "leaky_relu": (lambda t: F.leaky_relu(t, 0.25), [0.0], [0.25]),
    "abs": (torch.abs, [0.0], [0.0]),
    "relu6": (F.relu6, [0.0, 6.0], [0.0, 0.0]),
    "hardtanh": (F.hardtanh, [-1.0, 1.0], [0.0, 0.0]),
    "clamp": (lambda t: t.clamp(min=0), [0.0], [1.0]),
    "where(x >= 0)": (lambda t: torch.where(t >= 0, t, torch.zeros(())), [0.0], [1.0]),
    "maximum": (lambda t: torch.maximum(t, torch.zeros_like(t)), [0.0], [0.5]),
    "max()": (torch.max, [2.0, 1.0, 2.0, 2.0, 2.0], [0.25, 0, 0.25, 0.25, 0.25]),
    "amax": (lambda t: t.amax(0), [2.0, 1.0, 2.0], [0.5, 0, 0.5]),
    "max(dim)": (lambda t: t.max(0).values, [1.0, 2.0, 2.0], [0, 1, 0]),
    "cummax": (lambda t: t.cummax(0).values[-1], [1.0, 2.0, 2.0], [0, 0, 1]),
    "max_pool2d": (lambda t: F.max_pool2d(t.reshape(1, 1, 2), (1, 2)), [2.0, 2.0], [1, 0]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_convention_of_torch(name: str) -> None:
    function, point, expected = GOLDEN[name]
    x = torch.tensor(point, requires_grad=True)
    assert torch.autograd.grad(function(x).sum(), x)[0].tolist() == expected


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "maximum", "max(dim)", "max_pool2d"])
def test_the_defaults_of_our_functions_are_torchs(name: str) -> None:
    ours: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": nonsmooth.relu,
        "leaky_relu": lambda t: nonsmooth.leaky_relu(t, 0.25),
        "abs": nonsmooth.abs,
        "maximum": lambda t: nonsmooth.maximum(t, torch.zeros_like(t)),
        "max(dim)": lambda t: nonsmooth.max(t, 0),
        "max_pool2d": lambda t: nonsmooth.max_pool2d(t.reshape(1, 1, 2), (1, 2)),
    }
    _, point, expected = GOLDEN[name]
    x = torch.tensor(point, requires_grad=True)
    assert torch.autograd.grad(ours[name](x).sum(), x)[0].tolist() == expected


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_zonotope_of_no_size_goes_through_its_relu_as_a_point(alpha: float) -> None:
    """Off the kink a zonotope without symbols, or with zero generators, is nonsmooth.relu of its center.

    At c = 0 it is dead (u <= 0 is tested first), so that its derivative there is that of alpha = 0.
    """
    values = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 3.0]], dtype=torch.float64)
    for symbols in (0, 3):
        center, point = (values.clone().requires_grad_() for _ in range(2))
        z = ops.relu(center, torch.zeros(1, symbols, 5, dtype=torch.float64))
        y = nonsmooth.relu(point, alpha)
        assert torch.equal(z.center, y)
        assert torch.equal(z.offset, torch.zeros_like(z.offset))
        (of_z,) = torch.autograd.grad(z.center.sum(), center)
        (of_y,) = torch.autograd.grad(y.sum(), point)
        same = (values != 0) | (alpha == 0)
        assert torch.equal(of_z[same], of_y[same])
        assert of_y[0, 2] == alpha


def gradient_of_max(x: Tensor, ties: TieRule) -> Tensor:
    """The gradient of the sum of squares of the maxima of 2x2 windows that overlap."""
    x = x.clone().requires_grad_()
    y = nonsmooth.max_pool2d(x, 2, 1, ties=ties)
    return torch.autograd.grad(y.square().sum(), x)[0]


def test_every_rule_is_a_limit_of_gradients_or_a_mean_of_limits() -> None:
    """One tied window: a step towards a winner makes it the only one, and the maximum differentiable."""
    x = torch.tensor([[[[3.0, 1.0], [3.0, 3.0]]]], dtype=torch.float64)
    step = 2.0**-30
    limits = []
    for row, column in ((0, 0), (1, 0), (1, 1)):
        moved = x.clone()
        moved[0, 0, row, column] += step
        limits.append(gradient_of_max(moved, "first"))
        assert torch.equal(limits[-1], gradient_of_max(moved, "even"))  # no tie, no choice
        quotient = (moved.max().square() - x.max().square()).item() / step
        torch.testing.assert_close(limits[-1].sum().item(), quotient, rtol=1e-8, atol=0)
    torch.testing.assert_close(gradient_of_max(x, "first"), limits[0], rtol=1e-8, atol=0)
    torch.testing.assert_close(gradient_of_max(x, "last"), limits[2], rtol=1e-8, atol=0)
    torch.testing.assert_close(gradient_of_max(x, "even"), torch.stack(limits).mean(0), rtol=1e-8, atol=0)


def test_wrong_choices_are_refused_when_they_are_made() -> None:
    for make, message in (
        (lambda: nonsmooth.Convention(max="middle"), "ties must be one of"),  # type: ignore[arg-type]
        (lambda: nonsmooth.Convention(maximum="both"), "maximum: ties must be one of"),  # type: ignore[arg-type]
        (lambda: nonsmooth.MaxPool2d(2, ties="no"), "ties must be one of"),  # type: ignore[arg-type]
        (lambda: nonsmooth.leaky_relu(torch.zeros(1), -1.0), "negative_slope must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
