"""A convolution of generators that each touch one neuron."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.window_samples import CONVOLUTIONS
from zonocuda import ops, reference
from zonocuda.windows import diagonal_conv_corners, window_size

INF, NAN = float("inf"), float("nan")
EACH_CONVOLUTION = pytest.mark.parametrize("convolution", CONVOLUTIONS, ids=lambda c: c[0])


def arguments(convolution: tuple[Any, ...]) -> dict[str, Any]:
    """The numbers of a convolution as the op's keywords, without its tensors."""
    _, (channels, height, width), _, _, stride, padding, dilation, groups, (out_height, out_width) = convolution
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "out_height": out_height,
        "out_width": out_width,
    }


def corners_of(convolution: tuple[Any, ...], index: Tensor) -> Tensor:
    """The corners of its patches."""
    _, size, _, kernel, stride, padding, dilation, _, _ = convolution
    return diagonal_conv_corners(index, *size, kernel, stride, padding, dilation)


def weight_of(convolution: tuple[Any, ...], dtype: torch.dtype) -> Tensor:
    """A random weight."""
    _, (channels, _, _), outputs, kernel, _, _, _, groups, _ = convolution
    return torch.randn(outputs, channels // groups, *kernel, dtype=dtype)


def convolved(convolution: tuple[Any, ...], images: Tensor, weight: Tensor) -> Tensor:
    """torch's convolution of images ``[B, C, H, W]``, with the zeros that its output's size asks for at the end."""
    _, _, _, kernel, stride, padding, dilation, groups, output = convolution
    end = [
        (output[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1 - padding[a] - images.shape[2 + a]
        for a in (0, 1)
    ]
    padded = F.pad(images, (padding[1], end[1], padding[0], end[0]))
    return F.conv2d(padded, weight, stride=stride, dilation=dilation, groups=groups)


def test_an_example_by_hand(device: torch.device) -> None:
    # One row, stride 2, kernel [1, 2, 3]: the neuron at x = 1 is element 1 of output 0; that at x = 2 is element 2 of
    # output 0 and element 0 of output 1.
    weight = torch.tensor([[[[1.0, 2.0, 3.0]]]], device=device)
    index = torch.tensor([1, 2], device=device)
    sizes: tuple[Any, ...] = (1, 1, 5, (1, 2), (0, 0), (1, 1), 1, 1, 2)
    patches = ops.diagonal_conv(torch.tensor([[10.0, 100.0]], device=device), index, weight, *sizes)
    assert patches.tolist() == [[[[[0.0, 20.0]]], [[[300.0, 100.0]]]]]
    corners = diagonal_conv_corners(index, 1, 1, 5, (1, 3), (1, 2), (0, 0), (1, 1))
    assert corners.tolist() == [[0, -1], [0, 0]]


@EACH_CONVOLUTION
def test_the_dense_form_is_torchs_convolution_of_the_dense_generators(
    convolution: tuple[Any, ...], device: torch.device
) -> None:
    size, output = convolution[1], convolution[-1]
    index = torch.randperm(prod(size)).to(device)  # every neuron, so every phase
    coefficients = torch.randn(2, len(index), dtype=torch.float64, device=device)
    weight = weight_of(convolution, torch.float64).to(device)
    patches = ops.diagonal_conv(coefficients, index, weight, **arguments(convolution))
    rows = reference.error_block(coefficients, index, size)
    expected = convolved(convolution, rows.flatten(0, 1), weight).unflatten(0, rows.shape[:2])
    corners = corners_of(convolution, index)
    dense = ops.window_dense(patches, corners, *output)
    torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-12)
    # Nothing of a patch lies outside the map, and the radius needs no dense generators.
    assert torch.equal(ops.window_scale(patches, corners, torch.ones_like(dense[:, 0])), patches)
    radius = ops.window_radius(patches, corners, *output)
    torch.testing.assert_close(radius, expected.abs().sum(1), rtol=1e-12, atol=1e-12)


@EACH_CONVOLUTION
def test_a_dense_image_is_convolved_by_superposition(convolution: tuple[Any, ...], device: torch.device) -> None:
    size, output = convolution[1], convolution[-1]
    image = torch.randn(2, *size, dtype=torch.float64, device=device)
    weight = weight_of(convolution, torch.float64).to(device)
    index = torch.arange(prod(size), device=device)
    patches = ops.diagonal_conv(image.flatten(1), index, weight, **arguments(convolution))
    summed = ops.window_dense(patches, corners_of(convolution, index), *output).sum(1)
    torch.testing.assert_close(summed, convolved(convolution, image, weight), rtol=1e-12, atol=1e-12)


@EACH_CONVOLUTION
def test_gradcheck(convolution: tuple[Any, ...], device: torch.device) -> None:
    index = torch.randint(0, prod(convolution[1]), (7,)).to(device)
    coefficients = torch.randn(2, 7, dtype=torch.float64, device=device, requires_grad=True)
    weight = weight_of(convolution, torch.float64).to(device).requires_grad_()
    sizes = arguments(convolution)
    assert torch.autograd.gradcheck(
        lambda c, w: ops.diagonal_conv(c, index, w, **sizes), (coefficients, weight), nondet_tol=0.0
    )


@EACH_CONVOLUTION
@pytest.mark.parametrize("special", [NAN, INF])
def test_a_special_coefficient_appears_exactly_where_its_kernel_does(
    convolution: tuple[Any, ...], special: float, device: torch.device
) -> None:
    index = torch.arange(prod(convolution[1]), device=device)
    coefficients = torch.full((1, len(index)), special, device=device)
    weight = (weight_of(convolution, torch.float32).abs() + 0.1).to(device)
    patches = ops.diagonal_conv(coefficients, index, weight, **arguments(convolution))
    ones = ops.diagonal_conv(torch.ones_like(coefficients), index, weight, **arguments(convolution))
    expected = torch.where(ones != 0, special, 0.0)
    torch.testing.assert_close(patches, expected, rtol=0, atol=0, equal_nan=True)


@EACH_CONVOLUTION
@pytest.mark.parametrize("garbage", [NAN, INF])
def test_a_gradient_of_what_does_not_exist_reaches_no_input(
    convolution: tuple[Any, ...], garbage: float, device: torch.device
) -> None:
    index = torch.randperm(prod(convolution[1]), device=device)
    weight = (weight_of(convolution, torch.float32).abs() + 0.1).to(device).requires_grad_()
    coefficients = (torch.rand(2, len(index), device=device) + 0.1).requires_grad_()
    patches = ops.diagonal_conv(coefficients, index, weight, **arguments(convolution))
    exists = patches != 0
    grads = []
    for fill in (0.0, garbage):
        gradient = torch.where(exists, 0.5, fill)
        grads.append(torch.autograd.grad(patches, [coefficients, weight], gradient, retain_graph=True))
    for first, second in zip(*grads, strict=True):
        assert first.isfinite().all()
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_a_special_gradient_reaches_the_inputs_that_it_belongs_to(device: torch.device) -> None:
    sizes: tuple[Any, ...] = (2, 1, 4, (1, 1), (0, 1), (1, 1), 1, 1, 4)
    coefficients = torch.ones(1, 2, device=device, requires_grad=True)
    weight = torch.ones(1, 2, 1, 3, device=device, requires_grad=True)
    patches = ops.diagonal_conv(coefficients, torch.tensor([1, 6], device=device), weight, *sizes)
    gradient = torch.ones_like(patches)
    gradient[0, 1, 0, 0, 2] = NAN  # output 3 of the neuron (1, 0, 2): kernel element 0 of channel 1
    of_coefficients, of_weight = torch.autograd.grad(patches, [coefficients, weight], gradient)
    assert of_coefficients.isnan().tolist() == [[False, True]]
    assert of_weight.isnan().flatten().tolist() == [False, False, False, True, False, False]


def test_repeated_and_unsorted_neurons_add_to_one_kernel(device: torch.device) -> None:
    # Channels and phases change from symbol to symbol, so that no page of the CPU kernel lives long.
    sizes: tuple[Any, ...] = (5, 9, 9, (2, 2), (1, 1), (1, 1), 1, 5, 5)
    index = torch.randint(0, 5 * 81, (400,)).to(device)
    coefficients = torch.randint(-4, 5, (2, 400)).double().to(device).requires_grad_()
    weight = torch.randint(-4, 5, (3, 5, 3, 3)).double().to(device).requires_grad_()
    grad = torch.randint(-4, 5, (2, 400, 3, 2, 2)).double().to(device)
    results = []
    for function in (ops.diagonal_conv, reference.diagonal_conv):
        patches = function(coefficients, index, weight, *sizes)
        results.append([patches, *torch.autograd.grad(patches, [coefficients, weight], grad)])
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected)  # whole numbers: exact in any order


def test_phases_that_share_a_page_do_not_mix(device: torch.device) -> None:
    # Stride 11: phases 0 and 8, and 1, 9, ... fall on the same page of the CPU kernel.
    sizes: tuple[Any, ...] = (2, 1, 33, (1, 11), (0, 0), (1, 1), 1, 1, 3)
    index = torch.arange(66, device=device).reshape(2, 33).T.flatten()
    coefficients = torch.randint(1, 5, (1, 66)).double().to(device).requires_grad_()
    weight = torch.randint(1, 9, (2, 2, 1, 11)).double().to(device).requires_grad_()
    results = []
    for function in (ops.diagonal_conv, reference.diagonal_conv):
        patches = function(coefficients, index, weight, *sizes)
        grad = torch.arange(patches.numel(), device=device).double().reshape(patches.shape)
        results.append([patches, *torch.autograd.grad(patches, [coefficients, weight], grad)])
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("stride", range(1, 5))
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_window_covers_every_output_that_a_neuron_reaches_and_is_as_small_as_it_can_be(
    kernel: int, stride: int, dilation: int
) -> None:
    padding, width = 5, 40
    rows, columns = window_size((1, kernel), (1, stride), (1, dilation))
    index = torch.arange(width)
    corners = diagonal_conv_corners(index, 1, 1, width, (1, kernel), (1, stride), (0, padding), (1, dilation))
    assert rows == 1
    assert corners[:, 0].tolist() == [0] * width
    most = 0
    for x, corner in zip(range(width), corners[:, 1].tolist(), strict=True):
        reached = [
            (x + padding - v * dilation) // stride for v in range(kernel) if (x + padding - v * dilation) % stride == 0
        ]
        assert all(corner <= i < corner + columns for i in reached), (x, reached, corner)
        most = max(most, 1 + max(reached) - min(reached) if reached else 0)
    assert most == columns or dilation > 1  # then taps may lie too far apart for one neuron to reach all


@pytest.mark.parametrize("bad", [-1, 12, 2**40, -(2**63)])
def test_an_index_outside_the_map_is_refused_by_position(bad: int) -> None:
    sizes: tuple[Any, ...] = (3, 2, 2, (1, 1), (1, 1), (1, 1), 1, 2, 2)
    index = torch.tensor([0, bad])
    coefficients, weight = torch.ones(1, 2), torch.ones(4, 3, 3, 3)
    with pytest.raises(RuntimeError, match=rf"diagonal_conv: index\[1\] = {bad} is not one of the 12 features"):
        ops.diagonal_conv(coefficients, index, weight, *sizes)
    with pytest.raises(RuntimeError, match=rf"diagonal_conv_backward: index\[1\] = {bad} is not one of the 12"):
        torch.ops.zonocuda._diagonal_conv_backward(
            torch.ones(1, 2, 4, 3, 3), coefficients, index, weight, [3, 2, 2], [1, 1], [1, 1], [1, 1], 1, [2, 2], True
        )
    with pytest.raises(IndexError, match=r"error_block: index must lie in \[0, 12\)"):
        reference.diagonal_conv(coefficients, index, weight, *sizes)
    corners = diagonal_conv_corners(index, 3, 2, 2, (3, 3), (1, 1), (1, 1), (1, 1))
    assert corners.tolist() == [[-1, -1], [0, 0]]  # on the map, where a NaN is seen


@pytest.mark.gpu
def test_an_index_outside_the_map_gives_a_nan_radius_on_a_gpu(cuda: torch.device) -> None:
    index = torch.tensor([0, 12], device=cuda)
    coefficients, weight = torch.ones(1, 2, device=cuda), torch.ones(4, 3, 3, 3, device=cuda)
    patches = ops.diagonal_conv(coefficients, index, weight, 3, 2, 2, (1, 1), (1, 1), (1, 1), 1, 2, 2)
    assert patches.isnan().flatten(2).all(-1).tolist() == [[False, True]]
    corners = diagonal_conv_corners(index, 3, 2, 2, (3, 3), (1, 1), (1, 1), (1, 1))
    assert ops.window_radius(patches, corners, 2, 2).isnan().all()


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    c, index, w = torch.ones(1, 3), torch.arange(3), torch.ones(4, 2, 3, 3)

    def call(**changed: Any) -> Tensor:
        sizes = {"channels": 2, "height": 4, "width": 4, "out_height": 4, "out_width": 4, "groups": 1}
        pairs = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
        given: dict[str, Any] = {"coefficients": c, "index": index, "weight": w, **sizes, **pairs, **changed}
        return ops.diagonal_conv(**given)

    assert call().shape == (1, 3, 4, 3, 3)
    for changed, message in (
        ({"coefficients": torch.ones(3)}, r"coefficients must have shape \[batch, symbols\], got \[3\]"),
        ({"index": index[:2]}, r"index must have shape \[symbols\] = \[3\], got \[2\]"),
        ({"index": index.int()}, r"index must have dtype int64, got Int"),
        ({"weight": w[0]}, r"weight must have shape \[outputs, channels / groups, rows, columns\], got \[2, 3, 3\]"),
        ({"weight": w.double()}, r"weight must have the other tensors' dtype Float, got Double"),
        ({"weight": w[:, :, :0]}, r"the kernel must not be empty, got \[4, 2, 0, 3\]"),
        ({"channels": 3}, r"weight has 2 channels for each of 1 groups, the input has 3"),
        ({"groups": 3, "channels": 6}, r"groups must divide the 4 outputs, got 3"),
        ({"groups": 0}, r"groups must divide the 4 outputs, got 0"),
        ({"groups": 2**31, "weight": w[:0]}, r"groups must divide the 0 outputs, got 2147483648"),
        ({"stride": (1, 0)}, r"stride must lie in \[1, 2\^31\), got 0"),
        ({"stride": (1, 2, 3)}, r"stride must have 2 numbers, got 3"),
        ({"dilation": (2**31, 1)}, r"dilation must lie in \[1, 2\^31\), got 2147483648"),
        ({"padding": (0, -(2**31))}, r"padding must lie in \[-2147483647, 2\^31\), got -2147483648"),
        ({"height": -1}, r"input_size must lie in \[0, 2\^31\), got -1"),
        ({"out_width": -1}, r"output_size must lie in \[0, 2\^31\), got -1"),
        ({"height": 2**31 - 1, "width": 2**31 - 1}, r"the input must have fewer than 2\^62 neurons"),
    ):
        with pytest.raises(RuntimeError, match=rf"^diagonal_conv: {message}"):
            call(**changed)
    with pytest.raises(RuntimeError, match=r"diagonal_conv_backward: grad must have shape \[batch, symbols, outputs,"):
        torch.ops.zonocuda._diagonal_conv_backward(
            torch.ones(1, 3, 4, 3, 2), c, index, w, [2, 4, 4], [1, 1], [1, 1], [1, 1], 1, [4, 4], True
        )


def test_a_convolution_without_channels_has_an_empty_gradient(device: torch.device) -> None:
    weight = torch.empty(2, 0, 3, 2, device=device)
    coefficients, index = torch.empty(1, 0, device=device), torch.empty(0, dtype=torch.int64, device=device)
    sizes = [0, 3, 2], [1, 2], [2, 2], [1, 1], 2, [2, 1]
    patches = torch.ops.zonocuda.diagonal_conv(coefficients, index, weight, *sizes)
    grads = torch.ops.zonocuda._diagonal_conv_backward(patches, coefficients, index, weight, *sizes, True)
    assert [t.shape for t in grads] == [coefficients.shape, weight.shape]
