"""The bodies of the CUDA kernels of dual_split, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

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
from zonocuda import reference
from zonocuda.kink import KinkRule, check_kink

NAN = torch.nan
Chosen = tuple[Tensor, Tensor | None]


def choices(v: Tensor) -> Chosen:
    """Splits, each third of them to either side, and multipliers of either sign."""
    splits = (torch.arange(v.numel()) * 7 % 3 - 1).to(torch.int8).reshape(v.shape)
    return splits, normal(*v.shape, dtype=v.dtype, seed=4)


def dual_split(
    host: HostKernels, plan: Plan, tensors: list[Tensor], chosen: Chosen, slopes: Slopes, rows_of_block: int = 2
) -> list[Tensor]:
    """As csrc/cuda/dual_split.cu does it."""
    v = tensors[0]
    batch, rows, features = v.shape
    parts = max(1, -(-features // DUAL_PART))
    sums = Out.unwritten(batch, rows, parts, dtype=v.dtype)
    arguments: list[Argument] = [*tensors, *slopes, *chosen, Out.unwritten(*v.shape, dtype=v.dtype), sums]
    launch = plan.tiles(batch * -(-rows // rows_of_block) * parts, (THREADS, 1))
    sizes = [*integers(v, slopes), rows_of_block]
    image, low = host.run("dual_split_kernel", launch, arguments, sizes, dtype=v.dtype)
    if parts == 1:
        return [image, low.squeeze(2)]
    launch = plan.tiles(-(-batch * rows // STRIPS), (LANES, STRIPS))
    arguments = [low, None, Out.unwritten(batch, rows, dtype=v.dtype), None]
    return [image, *host.run("add_parts_kernel", launch, arguments, [batch * rows, parts], dtype=v.dtype)]


def dual_split_backward(
    host: HostKernels,
    plan: Plan,
    tensors: list[Tensor],
    chosen: Chosen,
    slopes: Slopes,
    grads: list[Tensor],
    kink: KinkRule = "envelope",
    needs: tuple[bool, bool] = (True, True),
) -> dict[str, Tensor]:
    """The gradients of v and the multipliers and, where ``needs`` says so, of the bounds and of the slopes given."""
    v = tensors[0]
    batch, rows, features = v.shape
    segments = max(1, -(-rows // DUAL_SEGMENT))
    bounds, wants_slopes = needs
    shared = any(s is not None and s.shape[1] == 1 < rows for s in slopes) or rows == 1
    reduces = bounds or (wants_slopes and shared and any(s is not None for s in slopes))
    finishes = reduces and segments > 1
    like = {"v": v, "lower": tensors[1], "upper": tensors[2], "negative": slopes[0], "nonnegative": slopes[1]}
    wanted = {"v": True, "lower": bounds, "upper": bounds, "negative": wants_slopes, "nonnegative": wants_slopes}
    outs = {
        name: Out.unwritten(*t.shape, dtype=v.dtype) if wanted[name] and t is not None else None
        for name, t in like.items()
    }
    outs["beta"] = None if chosen[1] is None else Out.unwritten(*v.shape, dtype=v.dtype)
    outs["partial"] = Out.unwritten(segments, DUAL_SUMS, batch, features, dtype=v.dtype) if finishes else None
    arguments: list[Argument] = [*tensors, *slopes, *chosen, *grads, None, *outs.values()]
    grid = (1, 1) if plan.one_block else (batch * -(-features // LANES), segments)
    sizes = [*integers(v, slopes), check_kink(kink), int(reduces)]
    values = host.run(
        "dual_split_backward_kernel", Launch(grid, (LANES, STRIPS)), arguments, sizes, [1e-6], dtype=v.dtype
    )
    found = dict(zip([name for name, out in outs.items() if out is not None], values, strict=True))
    partial = found.pop("partial", None)
    if partial is None:
        return found
    names = ("lower", "upper", "negative", "nonnegative")
    written = {name: Out(found[name]) if name in found else None for name in names}
    arguments = [*tensors, *slopes, *grads, None, None, *written.values(), partial]
    launch = plan.pointwise(batch * features)
    values = host.run("dual_relu_finish_kernel", launch, arguments, sizes, [1e-6], dtype=v.dtype)
    return found | dict(zip([name for name in names if name in found], values, strict=True))


@each_size_and_choice(PARTS)
@EACH_DTYPE
def test_dual_split_agrees_with_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, bool], choice: str, dtype: torch.dtype
) -> None:
    tensors, slopes, plan = inputs(sizes, choice, dtype)
    splits, beta = choices(tensors[0])
    v, size = tensors[0].abs(), (tensors[1].abs() + tensors[2].abs()).unsqueeze(1)
    for multipliers in (beta, None):
        image, low = dual_split(host, plan, tensors, (splits, multipliers), slopes)
        expected = reference.dual_split(*tensors, splits, multipliers, *slopes)
        assert_within(image, expected.rows, v + beta.abs(), 4)
        assert_within(low, expected.low, (v * size).sum(2), sizes[2] + 8)
        assert torch.equal(image[splits != 0], expected.rows[splits != 0])  # rounded once, as everywhere


@each_size_and_choice(SEGMENTS)
@pytest.mark.parametrize("kink", ["envelope", "min_norm"])
def test_dual_split_backward_is_the_gradient_of_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, bool], choice: str, kink: KinkRule
) -> None:
    tensors, slopes, plan = inputs(sizes, choice, torch.float64)
    chosen = choices(tensors[0])
    grads = [normal(*s, dtype=torch.float64, seed=9 + i) for i, s in enumerate([sizes[:3], sizes[:2]])]
    given = dict(zip(("negative", "nonnegative"), slopes, strict=True))
    leaves = dict(zip(("v", "lower", "upper"), tensors, strict=True)) | {"beta": chosen[1]} | given
    leaf = {name: None if t is None else t.clone().requires_grad_() for name, t in leaves.items()}
    outputs = reference.dual_split(
        *(leaf[name] for name in ("v", "lower", "upper")), chosen[0],
        *(leaf[name] for name in ("beta", "negative", "nonnegative")), kink=kink, tolerance=1e-6,
    )  # fmt: skip
    names = [name for name, t in leaf.items() if t is not None]
    expected = dict(zip(names, torch.autograd.grad(outputs, [leaf[name] for name in names], grads), strict=True))
    actual = dual_split_backward(host, plan, tensors, chosen, slopes, grads, kink)
    assert actual.keys() == expected.keys()
    for name, other in expected.items():
        torch.testing.assert_close(actual[name], other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("choice", ["tied", "rows", "shared+rows", "rows+shared"])
def test_what_nobody_wants_changes_nothing_else(host: HostKernels, choice: str) -> None:
    sizes = 2, 65, 5, True
    tensors, slopes, plan = inputs(sizes, choice, torch.float32)
    chosen = choices(tensors[0])
    grads = [normal(*s, dtype=torch.float32, seed=9 + i) for i, s in enumerate([sizes[:3], sizes[:2]])]
    everything = dual_split_backward(host, plan, tensors, chosen, slopes, grads)
    for needs in ((False, False), (True, False), (False, True)):
        some = dual_split_backward(host, plan, tensors, chosen, slopes, grads, needs=needs)
        missing = set() if needs[0] else {"lower", "upper"}
        missing |= set() if needs[1] else {"negative", "nonnegative"}
        assert some.keys() == everything.keys() - missing
        for name, t in some.items():
            assert torch.equal(t, everything[name])
    alone = dual_split_backward(host, plan, tensors, (chosen[0], None), slopes, grads)
    assert alone.keys() == everything.keys() - {"beta"}
    assert torch.equal(alone["v"], everything["v"])


def test_a_nan_of_a_row_or_a_multiplier_stays_one(host: HostKernels) -> None:
    v = torch.tensor([[[NAN, 1.0, 1.0], [torch.inf, 1.0, 1.0]]])
    tensors = [v, -torch.ones(1, 3), torch.ones(1, 3)]
    beta = torch.tensor([[[1.0, NAN, 1.0], [1.0, NAN, 1.0]]])
    for split in (1, -1):
        splits = torch.full(v.shape, split, dtype=torch.int8)
        image, low = dual_split(host, Plan(), tensors, (splits, beta), (None, None))
        expected = reference.dual_split(*tensors, splits, beta)
        torch.testing.assert_close(image, expected.rows, rtol=0, atol=0, equal_nan=True)
        assert image.isfinite().tolist() == [[[False, False, True]] * 2]
        assert low.tolist() == [[0.0, 0.0]]


def test_the_sums_of_a_row_do_not_depend_on_how_many_rows_a_block_takes(host: HostKernels) -> None:
    tensors, slopes, plan = inputs((1, 17, 1030, False), "shared", torch.float32)
    chosen = choices(tensors[0])
    alone = dual_split(host, plan, tensors, chosen, slopes, rows_of_block=1)
    for one, other in zip(dual_split(host, plan, tensors, chosen, slopes, DUAL_ROWS), alone, strict=True):
        assert torch.equal(one, other)


def test_rows_without_features_have_no_constants(host: HostKernels) -> None:
    tensors = [torch.empty(2, 3, 0), torch.empty(2, 0), torch.empty(2, 0)]
    _, low = dual_split(host, Plan(), tensors, choices(tensors[0]), (None, None))
    assert torch.equal(low, torch.zeros(2, 3))


def test_bounds_of_no_rows_have_no_gradient(host: HostKernels) -> None:
    tensors = [torch.empty(1, 0, 5), -torch.ones(1, 5), torch.ones(1, 5)]
    grads = [torch.empty(1, 0, 5), torch.empty(1, 0)]
    found = dual_split_backward(host, Plan(), tensors, choices(tensors[0]), (torch.ones(1, 1, 5), None), grads)
    assert all(not bool(found[name].any()) for name in ("lower", "upper", "negative"))
