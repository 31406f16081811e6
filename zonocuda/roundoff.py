"""The one number that every count of roundings ends in."""

from __future__ import annotations

import math

import torch


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
