"""The windows of a convolution as one matrix, and its adjoint."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.im2col_samples import GEOMETRIES
from zonocuda import ops, reference

EACH_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g[0])


def integers(*shape: int) -> Tensor:
    """Small integers in float32: their sums are exact."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(len(shape))).float()


def test_an_example_by_hand(device: torch.device) -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], device=device)
    columns = ops.im2col(x, (2,), (1,), (1,), (1,), (4,))
    assert columns.tolist() == [[0, 1, 2, 3, 0, 4, 5, 6], [1, 2, 3, 0, 4, 5, 6, 0]]
    back = ops.col2im(columns, (2, 1, 3), (2,), (1,), (1,), (1,), (4,))
    assert back.tolist() == [[[2, 4, 6]], [[8, 10, 12]]]  # each number was seen twice


@EACH_GEOMETRY
def test_numbers_move_bit_for_bit(device: torch.device, geometry: tuple) -> None:
    _, size, *sizes = geometry
    x = torch.rand(2, 3, *size)
    x[0, 1] = torch.nan
    expected = reference.im2col(x, *sizes)
    assert torch.equal(ops.im2col(x.to(device), *sizes).cpu().nan_to_num(7), expected.nan_to_num(7))


@EACH_GEOMETRY
def test_col2im_and_its_gradient_are_exact_on_integers(device: torch.device, geometry: tuple) -> None:
    _, size, *sizes = geometry
    columns = integers(*reference.im2col(torch.zeros(2, 3, *size), *sizes).shape)
    expected = reference.col2im(columns, (2, 3, *size), *sizes)
    ours = columns.to(device).requires_grad_()
    back = ops.col2im(ours, (2, 3, *size), *sizes)
    assert torch.equal(back.detach().cpu(), expected)
    grad = integers(2, 3, *size)
    (gradient,) = torch.autograd.grad(back, ours, grad.to(device))
    assert torch.equal(gradient.cpu(), reference.im2col(grad, *sizes))


def test_the_columns_are_those_of_torch(device: torch.device) -> None:
    x = integers(3, 4, 7, 6)
    expected = F.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 1), stride=(2, 1))  # [N, C * taps, outputs]
    columns = ops.im2col(x.to(device), (3, 2), (2, 1), (1, 1), (1, 2), (4, 6))
    assert torch.equal(columns.cpu(), expected.transpose(0, 1).flatten(1))


def test_the_second_derivative_of_a_square_is_that_of_the_reference(device: torch.device) -> None:
    x = integers(2, 3, 5, 4).to(device).requires_grad_()
    sizes = ((3, 3), (2, 1), (1, 1), (1, 1), (3, 4))
    second = []
    for module in (ops, reference):
        (first,) = torch.autograd.grad(module.im2col(x, *sizes).square().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert torch.equal(*second)
    assert second[0].any()


def test_the_native_ops_check_their_arguments() -> None:
    native, x, one = torch.ops.zonocuda, torch.zeros(1, 2, 1, 3, 3), [1, 1, 1]
    many = [2**31 - 1] * 3
    for call, message in (
        (
            lambda: native.im2col(x[0], one, one, one, one, one),
            r"im2col: x must have shape \[images, channels, z, y, x\]",
        ),
        (lambda: native.im2col(x, [1, 1], one, one, one, one), "im2col: kernel must have 3 numbers, got 2"),
        (lambda: native.im2col(x, [1, 0, 1], one, one, one, one), r"im2col: kernel must lie in \[1, 2\^31\), got 0"),
        (lambda: native.im2col(x, one, [0, 1, 1], one, one, one), r"im2col: stride must lie in \[1, 2\^31\), got 0"),
        (lambda: native.im2col(x, one, one, one, one, [1, -1, 1]), r"im2col: output_size must lie in \[0, 2\^31\)"),
        (
            lambda: native.im2col(x, many, one, one, one, many),
            r"im2col: the columns must have fewer than 2\^62 numbers",
        ),
        (
            lambda: native._im2col_backward(x[:0].flatten(1), [0, *many, 1], one, one, one, one, one),
            r"im2col_backward: the input must have fewer than 2\^62 numbers",
        ),
        (
            lambda: native._im2col_backward(x.flatten(1), [1, 2, 1, 3, 3], one, one, one, one, [1, 3, 2]),
            r"im2col_backward: grad must have shape \[channels \* taps, images \* outputs\], got \[1, 18\]",
        ),
        (
            lambda: native._im2col_backward(x, [1, 2, 3, 3], one, one, one, one, one),
            "im2col_backward: input_size must have 5 numbers, got 4",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
