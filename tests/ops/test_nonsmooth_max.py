"""The maximum along a dimension: torch's values, and torch's three conventions as golden data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.nonsmooth_samples import ALL_DTYPES, tied
from zonocuda import ops
from zonocuda.ties import TIE_RULES, TieRule

NAN, INF = float("nan"), float("inf")
RULES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.5))  # first, last, even
EACH_DTYPE = pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)


def gradient(x: Tensor, dim: int, ties: TieRule, grad: Tensor) -> Tensor:
    """The gradient of <max(x), grad>."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(ops.nonsmooth_max(x, dim, ties), x, grad)[0]


@EACH_DTYPE
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_first_is_torch_max_bit_for_bit(dim: int, dtype: torch.dtype, device: torch.device) -> None:
    x = tied(7, 70, 5, dtype=dtype).to(device)
    x[0, 3:6, 0], x[1, :, 1], x[2, 4, :] = NAN, -INF, INF
    leaf = x.clone().requires_grad_()
    theirs = torch.max(leaf, dim).values
    torch.testing.assert_close(ops.nonsmooth_max(x, dim), theirs, rtol=0, atol=0, equal_nan=True)
    g = torch.randn(theirs.shape).to(device, dtype)
    assert torch.equal(gradient(x, dim, "first", g), torch.autograd.grad(theirs, leaf, g)[0])


@EACH_DTYPE
def test_last_is_the_end_of_cummax_and_even_is_amax(dtype: torch.dtype, device: torch.device) -> None:
    x = tied(40, 9, dtype=dtype).to(device)
    g = torch.randn(40).to(device, dtype)
    leaf = x.clone().requires_grad_()
    (last,) = torch.autograd.grad(torch.cummax(leaf, 1).values[:, -1], leaf, g)
    assert torch.equal(gradient(x, 1, "last", g), last)
    (even,) = torch.autograd.grad(torch.amax(leaf, 1), leaf, g)
    # torch divides the mask by the count and multiplies then: two roundings, ours has one
    torch.testing.assert_close(gradient(x, 1, "even", g), even, rtol=2 * torch.finfo(dtype).eps, atol=0)


@EACH_DTYPE
def test_an_even_share_is_the_quotient_not_a_product_with_a_rounded_reciprocal(
    dtype: torch.dtype, device: torch.device
) -> None:
    for n in (3, 5, 6, 7, 49):
        x = torch.zeros(n, device=device, dtype=dtype)
        share = gradient(x, 0, "even", torch.tensor(float(n), device=device, dtype=dtype))
        assert share.tolist() == [1.0] * n
    assert 49.0 * (1 / 49.0) != 1  # what the other way would give


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("ties", TIE_RULES)
def test_winners_beyond_one_word(length: int, ties: TieRule, device: torch.device) -> None:
    x = torch.zeros(length, 3, device=device)
    x[: length // 2, 1] = -1
    grad = gradient(x, 0, ties, torch.full((3,), 60.0, device=device))
    for column, begin in ((0, 0), (1, length // 2), (2, 0)):
        count = length - begin
        expected = torch.zeros(length, device=device)
        if ties == "even":
            expected[begin:] = 60.0 / count
        else:
            expected[begin if ties == "first" else length - 1] = 60.0
        assert torch.equal(grad[:, column], expected)


def test_even_does_not_depend_on_the_order_and_first_does(device: torch.device) -> None:
    x = tied(20, 12, dtype=torch.float32).to(device)
    order = torch.randperm(12, device=device)
    g = torch.randn(20, device=device)
    assert torch.equal(gradient(x[:, order], 1, "even", g), gradient(x, 1, "even", g)[:, order])
    assert not torch.equal(gradient(x[:, order], 1, "first", g), gradient(x, 1, "first", g)[:, order])


def test_the_first_nan_is_the_only_winner(device: torch.device) -> None:
    x = torch.tensor([1.0, NAN, 2.0, NAN], device=device)
    for ties in TIE_RULES:
        assert gradient(x, 0, ties, torch.tensor(1.0, device=device)).tolist() == [0, 1, 0, 0]


def test_errors_name_the_remedy() -> None:
    with pytest.raises(IndexError, match=r"nonsmooth_max: x of shape \[2\] has no dimension 1"):
        ops.nonsmooth_max(torch.zeros(2), 1)
    with pytest.raises(ValueError, match="ties must be one of first, last, even, got 'middle'"):
        ops.nonsmooth_max(torch.zeros(2), 0, "middle")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="nonsmooth_max: the dimension must not be empty"):
        ops.nonsmooth_max(torch.zeros(2, 0), 1)


@EACH_DTYPE
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("inner", [1, 2])
def test_the_backward_op_takes_words_without_a_winner_and_bits_beyond_the_last_element(
    rule: tuple[float, float, float], inner: int, dtype: torch.dtype, device: torch.device
) -> None:
    first, last, even = rule
    length = 35  # 3 valid bits in the second word
    words = torch.zeros(3, 2, inner, dtype=torch.int32, device=device)
    words[1, 1] = -8  # all bits but the valid ones
    words[2, 0], words[2, 1] = 1 << 4, -1 ^ 2  # elements 4, 32 and 34, and bits beyond
    grad = torch.full((3, inner), 6.0, dtype=dtype, device=device)
    expected = torch.zeros(3, length, inner)
    expected[2, 4] = 6 * first + 2 * even
    expected[2, 32] = 2 * even
    expected[2, 34] = 6 * last + 2 * even
    actual = torch.ops.zonocuda._nonsmooth_max_backward(grad, words, length, *rule)
    assert torch.equal(actual.cpu(), expected.to(dtype))
