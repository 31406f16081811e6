"""Reference twins of :func:`zonocuda.ops.im2col` and :func:`zonocuda.ops.col2im`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

Sizes = Sequence[int]


def im2col(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, output_size: Sizes) -> Tensor:
    """``[C * prod(kernel), N * prod(output_size)]``: the windows of ``x`` ``[N, C, *size]``, gathered."""
    places = _places(x.shape[2:], kernel, stride, padding, dilation, output_size, x.device)
    flat = torch.cat([x.flatten(2), x.new_zeros(*x.shape[:2], 1)], 2)  # the last number: all that lies outside
    windows = flat[:, :, places.flatten()].reshape(*x.shape[:2], *places.shape)
    return windows.permute(1, 2, 0, 3).reshape(x.shape[1] * prod(kernel), x.shape[0] * prod(output_size))


def col2im(
    columns: Tensor,
    input_size: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    output_size: Sizes,
) -> Tensor:
    """``input_size``, ``[N, C, *size]``: the columns, added up where they came from."""
    images, channels, *size = input_size
    places = _places(size, kernel, stride, padding, dilation, output_size, columns.device)
    windows = columns.reshape(channels, prod(kernel), images, prod(output_size)).permute(2, 0, 1, 3).flatten(2)
    flat = columns.new_zeros(images, channels, prod(size) + 1).index_add(2, places.flatten(), windows)
    return flat[..., :-1].reshape(tuple(input_size))


def _places(
    size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, outputs: Sizes, device: torch.device
) -> Tensor:
    """``[prod(kernel), prod(outputs)]`` int64: the flattened position that an element of the kernel sees from an
    output; ``prod(size)`` outside the map."""
    place = torch.zeros((), dtype=torch.int64, device=device)
    inside = torch.ones((), dtype=torch.bool, device=device)
    axes = len(size)
    for axis, (n, k, s, p, d, m) in enumerate(zip(size, kernel, stride, padding, dilation, outputs, strict=True)):
        at = d * torch.arange(k, device=device).unsqueeze(1) + s * torch.arange(m, device=device) - p
        at = at.reshape([k if a == axis else m if a == axes + axis else 1 for a in range(2 * axes)])
        place, inside = place * n + at, inside & (at >= 0) & (at < n)
    return torch.where(inside, place, prod(size)).reshape(prod(kernel), prod(outputs))
