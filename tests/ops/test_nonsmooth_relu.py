"""A line with a kink: torch's values, and the derivative that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.nonsmooth_samples import ALL_DTYPES, tied
from zonocuda import ops

NAN, INF = float("nan"), float("inf")
EACH_DTYPE = pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "relu": (torch.relu, 0.0),
    "leaky": (lambda x: F.leaky_relu(x, 0.01), 0.01),
    "abs": (torch.abs, -1.0),
}


def bits(t: Tensor) -> Tensor:
    """The numbers as integers, so that the sign of a zero shows; NaN as one number."""
    t = torch.where(t.isnan(), torch.zeros_like(t) + NAN, t).contiguous()
    return t.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[t.dtype.itemsize])


@EACH_DTYPE
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_torchs_bit_for_bit(name: str, dtype: torch.dtype, device: torch.device) -> None:
    theirs, left = FUNCTIONS[name]
    x = torch.cat([torch.randn(1000) * 4, tied(100, dtype=torch.float32), torch.tensor([NAN, INF, -INF, 0.0, -0.0])])
    x = x.to(device, dtype)
    assert torch.equal(bits(ops.nonsmooth_relu(x, left)), bits(theirs(x)))


@EACH_DTYPE
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_off_zero_is_torchs_bit_for_bit(name: str, dtype: torch.dtype, device: torch.device) -> None:
    theirs, left = FUNCTIONS[name]
    x = (torch.randn(3000) * 4).to(device, dtype)
    x[x == 0] = 1
    g = torch.randn(3000).to(device, dtype)
    grads = []
    for function in (theirs, lambda t: ops.nonsmooth_relu(t, left, 0.7)):
        leaf = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(function(leaf), leaf, g)[0])
    assert torch.equal(*grads)


@EACH_DTYPE
@pytest.mark.parametrize("left", [0.0, 0.125, -1.0])
@pytest.mark.parametrize("at_zero", [0.0, 1.0, 0.5, -0.25, 3.0])
def test_the_derivative_at_both_zeros_is_the_chosen_one(
    at_zero: float, left: float, dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.tensor([0.0, -0.0, 1.0, -1.0], device=device, dtype=dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.nonsmooth_relu(x, left, at_zero), x, torch.full_like(x, 2))
    assert grad.tolist() == [2 * at_zero, 2 * at_zero, 2.0, 2 * left]


@EACH_DTYPE
def test_a_gradient_of_zero_stays_zero_and_a_weight_of_zero_stops_everything(
    dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.tensor([0.0, -1.0, 1.0], device=device, dtype=dtype, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.nonsmooth_relu(x, 0.0, 5.0), x, torch.zeros_like(x))
    assert grad.tolist() == [0, 0, 0]
    for special in (NAN, INF):
        (grad,) = torch.autograd.grad(ops.nonsmooth_relu(x, 0.0, 0.0), x, torch.full_like(x, special))
        assert grad[:2].tolist() == [0, 0]
        assert not grad[2].isfinite()


@pytest.mark.parametrize("left", [0.0, 0.125, -1.0])
def test_the_chosen_derivatives_are_the_one_sided_differences(left: float, device: torch.device) -> None:
    h = 2.0**-10
    for at_zero, step in ((left, -h), (1.0, h)):
        x = torch.zeros(1, dtype=torch.float64, device=device, requires_grad=True)
        (grad,) = torch.autograd.grad(ops.nonsmooth_relu(x, left, at_zero), x)
        assert grad.item() == (ops.nonsmooth_relu(x.detach() + step, left) / step).item()


@EACH_DTYPE
def test_nan_passes_the_gradient_on_as_torchs_relu_does(dtype: torch.dtype, device: torch.device) -> None:
    x = torch.tensor([NAN], device=device, dtype=dtype, requires_grad=True)
    for function in (torch.relu, ops.nonsmooth_relu):
        assert torch.autograd.grad(function(x), x)[0].item() == 1


@EACH_DTYPE
def test_sixteen_bit_products_are_rounded_once(dtype: torch.dtype, device: torch.device) -> None:
    x = torch.zeros(500, device=device, dtype=dtype, requires_grad=True)
    g = torch.randn(500, device=device).to(dtype)
    (grad,) = torch.autograd.grad(ops.nonsmooth_relu(x, 0.0, 0.3), x, g)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(grad, (torch.tensor(0.3, dtype=wide, device=device) * g.to(wide)).to(dtype))


def test_the_memory_format_is_kept(device: torch.device) -> None:
    x = torch.randn(2, 3, 4, 5, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = ops.nonsmooth_relu(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, torch.relu(x))
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert torch.equal(grad, (x > 0).to(x.dtype))


def test_the_native_op_checks_its_arguments() -> None:
    x = torch.zeros(3, 4)
    for call, message in (
        (lambda: torch.ops.zonocuda.nonsmooth_relu(x.T, 0, 0), "nonsmooth_relu: x must be contiguous"),
        (
            lambda: torch.ops.zonocuda._nonsmooth_relu_backward(x[:2].contiguous(), x, 0, 0),
            r"nonsmooth_relu_backward: grad must have shape \[3, 4\], got \[2, 4\]",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("slope", [0.01, 1 / 3, 0.7, 2.0**-20, 1.0, 1000.0])
def test_all_numbers_of_16_bits_are_multiplied_and_rounded_as_torch_does(
    slope: float, dtype: torch.dtype, device: torch.device
) -> None:
    """Subnormal numbers, infinities and overflow among them; of a NaN, only that it is one."""
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    leaf = x.clone().requires_grad_()
    theirs = torch.nn.functional.leaky_relu(leaf, slope)
    grad = x.flip(0).nan_to_num()
    number = ~x.isnan()
    assert torch.equal(ops.nonsmooth_relu(x, slope, slope).isnan(), x.isnan())
    assert torch.equal(bits(ops.nonsmooth_relu(x, slope, slope))[number], bits(theirs)[number])
    (expected,) = torch.autograd.grad(theirs, leaf, grad)
    mine = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(ops.nonsmooth_relu(mine, slope, slope), mine, grad)
    assert torch.equal(bits(found)[number], bits(expected)[number])
