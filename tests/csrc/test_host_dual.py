"""The bodies of the CUDA kernels of dual_relu, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import LANES, STRIPS, THREADS, Plan
from tests.csrc.compare import EACH_DTYPE, assert_within, normal
from tests.csrc.dual_inputs import (
    DUAL_PART,
    DUAL_ROWS,
    DUAL_SEGMENT,
    DUAL_SUMS,
    PARTS,
    SEGMENTS,
    Slopes,
    each_size_and_choice,
    inputs,
    integers,
)
from tests.csrc.host import Argument, HostKernels, Launch, Out
from tests.csrc.ptxas import SOURCES
from zonocuda import reference
from zonocuda.kink import KINK_RULES, KinkRule, check_kink

NAN, INF = torch.nan, torch.inf


def dual_relu(
    host: HostKernels, plan: Plan, tensors: list[Tensor], slopes: Slopes, rows_of_block: int = 2
) -> list[Tensor]:
    """As csrc/cuda/dual_relu.cu does it."""
    v = tensors[0]
    batch, rows, features = v.shape
    parts = max(1, -(-features // DUAL_PART))
    sums = [Out.unwritten(batch, rows, parts, dtype=v.dtype) for _ in range(2)]
    arguments: list[Argument] = [*tensors, *slopes, Out.unwritten(*v.shape, dtype=v.dtype), *sums]
    launch = plan.tiles(batch * -(-rows // rows_of_block) * parts, (THREADS, 1))
    sizes = [*integers(v, slopes), rows_of_block]
    image, *ends = host.run("dual_relu_kernel", launch, arguments, sizes, dtype=v.dtype)
    if parts == 1:
        return [image, *(t.squeeze(2) for t in ends)]
    arguments = [*ends, *(Out.unwritten(batch, rows, dtype=v.dtype) for _ in range(2))]
    launch = plan.tiles(-(-batch * rows // STRIPS), (LANES, STRIPS))
    return [image, *host.run("add_parts_kernel", launch, arguments, [batch * rows, parts], dtype=v.dtype)]


def dual_relu_backward(
    host: HostKernels,
    plan: Plan,
    tensors: list[Tensor],
    slopes: Slopes,
    grads: list[Tensor],
    kink: KinkRule = "envelope",
    needs_slopes: bool = True,
) -> list[Tensor]:
    """The gradients of v and, where wanted, of l, u and the slopes that are given."""
    v = tensors[0]
    batch, rows, features = v.shape
    segments = max(1, -(-rows // DUAL_SEGMENT))
    finishes = needs_slopes and segments > 1

    def out(like: Tensor | None) -> Out | None:
        return None if like is None else Out.unwritten(*like.shape, dtype=v.dtype)

    wanted = [out(t) if needs_slopes else None for t in (*tensors[1:], *slopes)]
    partial = Out.unwritten(segments, DUAL_SUMS, batch, features, dtype=v.dtype) if finishes else None
    arguments: list[Argument] = [*tensors, *slopes, *grads, out(v), *wanted, partial]
    grid = (1, 1) if plan.one_block else (batch * -(-features // LANES), segments)
    sizes = [*integers(v, slopes), check_kink(kink)]
    launch = Launch(grid, (LANES, STRIPS))
    found = host.run("dual_relu_backward_kernel", launch, arguments, sizes, [1e-6], dtype=v.dtype)
    if not finishes:
        return found
    image, *rest, sums = found
    befores = iter(rest)
    written = [None if one is None else Out(next(befores)) for one in wanted]
    arguments = [*tensors, *slopes, *grads, None, *written, sums]
    launch = plan.pointwise(batch * features)
    finished = host.run("dual_relu_finish_kernel", launch, arguments, sizes, [1e-6], dtype=v.dtype)
    return [image, *finished]


@each_size_and_choice(PARTS)
@EACH_DTYPE
def test_dual_relu_agrees_with_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, bool], choice: str, dtype: torch.dtype
) -> None:
    tensors, slopes, plan = inputs(sizes, choice, dtype)
    actual = dual_relu(host, plan, tensors, slopes)
    expected = reference.dual_relu(*tensors, *slopes)
    v, size = tensors[0].abs(), (tensors[1].abs() + tensors[2].abs()).unsqueeze(1)
    assert_within(actual[0], expected.rows, v, 4)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        assert_within(one, other, (v * size).sum(2), sizes[2] + 8)


@each_size_and_choice(SEGMENTS)
@pytest.mark.parametrize("kink", KINK_RULES)
def test_dual_relu_backward_is_the_gradient_of_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, bool], choice: str, kink: KinkRule
) -> None:
    tensors, slopes, plan = inputs(sizes, choice, torch.float64)
    grads = [normal(*s, dtype=torch.float64, seed=9 + i) for i, s in enumerate([sizes[:3], sizes[:2], sizes[:2]])]
    leaves = [t.clone().requires_grad_() for t in tensors]
    given = [None if s is None else s.clone().requires_grad_() for s in slopes]
    outputs = reference.dual_relu(*leaves, *given, kink=kink, tolerance=1e-6)
    expected = torch.autograd.grad(outputs, [*leaves, *(s for s in given if s is not None)], grads)
    actual = dual_relu_backward(host, plan, tensors, slopes, grads, kink)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    (alone,) = dual_relu_backward(host, plan, tensors, slopes, grads, kink, needs_slopes=False)
    assert torch.equal(alone, actual[0])


def test_slopes_on_the_kink_get_the_derivative_that_the_rule_chooses(host: HostKernels) -> None:
    """v = -1, l = -1, u = 3: dlow/dlam = -2 dmu/dlam is 3 from the left and -1 from the right."""
    tensors = [torch.tensor([[[-1.0]]]), torch.tensor([[-1.0]]), torch.tensor([[3.0]])]
    slopes = torch.tensor([[[0.75]]]), None
    grads = [torch.zeros(1, 1, 1), torch.ones(1, 1), torch.zeros(1, 1)]
    for kink, value in (("left", 3.0), ("right", -1.0), ("even", 1.0), ("envelope", 0.0), ("min_norm", 0.0)):
        assert dual_relu_backward(host, Plan(), tensors, slopes, grads, kink)[3].item() == value


def test_a_nan_reaches_the_sums_that_it_belongs_to(host: HostKernels) -> None:
    v = torch.tensor([[[NAN, 1.0], [-1.0, 0.0], [1.0, 0.0], [0.0, -1.0]]])
    tensors = [v, torch.tensor([[-1.0, NAN]]), torch.tensor([[1.0, 1.0]])]
    for slopes in ((None, None), (torch.full((1, 1, 2), 0.5), None)):
        image, low, high = dual_relu(host, Plan(), tensors, slopes)
        expected = reference.dual_relu(*tensors, *slopes)
        for one, other in zip((image, low, high), expected, strict=True):
            assert torch.equal(one.isnan(), other.isnan())
        assert high.isnan().tolist() == [[True, False, False, False]]
        assert low.isnan().tolist() == [[False, False, False, True]]


def test_the_sums_of_a_row_do_not_depend_on_how_many_rows_a_block_takes(host: HostKernels) -> None:
    tensors, slopes, plan = inputs((1, 17, 1030, False), "shared", torch.float32)
    alone = dual_relu(host, plan, tensors, slopes, rows_of_block=1)
    for one, other in zip(dual_relu(host, plan, tensors, slopes, DUAL_ROWS), alone, strict=True):
        assert torch.equal(one, other)


def test_rows_without_features_have_no_constants(host: HostKernels) -> None:
    tensors = [torch.empty(2, 3, 0), torch.empty(2, 0), torch.empty(2, 0)]
    _, low, high = dual_relu(host, Plan(), tensors, (None, None))
    assert torch.equal(low, torch.zeros(2, 3))
    assert torch.equal(high, torch.zeros(2, 3))


def test_bounds_of_no_rows_have_no_gradient(host: HostKernels) -> None:
    tensors = [torch.empty(1, 0, 5), -torch.ones(1, 5), torch.ones(1, 5)]
    grads = [torch.empty(1, 0, 5), torch.empty(1, 0), torch.empty(1, 0)]
    _, *others = dual_relu_backward(host, Plan(), tensors, (torch.ones(1, 1, 5), None), grads)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in others)


def test_the_sizes_of_parts_and_segments_are_those_of_the_kernels() -> None:
    text = (SOURCES / "dual_relu.cuh").read_text()
    assert "kDualPart = kDualColumns * kThreads" in text
    constants = dict(re.findall(r"constexpr \w+ (kDual\w+) = (\d+);", text))
    assert constants.pop("kDualColumns") == str(DUAL_PART // THREADS)
    assert constants == {"kDualRows": str(DUAL_ROWS), "kDualSegment": str(DUAL_SEGMENT), "kDualSums": str(DUAL_SUMS)}
