"""Reference twins of :func:`zonocuda.ops.relu` and :func:`zonocuda.ops.relu_`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from zonocuda.in_place import refuse_gradients
from zonocuda.kink import KinkRule, check_tolerance
from zonocuda.reference.concretize import concretize
from zonocuda.reference.relu_relaxation import relu_relaxation


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
    """c' = lam c + mu, G' = lam G and the offset mu, for the relaxation (lam, mu) of ReLU on the zonotope's bounds or
    on the given ones.
    """
    if (lower is None) != (upper is None):
        raise ValueError("relu: lower and upper must be given together")
    if lower is None or upper is None:
        lower, upper = concretize(center, generators)
    within = check_tolerance(tolerance, center.dtype, generators.shape[1])
    multiplier, offset = relu_relaxation(lower, upper, slope, kink=kink, tolerance=within)
    return ReluOutput(multiplier * center + offset, multiplier.unsqueeze(1) * generators, offset)


def relu_(
    center: Tensor,
    generators: Tensor,
    slope: Tensor | None = None,
    *,
    lower: Tensor | None = None,
    upper: Tensor | None = None,
) -> ReluOutput:
    """The same, in place."""
    refuse_gradients("relu_", center, generators, slope, lower, upper)
    if (lower is None) != (upper is None):
        raise ValueError("relu_: lower and upper must be given together")
    if lower is None or upper is None:
        lower, upper = concretize(center, generators)
    multiplier, offset = relu_relaxation(lower, upper, slope)
    return ReluOutput(center.mul_(multiplier).add_(offset), generators.mul_(multiplier.unsqueeze(1)), offset)
