"""The bodies of the CUDA kernels of dual_lines, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import LANES, STRIPS, THREADS, Plan
from tests.csrc.compare import EACH_DTYPE, assert_within, normal
from tests.csrc.dual_inputs import DUAL_PART, DUAL_ROWS, DUAL_SEGMENT, PARTS, SEGMENTS, SMALL
from tests.csrc.host import Argument, HostKernels, Launch, Out
from tests.csrc.ptxas import SOURCES
from zonocuda import reference

LINE_SUMS = 4  # constant of csrc/cuda/dual_lines.cuh
KINDS = {"shared": (1, 1, 1, 0), "rows": (2, 2, 2, 2), "mixed": (1, 2, 1, 2), "one slope": (2, 1, 2, 0)}
Sizes = tuple[int, int, int, bool]
Parts = list[Tensor | None]


def each_size_and_kind(large: list[Sizes]) -> pytest.MarkDecorator:
    """All kinds on small sizes, and some on large ones."""
    cases = [*itertools.product(SMALL, KINDS), *itertools.product(large, ("shared", "mixed"))]
    return pytest.mark.parametrize(("sizes", "kind"), cases, ids=str)


def inputs(sizes: Sizes, kind: str, dtype: torch.dtype) -> tuple[Tensor, Parts, Plan]:
    """v, with zeros, and lower, below, above and upper."""
    batch, rows, features, one_block = sizes
    v = normal(batch, rows, features, dtype=dtype)
    v[:, :, ::5] = 0
    counts = [(0, 1, rows)[which] for which in KINDS[kind]]
    parts = [
        normal(batch, count, features, dtype=dtype, seed=seed) if count else None
        for seed, count in enumerate(counts, start=1)
    ]
    return v, parts, Plan(one_block=one_block)


def integers(v: Tensor, parts: Parts) -> list[int]:
    """Sizes, and which parts are for single entries."""
    return [*v.shape, *(int(p is not None and p.shape[1] > 1) for p in parts)]


def dual_lines(host: HostKernels, plan: Plan, v: Tensor, parts: Parts, rows_of_block: int = 2) -> list[Tensor]:
    """The image, low and high."""
    batch, rows, features = v.shape
    pieces = max(1, -(-features // DUAL_PART))
    sums = [Out.unwritten(batch, rows, pieces, dtype=v.dtype) for _ in range(2)]
    arguments: list[Argument] = [v, *parts, Out.unwritten(*v.shape, dtype=v.dtype), *sums]
    launch = plan.tiles(batch * -(-rows // rows_of_block) * pieces, (THREADS, 1))
    sizes = [*integers(v, parts), rows_of_block]
    image, *ends = host.run("dual_lines_kernel", launch, arguments, sizes, dtype=v.dtype)
    if pieces == 1:
        return [image, *(t.squeeze(2) for t in ends)]
    arguments = [*ends, *(Out.unwritten(batch, rows, dtype=v.dtype) for _ in range(2))]
    launch = plan.tiles(-(-batch * rows // STRIPS), (LANES, STRIPS))
    return [image, *host.run("add_parts_kernel", launch, arguments, [batch * rows, pieces], dtype=v.dtype)]


def dual_lines_backward(
    host: HostKernels, plan: Plan, v: Tensor, parts: Parts, grads: list[Tensor], needs_lines: bool = True
) -> list[Tensor]:
    """The gradients of v and, where wanted, of the parts that are given."""
    batch, rows, features = v.shape
    segments = max(1, -(-rows // DUAL_SEGMENT))
    finishes = needs_lines and segments > 1
    wanted = [Out.unwritten(*p.shape, dtype=v.dtype) if needs_lines and p is not None else None for p in parts]
    partial = Out.unwritten(segments, LINE_SUMS, batch, features, dtype=v.dtype) if finishes else None
    image = Out.unwritten(*v.shape, dtype=v.dtype)
    arguments: list[Argument] = [v, *parts, *grads, image, *wanted, partial]
    grid = (1, 1) if plan.one_block else (batch * -(-features // LANES), segments)
    sizes = integers(v, parts)
    found = host.run("dual_lines_backward_kernel", Launch(grid, (LANES, STRIPS)), arguments, sizes, dtype=v.dtype)
    if not finishes:
        return found
    of_rows, *rest, sums = found
    befores = iter(rest)
    written = [None if one is None else Out(next(befores)) for one in wanted]
    arguments = [v, *parts, *grads, None, *written, sums]
    launch = plan.pointwise(batch * features)
    return [of_rows, *host.run("dual_lines_finish_kernel", launch, arguments, sizes, dtype=v.dtype)]


@each_size_and_kind(PARTS)
@EACH_DTYPE
def test_dual_lines_agrees_with_the_reference(host: HostKernels, sizes: Sizes, kind: str, dtype: torch.dtype) -> None:
    v, parts, plan = inputs(sizes, kind, dtype)
    actual, expected = dual_lines(host, plan, v, parts), reference.dual_lines(v, *parts)  # type: ignore[arg-type]
    slope, below, above = (p for p in parts[:3] if p is not None)
    upper = slope if parts[3] is None else parts[3]
    assert_within(actual[0], expected.rows, v.abs() * (slope.abs() + upper.abs()), 4)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        assert_within(one, other, (v.abs() * (below.abs() + above.abs())).sum(2), sizes[2] + 8)


@each_size_and_kind(SEGMENTS)
def test_dual_lines_backward_is_the_gradient_of_the_reference(host: HostKernels, sizes: Sizes, kind: str) -> None:
    v, parts, plan = inputs(sizes, kind, torch.float64)
    grads = [normal(*s, dtype=torch.float64, seed=9 + i) for i, s in enumerate([sizes[:3], sizes[:2], sizes[:2]])]
    leaf = v.clone().requires_grad_()
    leaves = [None if p is None else p.clone().requires_grad_() for p in parts]
    outputs = reference.dual_lines(leaf, *leaves)  # type: ignore[arg-type]
    expected = torch.autograd.grad(outputs, [leaf, *(p for p in leaves if p is not None)], grads)
    actual = dual_lines_backward(host, plan, v, parts, grads)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    (alone,) = dual_lines_backward(host, plan, v, parts, grads, needs_lines=False)
    assert torch.equal(alone, actual[0])


def test_the_sums_of_a_row_do_not_depend_on_how_many_rows_a_block_takes(host: HostKernels) -> None:
    v, parts, plan = inputs((1, 17, 1030, False), "shared", torch.float32)
    alone = dual_lines(host, plan, v, parts, rows_of_block=1)
    for one, other in zip(dual_lines(host, plan, v, parts, DUAL_ROWS), alone, strict=True):
        assert torch.equal(one, other)


def test_the_number_of_sums_is_that_of_the_kernels() -> None:
    constants = re.findall(r"constexpr \w+ (\w+) = (\d+);", (SOURCES / "dual_lines.cuh").read_text())
    assert constants == [("kLineSums", str(LINE_SUMS))]
