"""Reference twin of :func:`zonocuda.ops.error_block`."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


def error_block(coefficients: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[B, K, *shape]`` with coefficients[b, k] at the flattened position index[k] of row k, else zero.

    Raises:
        IndexError: an index that is no neuron.
    """
    features = prod(shape)
    chosen = index.unsqueeze(-1) == torch.arange(features, device=index.device)
    if not bool(chosen.any(-1).all()):
        raise IndexError(f"error_block: index must lie in [0, {features}), got {index.tolist()}")
    dense = torch.where(chosen, coefficients.unsqueeze(-1), torch.zeros_like(coefficients).unsqueeze(-1))
    return dense.reshape(*coefficients.shape, *shape)
