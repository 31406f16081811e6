"""The larger of two: torch's values, and the share on ties that was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.nonsmooth_samples import ALL_DTYPES, tied
from zonocuda import ops

NAN, INF = float("nan"), float("inf")
EACH_DTYPE = pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)


def gradients(a: Tensor, b: Tensor, first: float, grad: Tensor) -> tuple[Tensor, Tensor]:
    """What a and b get of ``grad``."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    of_a, of_b = torch.autograd.grad(ops.nonsmooth_maximum(a, b, first), [a, b], grad)
    return of_a, of_b


@EACH_DTYPE
def test_values_and_even_gradients_are_torchs(dtype: torch.dtype, device: torch.device) -> None:
    a, b = tied(2, 500, dtype=dtype).to(device)
    a[:4], b[:4] = torch.tensor([INF, -INF, INF, 1.0]), torch.tensor([INF, -INF, -INF, -INF])
    assert torch.equal(ops.nonsmooth_maximum(a, b), torch.maximum(a, b))
    g = torch.randn(500).to(device, dtype)
    x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
    theirs = torch.autograd.grad(torch.maximum(x, y), [x, y], g)
    for ours, torchs in zip(gradients(a, b, 0.5, g), theirs, strict=True):
        assert torch.equal(ours, torchs)


@EACH_DTYPE
@pytest.mark.parametrize("first", [0.0, 0.25, 0.5, 1.0])
def test_on_a_tie_the_first_gets_its_share_and_the_second_the_rest(
    first: float, dtype: torch.dtype, device: torch.device
) -> None:
    a = torch.tensor([1.0, 2.0, 0.0, 3.0], device=device, dtype=dtype)
    b = torch.tensor([1.0, 1.0, -0.0, 5.0], device=device, dtype=dtype)
    of_a, of_b = gradients(a, b, first, torch.full_like(a, 4))
    assert of_a.tolist() == [4 * first, 4, 4 * first, 0]
    assert of_b.tolist() == [4 - 4 * first, 0, 4 - 4 * first, 4]


def test_nan_wins_and_two_tie(device: torch.device) -> None:
    a, b = torch.tensor([NAN, 1.0, NAN], device=device), torch.tensor([1.0, NAN, NAN], device=device)
    assert ops.nonsmooth_maximum(a, b).isnan().all()
    of_a, of_b = gradients(a, b, 0.25, torch.ones(3, device=device))
    assert of_a.tolist() == [1, 0, 0.25]
    assert of_b.tolist() == [0, 1, 0.75]


def test_shapes_broadcast_and_gradients_are_summed(device: torch.device) -> None:
    a = torch.tensor([[1.0], [2.0]], device=device)
    b = torch.tensor([1.0, 2.0, 3.0], device=device)
    assert torch.equal(ops.nonsmooth_maximum(a, b), torch.maximum(a, b))
    of_a, of_b = gradients(a, b, 1.0, torch.ones(2, 3, device=device))
    assert of_a.tolist() == [[1], [2]]  # wins [tie, -, -] and [yes, tie, -]
    assert of_b.tolist() == [0, 1, 2]


def test_an_infinite_gradient_stays_with_the_winner(device: torch.device) -> None:
    a, b = torch.tensor([1.0, 1.0], device=device), torch.tensor([0.0, 1.0], device=device)
    of_a, of_b = gradients(a, b, 1.0, torch.full((2,), INF, device=device))
    assert of_a.tolist() == [INF, INF]
    assert of_b.tolist() == [0, 0]


def test_the_native_op_checks_its_arguments() -> None:
    x = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"nonsmooth_maximum: b must have shape \[3\], got \[2\]"):
        torch.ops.zonocuda.nonsmooth_maximum(x, x[:2], 0.5)
    with pytest.raises(RuntimeError, match="nonsmooth_maximum_backward: sides must have dtype Char, got Float"):
        torch.ops.zonocuda._nonsmooth_maximum_backward(x, x, 0.5)
