"""Programs that are zero everywhere and have an autodiff derivative that is not.

All are made of differentiable operations, ReLU and max, in ordinary torch. Over the reals automatic differentiation is
right almost everywhere (Bolte & Pauwels 2020); these programs sit on the exceptions. Two kinds of them (Boustany 2024):
*bifurcation*, where the derivative is wrong over the reals, and *compensation*, where it is right over the reals, and
only rounding keeps two equal derivatives from cancelling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
POINTS = (0.0, 0.1, 1.0, -1e-4, -6.0)  # the notebook's t
Program = Callable[[Tensor, Tensor], Tensor]


def equal_inputs(dtype: torch.dtype) -> Tensor:
    """The notebook's x1: four times 1.14, so that all maxima tie: compensation."""
    return torch.ones(4, dtype=dtype) * 1.14


def different_inputs(dtype: torch.dtype) -> Tensor:
    """The notebook's x2 = (1, 2, 3, 4), which tie at t = 0 only: bifurcation there."""
    return torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype)


def zero(t: Tensor, x: Tensor) -> Tensor:
    """max by comparisons (the first of equal ones wins) minus torch.max (they share): 0 for every t and x.

    Args:
        t: one number.
        x: ``[n]``; the maxima are those of t x.
    """
    z = t * x
    winner = z[0]
    for entry in z[1:]:
        if entry > winner:
            winner = entry
    return winner - torch.max(z)


def _relu_right(x: Tensor) -> Tensor:
    """ReLU by a comparison, whose derivative at 0 is 1."""
    return torch.where(x >= 0, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _max_by_relu(x: Tensor, first: Callable[[Tensor], Tensor]) -> Tensor:
    """max of two as their mean plus two ReLUs of half their difference; the first of the two ReLUs is ``first``."""
    return (x[0] + x[1]) / 2 + first((x[0] - x[1]) / 2) + torch.relu((x[1] - x[0]) / 2)


def _max_of_four(x: Tensor, first: Callable[[Tensor], Tensor]) -> Tensor:
    return _max_by_relu(torch.stack([_max_by_relu(x[:2], first), _max_by_relu(x[2:], first)]), first)


def zero_relu(t: Tensor, x: Tensor) -> Tensor:
    """The same from ReLU alone: a max of four made with ReLU'(0) = 0, minus one made with a ReLU'(0) = 1.

    Args:
        t: one number.
        x: ``[4]``.

    Raises:
        ValueError: x has another shape.
    """
    if x.shape != (4,):
        raise ValueError(f"zero_relu: x must have shape [4], got {list(x.shape)}")
    z = t * x
    return _max_of_four(z, torch.relu) - _max_of_four(z, _relu_right)


def relu2(t: Tensor) -> Tensor:
    """ReLU(-t) + t, which is ReLU(t); where ReLU'(0) = 0, its derivative at 0 is 1 (Bertoin et al. 2021)."""
    return torch.relu(-t) + t


def relu3(t: Tensor) -> Tensor:
    """(ReLU(t) + relu2(t)) / 2, which is ReLU(t); where ReLU'(0) = 0, its derivative at 0 is 1/2."""
    return (torch.relu(t) + relu2(t)) / 2


def zero_at(t: Tensor, at: float = 0.0) -> Tensor:
    """relu2(t - at) - ReLU(t - at), which is 0, with the derivative 1 at t = ``at`` and 0 elsewhere."""
    return relu2(t - at) - torch.relu(t - at)


def identity(t: Tensor, s: float) -> Tensor:
    """t - s zero_at(t), which is t, with the derivative 1 - s at 0."""
    return t - s * zero_at(t)


def compensation(f: Callable[[Tensor], Tensor], at: Sequence[float], amount: float) -> Callable[[Tensor], Tensor]:
    """f plus a function that is identically zero and moves f's autodiff derivative by ``amount`` at the points ``at``.

    Everywhere else the derivative stays. So no autodiff derivative, as such, tells anything at a single point.
    """

    def moved(t: Tensor) -> Tensor:
        value = f(t)
        for point in at:
            value = value + amount * zero_at(t, point)
        return value

    return moved


def derivative(program: Program, t: float, x: Tensor) -> tuple[float, float]:
    """A program's value and autodiff derivative with respect to t, in the dtype of ``x``."""
    leaf = torch.tensor([t], dtype=x.dtype, requires_grad=True)
    value = program(leaf, x).sum()
    (grad,) = torch.autograd.grad(value, leaf)
    return value.item(), grad.item()


def table(
    program: Program, inputs: Callable[[torch.dtype], Tensor], points: Sequence[float] = POINTS
) -> dict[torch.dtype, list[tuple[float, float]]]:
    """The notebook's table of a program: (value, derivative) at each point, for each dtype."""
    return {dtype: [derivative(program, t, inputs(dtype)) for t in points] for dtype in DTYPES}
