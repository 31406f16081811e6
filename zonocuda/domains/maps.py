"""What a layer makes of a block: the image of generators under a linear map, in the structure that the map allows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.convolution import convolve as convolve_maps
from zonocuda.domains.dense import Dense
from zonocuda.domains.diagonal import Diagonal
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.hosted import Hosted, Stored
from zonocuda.domains.windowed import Windowed, is_convolved_dense
from zonocuda.windows import Pair, convolution_matrix

Features = tuple[int, ...]
Pads = tuple[Pair, ...]
"""(begin, end) for every feature dimension."""

PRODUCT_ROWS = 256
"""Generators from which on the matrix of a convolution is worth its making."""
PRODUCT_BYTES = 64 * 2**20
"""What making it may take: what a forecast allows a layer beside its image."""


def flat_pads(pads: Pads) -> list[int]:
    """Pads in the order of ``torch.nn.functional.pad``: last dimension first."""
    return [amount for pair in reversed(pads) for amount in pair]


def generic(block: Stored, features: Features, linear: Callable[[Tensor], Tensor]) -> Dense:
    """Any linear map of ``[B, *features]``: of the dense generators."""
    return Dense(block.symbols, block.dense(features)).map_rows(linear)


def linear(block: Stored, features: Features, weight: Tensor) -> Dense:
    """W G on the last feature dimension: columns of W for a diagonal block, chunk after chunk for windows."""
    if len(features) == 1 and not isinstance(block, Dense):
        return block.linear(weight)
    return Dense(block.symbols, block.dense(features)).linear(weight)


def convolve(
    block: Stored, features: Features, weight: Tensor, how: Convolution, matrix: Tensor | None = None
) -> Stored:
    """A 2-d convolution of a map: kernels for a diagonal block, small convolutions for windows.

    ``matrix``: what :func:`product_of` gives, for dense generators.
    """
    if isinstance(block, Diagonal):
        return block.convolve(weight, how, (features[0], features[1], features[2]))
    shape = (len(weight), *how.output_size((features[1], features[2])))
    if isinstance(block, Windowed) and block.is_map(features):
        if is_convolved_dense(block.window, block.size, how):
            return block.map_rows(lambda x: convolve_map(x, weight, None, how), shape)
        return block.convolve(weight, how)
    dense = Dense(block.symbols, block.dense(features))
    if matrix is not None:
        return dense.reshape((prod(features),)).linear(matrix).reshape(shape)
    return dense.map_rows(lambda x: convolve_map(x, weight, None, how), shape)


def product_of(weight: Tensor, how: Convolution, features: Features, rows: int) -> Tensor | None:
    """The matrix of a convolution of ``rows`` dense maps ``features``, where a product is less work."""
    size = features[1], features[2]
    if rows < PRODUCT_ROWS or not how.is_product(size):
        return None
    outputs = how.output_size(size)
    entries = prod(size) * prod(outputs) + (how.kernel[0] + 1) * (how.kernel[1] + 1)  # of it, and of its taps
    if 2 * entries * prod(weight.shape[:2]) * weight.element_size() > PRODUCT_BYTES:
        return None
    return convolution_matrix(weight, size, outputs, how.stride, how.begin, how.dilation)


def convolve_map(x: Tensor, weight: Tensor, bias: Tensor | None, how: Convolution) -> Tensor:
    """The convolution itself, of maps ``[n, C, height, width]``."""
    padding = how.begin
    if any(begin != end for begin, end in how.padding):
        x, padding = F.pad(x, flat_pads(how.padding)), (0, 0)
    return convolve_maps(x, weight, bias, how.stride, padding, how.dilation, how.groups)


def average_pool(block: Stored, features: Features, kernel: Pair, stride: Pair) -> Stored:
    """Mean over windows, without padding: for windows, a convolution in which every channel is a group."""
    if isinstance(block, Dense):
        return block.map_rows(lambda x: F.avg_pool2d(x, kernel, stride))
    share = next(iter(block.tensors)).new_full((features[0], 1, *kernel), 1 / prod(kernel))
    return convolve(block, features, share, Convolution.pooling(kernel, stride, features[0]))


def scale(block: Stored, features: Features, factor: Tensor, in_place: bool = False) -> Stored:
    """factor * G, elementwise; ``factor`` broadcasts against the features (and has no batch dimension)."""
    batch = next(iter(block.tensors)).shape[0]
    if isinstance(block, Windowed) and block.is_map(features) and _per_channel(factor):
        patches = block.patches.mul_(factor) if in_place else block.patches * factor
        return Windowed(block.symbols, patches, block.corners, block.size)
    return block.scale(factor.expand(batch, *features), in_place)


def _per_channel(factor: Tensor) -> bool:
    """Whether a factor that broadcasts against ``[C, height, width]`` is one number for each channel or one for all."""
    return factor.dim() <= 3 and all(n == 1 for n in factor.shape[-2:])


def pad(block: Stored, features: Features, pads: Pads) -> Stored:
    """Zeros around the features; fewer of them where an amount is negative."""

    def image(x: Tensor) -> Tensor:
        return F.pad(x, flat_pads(pads))

    if isinstance(block, Diagonal):
        moved = block.rearrange(image, features)
        if moved is not None or len(features) != 3:
            return generic(block, features, image) if moved is None else moved
        block = block.windowed((features[0], features[1], features[2]))
    if isinstance(block, Windowed) and block.is_map(features):
        (before, after), rows, columns = pads
        moved_windows = block.pad(rows, columns) if any((*rows, *columns)) else block
        if min(before, after) < 0:
            kept = torch.arange(max(0, -before), features[0] - max(0, -after), device=block.corners.device)
            moved_windows = moved_windows.channels(kept)
            before, after = max(0, before), max(0, after)
        return moved_windows.pad_channels(before, after) if before or after else moved_windows
    return generic(block, features, image)


def permute(block: Stored, features: Features, order: tuple[int, ...]) -> Stored:
    """The features' dimensions permuted: new dimension i is the old ``order[i]``."""

    def image(x: Tensor) -> Tensor:
        return x.permute(0, *(d + 1 for d in order))

    if isinstance(block, Diagonal):
        moved = block.rearrange(image, features)
        if moved is not None:
            return moved
    if isinstance(block, Windowed) and block.view == features:
        return block.permute((order[0], order[1], order[2]))
    return generic(block, features, image)


def reshape(block: Stored | Hosted, features: Features) -> Stored | Hosted:
    """The features in row-major order under another shape: only a dense block notices."""
    return block.reshape(features) if isinstance(block, Dense | Hosted) else block


def progression(index: tuple[int, ...]) -> int:
    """The step, at least 1, between positions; 0 where there is none."""
    steps = {b - a for a, b in pairwise(index)}
    return max(0, *steps) if len(steps) == 1 else 0


def keeps_windows(block: Stored, features: Features, dim: int, index: tuple[int, ...]) -> bool:
    """Whether :func:`select` makes windows of every so many rows or columns of a block."""
    is_map = isinstance(block, Diagonal) or (isinstance(block, Windowed) and block.is_map(features))
    return is_map and len(features) == 3 and dim > 0 and progression(index) > 1


def select(block: Stored, features: Features, dim: int, index: tuple[int, ...]) -> Stored:
    """The positions ``index`` of one dimension: slices, also with a step, and channels of a map keep windows."""
    run = len(index) > 0 and all(b == a + 1 for a, b in pairwise(index))
    if run and not isinstance(block, Dense):
        pads = tuple((-index[0], index[-1] + 1 - n) if d == dim else (0, 0) for d, n in enumerate(features))
        return pad(block, features, pads)
    if keeps_windows(block, features, dim, index) and not isinstance(block, Dense):
        windows = block.windowed((features[0], features[1], features[2])) if isinstance(block, Diagonal) else block
        return windows.every(dim - 1, index[0], progression(index), len(index))
    places = torch.tensor(index, dtype=torch.int64, device=next(iter(block.tensors)).device)
    if isinstance(block, Windowed) and block.is_map(features) and dim == 0:
        return block.channels(places)
    return generic(block, features, lambda x: x.index_select(dim + 1, places))


def reduce(block: Stored, features: Features, dims: tuple[int, ...], mean: bool, keepdim: bool) -> Dense:
    """Sum or mean over dimensions; over the positions of a map, windows are summed as they are."""
    if isinstance(block, Windowed) and block.is_map(features) and sorted(dims) == [1, 2]:
        sums = block.sums()
        sums = sums / prod(block.size) if mean else sums
        return Dense(block.symbols, sums.reshape(*sums.shape, 1, 1) if keepdim else sums)
    function = torch.mean if mean else torch.sum
    return generic(block, features, lambda x: function(x, dim=[d + 1 for d in dims], keepdim=keepdim))
