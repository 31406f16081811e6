"""The bodies of the CUDA kernels of relu and its relaxation, run on the CPU by host_cuda.h, against the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.csrc import chains
from tests.csrc.chains import Plan, ReluInputs
from tests.csrc.compare import CASES, EACH_CASE, EACH_DTYPE, Case, assert_within, normal
from tests.csrc.host import HostKernels
from zonocuda import reference
from zonocuda.kink import KINK_RULES, KinkRule, kink_tolerance

NAN, INF = torch.nan, torch.inf
EACH_KINK = pytest.mark.parametrize("kink", KINK_RULES)


def slopes(lower: Tensor, upper: Tensor) -> Tensor:
    """Slopes of four kinds in turn: on the kink, 0.3 and 0.4 beside it (modulo 1), and outside [0, 1]."""
    star = (upper / (upper - lower)).nan_to_num(0.5, 0.5, 0.5).clamp(0, 1)
    count = star.numel()
    outside = torch.where(torch.arange(count) % 8 < 4, -0.5, 1.5).to(star.dtype).reshape(star.shape)
    kinds = torch.stack([star, (star + 0.3) % 1, (star + 0.6) % 1, outside])
    kind = torch.arange(count).reshape(star.shape) % 4
    return kinds.gather(0, kind.unsqueeze(0))[0]


def zonotope(case: Case, dtype: torch.dtype, *, free: bool, external: bool, kink: KinkRule = "envelope") -> ReluInputs:
    """Dead, active and crossing neurons in turn (with no symbols: dead and active), none of them near a border."""
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype)
    radius = generators.abs().sum(1)
    kind = torch.arange(radius.numel()).reshape(radius.shape) % 3
    position = torch.tensor([-1.5, 1.5, 0.0], dtype=dtype)[kind]
    position = position + 0.8 * (normal(*radius.shape, dtype=dtype, seed=1).sigmoid() - 0.5)
    center = position * (radius if case.symbols else 1)
    lower, upper = reference.concretize(center, generators)
    if external:
        half = 0.9 * radius if case.symbols else torch.ones_like(radius)
        lower, upper = center - half, center + half
    return ReluInputs(
        center,
        generators,
        slopes(lower, upper) if free else None,
        lower if external else None,
        upper if external else None,
        kink,
        kink_tolerance(dtype, case.symbols),
    )


def reference_relu(a: ReluInputs) -> list[Tensor]:
    """The reference, differentiable."""
    bounds = {"lower": a.lower, "upper": a.upper}
    return list(reference.relu(a.center, a.generators, a.slope, **bounds, kink=a.kink, tolerance=a.tolerance))


def bounds_of(a: ReluInputs) -> list[Tensor]:
    """The bounds that the op uses."""
    if a.lower is not None and a.upper is not None:
        return [a.lower, a.upper]
    return list(reference.concretize(a.center, a.generators))


def reference_gradients(a: ReluInputs, grads: list[Tensor]) -> list[Tensor | None]:
    """The gradients of center, generators, slope, lower and upper by autograd; None for what is not given."""
    center, generators = (t.clone().requires_grad_() for t in (a.center, a.generators))
    slope, lower, upper = (None if t is None else t.clone().requires_grad_() for t in (a.slope, a.lower, a.upper))
    given = [center, generators, slope, lower, upper]
    outputs = reference_relu(replace(a, center=center, generators=generators, slope=slope, lower=lower, upper=upper))
    found = iter(torch.autograd.grad(outputs, [t for t in given if t is not None], grads))
    return [None if t is None else next(found) for t in given]


def incoming(a: ReluInputs) -> list[Tensor]:
    """Gradients of the three outputs."""
    shapes = [a.center.shape, a.generators.shape, a.center.shape]
    return [normal(*shape, dtype=a.center.dtype, seed=seed) for seed, shape in enumerate(shapes, 5)]


MODES = pytest.mark.parametrize("mode", ["tied", "free", "tied-external", "free-external"])


def check_values(a: ReluInputs, actual: list[Tensor]) -> None:
    """Center, generators, offset and bounds against the reference."""
    center, generators, offset, lower, upper = actual
    symbols = a.generators.shape[1]
    expected = reference_relu(a)
    # With M = |c| + r, l and u are within γ_{K+1} M, and lam = u / (u - l) within γ_{K+4} of the exact slope, since
    # M <= u - l where l < 0 < u. mu then is within γ_{K+6} M, and lam c + mu within 2 γ_{K+8} M.
    size = a.center.abs() + sum(b.abs() for b in bounds_of(a))
    assert_within(center, expected[0], 2 * size, symbols + 8)
    assert_within(generators, expected[1], a.generators.abs(), symbols + 5)
    assert_within(offset, expected[2], size, symbols + 6)
    for ours, theirs in zip((lower, upper), bounds_of(a), strict=True):
        assert_within(ours, theirs, 0 if a.lower is not None else size, symbols + 1)


@EACH_CASE
@MODES
@EACH_DTYPE
def test_relu_agrees_with_the_reference(host: HostKernels, case: Case, mode: str, dtype: torch.dtype) -> None:
    a = zonotope(case, dtype, free="free" in mode, external="external" in mode)
    check_values(a, chains.relu(host, case.plan, a))


def check_gradients(a: ReluInputs, grads: list[Tensor], bounds: list[Tensor], actual: list[Tensor]) -> None:
    """Gradients of center, generators, slope and bounds against autograd; ``bounds``: those that the kernel used."""
    lower, upper = bounds
    expected = reference_gradients(a, grads)
    # A = gc c + sum_k gG_k G_k and m = gc + gmu are within γ_{K+3} of sums of absolute values A' and m'; lbar and ubar
    # are made of lam A / d and lam^2 m (tied), theta lam m (free; theta of min_norm has 2 A / (m d)); lam, d as above.
    products = (grads[0] * a.center).abs() + (grads[1] * a.generators).abs().sum(1)
    m = grads[0].abs() + grads[2].abs()
    bound_grads = 4 * (m + products / (upper - lower).where((lower < 0) & (upper > 0), torch.ones_like(m)))
    magnitudes = [
        grads[0].abs() + bound_grads,
        grads[1].abs() + bound_grads.unsqueeze(1),
        2 * (products + m * (lower.abs() + upper.abs())),
        bound_grads,
        bound_grads,
    ]
    for ours, theirs, magnitude in zip(actual, expected, magnitudes, strict=True):
        if theirs is not None:
            assert_within(ours, theirs, magnitude, a.generators.shape[1] + 12)


def check_backward(host: HostKernels, case: Case, a: ReluInputs) -> None:
    """The backward kernels on the kernel's own bounds."""
    grads, bounds = incoming(a), chains.relu(host, case.plan, a)[3:]
    check_gradients(a, grads, bounds, chains.relu_backward(host, case.plan, grads, a, bounds))


@EACH_CASE
@MODES
@EACH_DTYPE
def test_relu_backward_is_the_gradient_of_the_reference(
    host: HostKernels, case: Case, mode: str, dtype: torch.dtype
) -> None:
    check_backward(host, case, zonotope(case, dtype, free="free" in mode, external="external" in mode))


@EACH_KINK
@EACH_DTYPE
@pytest.mark.parametrize("external", [False, True], ids=["own", "external"])
@pytest.mark.parametrize("case", [CASES[4], CASES[7]], ids=str)
def test_each_kink_rule_gives_the_gradient_of_the_reference(
    host: HostKernels, case: Case, external: bool, kink: KinkRule, dtype: torch.dtype
) -> None:
    check_backward(host, case, zonotope(case, dtype, free=True, external=external, kink=kink))


def test_the_kink_rules_differ_where_they_are_compared(host: HostKernels) -> None:
    a = zonotope(CASES[4], torch.float64, free=True, external=False)
    gradients = [reference_gradients(replace(a, kink=kink), incoming(a))[2] for kink in KINK_RULES]
    crossing = (bounds_of(a)[0] < 0) & (bounds_of(a)[1] > 0)
    on_kink = crossing & (torch.arange(crossing.numel()).reshape(crossing.shape) % 4 == 0)
    assert on_kink.sum() >= 5
    for i, one in enumerate(gradients):
        for other in gradients[:i]:
            assert one is not None
            assert other is not None
            assert ((one - other).abs()[on_kink] > 1e-3).any()
            assert torch.equal(one[~on_kink], other[~on_kink])


@EACH_DTYPE
def test_gradients_other_than_the_slopes_need_no_products(host: HostKernels, dtype: torch.dtype) -> None:
    a = zonotope(CASES[7], dtype, free=True, external=False)
    full = chains.relu_backward(host, CASES[7].plan, incoming(a), a, bounds_of(a))
    short = chains.relu_backward(host, CASES[7].plan, incoming(a), a, bounds_of(a), needs_slope=False)
    for i in (0, 1, 3, 4):
        assert torch.equal(full[i], short[i])


@EACH_DTYPE
@pytest.mark.parametrize("free", [False, True], ids=["tied", "free"])
def test_nan_and_infinity_reach_relu_as_in_the_reference(host: HostKernels, free: bool, dtype: torch.dtype) -> None:
    generators = normal(1, 6, 12, dtype=dtype)
    center = torch.zeros(1, 12, dtype=dtype)
    center[0, :3] = torch.tensor([NAN, INF, -INF])
    generators[0, 2, 3:7] = torch.tensor([NAN, INF, -INF, 0.0])
    center[0, 4] = INF
    slope = torch.full((1, 12), 0.25, dtype=dtype)
    slope[0, 7:11] = torch.tensor([NAN, INF, -INF, NAN])
    center[0, 10] = 10  # active: its NaN slope is not used
    a = ReluInputs(center, generators, slope if free else None)
    actual = chains.relu(host, Plan(wide=True, splits=2), a)
    size = center.abs() + generators.abs().sum(1)
    for ours, theirs in zip(actual[:3], reference_relu(a), strict=True):
        assert_within(ours, theirs, 4 * (size if ours.dim() == 2 else size.unsqueeze(1)), 14)
    grads = incoming(a)
    gradients = chains.relu_backward(host, Plan(), grads, a, actual[3:])
    # Of a neuron with bounds [NaN, NaN] or [-inf, inf] every gradient is NaN. (With a free slope, the reference's
    # torch.where takes such a slope as below the kink and finds finite numbers for center and generators.)
    no_bounds = ~(actual[4] - actual[3]).isfinite() & ~center.isinf() | generators.isinf().any(1)
    assert no_bounds.nonzero()[:, 1].tolist() == [0, 3, 4, 5]
    for ours, reference_gradient in zip(gradients, reference_gradients(a, grads), strict=True):
        if reference_gradient is not None:
            spoiled = no_bounds.unsqueeze(1).expand_as(ours) if ours.dim() == 3 else no_bounds
            assert ours[spoiled].isnan().all()
            assert_within(ours[~spoiled], reference_gradient[~spoiled], 1e2, 20)


# ---- relu_relaxation -------------------------------------------------------------------------------------------------


def bounds(batch: int, features: int, dtype: torch.dtype) -> list[Tensor]:
    """Bounds of which a third each are dead, active and crossing; where there is room, the borders come first."""
    middle = normal(batch, features, dtype=dtype)
    half = normal(batch, features, dtype=dtype, seed=1).abs() + 0.1
    kind = torch.arange(batch * features).reshape(batch, features) % 3
    crossing = half * middle.tanh()
    middle = torch.where(kind == 0, -half - middle.abs(), torch.where(kind == 1, half + middle.abs(), crossing))
    lower, upper = middle - half, middle + half
    if features >= 8:
        lower[0, :5] = torch.tensor([0, -1, 0, -0.0, 2], dtype=dtype)
        upper[0, :5] = torch.tensor([1, 0, 0, 3, 2], dtype=dtype)
    return [lower, upper]


SHAPES = pytest.mark.parametrize("shape", [(1, 1), (3, 37), (2, 301)], ids=str)


@SHAPES
@EACH_DTYPE
@pytest.mark.parametrize("one_block", [False, True], ids=["blocks", "one_block"])
def test_relu_relaxation_equals_the_reference(
    host: HostKernels, shape: tuple[int, int], one_block: bool, dtype: torch.dtype
) -> None:
    lower, upper = bounds(*shape, dtype)
    for slope in (None, slopes(lower, upper)):
        actual = chains.relu_relaxation(host, Plan(one_block=one_block), lower, upper, slope)
        for ours, theirs in zip(actual, reference.relu_relaxation(lower, upper, slope), strict=True):
            assert_within(ours, theirs)  # the same operations in the same order


@SHAPES
@EACH_DTYPE
@pytest.mark.parametrize("kink", [None, *KINK_RULES], ids=lambda kink: kink or "tied")
def test_relu_relaxation_backward_is_the_gradient_of_the_reference(
    host: HostKernels, shape: tuple[int, int], kink: KinkRule | None, dtype: torch.dtype
) -> None:
    given = bounds(*shape, dtype)
    tolerance = kink_tolerance(dtype, 0)
    leaves = [t.clone().requires_grad_() for t in (given if kink is None else [*given, slopes(*given)])]
    outputs = reference.relu_relaxation(*leaves, kink=kink or "envelope", tolerance=tolerance)
    grads = [normal(*shape, dtype=dtype, seed=seed) for seed in (5, 6)]
    lower, upper, *rest = torch.autograd.grad(outputs, leaves, grads)
    slope = None if kink is None else leaves[2].detach()
    plan = Plan(one_block=kink == "left")
    actual = chains.relu_relaxation_backward(host, plan, grads, given, slope, kink or "envelope", tolerance)
    width = (given[1] - given[0]).where((given[0] < 0) & (given[1] > 0), torch.ones_like(given[0]))
    bound_grads = 4 * (grads[1].abs() + grads[0].abs() / width)
    slope_grads = grads[0].abs() + grads[1].abs() * (given[0].abs() + given[1].abs())
    assert_within(actual[1], lower, bound_grads, 12)
    assert_within(actual[2], upper, bound_grads, 12)
    assert_within(actual[0], rest[0] if rest else torch.zeros_like(lower), 4 * slope_grads, 12)


@EACH_DTYPE
def test_nan_and_infinity_reach_the_relaxation_as_in_the_reference(host: HostKernels, dtype: torch.dtype) -> None:
    lower = torch.tensor([[NAN, NAN, NAN, -1, 1, -1, -INF, -1, -INF, -INF, INF, -1]], dtype=dtype)
    upper = torch.tensor([[NAN, 1, -1, NAN, NAN, -2, 1, INF, INF, -1, INF, 1]], dtype=dtype)
    for slope in (None, torch.full_like(lower, 0.5), torch.full_like(lower, NAN), torch.zeros_like(lower)):
        actual = chains.relu_relaxation(host, Plan(), lower, upper, slope)
        for ours, theirs in zip(actual, reference.relu_relaxation(lower, upper, slope), strict=True):
            assert_within(ours, theirs)
