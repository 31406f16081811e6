"""Dense generators of symbols that each touch one neuron."""

from __future__ import annotations

import pytest
import torch

from zonocuda import ops

INF, NAN = float("inf"), float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    coefficients = torch.tensor([[2.0, -1.0], [3.0, 0.5]], device=device)
    dense = ops.error_block(coefficients, torch.tensor([3, 0], device=device), (2, 2))
    assert dense.tolist() == [
        [[[0.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [0.0, 0.0]]],
        [[[0.0, 0.0], [0.0, 3.0]], [[0.5, 0.0], [0.0, 0.0]]],
    ]


def test_the_radius_of_the_rows_is_that_of_the_coefficients(device: torch.device) -> None:
    coefficients = torch.randn(2, 90, dtype=torch.float64, device=device)
    index = torch.randint(0, 30, (90,), device=device)
    dense = ops.error_block(coefficients, index, (5, 6))
    lower, upper = ops.concretize(torch.zeros(2, 5, 6, dtype=torch.float64, device=device), dense)
    radius = torch.zeros(2, 30, dtype=torch.float64, device=device).index_add(1, index, coefficients.abs())
    torch.testing.assert_close(upper.flatten(1), radius, rtol=1e-13, atol=0)
    torch.testing.assert_close(lower.flatten(1), -radius, rtol=1e-13, atol=0)


def test_the_gradient_is_the_entry_at_the_index(device: torch.device) -> None:
    coefficients = torch.ones(2, 3, device=device, requires_grad=True)
    index = torch.tensor([1, 1, 0], device=device)
    grad = torch.arange(12.0, device=device).reshape(2, 3, 2)
    ops.error_block(coefficients, index, (2,)).backward(grad)
    assert coefficients.grad is not None
    assert coefficients.grad.tolist() == [[1.0, 3.0, 4.0], [7.0, 9.0, 10.0]]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_value_that_is_not_finite_stays_in_its_entry(value: float, device: torch.device) -> None:
    coefficients = torch.tensor([[value, 1.0]], device=device)
    dense = ops.error_block(coefficients, torch.tensor([1, 1], device=device), (3,))
    assert dense.isfinite().tolist() == [[[True, False, True], [True, True, True]]]
    assert dense[0, 1].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
def test_an_index_that_is_no_neuron_is_refused_by_position(bad: int) -> None:
    index = torch.tensor([0, bad])
    with pytest.raises(RuntimeError, match=rf"error_block: index\[1\] = {bad} is not one of the 4 features"):
        ops.error_block(torch.ones(1, 2), index, (2, 2))
    with pytest.raises(RuntimeError, match=rf"error_block_backward: index\[1\] = {bad} is not one of the 4 features"):
        torch.ops.zonocuda._error_block_backward(torch.ones(1, 2, 4), index)


@pytest.mark.gpu
def test_an_index_that_is_no_neuron_gives_nan_on_a_gpu(cuda: torch.device) -> None:
    dense = ops.error_block(torch.ones(1, 2, device=cuda), torch.tensor([0, 4], device=cuda), (4,))
    assert dense.isnan().tolist() == [[[False] * 4, [True] * 4]]


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    coefficients, index = torch.ones(1, 3), torch.arange(3)
    native = torch.ops.zonocuda.error_block
    for call, message in (
        (
            lambda: ops.error_block(torch.ones(3), index, (4,)),
            r"coefficients must have shape \[batch, symbols\], got \[3\]",
        ),
        (
            lambda: ops.error_block(coefficients, index[:2], (4,)),
            r"index must have shape \[symbols\] = \[3\], got \[2\]",
        ),
        (lambda: ops.error_block(coefficients, index.int(), (4,)), r"index must have dtype int64, got Int"),
        (lambda: native(torch.ones(3, 2).T, index, 4), r"coefficients must be contiguous"),
        (lambda: native(coefficients, torch.arange(6)[::2], 4), r"index must be contiguous"),
        (lambda: native(coefficients, index, -1), r"features must not be negative, got -1"),
    ):
        with pytest.raises(RuntimeError, match=rf"error_block: {message}"):
            call()
    with pytest.raises(RuntimeError, match=r"error_block_backward: generators must have shape"):
        torch.ops.zonocuda._error_block_backward(coefficients, index)
