"""One ReLU of the dual pass, some of whose neurons are split in some of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule, check_kink, check_tolerance
from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.dual_relu import check_rows, check_slopes
from zonocuda.ops.errors import ArgumentError
from zonocuda.ops.library import broadcast_neurons, call, check_tensors, neurons, shaped
from zonocuda.ops.library import rows as as_rows


class DualSplitOutput(NamedTuple):
    """Rows at the input of a ReLU, and what they add to the rows' lower bounds."""

    rows: Tensor
    low: Tensor


def dual_split(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    splits: Tensor,
    multipliers: Tensor | None = None,
    negative: Tensor | None = None,
    nonnegative: Tensor | None = None,
    *,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> DualSplitOutput:
    """Bounds of v . relu(x) by v' . x plus a constant, for l <= x <= u and x on its side of 0 where a neuron is split.

    Every row has splits of its own: it stands for a subproblem, and x for that subproblem's values alone:

        v . relu(x) >= v' . x + low.

    A free neuron has v' = lam v and adds min(v, 0) 2 mu to low, as in :func:`zonocuda.ops.dual_relu`. A split one has
    neither slope nor offset, nor are its l and u read. With its multiplier beta, b = max(beta, 0),

        split to active (x >= 0, relu(x) = x):   v' = v - b,   since v x >= v' x for any v' <= v;
        split to dead   (x <= 0, relu(x) = 0):   v' = b,       since 0 >= v' x for any v' >= 0.

    No rounding is to be charged for either: v' is whatever float it is, and v - b is never rounded to above v. (These
    are the multipliers of the constraints x >= 0 and -x >= 0; Wang et al. 2021, beta-CROWN.) Where a split contradicts
    l and u, no x is left, and any bound is right. There is no upper bound beside the lower one: its v' would lie on
    the other side of v.

    Backward, for gradients g of v' and a of low: free neurons as in :func:`zonocuda.ops.dual_relu`; dL/dv = g where
    split to active and 0 where split to dead; dL/dbeta = -g and g, for beta >= 0.

    Args:
        rows: v, ``[B, R, *features]``, float32 or float64.
        lower, upper: l and u, ``[B, *features]``, which the rows share.
        splits: ``[B, R, *features]``, int8: positive where split to active, negative where split to dead, 0 where free.
        multipliers: beta, ``[B, R, *features]``, read where a neuron is split; None for zeros.
        negative: slopes where v < 0, ``[B, R, *features]`` or, shared by the rows, ``[B, 1, *features]``, read where a
            neuron is free; None for the tied slope u / (u - l).
        nonnegative: slopes where v >= 0; None for those of ``negative``.
        kink: the rule on the kink.
        tolerance: what counts as on the kink; by default ``kink_tolerance(dtype, 0)``.

    Returns:
        ``rows`` ``[B, R, *features]`` and ``low`` ``[B, R]``. Sums run in a fixed order. NaN wherever a NaN entered
        that is read.

    Raises:
        ValueError: an unknown rule, or a negative tolerance.
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> rows, lower, upper = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([[3.0, 3.0]])
        >>> splits = torch.tensor([[[0, 1]]], dtype=torch.int8)
        >>> image = dual_split(rows, lower, upper, splits)
        >>> image.rows, image.low
        (tensor([[[ 0.7500, -1.0000]]]), tensor([[0.]]))
    """
    check_tensors("dual_split", rows, lower, upper, splits, optional=(multipliers, negative, nonnegative))
    check_rows("dual_split", rows, lower)
    high = broadcast_neurons("dual_split", "upper", upper, lower)
    for name, t in (("splits", splits), ("multipliers", multipliers)):
        if t is not None and t.shape != rows.shape:
            raise ArgumentError(
                f"dual_split: {name} must have the shape {list(rows.shape)} of rows, got {list(t.shape)}"
            )
    beta = None if multipliers is None else as_rows(multipliers)
    below, above = check_slopes("dual_split", rows, negative, nonnegative)
    within = check_tolerance(tolerance, rows.dtype, 0)
    image, low = call(
        "dual_split", as_rows(rows), neurons(lower), high, as_rows(splits), beta, below, above, check_kink(kink), within
    )
    return DualSplitOutput(shaped(image, rows.shape), low)


@fake("dual_split")
def _fake(
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    splits: Tensor,
    multipliers: Tensor | None,
    negative: Tensor | None,
    nonnegative: Tensor | None,
    kink: int,
    kink_tolerance: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), rows.new_empty(rows.shape[:2])


@fake("_dual_split_backward")
def _backward_fake(
    grad_rows: Tensor,
    grad_low: Tensor,
    rows: Tensor,
    lower: Tensor,
    upper: Tensor,
    splits: Tensor,
    multipliers: Tensor | None,
    negative: Tensor | None,
    nonnegative: Tensor | None,
    kink: int,
    kink_tolerance: float,
    needs_bounds: bool,
    needs_slopes: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, _, features = rows.shape

    def like(t: Tensor | None, wanted: bool = True) -> Tensor:
        return rows.new_empty((batch, 0 if t is None or not wanted else t.shape[1], features))

    bound = rows.new_empty((batch, features if needs_bounds else 0))
    slopes = like(negative, needs_slopes), like(nonnegative, needs_slopes)
    return torch.empty_like(rows), bound, torch.empty_like(bound), like(multipliers), *slopes


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.kink, ctx.tolerance = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_rows: Tensor, grad_low: Tensor) -> tuple[Tensor | None, ...]:
    rows, lower, upper, _, multipliers, negative, nonnegative = ctx.needs_input_grad[:7]
    tensors = list(ctx.saved_tensors)
    bounds, slopes = lower or upper, negative or nonnegative
    grads = call(
        "_dual_split_backward",
        grad_rows.contiguous(),
        grad_low.contiguous(),
        *tensors,
        ctx.kink,
        ctx.tolerance,
        bounds,
        slopes,
    )
    needs = rows, lower, upper, multipliers, negative, nonnegative
    v, low, high, beta, below, above = (grad if wanted else None for grad, wanted in zip(grads, needs, strict=True))
    return v, low, high, None, beta, below, above, None, None


differentiable("dual_split", _backward, _setup_context)
refuse_double_backward("dual_split")
batched("dual_split", (0,) * 7, (0, 0))
batched("_dual_split_backward", (0,) * 9, (0,) * 6)
