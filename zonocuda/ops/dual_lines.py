"""One activation of the dual pass, between a line below and a line above it."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import call, check_tensors, shaped
from zonocuda.ops.library import rows as as_rows


class DualLinesOutput(NamedTuple):
    """Rows at the input of an activation, and what they add to the rows' lower and upper bounds."""

    rows: Tensor
    low: Tensor
    high: Tensor


def dual_lines(
    rows: Tensor, lower: Tensor, below: Tensor, above: Tensor, upper: Tensor | None = None
) -> DualLinesOutput:
    """Bounds of v . f(x) by v' . x plus a constant, where lower_n x + below_n <= f_n(x) <= upper_n x + above_n.

    With v'_n = lower_n v_n where v_n >= 0, and upper_n v_n where v_n < 0,

        v . f(x) >= v' . x + low,   low = sum_n max(v_n, 0) below_n + min(v_n, 0) above_n.

    Where both lines have one slope, v . f(x) <= v' . x + high with high = sum_n max(v_n, 0) above_n + min(v_n, 0)
    below_n as well.

    Backward, for gradients g of v', a of low and b of high: dL/dv = slope g + a (the offset in low) + b (that in high);
    dL/dlower = g v where v >= 0 and dL/dupper = g v where v < 0 (where there is one slope it gets both); dL/dbelow and
    dL/dabove are a v and b v where v >= 0, b v and a v where v < 0; each summed over the rows that share it. At v = 0
    the constants are 0 whatever the offsets, and have derivative 0.

    Args:
        rows: v, ``[B, R, *features]``, float32 or float64.
        lower: the slope of the lower line, ``[B, R, *features]`` or, shared by the rows, ``[B, 1, *features]``; so are
            the others.
        below: the offset of the lower line.
        above: the offset of the upper line.
        upper: the slope of the upper line; None for that of the lower one.

    Returns:
        ``rows`` ``[B, R, *features]``, ``low`` and ``high`` ``[B, R]``. Sums run in a fixed order.

    Raises:
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> rows, slope = torch.tensor([[[2.0, -2.0]]]), torch.full((1, 1, 2), 0.5)
        >>> image = dual_lines(rows, slope, torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
        >>> image.rows, image.low, image.high
        (tensor([[[ 1., -1.]]]), tensor([[-2.]]), tensor([[2.]]))
    """
    check_tensors("dual_lines", rows, lower, below, above, optional=(upper,))
    if rows.dim() < 2:
        raise ArgumentError(f"dual_lines: rows must have shape [batch, rows, *features], got {list(rows.shape)}")
    named = {"lower": lower, "below": below, "above": above, "upper": upper}
    given = [_part(name, t, rows) for name, t in named.items()]
    image, low, high = call("dual_lines", as_rows(rows), *given)
    return DualLinesOutput(shaped(image, rows.shape), low, high)


def _part(name: str, t: Tensor | None, rows: Tensor) -> Tensor | None:
    if t is None:
        return None
    if t.dim() != rows.dim() or (t.shape[0], *t.shape[2:]) != (rows.shape[0], *rows.shape[2:]):
        raise ArgumentError(
            f"dual_lines: {name} must have shape [batch, 1 or rows, *features] for rows of shape {list(rows.shape)}, "
            f"got {list(t.shape)}"
        )
    return t.reshape(t.shape[0], t.shape[1], prod(t.shape[2:])).contiguous()


@fake("dual_lines")
def _fake(
    rows: Tensor, lower: Tensor, below: Tensor, above: Tensor, upper: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    constants = rows.new_empty(rows.shape[:2])
    return torch.empty_like(rows), constants, torch.empty_like(constants)


@fake("_dual_lines_backward")
def _backward_fake(
    grad_rows: Tensor,
    grad_low: Tensor,
    grad_high: Tensor,
    rows: Tensor,
    lower: Tensor,
    below: Tensor,
    above: Tensor,
    upper: Tensor | None,
    needs_lines: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, _, features = rows.shape

    def part(t: Tensor | None) -> Tensor:
        return rows.new_empty((batch, 0 if t is None or not needs_lines else t.shape[1], features))

    return torch.empty_like(rows), part(lower), part(below), part(above), part(upper)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_rows: Tensor, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    grads = call(
        "_dual_lines_backward",
        grad_rows.contiguous(),
        grad_low.contiguous(),
        grad_high.contiguous(),
        *ctx.saved_tensors,
        any(needs[1:]),
    )
    return tuple(grad if wanted else None for grad, wanted in zip(grads, needs, strict=True))


differentiable("dual_lines", _backward, _setup_context)
refuse_double_backward("dual_lines")
batched("dual_lines", (0,) * 5, (0,) * 3)
batched("_dual_lines_backward", (0,) * 8, (0,) * 5)
