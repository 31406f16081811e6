"""The bodies of the CUDA kernels, run on the CPU by host_cuda.h, against the reference: all ops but relu."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from tests.csrc import chains
from tests.csrc.chains import Plan
from tests.csrc.compare import EACH_CASE, EACH_DTYPE, Case, assert_within, normal
from tests.csrc.host import HERE, HostKernels
from zonocuda import reference

SOURCES = HERE.parent.parent / "csrc" / "cuda"
NAN, INF = torch.nan, torch.inf


# ---- concretize ------------------------------------------------------------------------------------------------------


@EACH_CASE
@EACH_DTYPE
def test_concretize_agrees_with_the_reference(host: HostKernels, case: Case, dtype: torch.dtype) -> None:
    center = normal(case.batch, case.features, dtype=dtype, seed=1)
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype)
    actual = chains.concretize(host, case.plan, center, generators)
    magnitude = center.abs() + generators.abs().sum(1)
    for ours, theirs in zip(actual, reference.concretize(center, generators), strict=True):
        assert_within(ours, theirs, magnitude, case.symbols + 1)


@EACH_CASE
@EACH_DTYPE
def test_concretize_backward_is_the_gradient_of_the_reference(
    host: HostKernels, case: Case, dtype: torch.dtype
) -> None:
    center = normal(case.batch, case.features, dtype=dtype, seed=1).requires_grad_()
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype)
    generators[:, ::3, ::2] = 0  # sign(0) = 0
    generators.requires_grad_()
    grads = [normal(case.batch, case.features, dtype=dtype, seed=seed) for seed in (2, 3)]
    expected = torch.autograd.grad(reference.concretize(center, generators), [center, generators], grads)
    actual = chains.concretize_backward(host, case.plan, grads[0], grads[1], generators)
    magnitude = grads[0].abs() + grads[1].abs()
    assert_within(actual[0], expected[0], magnitude, 2)
    assert_within(actual[1], expected[1], magnitude.unsqueeze(1), 2)


@EACH_DTYPE
def test_nan_and_infinity_reach_the_bounds_as_in_the_reference(host: HostKernels, dtype: torch.dtype) -> None:
    center = normal(1, 8, dtype=dtype, seed=1)
    generators = normal(1, 12, 8, dtype=dtype)
    center[0, :3] = torch.tensor([NAN, INF, -INF])
    generators[0, 5, 3:7] = torch.tensor([NAN, INF, -INF, -0.0])
    center[0, 4] = INF  # inf - inf
    expected = reference.concretize(center, generators)
    for splits in (1, 3):
        actual = chains.concretize(host, Plan(wide=True, splits=splits), center, generators)
        for ours, theirs in zip(actual, expected, strict=True):
            assert_within(ours, theirs, center.abs() + generators.abs().sum(1), 13)
    grads = [torch.tensor([[NAN, INF, 1, 1, 1, 1, 1, 1]], dtype=dtype), torch.ones(1, 8, dtype=dtype)]
    leaves = [center.requires_grad_(), generators.requires_grad_()]
    gradients = torch.autograd.grad(reference.concretize(*leaves), leaves, grads)
    actual = chains.concretize_backward(host, Plan(), grads[0], grads[1], generators)
    for ours, theirs in zip(actual, gradients, strict=True):
        assert_within(ours, theirs)


# ---- scale -----------------------------------------------------------------------------------------------------------


@EACH_CASE
@EACH_DTYPE
def test_scale_equals_the_reference(host: HostKernels, case: Case, dtype: torch.dtype) -> None:
    multiplier = normal(case.batch, case.features, dtype=dtype, seed=1)
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype)
    assert_within(chains.scale(host, case.plan, generators, multiplier), reference.scale(generators, multiplier))


@EACH_CASE
@EACH_DTYPE
def test_scale_backward_is_the_gradient_of_the_reference(host: HostKernels, case: Case, dtype: torch.dtype) -> None:
    multiplier = normal(case.batch, case.features, dtype=dtype, seed=1).requires_grad_()
    generators = normal(case.batch, case.symbols, case.features, dtype=dtype).requires_grad_()
    grad = normal(case.batch, case.symbols, case.features, dtype=dtype, seed=2)
    expected = torch.autograd.grad(reference.scale(generators, multiplier), [generators, multiplier], grad)
    actual = chains.scale_backward(host, case.plan, grad, generators, multiplier)
    assert_within(actual[0], expected[0])
    assert_within(actual[1], expected[1], (grad * generators).abs().sum(1), case.symbols + 1)


def test_scale_backward_without_products_gives_the_multiplier_a_zero_gradient(host: HostKernels) -> None:
    grad, generators = normal(2, 5, 3, dtype=torch.float32), normal(2, 5, 3, dtype=torch.float32, seed=1)
    actual = chains.scale_backward(host, Plan(), grad, generators, torch.ones(2, 3), needs_multiplier=False)
    assert torch.equal(actual[1], torch.zeros(2, 3))


@EACH_DTYPE
def test_nan_and_infinity_reach_scaled_generators_as_in_the_reference(host: HostKernels, dtype: torch.dtype) -> None:
    specials = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0], dtype=dtype)
    generators = specials.expand(1, 6, 6).contiguous()  # each special in a row
    generators = generators.transpose(1, 2).contiguous().requires_grad_()
    multiplier = specials.unsqueeze(0).clone().requires_grad_()
    expected = reference.scale(generators, multiplier)
    assert_within(chains.scale(host, Plan(), generators, multiplier), expected.detach())
    grads = torch.autograd.grad(expected, [generators, multiplier], torch.ones_like(generators))
    actual = chains.scale_backward(host, Plan(), torch.ones_like(generators), generators, multiplier)
    for ours, theirs in zip(actual, grads, strict=True):
        assert_within(ours, theirs)


# ---- diagonal_linear -------------------------------------------------------------------------------------------------

# batch, symbols, in, out: tiles of 32 x 32 are full, partial and many
DIAGONALS = [(1, 1, 1, 1), (3, 7, 5, 9), (2, 32, 40, 64), (2, 70, 90, 45), (1, 33, 8, 100)]
EACH_DIAGONAL = pytest.mark.parametrize("sizes", DIAGONALS, ids=lambda sizes: "x".join(map(str, sizes)))
ONE_BLOCK = pytest.mark.parametrize("one_block", [False, True], ids=["blocks", "one_block"])


def diagonal_inputs(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, an index in no order with repetitions (K > in: necessarily), and a weight."""
    batch, symbols, features, out = sizes
    index = torch.randint(features, (symbols,), generator=torch.Generator().manual_seed(3))
    index[-1] = index[0]
    coefficients = normal(batch, symbols, dtype=dtype)
    return coefficients, index, normal(out, features, dtype=dtype, seed=1)


@EACH_DIAGONAL
@ONE_BLOCK
@EACH_DTYPE
def test_diagonal_linear_equals_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, int], one_block: bool, dtype: torch.dtype
) -> None:
    inputs = diagonal_inputs(sizes, dtype)
    actual = chains.diagonal_linear(host, Plan(one_block=one_block), *inputs)
    assert_within(actual, reference.diagonal_linear(*inputs))


@EACH_DIAGONAL
@ONE_BLOCK
@EACH_DTYPE
def test_diagonal_linear_backward_is_the_gradient_of_the_reference(
    host: HostKernels, sizes: tuple[int, int, int, int], one_block: bool, dtype: torch.dtype
) -> None:
    coefficients, index, weight = diagonal_inputs(sizes, dtype)
    coefficients.requires_grad_()
    weight.requires_grad_()
    batch, symbols, _, out = sizes
    grad = normal(batch, symbols, out, dtype=dtype, seed=4)
    result = reference.diagonal_linear(coefficients, index, weight)
    expected = torch.autograd.grad(result, [coefficients, weight], grad)
    actual = chains.diagonal_linear_backward(host, Plan(one_block=one_block), grad, coefficients, index, weight)
    # The same sums of absolute values, as gradients of the absolute values.
    absolute = reference.diagonal_linear(coefficients.abs(), index, weight.abs())
    magnitudes = torch.autograd.grad(absolute, [coefficients, weight], grad.abs())
    assert_within(actual[0], expected[0], magnitudes[0].abs(), out + 1)
    assert_within(actual[1], expected[1], magnitudes[1].abs(), batch * symbols + 1)


@EACH_DTYPE
def test_an_index_that_is_no_input_poisons_its_symbol_and_no_other(host: HostKernels, dtype: torch.dtype) -> None:
    coefficients, index, weight = diagonal_inputs((2, 40, 6, 35), dtype)
    grad = normal(2, 40, 35, dtype=dtype, seed=4)
    bad = torch.zeros(40, dtype=torch.bool)
    bad[[0, 3, 7, 39]] = True
    wrong = index.clone()
    wrong[bad] = torch.tensor([-1, 6, 2**40, -(2**63)])
    expected = reference.diagonal_linear(coefficients, index, weight).masked_fill(bad[:, None], NAN)
    assert_within(chains.diagonal_linear(host, Plan(), coefficients, wrong, weight), expected)
    good = chains.diagonal_linear_backward(host, Plan(), grad, coefficients, index, weight)
    actual = chains.diagonal_linear_backward(host, Plan(), grad, coefficients, wrong, weight)
    assert_within(actual[0], good[0].masked_fill(bad, NAN))
    kept = chains.diagonal_linear_backward(
        host, Plan(), grad[:, ~bad].contiguous(), coefficients[:, ~bad].contiguous(), index[~bad], weight
    )
    assert_within(actual[1], kept[1])  # what belongs to no input is left out


@pytest.mark.parametrize("sizes", [(2, 0, 3, 4), (0, 5, 3, 4), (2, 5, 3, 0)], ids=["K=0", "B=0", "out=0"])
def test_diagonal_linear_backward_of_nothing_is_zero(host: HostKernels, sizes: tuple[int, int, int, int]) -> None:
    batch, symbols, features, out = sizes
    coefficients, weight = torch.ones(batch, symbols), torch.ones(out, features)
    index = torch.zeros(symbols, dtype=torch.int64)
    grad = torch.ones(batch, symbols, out)
    actual = chains.diagonal_linear_backward(host, Plan(), grad, coefficients, index, weight)
    assert torch.equal(actual[0], torch.zeros(batch, symbols))
    assert torch.equal(actual[1], torch.zeros(out, features))


def test_nan_and_infinity_reach_diagonal_linear_as_in_the_reference(host: HostKernels) -> None:
    coefficients = torch.tensor([[NAN, INF, -INF, 0.0, 1.0]]).requires_grad_()
    weight = torch.tensor([[1.0, NAN, 0.0, INF], [2.0, -INF, 1.0, 0.0]]).requires_grad_()
    index = torch.tensor([0, 1, 2, 3, 3])
    expected = reference.diagonal_linear(coefficients, index, weight)
    assert_within(chains.diagonal_linear(host, Plan(), coefficients, index, weight), expected.detach())
    grad = torch.ones(1, 5, 2)
    grads = torch.autograd.grad(expected, [coefficients, weight], grad)
    actual = chains.diagonal_linear_backward(host, Plan(), grad, coefficients, index, weight)
    assert_within(actual[0], grads[0])
    assert_within(actual[1], grads[1])


# ---- error_block -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 7, 5), (2, 40, 33)], ids=str)
@ONE_BLOCK
@EACH_DTYPE
def test_error_block_and_its_gradient_equal_the_reference(
    host: HostKernels, sizes: tuple[int, int, int], one_block: bool, dtype: torch.dtype
) -> None:
    batch, symbols, features = sizes
    coefficients = normal(batch, symbols, dtype=dtype).requires_grad_()
    index = torch.randint(features, (symbols,), generator=torch.Generator().manual_seed(3))
    index[-1] = index[0]
    plan = Plan(one_block=one_block)
    expected = reference.error_block(coefficients, index, (features,))
    assert_within(chains.error_block(host, plan, coefficients, index, features), expected.detach())
    grad = normal(*sizes, dtype=dtype, seed=2)
    (grads,) = torch.autograd.grad(expected, coefficients, grad)
    assert_within(chains.error_block_backward(host, plan, grad, index), grads)


@EACH_DTYPE
def test_error_block_poisons_the_row_of_an_index_that_is_no_neuron(host: HostKernels, dtype: torch.dtype) -> None:
    index = torch.tensor([4, -1, 5, 2**40, 0])
    bad = torch.tensor([False, True, True, True, False])
    coefficients = normal(2, 5, dtype=dtype)
    good = reference.error_block(coefficients, index.masked_fill(bad, 0), (5,))
    actual = chains.error_block(host, Plan(), coefficients, index, 5)
    assert_within(actual, good.masked_fill(bad[:, None], NAN))
    grad = normal(2, 5, 5, dtype=dtype, seed=2)
    expected = torch.stack([grad[:, 0, 4], *3 * [torch.full((2,), NAN, dtype=dtype)], grad[:, 4, 0]], 1)
    assert_within(chains.error_block_backward(host, Plan(), grad, index), expected)


def test_error_block_backward_without_features_has_no_neuron_for_any_index(host: HostKernels) -> None:
    index = torch.tensor([0, 3])
    assert chains.error_block_backward(host, Plan(), torch.empty(2, 2, 0), index).isnan().all()


def test_nan_and_infinity_stay_at_their_index_in_error_block(host: HostKernels) -> None:
    coefficients = torch.tensor([[NAN, INF, -INF]])
    index = torch.tensor([1, 0, 1])
    actual = chains.error_block(host, Plan(), coefficients, index, 2)
    assert_within(actual, torch.tensor([[[0, NAN], [INF, 0], [0, -INF]]]))
    assert_within(actual, reference.error_block(coefficients, index, (2,)))


# ---- the sources -----------------------------------------------------------------------------------------------------


def test_every_kernel_of_the_sources_is_run_here() -> None:
    kernels = {
        name for path in SOURCES.glob("*.cuh") for name in re.findall(r"__global__ void (\w+)", path.read_text())
    }
    assert kernels
    program = (HERE / "host_kernels.cpp").read_text()
    assert not {name for name in kernels if not re.search(rf"r\.launch\({name}\b", program)}
    assert not {path.name for path in SOURCES.glob("*.cuh") if f"csrc/cuda/{path.name}" not in program}
    maps_and_terms = set(
        re.findall(r"\b(\w+(?:Map|Term|Pass))<T>\{", "".join(p.read_text() for p in SOURCES.glob("*.cu")))
    )
    assert maps_and_terms
    assert not {name for name in maps_and_terms if f"/{name}" not in program}


def test_blocks_have_the_sizes_that_the_kernels_assume() -> None:
    text = "".join(path.read_text() for path in SOURCES.glob("*.cuh"))
    for name in ("LANES", "STRIPS", "SEGMENT", "MOST_SEGMENTS", "THREADS", "TILE", "TILE_ROWS"):
        constant = "k" + name.title().replace("_", "")
        assert re.findall(rf"constexpr \w+ {constant} = (\d+);", text) == [str(getattr(chains, name))]


def test_kernels_are_in_cuh_files_and_launches_in_cu_files() -> None:
    for path in SOURCES.glob("*.cuh"):
        assert "<<<" not in path.read_text(), f"{path.name} launches a kernel"
    for path in SOURCES.glob("*.cu"):
        assert "__global__" not in path.read_text(), f"{path.name} defines a kernel"
