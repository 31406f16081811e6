"""The box that a proof of a region is about."""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.bounds.rounding.executed import Execution
from zonocuda.specs import Region


def box_of(region: Region, execution: Execution | None) -> tuple[Tensor, Tensor]:
    """The box that a proof is about, float64: for float32 the one whose numbers are rounded to it, else the enclosing
    one."""
    if execution is not None and execution.dtype == torch.float32:
        return region.box.float32_lower.double(), region.box.float32_upper.double()
    return region.box.lower, region.box.upper
