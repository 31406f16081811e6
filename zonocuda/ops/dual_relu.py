"""One ReLU of the dual pass: rows of linear forms from its output to its input."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule, check_kink, check_tolerance
from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import broadcast_neurons, call, check_tensors, neurons, shaped
from zonocuda.ops.library import rows as as_rows


class DualReluOutput(NamedTuple):
    """Rows at the input of a ReLU, and what they add to the rows' lower and upper bounds."""

    rows: Tensor
    low: Tensor
    high: Tensor


def dual_relu(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    negative: Tensor | None = None,
    nonnegative: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> DualReluOutput:
    """Bounds of v . relu(x) by v' . x plus a constant, for l <= x <= u.

    Every neuron has a slope lam and mu = max(-l lam, u (1 - lam)) / 2 (see :func:`zonocuda.ops.relu_relaxation`), so
    that lam x <= relu(x) <= lam x + 2 mu. With v' = lam v,

        v . relu(x) >= v' . x + low,   low = sum_n min(v_n, 0) 2 mu_n,

    where the neurons with v < 0 may have other slopes than those with v >= 0 (whose mu does not matter). Where both
    have the same, v . relu(x) <= v' . x + high with high = sum_n max(v_n, 0) 2 mu_n as well.

    Backward, for gradients g of v', a of low and b of high: dL/dv = lam g + 2 mu (a where v < 0, b where v > 0); a
    relaxation's lam gets sum g v and its mu 2 sum (a min(v, 0) + b max(v, 0)), over the entries and rows that use it,
    and hands them on as in :func:`zonocuda.ops.relu_relaxation`. At v = 0 the constants have derivative 0.

    Args:
        rows: v, ``[B, R, *features]``, float32 or float64.
        lower, upper: l and u, ``[B, *features]``.
        negative: slopes where v < 0, ``[B, R, *features]`` or, shared by the rows, ``[B, 1, *features]``; None for the
            tied slope u / (u - l).
        nonnegative: slopes where v >= 0; None for those of ``negative``.
        kink: the rule on the kink.
        tolerance: what counts as on the kink; by default ``kink_tolerance(dtype, 0)``.

    Returns:
        ``rows`` ``[B, R, *features]``, ``low`` and ``high`` ``[B, R]``. Sums run in a fixed order.

    Raises:
        ValueError: an unknown rule, or a negative tolerance.
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> rows, lower, upper = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([[3.0, 3.0]])
        >>> image = dual_relu(rows, lower, upper)
        >>> image.rows, image.low
        (tensor([[[ 0.7500, -0.7500]]]), tensor([[-0.7500]]))
    """
    check_tensors("dual_relu", rows, lower, upper, optional=(negative, nonnegative))
    check_rows("dual_relu", rows, lower)
    high = broadcast_neurons("dual_relu", "upper", upper, lower)
    given = check_slopes("dual_relu", rows, negative, nonnegative)
    within = check_tolerance(tolerance, rows.dtype, 0)
    image, low, up = call("dual_relu", as_rows(rows), neurons(lower), high, *given, check_kink(kink), within)
    return DualReluOutput(shaped(image, rows.shape), low, up)


def check_rows(op: str, rows: Tensor, lower: Tensor) -> None:
    """Checks that ``rows`` is ``[B, R, *features]`` for a ``lower`` of ``[B, *features]``.

    Raises:
        ArgumentError: naming the op and both shapes.
    """
    if rows.dim() < 2 or lower.shape != (rows.shape[0], *rows.shape[2:]):
        raise ArgumentError(
            f"{op}: rows must have shape [batch, rows, *features] for a lower of shape {list(lower.shape)}, "
            f"got {list(rows.shape)}"
        )


def check_slopes(
    op: str, rows: Tensor, negative: Tensor | None, nonnegative: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The slopes of both signs as contiguous ``[B, 1 or R, N]``.

    Raises:
        ArgumentError: naming the op, the argument and both shapes.
    """
    return _slopes(op, "negative", negative, rows), _slopes(op, "nonnegative", nonnegative, rows)


def _slopes(op: str, name: str, slope: Tensor | None, rows: Tensor) -> Tensor | None:
    if slope is None:
        return None
    shape = (rows.shape[0], *rows.shape[2:])
    if slope.dim() != rows.dim() or (slope.shape[0], *slope.shape[2:]) != shape:
        raise ArgumentError(
            f"{op}: {name} must have shape [batch, 1 or rows, *features] for rows of shape {list(rows.shape)}, "
            f"got {list(slope.shape)}"
        )
    return slope.reshape(slope.shape[0], slope.shape[1], prod(slope.shape[2:])).contiguous()


@fake("dual_relu")
def _fake(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    negative: Tensor | None,
    nonnegative: Tensor | None,
    kink: int,
    kink_tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    constants = rows.new_empty(rows.shape[:2])
    return torch.empty_like(rows), constants, torch.empty_like(constants)


@fake("_dual_relu_backward")
def _backward_fake(
    grad_rows: Tensor,
    grad_low: Tensor,
    grad_high: Tensor,
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    negative: Tensor | None,
    nonnegative: Tensor | None,
    kink: int,
    kink_tolerance: float,
    needs_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, _, features = rows.shape

    def slope(t: Tensor | None) -> Tensor:
        return rows.new_empty((batch, 0 if t is None or not needs_slopes else t.shape[1], features))

    bound = rows.new_empty((batch, features if needs_slopes else 0))
    return torch.empty_like(rows), bound, torch.empty_like(bound), slope(negative), slope(nonnegative)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    rows, lower, upper, negative, nonnegative, ctx.kink, ctx.tolerance = inputs
    ctx.save_for_backward(rows, lower, upper, negative, nonnegative)


def _backward(ctx: Any, grad_rows: Tensor, grad_low: Tensor, grad_high: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:5]
    grads = call(
        "_dual_relu_backward",
        grad_rows.contiguous(),
        grad_low.contiguous(),
        grad_high.contiguous(),
        *ctx.saved_tensors,
        ctx.kink,
        ctx.tolerance,
        any(needs[1:]),
    )
    return (*(grad if wanted else None for grad, wanted in zip(grads, needs, strict=True)), None, None)


differentiable("dual_relu", _backward, _setup_context)
refuse_double_backward("dual_relu")
batched("dual_relu", (0,) * 5, (0,) * 3)
batched("_dual_relu_backward", (0,) * 8, (0,) * 5)
