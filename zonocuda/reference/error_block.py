"""Reference twin of :func:`zonocuda.ops.error_block`."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


def error_block(coefficients: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``[B, K, *shape]`` with coefficients[b, k] at the flattened position index[k] of row k, else zero."""
    unit = torch.nn.functional.one_hot(index, prod(shape)).to(coefficients.dtype)
    return (coefficients.unsqueeze(-1) * unit).reshape(*coefficients.shape, *shape)
