"""Reference twin of :func:`zonocuda.ops.nonsmooth_max_pool2d`."""

from __future__ import annotations

import torch
from torch import Tensor

from zonocuda.reference.nonsmooth_max import mix_winners
from zonocuda.ties import Pair, TieRule, pair, pooled_length, tie_weights


def nonsmooth_max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    ties: TieRule = "first",
    beta: float | None = None,
) -> Tensor:
    """Every window gathered, ``[..., rows, columns, elements]``, and its winners mixed as the rule says."""
    kernel, pad, gaps = pair("kernel_size", kernel_size, 1), pair("padding", padding, 0), pair("dilation", dilation, 1)
    step = kernel if stride is None else pair("stride", stride, 1)
    axes, inside = [], []
    for i, length in enumerate(x.shape[-2:]):
        count = pooled_length(length, kernel[i], step[i], pad[i], gaps[i], ceil_mode)
        first, offset = torch.arange(count, device=x.device), torch.arange(kernel[i], device=x.device)
        at = first[:, None] * step[i] - pad[i] + offset * gaps[i]
        axes.append(at.clamp(0, max(0, length - 1)))
        inside.append((at >= 0) & (at < length))
    (rows, columns), (in_rows, in_columns) = axes, inside
    windows = x[..., rows[:, None, :, None], columns[None, :, None, :]].flatten(-2)
    real = (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(-2).expand(windows.shape)
    nan = windows.isnan() & real
    after = nan.flip(-1).cumsum(-1).flip(-1)  # NaNs from here on
    maximum = windows.masked_fill(~real, -torch.inf).amax(-1, keepdim=True)
    winners = torch.where(nan.any(-1, keepdim=True), nan & (after == 1), (windows == maximum) & real)
    return mix_winners(windows, winners, tie_weights(ties, beta))
