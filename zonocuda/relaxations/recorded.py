"""Values that were found without recording, with derivatives that are stated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Recorded(torch.autograd.Function):
    """A value that was found without recording, with its derivatives in the bounds and the slope."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        lower: Tensor,
        of_lower: Tensor,
        upper: Tensor,
        of_upper: Tensor,
        slope: Tensor | None,
        of_slope: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(of_lower, of_upper, of_slope)
        ctx.shapes = [None if t is None else t.shape for t in (lower, upper, slope)]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = [
            (grad * weight).sum_to_size(shape) if needed and weight is not None else None
            for weight, shape, needed in zip(ctx.saved_tensors, ctx.shapes, ctx.needs_input_grad[1::2], strict=True)
        ]
        return None, found[0], None, found[1], None, found[2], None


def recorded(
    value: Tensor,
    lower: Tensor,
    of_lower: Tensor,
    upper: Tensor,
    of_upper: Tensor,
    slope: Tensor | None = None,
    of_slope: Tensor | None = None,
) -> Tensor:
    """``value`` with its derivatives in l, u and a slope (None where there is none)."""
    found: Tensor = _Recorded.apply(value, lower, of_lower, upper, of_upper, slope, of_slope)  # type: ignore[no-untyped-call]
    return found


def records(*tensors: Tensor) -> bool:
    """Whether a derivative may be asked for."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
