"""Windowed blocks: every generator is a small patch of a map, as convolutions make them.

Symbol k of a block has a patch ``C x h x w`` whose first entry stands at row y0, column x0 of the map, (y0, x0) =
``corners[k]``. A window may reach over the border of its map; entries there are zero, always: after a convolution they
are set to zero (unmasked, they would come back into the map at the next one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zonocuda.brief import brief_repr
from zonocuda.convolution import convolve, convolve_transpose
from zonocuda.domains import memory
from zonocuda.domains.backend import kernels
from zonocuda.domains.dense import Dense
from zonocuda.domains.geometry import Convolution
from zonocuda.domains.symbols import Symbols
from zonocuda.windows import Pair, on_axes

DENSE_SHARE = 0.35
"""Windows that cover more than this share of their map are stored dense."""

LINEAR_CHUNKS = 16
"""Chunks (see :mod:`zonocuda.domains.memory`) that are dense at a time where windows enter a linear layer."""

Order = tuple[int, int, int]
CHANNELS_FIRST: Order = (0, 1, 2)


@dataclass(frozen=True, eq=False)
class Windowed:
    """Generators that each touch a window of a map ``[C, height, width]``.

    Attributes:
        symbols: the group of K symbols.
        patches: ``[B, K, C, h, w]``; zero outside the map.
        corners: ``[K, 2]`` int64, the row and column of every patch's first entry.
        size: height and width of the map.
        order: the zonotope's features are a reshape of the map with its dimensions permuted so: feature dimension i is
            dimension ``order[i]`` of the map. (2, 0, 1), say, after a transposition to height, width, channels.
    """

    symbols: Symbols
    patches: Tensor
    corners: Tensor
    size: Pair
    order: Order = CHANNELS_FIRST

    __repr__ = brief_repr

    kind = "windowed"

    def __post_init__(self) -> None:
        count = self.symbols.count
        if self.patches.dim() != 5 or self.patches.shape[1] != count or self.corners.shape != (count, 2):
            raise ValueError(
                f"Windowed: patches must have shape [batch, {count}, channels, rows, columns] and corners [{count}, 2],"
                f" got {list(self.patches.shape)} and {list(self.corners.shape)}"
            )

    @property
    def map(self) -> tuple[int, int, int]:
        """C, height and width of the map."""
        return (self.patches.shape[2], *self.size)

    @property
    def window(self) -> Pair:
        """Rows and columns of the patches."""
        return self.patches.shape[3], self.patches.shape[4]

    @property
    def view(self) -> tuple[int, ...]:
        """The map's shape in the order of the features."""
        return tuple(self.map[i] for i in self.order)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What holds the generators' numbers."""
        return (self.patches,)

    def is_map(self, features: tuple[int, ...]) -> bool:
        """Whether the features are the map itself."""
        return self.order == CHANNELS_FIRST and features == self.map

    def check(self, center: Tensor) -> None:
        """Raises ValueError unless the patches are of the batch and features of ``center`` ``[B, *features]``."""
        if self.patches.shape[0] != center.shape[0] or prod(self.map) != prod(center.shape[1:]):
            raise ValueError(
                f"Windowed: patches of shape {list(self.patches.shape)} on a map {list(self.map)} do not fit a center "
                f"of shape {list(center.shape)}"
            )

    # ---- what every kind of block does -------------------------------------------------------------------------------

    def add_radius(self, values: Tensor) -> Tensor:
        """values + sum_k |G_k|, ``[B, *features]``."""
        radius: Tensor = kernels().window_radius(self.patches, self.corners, *self.size)
        if self.order != CHANNELS_FIRST:
            radius = radius.permute(0, *(i + 1 for i in self.order))
        return values + radius.reshape(values.shape)

    def scale(self, multiplier: Tensor, in_place: bool = False) -> Windowed:
        """Every generator times ``multiplier`` ``[B, *features]``; ``in_place`` overwrites this block."""
        inverse = [self.order.index(i) + 1 for i in range(3)]
        factor = multiplier.reshape(len(multiplier), *self.view).permute(0, *inverse)
        if in_place:
            kernels().window_scale_(self.patches, self.corners, factor)
            return self
        return replace(self, patches=kernels().window_scale(self.patches, self.corners, factor))

    def dense(self, features: tuple[int, ...]) -> Tensor:
        """The generators as ``[B, K, *features]``, contiguous as in-place ops want them."""
        shape = (self.patches.shape[0], self.symbols.count, *self.view)
        return memory.filled(shape, self.patches, self._rows).reshape(*shape[:2], *features)

    def _rows(self, run: slice) -> Tensor:
        """Dense generators ``[B, n, *view]`` of a run of symbols."""
        rows: Tensor = kernels().window_dense(self.patches[:, run], self.corners[run], *self.size)
        return rows.permute(0, 1, *(i + 2 for i in self.order))

    def narrow(self, start: int, symbols: Symbols) -> Windowed:
        """The generators of ``symbols.count`` symbols from ``start``, as a block of ``symbols`` in its own memory."""
        part = slice(start, start + symbols.count)
        return replace(self, symbols=symbols, patches=self.patches[:, part].clone(), corners=self.corners[part])

    # ---- affine maps -------------------------------------------------------------------------------------------------

    def linear(self, weight: Tensor) -> Dense:
        """W G for ``weight`` ``[out, C * height * width]``; dense only a chunk of symbols at a time."""
        shape = (self.patches.shape[0], self.symbols.count, weight.shape[0])
        row_bytes = shape[0] * weight.shape[1] * self.patches.element_size() // LINEAR_CHUNKS
        image = memory.filled(
            shape, self.patches, lambda run: F.linear(self._rows(run).flatten(2), weight), max(1, row_bytes)
        )
        return Dense(self.symbols, image)

    def map_rows(self, linear: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Dense:
        """Every generator through a linear map of ``[B, *view]`` to ``[B, *shape]``; dense only a chunk of symbols at a
        time."""
        batch, count = self.patches.shape[:2]

        def image(run: slice) -> Tensor:
            rows = self._rows(run)
            return linear(rows.flatten(0, 1)).reshape(*rows.shape[:2], *shape)

        row_bytes = batch * max(prod(shape), prod(self.view)) * self.patches.element_size()
        return Dense(self.symbols, memory.filled((batch, count, *shape), self.patches, image, row_bytes))

    def pad(self, rows: Pair, columns: Pair) -> Windowed:
        """The block on a map with (begin, end) zero rows and columns more, or fewer where negative."""
        size = (self.size[0] + sum(rows), self.size[1] + sum(columns))
        moved = replace(self, corners=on_axes(torch.add, self.corners, (rows[0], columns[0])), size=size)
        return moved.masked() if min(*rows, *columns) < 0 else moved

    def every(self, axis: int, start: int, step: int, count: int) -> Windowed:
        """The block on a map of ``count`` of its rows (``axis`` 0) or columns (1), start, start + step and so on, for a
        step of at least 2.

        A window at q takes part from the new place ceil((q - start) / step) on, with its entries at a phase of step.
        """
        place = self.corners[:, axis] - start
        first = -_floor(-place, step)
        phase = (step * first - place).reshape(-1, 1, 1, 1)
        extent, dim = -(-self.window[axis] // step), 3 + axis
        missing = step * extent - self.window[axis]
        corners = torch.stack([first, self.corners[:, 1]] if axis == 0 else [self.corners[:, 0], first], 1)
        size = (count, self.size[1]) if axis == 0 else (self.size[0], count)
        window = (extent, self.window[1]) if axis == 0 else (self.window[0], extent)

        def image(run: slice) -> Tensor:
            patches = F.pad(self.patches[:, run], [0, 0, 0, missing] if axis == 0 else [0, missing])
            phases = patches.reshape(*patches.shape[:dim], extent, step, *patches.shape[dim + 1 :]).unbind(dim + 1)
            taken = phases[0]
            for shift in range(1, step):
                taken = torch.where(phase[run] == shift, phases[shift], taken)
            return _masked(taken, corners[run], size)

        patches = memory.filled((*self.patches.shape[:3], *window), self.patches, image)
        return Windowed(self.symbols, patches, corners, size)

    def every_adjoint(self, axis: int, start: int, step: int, size: Pair) -> Windowed:
        """Rows of the map of :meth:`every` as rows of the map, of ``size``, that it is taken from."""
        extent = (self.window[axis] - 1) * step + 1
        shape = list(self.patches.shape)
        shape[3 + axis] = extent
        spread = self.patches.new_zeros(shape)
        spread[(slice(None),) * (3 + axis) + (slice(None, None, step),)] = self.patches
        moved = self.corners[:, axis] * step + start
        corners = torch.stack([moved, self.corners[:, 1]] if axis == 0 else [self.corners[:, 0], moved], 1)
        return Windowed(self.symbols, spread, corners, size)

    def permute(self, order: Order) -> Windowed:
        """The block where the features' dimensions are permuted: the new dimension i is the old ``order[i]``."""
        a, b, c = (self.order[i] for i in order)
        if (a, b, c) != (0, 2, 1):
            return replace(self, order=(a, b, c))
        turned = self.patches.transpose(3, 4).contiguous()
        return Windowed(self.symbols, turned, self.corners.flip(1), (self.size[1], self.size[0]))

    def channels(self, index: Tensor) -> Windowed:
        """The channels ``index`` of the map."""
        return replace(self, patches=self.patches.index_select(2, index))

    def pad_channels(self, begin: int, end: int) -> Windowed:
        """The block on a map with ``begin`` channels before and ``end`` after it."""
        return replace(self, patches=F.pad(self.patches, [0, 0, 0, 0, begin, end]))

    def sums(self) -> Tensor:
        """The sum over the positions of the map, ``[B, K, C]``."""
        return self.patches.sum((3, 4))

    def masked(self) -> Windowed:
        """The block with zeros wherever a window reaches over the border of the map."""
        return replace(self, patches=_masked(self.patches.clone(), self.corners, self.size))

    def convolve(self, weight: Tensor, how: Convolution) -> Windowed | Dense:
        """The block after a convolution with ``weight`` ``[out, C / groups, *how.kernel]``: one of the patches.

        Under stride s a corner has the phase (corner + begin) mod s. Every patch is padded so that its windows begin at
        the same place, whatever its phase, and to one extent: one convolution serves all symbols.
        """
        begin = on_axes(torch.add, self.corners, how.begin)
        corners = on_axes(torch.add, on_axes(_floor, begin, how.stride), how.first_output())
        size, extent = how.output_size(self.size), how.output_window(self.window)
        wide, batch = is_wide(extent, size), self.patches.shape[0]
        offset = None if how.stride == (1, 1) else begin - on_axes(torch.mul, corners, how.stride)

        def image(run: slice) -> Tensor:
            if offset is None:  # one phase
                rows = F.pad(self.patches[:, run], how.around())
            else:
                rows = self._shifted(run, offset, how.padded_window(extent))
            outputs = convolve(rows.flatten(0, 1), weight, None, how.stride, (0, 0), how.dilation, how.groups)
            outputs = outputs.reshape(*rows.shape[:2], *outputs.shape[1:])
            if wide:
                dense: Tensor = kernels().window_dense(outputs, corners[run], *size)
                return dense
            return _masked(outputs, corners[run], size)

        shape = (batch, self.symbols.count, weight.shape[0], *(size if wide else extent))
        row_bytes = batch * weight.shape[0] * prod(extent) * self.patches.element_size()
        out = memory.filled(shape, self.patches, image, row_bytes)
        return Dense(self.symbols, out) if wide else Windowed(self.symbols, out, corners, size)

    def convolve_adjoint(self, weight: Tensor, how: Convolution, size: Pair) -> Windowed:
        """Rows of the output of a convolution as rows of its input, a map of ``size``: A^T v for the convolution's A.

        Output i reads the padded inputs stride i + [0, extent), so a window of n outputs from i on reads a window of
        (n - 1) stride + extent inputs from stride i - begin on.
        """
        rows = self.patches.flatten(0, 1)
        if self.window == (1, 1) == how.dilation and how.groups == 1:  # of one position, the kernel: a product
            spread = (rows.flatten(1) @ weight.flatten(1)).reshape(len(rows), *weight.shape[1:])
        else:
            rows = rows.contiguous(memory_format=torch.channels_last)
            spread = convolve_transpose(rows, weight, how.stride, (0, 0), (0, 0), how.groups, how.dilation)
        corners = on_axes(torch.sub, on_axes(torch.mul, self.corners, how.stride), how.begin)
        patches = spread.contiguous().reshape(*self.patches.shape[:2], *spread.shape[1:])
        return Windowed(self.symbols, _masked(patches, corners, size), corners, size)

    def _shifted(self, run: slice, offset: Tensor, extent: Pair) -> Tensor:
        """The patches ``[B, n, C, h, w]`` of a run at places ``offset`` of windows of ``extent``."""
        batch = self.patches.shape[0]
        rows = self.patches[:, run].flatten(0, 1).unsqueeze(0)  # window_dense has one corner for all batch elements
        moved: Tensor = kernels().window_dense(rows, offset[run].repeat(batch, 1), *extent)
        return moved.reshape(batch, run.stop - run.start, *moved.shape[2:])


def is_wide(window: Pair, size: Pair) -> bool:
    """Whether windows cover more than DENSE_SHARE of their map, and are stored dense."""
    return prod(window) > DENSE_SHARE * prod(size)


def is_convolved_dense(window: Pair, size: Pair, how: Convolution) -> bool:
    """Whether windows of a map of ``size`` become dense before a convolution: their image is dense, and as large as the
    map, or a stride would make one convolution of every phase."""
    extent, outputs = how.output_window(window), how.output_size(size)
    return is_wide(extent, outputs) and (how.stride != (1, 1) or prod(extent) >= prod(outputs))


def _masked(patches: Tensor, corners: Tensor, size: Pair) -> Tensor:
    """``patches`` ``[B, n, C, h, w]`` at ``corners`` ``[n, 2]``, with zeros outside the map of ``size``.

    Overwrites them where no gradient is recorded.
    """
    axes = []
    for axis, limit in enumerate(size):
        place = corners[:, axis : axis + 1] + torch.arange(patches.shape[3 + axis], device=corners.device)
        axes.append((place < 0) | (place >= limit))
    outside = (axes[0].unsqueeze(2) | axes[1].unsqueeze(1)).unsqueeze(1)
    if torch.is_grad_enabled():
        return patches.masked_fill(outside, 0)
    if patches.device.type != "cpu":  # which of them reach over the border, a device would have to be asked
        return patches.masked_fill_(outside, 0)
    over = outside.flatten(1).any(1).nonzero().squeeze(1)
    if len(over) == len(corners):
        return patches.masked_fill_(outside, 0)
    patches[:, over] = patches[:, over].masked_fill_(outside[over], 0)
    return patches


def _floor(places: Tensor, stride: int) -> Tensor:
    return torch.div(places, stride, rounding_mode="floor") if stride > 1 else places


def hull(a: Windowed, b: Windowed) -> tuple[Tensor, Pair]:
    """The corners ``[K, 2]`` of the smallest windows that hold each symbol's two windows, and their extent."""
    corners = torch.minimum(a.corners, b.corners)
    ends = [on_axes(torch.add, block.corners, block.window) for block in (a, b)]
    extent = (torch.maximum(*ends) - corners).amax(0).tolist() if len(corners) else [1, 1]
    return corners, (int(extent[0]), int(extent[1]))


def add_windows(a: Windowed, b: Windowed) -> Windowed | Dense:
    """The sum of two blocks of the same symbols on one map: over the hull of each symbol's two windows.

    Raises:
        ValueError: maps of different shapes or orders.
    """
    if (a.map, a.order) != (b.map, b.order):
        raise ValueError(f"add_windows: maps {list(a.map)} in order {a.order} and {list(b.map)} in {b.order} differ")
    corners, extent = hull(a, b)
    batch, count = a.patches.shape[:2]
    if is_wide(extent, a.size):
        shape = (batch, count, *a.view)
        return Dense(a.symbols, memory.filled(shape, a.patches, lambda run: a._rows(run) + b._rows(run)))
    places = a.corners - corners, b.corners - corners
    patches = memory.filled(
        (*a.patches.shape[:3], *extent),
        a.patches,
        lambda run: a._shifted(run, places[0], extent) + b._shifted(run, places[1], extent),
    )
    return replace(a, patches=patches, corners=corners)
