"""The ops on windowed generators as their .cu files do them: the same kernels in the same order, on the CPU.

See chains.py; a :class:`WindowPlan` takes the place of what csrc/cuda/windows_launch.h decides from the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from tests.csrc.chains import LANES, STRIPS, THREADS, outputs
from tests.csrc.host import Argument, HostKernels, Launch, Out
from zonocuda.windows import window_size

PLANES, TILE_WIDTH = 8, 32  # kSumPlanes, kSumWidth
OUTPUTS = 8  # kConvOutputs


@dataclass(frozen=True)
class WindowPlan:
    """Parts of the symbol sums; channels that a warp adds; one block in x, whose loops do all, or enough; blocks in y
    that share the lists of symbols; 16-byte accesses; indices of 32 bits.
    """

    splits: int = 1
    warp_planes: int = 1
    one_block: bool = False
    strips: int = 1
    wide: bool = False
    narrow: bool = False

    def blocks(self, items: int) -> int:
        """Of a grid's x."""
        return 1 if self.one_block else max(1, items)

    def __str__(self) -> str:
        flags = "-one_block" * self.one_block + "-wide" * self.wide + "-narrow" * self.narrow
        return f"splits{self.splits}-planes{self.warp_planes}-strips{self.strips}{flags}"


def tile_height(dtype: torch.dtype) -> int:
    """kSumHeight."""
    return 128 // dtype.itemsize


def sizes_of(patches: Tensor, height: int, width: int) -> list[int]:
    """The struct Windows."""
    return [*patches.shape, height, width]


def add_splits(host: HostKernels, plan: WindowPlan, partial: Tensor) -> Tensor:
    """The sum of the partial sums ``[splits, ...]``."""
    count = partial[0].numel()
    launch = Launch((plan.blocks(-(-count // THREADS)), 1), (THREADS, 1))
    arguments = [partial, *outputs(1, partial[0])]
    return host.run("add_splits_kernel", launch, arguments, [partial.shape[0], count], dtype=partial.dtype)[0]


def sum_windows(
    host: HostKernels, plan: WindowPlan, term: str, inputs: list[Tensor], corners: Tensor, height: int, width: int
) -> Tensor:
    """The sum of a term over the windows, ``[B, C, height, width]``."""
    batch, _, channels, _, _ = inputs[0].shape
    dtype = inputs[0].dtype
    if batch * channels * height * width == 0:
        return inputs[0].new_empty(batch, channels, height, width)
    tiles = -(-height // tile_height(dtype)) * -(-width // TILE_WIDTH)
    grid = (plan.blocks(batch * -(-channels // PLANES) * tiles), plan.splits)
    out = Out.unwritten(plan.splits, batch, channels, height, width, dtype=dtype)
    integers = [*sizes_of(inputs[0], height, width), plan.splits, plan.warp_planes]
    launch = Launch(grid, (LANES, PLANES // plan.warp_planes), narrow=plan.narrow)
    (partial,) = host.run(f"sum_windows_kernel/{term}", launch, [*inputs, corners, out], integers, dtype=dtype)
    return partial[0] if plan.splits == 1 else add_splits(host, plan, partial)


def listed_launch(plan: WindowPlan, batch: int, count: int, dtype: torch.dtype) -> Launch:
    """The launch of a kernel that lists symbols, and shares out ``count`` numbers of each of them."""
    vector = 16 // dtype.itemsize if plan.wide else 1
    if count % vector:
        raise ValueError(f"{count} numbers cannot be read {vector} at a time")
    grid = (plan.blocks(batch * -(-count // (LANES * vector))), plan.strips)
    return Launch(grid, (LANES, STRIPS), plan.wide, narrow=plan.narrow)


def map_windows(
    host: HostKernels, plan: WindowPlan, name: str, inputs: list[Tensor], corners: Tensor, like: Tensor, size: list[int]
) -> Tensor:
    """A map of ``inputs`` over the windows; the patches are shaped like ``like``."""
    if like.numel() == 0:
        return torch.empty_like(like)
    launch = listed_launch(plan, like.shape[0], like[0, 0].numel(), like.dtype)
    arguments: list[Argument] = [*inputs, corners, *outputs(1, like)]
    return host.run(f"map_windows_kernel/{name}", launch, arguments, sizes_of(like, *size), dtype=like.dtype)[0]


def window_radius(
    host: HostKernels, plan: WindowPlan, patches: Tensor, corners: Tensor, height: int, width: int
) -> Tensor:
    """The radius."""
    return sum_windows(host, plan, "AbsTerm", [patches], corners, height, width)


def window_radius_backward(
    host: HostKernels, plan: WindowPlan, grad: Tensor, patches: Tensor, corners: Tensor
) -> Tensor:
    """The gradient of the patches."""
    return map_windows(host, plan, "WindowSignMap", [patches, grad], corners, patches, list(grad.shape[2:]))


def window_scale(host: HostKernels, plan: WindowPlan, patches: Tensor, corners: Tensor, multiplier: Tensor) -> Tensor:
    """The scaled patches."""
    size = list(multiplier.shape[2:])
    return map_windows(host, plan, "WindowScaleMap", [patches, multiplier], corners, patches, size)


def window_scale_backward(
    host: HostKernels, plan: WindowPlan, grad: Tensor, patches: Tensor, corners: Tensor, multiplier: Tensor
) -> list[Tensor]:
    """The gradients of the patches and the multiplier."""
    height, width = multiplier.shape[2:]
    return [
        window_scale(host, plan, grad, corners, multiplier),
        sum_windows(host, plan, "ProductTerm", [grad, patches], corners, height, width),
    ]


def window_dense(
    host: HostKernels, plan: WindowPlan, patches: Tensor, corners: Tensor, height: int, width: int
) -> Tensor:
    """The dense generators."""
    out = Out.unwritten(*patches.shape[:3], height, width, dtype=patches.dtype)
    if out.before.numel() == 0:
        return out.before
    plan = replace(plan, wide=plan.wide and width * patches.element_size() % 16 == 0)
    launch = listed_launch(plan, patches.shape[0], patches.shape[2] * height * width, patches.dtype)
    sizes = sizes_of(patches, height, width)
    return host.run("window_dense_kernel", launch, [patches, corners, out], sizes, dtype=patches.dtype)[0]


def window_dense_backward(
    host: HostKernels, plan: WindowPlan, grad: Tensor, corners: Tensor, rows: int, columns: int
) -> Tensor:
    """The gradient of the patches."""
    like = grad.new_empty(*grad.shape[:3], rows, columns)
    return map_windows(host, plan, "WindowGatherMap", [grad], corners, like, list(grad.shape[3:]))


@dataclass(frozen=True)
class Convolution:
    """The arguments of the op diagonal_conv but its tensors, in order."""

    channels: int
    height: int
    width: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    out_height: int
    out_width: int

    def window(self, weight: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches."""
        return window_size((weight.shape[2], weight.shape[3]), self.stride, self.dilation)

    def integers(self, batch: int, symbols: int, weight: Tensor) -> list[int]:
        """The struct DiagonalConv."""
        axes = [
            [size, out, weight.shape[2 + a], self.stride[a], self.padding[a], self.dilation[a]]
            for a, (size, out) in enumerate(((self.height, self.out_height), (self.width, self.out_width)))
        ]
        return [batch, symbols, self.channels, weight.shape[0], self.groups, *axes[0], *axes[1]]

    def arguments(self) -> tuple[Any, ...]:
        """As the reference takes them."""
        return tuple(vars(self).values())


def diagonal_conv(
    host: HostKernels, plan: WindowPlan, coefficients: Tensor, index: Tensor, weight: Tensor, conv: Convolution
) -> Tensor:
    """The patches."""
    batch, symbols = coefficients.shape
    out = Out.unwritten(batch, symbols, len(weight), *conv.window(weight), dtype=weight.dtype)
    if out.before.numel() == 0:
        return out.before
    window = prod(conv.window(weight))
    width = min(window, LANES)
    chunks = -(-len(weight) // (LANES // width * OUTPUTS))
    blocks = plan.blocks(batch * chunks * -(-window // width))
    launch = Launch((blocks, plan.strips), (LANES, STRIPS), narrow=plan.narrow)
    arguments = [coefficients, index, weight, out]
    sizes = conv.integers(batch, symbols, weight)
    return host.run("diagonal_conv_kernel", launch, arguments, sizes, dtype=weight.dtype)[0]


def diagonal_conv_backward(
    host: HostKernels,
    plan: WindowPlan,
    grad: Tensor,
    coefficients: Tensor,
    index: Tensor,
    weight: Tensor,
    conv: Convolution,
) -> list[Tensor]:
    """The gradients of the coefficients and the weight."""
    batch, symbols = coefficients.shape
    sizes, dtype = conv.integers(batch, symbols, weight), weight.dtype
    grads = [coefficients.clone(), torch.zeros_like(weight)]
    if batch * symbols == 0:
        return grads
    launch = Launch((plan.blocks(-(-batch * symbols // STRIPS)), 1), (LANES, STRIPS), narrow=plan.narrow)
    arguments: list[Argument] = [grad, index, weight, *outputs(1, coefficients)]
    grads[:1] = host.run("diagonal_conv_coefficients_kernel", launch, arguments, sizes, dtype=dtype)
    numbers = len(weight) // conv.groups * weight.shape[2] * weight.shape[3]
    blocks = conv.channels * -(-numbers // (LANES * STRIPS))
    if blocks:
        launch = Launch((plan.blocks(blocks), plan.splits), (LANES, STRIPS), narrow=plan.narrow)
        out = Out.unwritten(plan.splits, *weight.shape, dtype=dtype)
        arguments = [grad, coefficients, index, out]
        (partial,) = host.run("diagonal_conv_weight_kernel", launch, arguments, [*sizes, plan.splits], dtype=dtype)
        grads[1] = partial[0] if plan.splits == 1 else add_splits(host, plan, partial)
    return grads
