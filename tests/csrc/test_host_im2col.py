"""The bodies of im2col's CUDA kernels, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor

from tests.csrc.compare import EACH_DTYPE, assert_within, normal
from tests.csrc.host import HostKernels, Launch, Out, Tail
from tests.csrc.test_host_offsets import F
from tests.csrc.test_host_window_offsets import EACH_WIDTH, is_narrow, repeats
from tests.ops.im2col_samples import GEOMETRIES
from zonocuda import reference

EACH_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g[0])
# As many blocks as columns and shares of channels, or loops over both.
EACH_GRID = pytest.mark.parametrize("grid", [(9, 3), (1, 1), (2, 65535)], ids=str)
THREADS = 32  # of a block: more blocks than the kernel's own 256 would need


def integers_of(images: int, channels: int, size: tuple[int, ...], sizes: list[tuple[int, ...]]) -> list[int]:
    """The struct Im2col."""
    kernel, stride, padding, dilation, output = sizes
    axes = list(zip(size, output, kernel, stride, padding, dilation, strict=True))
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    return [images, channels, *(number for axis in axes for number in axis)]


def run(host: HostKernels, kernel: str, launch: Launch, given: Tensor, out: Tensor, integers: list[int]) -> Tensor:
    """The kernel's result, which begins as NaN, in the shape of ``out``."""
    if out.numel() == 0:
        return out
    unwritten = Out.unwritten(*out.shape, dtype=out.dtype)
    return host.run(kernel, launch, [given, unwritten], integers, dtype=out.dtype)[0]


@EACH_GEOMETRY
@EACH_GRID
@EACH_WIDTH
@EACH_DTYPE
def test_im2col_and_its_gradient_equal_the_reference(
    host: HostKernels, geometry: tuple, grid: tuple[int, int], narrow: bool, dtype: torch.dtype
) -> None:
    _, size, *sizes = geometry
    channels = 11  # more than a thread has in flight, and a rest
    x = normal(2, channels, *size, dtype=dtype)
    integers = integers_of(2, channels, size, sizes)
    columns = reference.im2col(x, *sizes)
    launch = Launch((grid[0], min(grid[1], channels)), (THREADS, 1), narrow=narrow)
    assert_within(run(host, "im2col_kernel", launch, x, columns, integers), columns)
    grad = normal(*columns.shape, dtype=dtype, seed=1)
    expected = reference.col2im(grad, x.shape, *sizes)
    magnitude = reference.col2im(grad.abs(), x.shape, *sizes)
    assert_within(run(host, "im2col_backward_kernel", launch, grad, x, integers), expected, magnitude, prod(sizes[0]))


@EACH_WIDTH
def test_offsets_of_many_images(host: HostKernels, narrow: bool) -> None:
    # The last columns of the last row, which are the last channel's alone: a kernel of one element.
    size, sizes = (3, 4), [(1, 1), (1, 1), (0, 0), (1, 1), (2, 3)]
    channels, outputs = 9, 6
    images = repeats(narrow, channels * outputs, channels * prod(size))
    integers = integers_of(images, channels, size, sizes)
    assert is_narrow(host, "Im2col", integers) == narrow
    kept = THREADS // outputs + 2  # images that the last block may touch
    x, skip = normal(kept, channels, *size, dtype=F), (images - kept) * channels * prod(size)

    count = images * outputs
    last = (count - 1) % THREADS + 1
    launch = Launch((-(-count // THREADS), channels), (THREADS, 1), last_block_only=True, narrow=narrow)
    out = Out.unwritten(last, dtype=F, skip=channels * count - last)
    (actual,) = host.run("im2col_kernel", launch, [Tail(x, skip), out], integers)
    assert_within(actual, reference.im2col(x, *sizes)[-1, -last:])

    count = images * prod(size)
    last = (count - 1) % THREADS + 1
    launch = Launch((-(-count // THREADS), 2), (THREADS, 1), last_block_only=True, narrow=narrow)
    grad = normal(kept * outputs, dtype=F, seed=1)  # of the last channel
    out = Out.unwritten(kept, channels, prod(size), dtype=F, skip=skip)
    given = Tail(grad, images * outputs * channels - len(grad))
    (actual,) = host.run("im2col_backward_kernel", launch, [given, out], integers)
    expected = reference.col2im(grad.unsqueeze(0), (kept, 1, *size), *sizes).flatten()
    assert_within(actual[:, -1].flatten()[-last:], expected[-last:])
    assert int(actual.isfinite().sum()) == last


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("axis", [2, 8, 14])
def test_an_axis_with_large_numbers_needs_wide_indices(host: HostKernels, axis: int, place: int) -> None:
    sizes = [1, 1, *(1, 1, 1, 1, 0, 1) * 3]
    assert is_narrow(host, "Im2col", sizes)
    sizes[axis + place] = 2**30
    assert not is_narrow(host, "Im2col", sizes)


def test_a_small_limit_tells_which_sizes_need_wide_indices(host: HostKernels) -> None:
    sizes = [2, 5, *(1, 1, 1, 1, 0, 1), *(4, 4, 3, 1, 1, 1), *(6, 6, 3, 1, 1, 1)]  # 45 x 48 columns
    assert [is_narrow(host, "Im2col", sizes, limit) for limit in (2160, 2161)] == [False, True]
