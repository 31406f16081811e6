"""A linear layer on generators that each touch one neuron."""

from __future__ import annotations

import pytest
import torch

from zonocuda import ops

NAN = float("nan")


def test_an_example_by_hand(device: torch.device) -> None:
    coefficients = torch.tensor([[2.0, -1.0]], device=device)
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], device=device)
    result = ops.diagonal_linear(coefficients, torch.tensor([2, 0], device=device), weight)
    assert result.tolist() == [[[6.0, 12.0], [-1.0, -4.0]]]


def test_the_result_is_the_matrix_product_with_the_dense_rows(device: torch.device) -> None:
    """Two ways to the same generators: scaled columns of W, and W times the rows of the error block."""
    coefficients = torch.randn(3, 50, dtype=torch.float64, device=device)
    index = torch.randint(0, 40, (50,), device=device)
    weight = torch.randn(70, 40, dtype=torch.float64, device=device)
    dense = ops.error_block(coefficients, index, (40,))
    torch.testing.assert_close(ops.diagonal_linear(coefficients, index, weight), dense @ weight.T, rtol=0, atol=1e-14)


def test_symbols_of_the_same_neuron_share_its_column_and_add_up_in_its_gradient(device: torch.device) -> None:
    coefficients = torch.tensor([[1.0, 10.0], [100.0, 1000.0]], device=device, requires_grad=True)
    weight = torch.tensor([[2.0, 7.0]], device=device, requires_grad=True)
    ops.diagonal_linear(coefficients, torch.tensor([0, 0], device=device), weight).sum().backward()
    assert coefficients.grad is not None
    assert weight.grad is not None
    assert coefficients.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert weight.grad.tolist() == [[1111.0, 0.0]]


def test_a_zero_coefficient_gives_a_zero_row_and_no_gradient_of_the_weight(device: torch.device) -> None:
    weight = torch.randn(5, 3, device=device, requires_grad=True)
    coefficients = torch.tensor([[0.0, 2.0]], device=device)
    result = ops.diagonal_linear(coefficients, torch.tensor([1, 2], device=device), weight)
    (grad,) = torch.autograd.grad(result.sum(), weight)
    assert result[0, 0].count_nonzero() == 0
    assert grad[:, :2].count_nonzero() == 0
    assert grad[:, 2].tolist() == [2.0] * 5


def test_nan_stays_in_its_row_or_its_output(device: torch.device) -> None:
    coefficients = torch.tensor([[NAN, 1.0, 2.0]], device=device)
    weight = torch.ones(4, 3, device=device)
    weight[3, 1] = NAN
    nan = ops.diagonal_linear(coefficients, torch.arange(3, device=device), weight).isnan()[0]
    assert nan.tolist() == [[True] * 4, [False, False, False, True], [False] * 4]


@pytest.mark.parametrize("needs", ["coefficients", "weight"])
def test_only_the_input_that_wants_a_gradient_gets_one(needs: str, device: torch.device) -> None:
    inputs = {"coefficients": torch.ones(1, 2, device=device), "weight": torch.ones(3, 2, device=device)}
    inputs[needs].requires_grad_()
    ops.diagonal_linear(index=torch.arange(2, device=device), **inputs).sum().backward()
    for name, tensor in inputs.items():
        assert (tensor.grad is not None) == (name == needs)
    grad = inputs[needs].grad
    assert grad is not None
    assert bool((grad == (3 if needs == "coefficients" else 1)).all())


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
def test_an_index_outside_the_layer_is_refused_by_position(bad: int) -> None:
    with pytest.raises(RuntimeError, match=rf"diagonal_linear: index\[1\] = {bad} is not one of the 3 features"):
        ops.diagonal_linear(torch.ones(1, 2), torch.tensor([0, bad]), torch.ones(4, 3))
    with pytest.raises(
        RuntimeError, match=rf"diagonal_linear_backward: index\[1\] = {bad} is not one of the 3 features"
    ):
        torch.ops.zonocuda._diagonal_linear_backward(
            torch.ones(1, 2, 4), torch.ones(1, 2), torch.tensor([0, bad]), torch.ones(4, 3), True
        )


@pytest.mark.gpu
def test_an_index_outside_the_layer_gives_nan_on_a_gpu(cuda: torch.device) -> None:
    index = torch.tensor([0, 3], device=cuda)
    nan = ops.diagonal_linear(torch.ones(1, 2, device=cuda), index, torch.ones(4, 3, device=cuda)).isnan()
    assert nan.tolist() == [[[False] * 4, [True] * 4]]


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    coefficients, index, weight = torch.ones(1, 3), torch.arange(3), torch.ones(2, 3)
    native = torch.ops.zonocuda.diagonal_linear
    for call, message in (
        (
            lambda: ops.diagonal_linear(torch.ones(3), index, weight),
            r"coefficients must have shape \[batch, symbols\], got \[3\]",
        ),
        (
            lambda: ops.diagonal_linear(coefficients, index, torch.ones(3)),
            r"weight must have shape \[out, in\], got \[3\]",
        ),
        (
            lambda: ops.diagonal_linear(coefficients, index[:2], weight),
            r"index must have shape \[symbols\] = \[3\], got \[2\]",
        ),
        (lambda: ops.diagonal_linear(coefficients, index.int(), weight), r"index must have dtype int64, got Int"),
        (lambda: native(torch.ones(3, 2).T, index, weight), r"coefficients must be contiguous"),
        (lambda: native(coefficients, torch.arange(6)[::2], weight), r"index must be contiguous"),
        (lambda: native(coefficients, index, torch.ones(3, 2).T), r"weight must be contiguous"),
    ):
        with pytest.raises(RuntimeError, match=rf"diagonal_linear: {message}"):
            call()
    with pytest.raises(RuntimeError, match=r"diagonal_linear_backward: grad must have shape \[batch, symbols, out\]"):
        torch.ops.zonocuda._diagonal_linear_backward(torch.ones(1, 3, 5), coefficients, index, weight, True)
