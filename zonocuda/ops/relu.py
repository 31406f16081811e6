"""The zonotope ReLU, fused for one dense block of generators."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zonocuda.kink import KinkRule, check_kink, check_tolerance
from zonocuda.ops.derivatives import batched, differentiable, fake, refuse_double_backward
from zonocuda.ops.library import (
    broadcast_neurons,
    call,
    call_in_place,
    check_shapes,
    check_tensors,
    in_place,
    neurons,
    register_in_place,
    rows,
    shaped,
)


class ReluOutput(NamedTuple):
    """The zonotope after a ReLU: ``center + sum_k eps_k generators_k + eps_new offset``, one eps_new per neuron."""

    center: Tensor
    generators: Tensor
    offset: Tensor


def relu(
    center: Tensor,
    generators: Tensor,
    slope: Tensor | None = None,
    *,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
    kink: KinkRule = "envelope",
    tolerance: float | None = None,
) -> ReluOutput:
    """A zonotope that encloses ReLU of the zonotope (Singh et al. 2018, with any slope).

    Per neuron, with l = c - sum_k |G_k| and u = c + sum_k |G_k| (or the given ``lower`` and ``upper``):

    * u <= 0 (tested first): c' = 0, G' = 0, mu = 0;
    * l >= 0: c' = c, G' = G, mu = 0;
    * else, for a slope lam in [0, 1]: mu = max(-l lam, u (1 - lam)) / 2, c' = lam c + mu, G' = lam G.

    ReLU(x) lies in lam x + mu + [-mu, mu] for every x in [l, u], whatever *value* in [0, 1] lam has; mu is the
    coefficient of one new symbol for each neuron. Slopes outside [0, 1] are clamped. ``slope=None`` ties the slope to
    the bounds, lam = u / (u - l), which minimises mu (the area).

    With ``lower`` and ``upper`` given (tighter than the zonotope's own), the result encloses ReLU of those points of
    the zonotope that satisfy them, not of all its points.

    Backward, hand-written, for incoming gradients gc, gG, gmu and m = gc + gmu, on crossing neurons:

    * free slope: dL/dlam = gc c + sum_k gG_k G_k - (m/2) (theta l + (1 - theta) u),
      lbar = -theta lam m/2, ubar = (1 - theta)(1 - lam) m/2, with theta = 1 for lam > lam*, 0 for lam < lam*, and
      chosen by ``kink`` where |lam - lam*| <= ``tolerance`` (see :mod:`zonocuda.kink`); 0 for a clamped slope;
    * tied slope: with s = (gc c + sum_k gG_k G_k) / (u - l): lbar = lam s - lam^2 m/2,
      ubar = (1 - lam) s + (1 - lam)^2 m/2;

    and dL/dc = lam gc + lbar + ubar, dL/dG_k = lam gG_k + sign(G_k)(ubar - lbar); with given bounds, lbar and ubar are
    the gradients of those instead. Active neurons hand gc and gG on, dead ones nothing.

    Args:
        center: ``[B, *features]``, float32 or float64.
        generators: ``[B, K, *features]``.
        slope: broadcasts to the center's shape, or None.
        lower, upper: bounds of the center's shape, both or neither.
        kink: the rule on the kink.
        tolerance: what counts as on the kink; by default ``kink_tolerance(dtype, K)``.

    Returns:
        The new center ``[B, *features]``, scaled generators ``[B, K, *features]`` and the offset mu ``[B, *features]``.
        NaN in a neuron's center, generators or bounds gives NaN in its outputs, and so does a NaN slope that is used.

    Raises:
        ValueError: one bound without the other, an unknown rule, or a negative tolerance.
        ArgumentError: shapes that do not fit, another dtype, mixed devices, or CUDA tensors in a build without CUDA.
        RuntimeError: a second derivative.

    Examples:
        >>> center, generators, offset = relu(torch.tensor([[1.0]]), torch.tensor([[[1.0], [-1.0]]]))
        >>> center, generators.flatten(), offset
        (tensor([[1.1250]]), tensor([ 0.7500, -0.7500]), tensor([[0.3750]]))
    """
    check_tensors("relu", center, generators, optional=(slope, lower, upper))
    check_shapes("relu", center, generators)
    optional = _optional("relu", center, slope, lower, upper)
    within = check_tolerance(tolerance, center.dtype, generators.shape[1])
    out = call("relu", neurons(center), rows(generators), *optional, check_kink(kink), within)
    return ReluOutput(shaped(out[0], center.shape), shaped(out[1], generators.shape), shaped(out[2], center.shape))


def relu_(
    center: Tensor,
    generators: Tensor,
    slope: Tensor | None = None,
    *,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
) -> ReluOutput:
    """:func:`relu` into the memory of ``center`` and ``generators``, the same numbers bit for bit; no derivative.

    Args:
        center: ``[B, *features]``, float32 or float64, contiguous; written in place.
        generators: ``[B, K, *features]``, contiguous; written in place.
        slope: broadcasts to the center's shape, or None; like the bounds, in other memory.
        lower, upper: bounds of the center's shape, both or neither.

    Returns:
        ``center``, ``generators`` and the new offset mu ``[B, *features]``.

    Raises:
        ValueError: shapes that do not fit, one bound without the other, or a center or generators that are not
            contiguous.
        RuntimeError: an argument requires grad where gradients are recorded.
        ArgumentError: shared memory; another dtype, mixed devices; CUDA tensors in a build without CUDA.

    Examples:
        >>> center, generators = torch.tensor([[1.0]]), torch.tensor([[[1.0], [-1.0]]])
        >>> _ = relu_(center, generators)
        >>> center, generators.flatten()
        (tensor([[1.1250]]), tensor([ 0.7500, -0.7500]))
    """
    check_tensors("relu_", center, generators, optional=(slope, lower, upper))
    check_shapes("relu_", center, generators)
    optional = _optional("relu_", center, slope, lower, upper)
    in_place("relu_", "center", center)
    in_place("relu_", "generators", generators)
    offset = call_in_place("relu_", 2, neurons(center), rows(generators), *optional)[0]
    return ReluOutput(center, generators, shaped(offset, center.shape))


def _optional(
    op: str, center: Tensor, slope: Tensor | None, lower: Tensor | None, upper: Tensor | None
) -> list[Tensor | None]:
    if (lower is None) != (upper is None):
        raise ValueError(f"{op}: lower and upper must be given together")
    return [
        None if t is None else broadcast_neurons(op, name, t, center)
        for name, t in (("slope", slope), ("lower", lower), ("upper", upper))
    ]


@fake("relu")
def _relu_fake(
    center: Tensor,
    generators: Tensor,
    slope: Tensor | None,
    lower: Tensor | None,
    upper: Tensor | None,
    kink: int,
    kink_tolerance: float,
) -> tuple[Tensor, ...]:
    new = torch.empty_like
    return new(center), new(generators), new(center), new(center), new(center)


@fake("_relu_backward")
def _backward_fake(
    grad_center: Tensor,
    grad_generators: Tensor,
    grad_offset: Tensor,
    center: Tensor,
    generators: Tensor,
    lower: Tensor,
    upper: Tensor,
    slope: Tensor | None,
    kink: int,
    kink_tolerance: float,
    external: bool,
    needs_generators: bool,
    needs_slope: bool,
) -> tuple[Tensor, ...]:
    new = torch.empty_like
    batch, symbols, features = generators.shape
    grad = generators.new_empty((batch, symbols, features if needs_generators else 0))
    return new(center), grad, new(center), new(center), new(center)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    center, generators, slope, given_lower, _, ctx.kink, ctx.tolerance = inputs
    lower, upper = output[3:]
    ctx.external = given_lower is not None
    ctx.mark_non_differentiable(lower, upper)
    ctx.save_for_backward(center, generators, lower, upper, slope)


def _backward(
    ctx: Any, grad_center: Tensor, grad_generators: Tensor, grad_offset: Tensor, *unused: Tensor
) -> tuple[Tensor | None, ...]:
    needs_center, needs_generators, needs_slope, needs_lower, needs_upper, *_ = ctx.needs_input_grad
    center, generators, slope, lower, upper = call(
        "_relu_backward",
        grad_center.contiguous(),
        grad_generators.contiguous(),
        grad_offset.contiguous(),
        *ctx.saved_tensors,
        ctx.kink,
        ctx.tolerance,
        ctx.external,
        needs_generators,
        needs_slope,
    )
    needed = (needs_center, needs_generators, needs_slope, needs_lower, needs_upper)
    grads = (center, generators, slope, lower, upper)
    return (*(g if n else None for g, n in zip(grads, needed, strict=True)), None, None)


differentiable("relu", _backward, _setup_context)
refuse_double_backward("relu")
batched("relu", (0,) * 5, (0,) * 5)
batched("_relu_backward", (0,) * 8, (0,) * 5)


@fake("relu_")
def _in_place_fake(
    center: Tensor, generators: Tensor, slope: Tensor | None, lower: Tensor | None, upper: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(center), torch.empty_like(center), torch.empty_like(center)


register_in_place("relu_", written=2)
