"""The bodies of the CUDA kernels of dual_relu, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.csrc.chains import THREADS, Plan
from tests.csrc.compare import EACH_DTYPE, assert_within, normal
from tests.csrc.host import Argument, HostKernels, Out
from zonocuda import reference
from zonocuda.kink import KINK_RULES, KinkRule, check_kink

NAN, INF = torch.nan, torch.inf
CHOICES = ("tied", "shared", "rows", "tied+shared", "tied+rows", "shared+rows", "rows+shared")
EACH_CHOICE = pytest.mark.parametrize("choice", CHOICES)
# One entry; rows and neurons that divide nothing; more features than a block has threads; loops of one block.
SIZES = [(1, 1, 1, False), (2, 5, 7, False), (1, 3, 300, False), (2, 4, 513, True)]
EACH_SIZE = pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "x".join(map(str, s)))
Slopes = tuple[Tensor | None, Tensor | None]


def inputs(sizes: tuple[int, int, int, bool], choice: str, dtype: torch.dtype) -> tuple[list[Tensor], Slopes, Plan]:
    """v, l and u with dead, active and crossing neurons in turn, and slopes for the signs."""
    batch, rows, features, one_block = sizes
    v = normal(batch, rows, features, dtype=dtype)
    kind = torch.arange(batch * features).reshape(batch, features) % 3
    center = torch.tensor([0.1, -2.0, 2.0], dtype=dtype)[kind]
    radius = 0.5 + normal(batch, features, dtype=dtype, seed=1).sigmoid()

    def slope(which: str, seed: int) -> Tensor | None:
        if which == "tied":
            return None
        count = rows if which == "rows" else 1
        return normal(batch, count, features, dtype=dtype, seed=seed).sigmoid()

    first, _, second = choice.partition("+")
    slopes = slope(first, 2), slope(second, 3) if second else None
    return [v, center - radius, center + radius], slopes, Plan(one_block=one_block)


def integers(v: Tensor, slopes: Slopes) -> list[int]:
    """Sizes, which slopes are per row, and whether the first ones serve both signs."""
    per_row = [int(s is not None and s.shape[1] > 1) for s in slopes]
    return [*v.shape, *per_row, int(slopes[1] is None)]


def dual_relu(host: HostKernels, plan: Plan, tensors: list[Tensor], slopes: Slopes) -> list[Tensor]:
    """As csrc/cuda/dual_relu.cu does it."""
    v = tensors[0]
    sums = [Out.unwritten(*v.shape[:2], dtype=v.dtype) for _ in range(2)]
    arguments: list[Argument] = [*tensors, *slopes, Out.unwritten(*v.shape, dtype=v.dtype), *sums]
    launch = plan.tiles(v.shape[0] * v.shape[1], (THREADS, 1))
    return host.run("dual_relu_kernel", launch, arguments, integers(v, slopes), dtype=v.dtype)


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

    def out(like: Tensor | None) -> Out | None:
        return None if like is None else Out.unwritten(*like.shape, dtype=v.dtype)

    wanted = [out(t) if needs_slopes else None for t in (*tensors[1:], *slopes)]
    arguments: list[Argument] = [*tensors, *slopes, *grads, out(v), *wanted]
    launch = plan.pointwise(v.shape[0] * v.shape[2])
    return host.run(
        "dual_relu_backward_kernel", launch, arguments, [*integers(v, slopes), check_kink(kink)], [1e-6], dtype=v.dtype
    )


@EACH_SIZE
@EACH_CHOICE
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


@EACH_SIZE
@EACH_CHOICE
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
