"""Reference twin of :func:`zonocuda.ops.nonsmooth_relu`."""

from __future__ import annotations

import torch
from torch import Tensor


def nonsmooth_relu(x: Tensor, left: float = 0.0, at_zero: float = 0.0) -> Tensor:
    """x for x > 0, left x for x < 0; at 0 the line at_zero x, which is 0 there and has the wanted derivative."""
    zero = x.detach().abs() if left < 0 else x.detach()
    on_the_kink = zero + at_zero * (x - x.detach())
    return torch.where(x < 0, left * x if left != 0 else torch.zeros_like(x), torch.where(x == 0, on_the_kink, x))
