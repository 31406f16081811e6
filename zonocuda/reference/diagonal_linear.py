"""Reference twin of :func:`zonocuda.ops.diagonal_linear`."""

from __future__ import annotations

from torch import Tensor


def diagonal_linear(coefficients: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """coefficients[b, k] * weight[:, index[k]], as ``[B, K, out]``."""
    return coefficients.unsqueeze(-1) * weight[:, index].T
