"""Max pooling: torch's values and gradients bit for bit with ties="first", and what the other rules do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.nonsmooth_samples import ALL_DTYPES, tied
from tests.ops.test_nonsmooth_relu import bits
from zonocuda import ops
from zonocuda.ties import TIE_RULES

NAN, INF = float("nan"), float("inf")
RULES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.5))  # first, last, even
EACH_DTYPE = pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
# kernel, stride, padding, dilation, ceil_mode
WINDOWS: tuple[tuple[Any, Any, Any, Any, bool], ...] = (
    (2, None, 0, 1, False),
    (3, 2, 1, 1, False),
    (3, 1, 1, 1, False),
    (2, 2, 0, 1, True),
    (3, 2, 0, 1, True),
    ((2, 3), (1, 2), (1, 1), (2, 1), False),
    ((1, 5), (3, 1), (0, 2), 1, False),
    (7, 2, 3, 1, True),
    ((6, 6), 3, 2, 1, False),
    (3, 3, 1, 2, True),
)


def images(channels: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Images of few different numbers, with NaN, infinities, zeros of both signs and a constant channel."""
    x = tied(2, channels, 11, 14, dtype=dtype)
    x[0, 0, 3, 4] = x[0, 0, 3, 5] = x[0, 0, 9, 1] = NAN
    x[0, 1, :5, :5] = -INF
    x[1, 0, 3, 3:6] = INF
    x[1, 1], x[1, 1, ::2, 1::2] = 0, -0.0
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def gradient(x: Tensor, grad: Tensor, *window: Any, **choice: Any) -> Tensor:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    return torch.autograd.grad(ops.nonsmooth_max_pool2d(x, *window, **choice), x, grad)[0]


@EACH_DTYPE
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [2, 19])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_first_is_torch_bit_for_bit(
    window: tuple[Any, ...], channels: int, channels_last: bool, dtype: torch.dtype
) -> None:
    """On the CPU, whose order of additions is defined; the CUDA kernels of torch add in another one."""
    x = images(channels, dtype, channels_last)
    kernel, stride, padding, dilation, ceil_mode = window
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    theirs = F.max_pool2d(leaf, kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    ours = ops.nonsmooth_max_pool2d(x, *window)
    assert torch.equal(bits(ours), bits(theirs))
    assert ours.stride() == theirs.stride()
    grad = torch.randn(theirs.shape).to(dtype)
    assert torch.equal(bits(gradient(x, grad, *window)), bits(torch.autograd.grad(theirs, leaf, grad)[0]))


@EACH_DTYPE
@pytest.mark.parametrize("channels", [2, 19])
@pytest.mark.parametrize("choice", [{"ties": "first"}, {"ties": "last"}, {"ties": "even"}, {"beta": 0.25}], ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_both_layouts_give_the_same_bits(
    window: tuple[Any, ...], choice: dict[str, Any], channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    x = images(channels, dtype, channels_last=False).to(device)
    grad = torch.randn(ops.nonsmooth_max_pool2d(x, *window).shape).to(device, dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = (gradient(t, grad, *window, **choice) for t in (x, last))
    assert torch.equal(bits(ours), bits(theirs.contiguous()))


@pytest.mark.gpu
@EACH_DTYPE
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("ties", TIE_RULES)
def test_both_devices_give_the_same_bits(
    ties: Any, window: tuple[Any, ...], dtype: torch.dtype, cuda: torch.device
) -> None:
    x = images(3, dtype, channels_last=True)
    values = ops.nonsmooth_max_pool2d(x, *window, ties=ties)
    grad = torch.randn(values.shape).to(dtype)
    assert torch.equal(bits(ops.nonsmooth_max_pool2d(x.to(cuda), *window, ties=ties).cpu()), bits(values))
    on_cuda = gradient(x.to(cuda), grad.to(cuda), *window, ties=ties).cpu()
    assert torch.equal(bits(on_cuda), bits(gradient(x, grad, *window, ties=ties)))


@EACH_DTYPE
@pytest.mark.parametrize(
    ("choice", "shares"),
    [
        ({"ties": "first"}, [[0, 8], [0, 0]]),
        ({"ties": "last"}, [[0, 0], [0, 8]]),
        ({"ties": "even"}, [[0, 4], [0, 4]]),
        ({"beta": 0.25}, [[0, 7], [0, 1]]),
        ({"beta": 1.0}, [[0, 4], [0, 4]]),
        ({"beta": 2.0}, [[0, 0], [0, 8]]),
        ({"beta": -1.0}, [[0, 12], [0, -4]]),
    ],
)
def test_the_shares_of_a_tie_by_hand(
    choice: dict[str, Any], shares: list[list[float]], dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.tensor([[[[1.0, 2.0], [0.0, 2.0]]]], device=device, dtype=dtype)
    grad = torch.full((1, 1, 1, 1), 8.0, device=device, dtype=dtype)
    assert gradient(x, grad, 2, **choice)[0, 0].tolist() == shares


@EACH_DTYPE
@pytest.mark.parametrize("beta", [-1.0, 0.3, 10.0])
def test_a_single_winner_gets_the_gradient_whatever_beta_is(
    beta: float, dtype: torch.dtype, device: torch.device
) -> None:
    x = torch.randperm(64).reshape(1, 1, 8, 8).to(device, dtype)
    grad = torch.randn(1, 1, 4, 4).to(device, dtype)
    assert torch.equal(gradient(x, grad, 2, beta=beta), gradient(x, grad, 2))


@pytest.mark.parametrize("channels_last", [False, True])
def test_even_turns_with_the_image_and_first_does_not(channels_last: bool, device: torch.device) -> None:
    x = tied(2, 3, 8, 8, dtype=torch.float64).to(device)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 3, 4, 4, dtype=torch.float64, device=device)
    turned = [gradient(x.rot90(1, (2, 3)), grad.rot90(1, (2, 3)), 2, ties=t) for t in ("even", "first")]
    assert torch.equal(turned[0], gradient(x, grad, 2, ties="even").rot90(1, (2, 3)))
    assert not torch.equal(turned[1], gradient(x, grad, 2, ties="first").rot90(1, (2, 3)))


@EACH_DTYPE
@pytest.mark.parametrize("ties", TIE_RULES)
def test_every_rule_hands_on_the_whole_gradient(ties: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Gradients that are multiples of 60 divide exactly by 1 ... 6: nothing may be lost or doubled."""
    x = tied(2, 3, 8, 9, dtype=dtype).to(device)
    grad = 60.0 * torch.randint(-3, 4, (2, 3, 4, 3)).to(device, dtype)
    shares = gradient(x, grad, (2, 3), ties=ties)
    assert torch.equal(shares.double().sum((2, 3)), grad.double().sum((2, 3)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_winners_and_their_number_are_recorded(channels_last: bool, device: torch.device) -> None:
    x = torch.tensor([[3.0, 3.0, 1.0, NAN], [3.0, 0.0, NAN, 7.0]], device=device).reshape(1, 2, 4, 1)
    flat = x if channels_last else x.reshape(1, 2, 4, 1)
    arguments = ([2, 2], [2, 2], [0, 0], [1, 1], [1, 2], 1.0, 0.0, 0.0)
    values, winners = torch.ops.zonocuda.nonsmooth_max_pool2d(flat, *arguments)
    assert values.flatten()[0] == 3
    assert winners.flatten().tolist() == [0b0111, 0b0100]  # three threes; the last of the NaNs


@pytest.mark.parametrize("stride", [1, 3])
def test_a_kernel_of_more_elements_than_a_word_has(stride: int, device: torch.device) -> None:
    x = torch.zeros(1, 1, 13, 13, device=device, dtype=torch.float64)
    x[0, 0, 0, 0] = x[0, 0, 12, 12] = 1
    grad = torch.full((1, 1, *(2 * [(13 - 7) // stride + 1])), 98.0, device=device, dtype=torch.float64)
    even = gradient(x, grad, 7, stride, ties="even")
    windows = F.unfold(torch.arange(169.0, dtype=torch.float64).reshape(1, 1, 13, 13), 7, stride=stride).long()[0].T
    expected = torch.zeros(169, dtype=torch.float64)
    for window in windows.tolist():
        top = [i for i in window if x.flatten()[i] == max(x.flatten()[j].item() for j in window)]
        for i in top:
            expected[i] += 98.0 / len(top)
    assert torch.equal(even.cpu().flatten(), expected)


def test_a_batch_is_optional(device: torch.device) -> None:
    x = tied(3, 6, 6, dtype=torch.float32).to(device)
    assert torch.equal(ops.nonsmooth_max_pool2d(x, 2), F.max_pool2d(x, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "max_pool2d: kernel_size must be at least 1, got 0"),
        ({"kernel_size": (2, 2, 2)}, r"max_pool2d: kernel_size must be an integer or two"),
        ({"kernel_size": 2, "padding": 2}, r"max_pool2d: padding must be at most half of the window \(2\), got 2"),
        ({"kernel_size": 9}, "max_pool2d: a window of 9 does not fit into 4 with padding 0"),
        ({"kernel_size": 2, "ties": "any"}, "ties must be one of first, last, even, got 'any'"),
        ({"kernel_size": 2, "ties": "even", "beta": 0.5}, "beta mixes 'first' and 'even'"),
        ({"kernel_size": 2, "beta": NAN}, "beta must be finite"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.nonsmooth_max_pool2d(torch.zeros(1, 1, 4, 4), **arguments)


def test_the_native_backward_refuses_winners_of_another_shape() -> None:
    grad, words = torch.zeros(1, 2, 2, 1), torch.zeros(1, 1, 2, 3, 1, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"winners has the wrong shape \[1, 1, 2, 3, 1\]"):
        torch.ops.zonocuda._nonsmooth_max_pool2d_backward(
            grad, words, [4, 4], [2, 2], [2, 2], [0, 0], [1, 1], 1.0, 0.0, 0.0
        )


@EACH_DTYPE
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_backward_op_takes_any_bits_and_loses_what_winners_in_the_padding_take(
    rule: tuple[float, float, float], inner: int, stride: int, dtype: torch.dtype, device: torch.device
) -> None:
    # An image of 1 x 1 with padding 1 and windows of 2 x 2: it is element 3, 2, 1 and 0 of the four windows.
    _, last, even = rule
    outputs = 2 if stride == 1 else 1
    words = torch.zeros(1, 1, outputs, outputs, inner, dtype=torch.int32, device=device)
    words[0, 0, 0, 0] = 0b1011  # two winners in the padding, and the image
    grad = torch.full((1, outputs, outputs, inner), 6.0, dtype=dtype, device=device)
    expected = 6 * last + 2 * even
    if stride == 1:
        words[0, 0, 0, 1] = 0  # no winner
        words[0, 0, 1, 0] = -(1 << 4)  # bits beyond the window alone
        words[0, 0, 1, 1] = -(1 << 5) | 1  # the image, and bits beyond
        expected += 6
    actual = torch.ops.zonocuda._nonsmooth_max_pool2d_backward(
        grad, words, [1, 1], [2, 2], [stride, stride], [1, 1], [1, 1], *rule
    )
    assert torch.equal(actual.cpu(), torch.full((1, 1, 1, inner), expected, dtype=dtype))


@EACH_DTYPE
def test_the_backward_op_takes_any_bits_of_windows_of_several_words(dtype: torch.dtype, device: torch.device) -> None:
    # One window of 6 x 6 = 36 elements around an image of 4 x 4: rows and columns 1 to 4 of it.
    words = torch.full((2, 1, 1, 1, 1), -1, dtype=torch.int32, device=device)
    grad = torch.full((1, 1, 1, 1), 36.0, dtype=dtype, device=device)
    backward = torch.ops.zonocuda._nonsmooth_max_pool2d_backward
    lists = [4, 4], [6, 6], [1, 1], [1, 1], [1, 1]
    assert torch.equal(backward(grad, words, *lists, 0.0, 0.0, 1.0).cpu(), torch.ones(1, 4, 4, 1, dtype=dtype))
    assert not backward(grad, words, *lists, 1.0, 0.0, 0.0).any()  # the first one lies in the padding
    assert not backward(grad, words, *lists, 0.0, 1.0, 0.0).any()


def test_the_backward_op_without_outputs_takes_windows_of_any_size(device: torch.device) -> None:
    grad, words = torch.empty(1, 0, 2, 1), torch.empty(1 << 33, 1, 0, 2, 1, dtype=torch.int32)
    arguments = [4, 4], [1 << 19, 1 << 19], [2, 2], [0, 0], [1, 1], 1.0, 0.0, 0.0
    actual = torch.ops.zonocuda._nonsmooth_max_pool2d_backward(grad.to(device), words.to(device), *arguments)
    assert torch.equal(actual.cpu(), torch.zeros(1, 4, 4, 1))
