"""The linear relaxation of ReLU: it owns its slopes, and knows nothing of who optimises them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from zonocuda.domains.backend import kernels

SlopeRule = Literal["minimum_area", "adaptive"]


class ReluRelaxation:
    """Lines around ReLU on [l, u]: lam x below and lam x + 2 mu above, for any slope lam in [0, 1]."""

    @staticmethod
    def initial(lower: Tensor, upper: Tensor, rule: SlopeRule = "minimum_area") -> Tensor:
        """Slopes to begin with: 0 on dead neurons, 1 on active ones, and on crossing ones

        * ``minimum_area``: u / (u - l), which minimises the area between the lines;
        * ``adaptive``: 1 where u >= -l, else 0, which minimises the area between the *lower* line and ReLU (CROWN).
        """
        crossing = (lower < 0) & (upper > 0)
        slope: Tensor = kernels().relu_relaxation(lower, upper)[0]
        if rule == "adaptive":
            slope = torch.where(crossing, (upper >= -lower).to(slope.dtype), slope)
        return slope

    @staticmethod
    def linearize(lower: Tensor, upper: Tensor, slope: Tensor | None) -> tuple[Tensor, Tensor]:
        """lam and mu for a slope, or for the minimum-area one (None)."""
        multiplier, offset = kernels().relu_relaxation(lower, upper, slope)
        return multiplier, offset

    @staticmethod
    def project(slope: Tensor) -> Tensor:
        """The nearest admissible slope."""
        return slope.clamp(0, 1)
