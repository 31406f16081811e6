"""Reference twin of :func:`zonocuda.ops.relu_relaxation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule, check_kink, check_tolerance


class Relaxation(NamedTuple):
    """relu(x) in multiplier * x + offset + [-offset, offset] on the bounds."""

    multiplier: Tensor
    offset: Tensor


class _ChosenMaximum(torch.autograd.Function):
    """(lam, max(a, b) / 2) where a = -l lam and b = u (1 - lam), with the derivative of max chosen on its kink.

    The one derivative here that autograd does not give: the rule min_norm depends on the incoming gradients.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        lam: Tensor, a: Tensor, b: Tensor, lower: Tensor, upper: Tensor, kink: str, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        return lam.clone(), torch.maximum(a, b) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        lam, _, _, lower, upper, ctx.kink, ctx.tolerance = inputs
        ctx.save_for_backward(lam, lower, upper)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_lam, grad_mu = grads
        lam, lower, upper = ctx.saved_tensors
        d = upper - lower
        star = upper / d
        if ctx.kink == "min_norm":
            safe = torch.where(grad_mu == 0, torch.ones_like(grad_mu), grad_mu)
            chosen = torch.where(grad_mu == 0, star, ((upper - 2 * grad_lam / safe) / d).clamp(0, 1))
        else:
            weights = {"envelope": star, "left": 0.0, "right": 1.0, "even": 0.5}
            chosen = torch.zeros_like(lam) + weights[ctx.kink]
        theta = torch.where((lam - star).abs() <= ctx.tolerance, chosen, (lam > star).to(lam.dtype))
        return grad_lam, theta * grad_mu / 2, (1 - theta) * grad_mu / 2, None, None, None, None


def relu_relaxation(
    lower: Tensor,
    upper: Tensor,
    slope: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> Relaxation:
    """The multiplier and offset of ReLU on [l, u]; (0, 0) where u <= 0, (1, 0) where l >= 0, else lam and
    mu = max(-l lam, u (1 - lam)) / 2, for the given slope lam (clamped to [0, 1]) or lam = u / (u - l).

    Every division is made safe *before* it is done, so that stable neurons send no NaN into a gradient. A neuron with a
    NaN bound counts as unstable, so that its NaN reaches the offset.
    """
    check_kink(kink)
    within = check_tolerance(tolerance, lower.dtype, 0)
    upper = upper.expand(lower.shape)
    unknown = lower.isnan() | upper.isnan()
    dead = (upper <= 0) & ~unknown
    active = (lower >= 0) & ~dead & ~unknown
    stable = dead | active
    low = torch.where(stable, -torch.ones_like(lower), lower)
    high = torch.where(stable, torch.ones_like(upper), upper)
    if slope is None:
        lam = high / (high - low)
        offset = torch.maximum(-low * lam, high * (1 - lam)) / 2
    else:
        lam = slope.expand(lower.shape).clamp(0, 1)
        a, b = -low * lam, high * (1 - lam)
        apply: Callable[..., tuple[Tensor, Tensor]] = _ChosenMaximum.apply
        lam, offset = apply(lam, a, b, low.detach(), high.detach(), kink, within)
    zero = torch.zeros_like(lower)
    multiplier = torch.where(stable, active.to(lower.dtype), lam)
    return Relaxation(multiplier, torch.where(stable, zero, offset))
