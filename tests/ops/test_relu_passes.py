"""ReLU on generators of every height: a CUDA kernel holds a tile of low ones whole, and reads tall ones twice.

Both ways, and concretize, add up in one order. Every other test of the op has few symbols.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.ops import test_every_op
from tests.ops.cases import CASES, cotangents_like
from tests.ops.samples import Shape, zonotope
from zonocuda import ops

# On a GPU with 99 to 227 KiB of shared memory for a block: tiles of 128 bytes; of 64 or 32; one that fills it; two
# launches, as nothing fits; two launches, as there are too few tiles; features that no 16 bytes divide.
HEIGHTS = {
    "low": Shape(1, 60, (8200,)),
    "middle": Shape(2, 700, (1024,)),
    "high": Shape(1, 3000, (520,)),
    "too high": Shape(1, 7300, (520,)),
    "few tiles": Shape(1, 2900, (40,)),
    "odd": Shape(3, 300, (333,)),
}
RELU = next(case for case in CASES if case.name == "relu")
EACH_HEIGHT = pytest.mark.parametrize("height", HEIGHTS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def on(device: torch.device, height: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Center and generators."""
    center, generators = zonotope(HEIGHTS[height], dtype)
    return center.to(device), generators.to(device)


def all_of(center: Tensor, generators: Tensor) -> list[Tensor]:
    """What the op computes, forward and backward, with a tied slope and with a free one."""
    found: list[Tensor] = []
    for slope in (None, torch.full_like(center, 0.4)):
        leaves = [t.clone().requires_grad_() for t in (center, generators)]
        leaves += [] if slope is None else [slope.requires_grad_()]
        out = ops.relu(*leaves)
        torch.manual_seed(1)
        found += [*out, *torch.autograd.grad(out, leaves, cotangents_like(out))]
    return [t.detach() for t in found]


def assert_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Every tensor."""
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


@EACH_HEIGHT
@pytest.mark.gpu
def test_values_and_gradients_are_those_of_the_reference(height: str, cuda: torch.device) -> None:
    samples = partial(RELU.samples, shapes={height: HEIGHTS[height]})
    case = replace(RELU, samples=samples)
    for dtype in test_every_op.DTYPES:
        test_every_op.test_values_are_those_of_the_reference_up_to_rounding(case, cuda, dtype)
        test_every_op.test_gradients_are_autograds_through_the_reference_up_to_rounding(case, cuda, dtype)


@EACH_HEIGHT
@DTYPES
def test_the_bounds_of_concretize_given_from_outside_change_no_bit(
    height: str, dtype: torch.dtype, device: torch.device
) -> None:
    center, generators = on(device, height, dtype)
    lower, upper = ops.concretize(center, generators)
    for slope in (None, torch.full_like(center, 0.4)):
        own, given = ops.relu(center, generators, slope), ops.relu(center, generators, slope, lower=lower, upper=upper)
        assert_same_bits(list(own), list(given))


@EACH_HEIGHT
def test_in_place_and_at_an_odd_address_change_no_bit(height: str, device: torch.device) -> None:
    center, generators = on(device, height)
    expected = all_of(center, generators)
    memory = torch.empty(generators.numel() + 1, device=device)
    shifted = memory[1:].view_as(generators).copy_(generators)
    assert shifted.data_ptr() % 16 != 0
    assert_same_bits(list(ops.relu_(center.clone(), shifted)), expected[:3])
    shifted.copy_(generators)
    assert_same_bits(list(ops.relu(center, shifted)), expected[:3])
    assert_same_bits(list(ops.relu_(center.clone(), generators.clone())), expected[:3])


@pytest.mark.parametrize("height", ["middle", "odd"])
def test_a_batch_element_has_the_bits_that_it_has_alone(height: str, device: torch.device) -> None:
    center, generators = on(device, height)
    whole = ops.relu(center, generators)
    for b in range(center.shape[0]):
        alone = ops.relu(center[b : b + 1], generators[b : b + 1])
        assert_same_bits([t[b : b + 1] for t in whole], list(alone))


@EACH_HEIGHT
@pytest.mark.gpu
def test_a_cuda_graph_replays_the_same_bits(height: str, cuda: torch.device) -> None:
    center, generators = on(cuda, height)
    expected = [t.clone() for t in all_of(center, generators)]
    lower, upper = ops.concretize(center, generators)
    gradients = (center, generators.flip(1), lower)
    rest = (center, generators, lower, upper, None, 0, 1e-6, False, True, True)
    backward = torch.ops.zonocuda._relu_backward(*gradients, *rest)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        replayed = ops.relu(center, generators)
        grads = torch.ops.zonocuda._relu_backward(*gradients, *rest)
    for t in (*replayed, *grads):
        t.fill_(torch.nan)
    graph.replay()
    assert_same_bits(list(replayed), expected[:3])
    assert_same_bits(list(grads), list(backward))


@EACH_HEIGHT
@pytest.mark.gpu
def test_low_generators_go_through_one_kernel_and_tall_ones_do_not(height: str, cuda: torch.device) -> None:
    center, generators = on(cuda, height)
    ops.relu(center, generators)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ops.relu(center, generators)
        torch.cuda.synchronize()
    kernels = [event.key for event in profile.key_averages() if "zonocuda" in event.key]
    if height in ("low", "middle", "odd"):
        assert len(kernels) == 1
        assert "one_pass_kernel" in kernels[0]
    elif height in ("too high", "few tiles"):
        assert len(kernels) == 3
        assert not any("one_pass_kernel" in name for name in kernels)
