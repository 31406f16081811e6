"""The number that every count of roundings ends in, and rounding outward."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit_roundoff(dtype: torch.dtype) -> float:
    """u: half the distance from 1 to the next number of a dtype."""
    return torch.finfo(dtype).eps / 2


def gamma(n: int, u: float, limit: float = 0.125) -> float:
    """At least n u / (1 - n u), which bounds the relative error of n roundings one on top of the other (Higham,
    Accuracy and Stability of Numerical Algorithms, lemma 3.1); infinite from n u = ``limit`` on: nothing is claimed.

    (The quotient is computed in float64, whose three roundings the last factor covers.)
    """
    product = n * u
    return product / (1 - product) * (1 + 2**-50) if product < limit else math.inf


def outward(bound: Tensor, dtype: torch.dtype, up: bool) -> Tensor:
    """A bound in ``dtype``, rounded up or down where ``dtype`` does not hold it."""
    rounded = bound.to(dtype)
    wrong = rounded.double() < bound if up else rounded.double() > bound
    limit = torch.full_like(rounded, math.inf if up else -math.inf)
    return torch.where(wrong, torch.nextafter(rounded, limit), rounded)
