"""Convolutions as one product for many images: the same sums as torch's, on every device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.networks import PROBLEMS
from zonocuda import compute_bounds, convolution, from_module
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.plan import forecast
from zonocuda.convolution import convolve, convolve_transpose
from zonocuda.domains import Zonotope, memory
from zonocuda.precision import summed_products, sums_terms

# size, channels, outputs, kernel, stride, padding, output padding (of the transposed one), dilation, groups
GEOMETRIES = (
    ((9,), 3, 4, (3,), (2,), (1,), (1,), (1,), 1),
    ((6, 7), 3, 4, (3, 3), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((6, 7), 4, 6, (3, 2), (2, 3), (2, 1), (1, 0), (1, 2), 2),
    ((5, 6), 4, 4, (3, 3), (1, 2), (1, 0), (0, 1), (1, 1), 4),
    ((4, 5), 3, 2, (1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    ((4, 5, 3), 4, 2, (2, 3, 2), (2, 1, 1), (1, 1, 0), (0, 0, 0), (1, 2, 1), 2),
)
EACH_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "x".join(map(str, g[0])) + f"-{g[-1]}")
# Everything at once; some images at a time; a line, or a channel, of one image at a time.
EACH_LIMIT = pytest.mark.parametrize("limit", [2**30, 20000, 1], ids=["whole", "images", "lines"])
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def integers(*shape: int, seed: int = 0) -> Tensor:
    """Small integers in float64: sums of their products are exact, in any order."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.fixture
def unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution as a GPU without cuDNN gets it."""
    monkeypatch.setattr(convolution, "unfolds", lambda x: True)


def test_only_a_gpu_without_cudnn_takes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda = True

    gpu: Any = OnGpu()
    assert not convolution.unfolds(torch.zeros(1))
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    assert not convolution.unfolds(gpu)
    with summed_products():
        assert convolution.unfolds(gpu)
        assert not convolution.unfolds(torch.zeros(1))


@EACH_GEOMETRY
@EACH_LIMIT
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("unfolded")
def test_a_convolution_and_its_gradients_are_torchs(
    geometry: tuple, limit: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "UNFOLDED_BYTES", limit)
    size, channels, outputs, kernel, stride, padding, _, dilation, groups = geometry
    x = integers(5, channels, *size).requires_grad_()
    weight = integers(outputs, channels // groups, *kernel, seed=1).requires_grad_()
    offset = integers(outputs, seed=2).requires_grad_() if bias else None
    leaves = [t for t in (x, weight, offset) if t is not None]
    expected = _CONVOLUTIONS[len(size)](x, weight, offset, stride, padding, dilation, groups)
    actual = convolve(x, weight, offset, stride, padding, dilation, groups)
    assert torch.equal(actual, expected)
    grad = integers(*expected.shape, seed=3)
    for ours, torchs in zip(
        torch.autograd.grad(actual, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        assert torch.equal(ours, torchs)


@EACH_GEOMETRY
@EACH_LIMIT
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.usefixtures("unfolded")
def test_a_transposed_convolution_and_its_gradients_are_torchs(
    geometry: tuple, limit: int, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "UNFOLDED_BYTES", limit)
    size, outputs, channels, kernel, stride, padding, extra, dilation, groups = geometry
    x = integers(5, channels, *size)
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    x.requires_grad_()
    weight = integers(channels, outputs // groups, *kernel, seed=1).requires_grad_()
    expected = _TRANSPOSED[len(size)](x, weight, None, stride, padding, extra, groups, dilation)
    actual = convolve_transpose(x, weight, stride, padding, extra, groups, dilation)
    assert torch.equal(actual, expected)
    grad = integers(*expected.shape, seed=3)
    for ours, torchs in zip(
        torch.autograd.grad(actual, [x, weight], grad), torch.autograd.grad(expected, [x, weight], grad), strict=True
    ):
        assert torch.equal(ours, torchs)


@pytest.mark.usefixtures("unfolded")
def test_no_images_give_no_images() -> None:
    one, none = (1, 1), (0, 0)
    assert convolve(torch.zeros(0, 2, 4, 5), torch.ones(3, 2, 2, 2), None, one, none, one, 1).shape == (0, 3, 3, 4)
    assert convolve_transpose(torch.zeros(0, 3, 3, 4), torch.ones(3, 2, 2, 2), one, none, none, 1, one).shape == (
        0,
        2,
        4,
        5,
    )


class _Calls(TorchDispatchMode):
    """Counts the calls of every op, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("unfolded")
def test_a_thousand_images_are_one_matrix_and_one_product() -> None:
    x, weight, one, none = torch.rand(1000, 3, 8, 8), torch.rand(4, 3, 3, 3), (1, 1), (0, 0)
    with _Calls() as forward:
        convolve(x, weight, None, one, one, one, 1)
    assert (forward.calls["im2col"], forward.calls["mm"], forward.calls["copy_"]) == (1, 1, 0)
    with _Calls() as adjoint:
        convolve_transpose(torch.rand(1000, 4, 8, 8), weight, one, one, none, 1, one)
    assert (adjoint.calls["_im2col_backward"], adjoint.calls["mm"]) == (1, 1)
    assert not (forward.calls + adjoint.calls).keys() & {"convolution", "bmm"}


@pytest.mark.parametrize("limit", [2**16, 2**20])
@pytest.mark.usefixtures("unfolded")
def test_a_chunk_stays_within_its_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "UNFOLDED_BYTES", limit)
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("im2col", "mm"):
                sizes.append(result.nbytes)
            return result

    one, none = (1, 1), (0, 0)
    weight = torch.rand(4, 3, 3, 3)
    with Sizes():
        convolve(torch.rand(40, 3, 24, 24), weight, None, one, one, one, 1)
        convolve_transpose(torch.rand(40, 4, 24, 24), weight, one, one, none, 1, one)
    assert len(sizes) > 3
    assert max(sizes) <= limit


def test_a_forecast_has_room_for_a_chunk() -> None:
    assert 2 * convolution.UNFOLDED_BYTES <= forecast.SCRATCH_BYTES


@pytest.mark.usefixtures("unfolded")
def test_convolutions_of_this_way_add_the_products_of_their_windows_alone() -> None:
    sums_terms.cache_clear()
    try:
        assert sums_terms(torch.device("cpu"), torch.float32)
        assert sums_terms(torch.device("cpu"), torch.float64)
    finally:
        sums_terms.cache_clear()


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.third(torch.relu(self.second(y))) + y)
        return self.last(y.flatten(1))


@pytest.mark.parametrize("direction", ["forward", "dual"])
def test_bounds_of_a_residual_network_are_the_same_up_to_rounding(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    graph = from_module(_Residual().double(), (2, 8, 8))
    x = torch.rand(1, 2, 8, 8, dtype=torch.float64)
    box = Zonotope.from_box(x - 0.05, x + 0.05)
    expected = compute_bounds(graph, box, direction=direction)
    with monkeypatch.context() as patch, _Calls() as counted:
        patch.setattr(convolution, "unfolds", lambda x: True)
        actual = compute_bounds(graph, box, direction=direction)
    assert counted.calls["im2col"] + counted.calls["_im2col_backward"] > 0
    roundings = 2 * (18 + 36 + 36 + 64 + 3 * 64)  # of both: the sums of four layers, and over the symbols of three
    size = max(float(t.abs().max()) for t in (expected.lower, expected.upper, actual.lower, actual.upper))
    for ours, theirs in ((actual.lower, expected.lower), (actual.upper, expected.upper)):
        torch.testing.assert_close(
            ours, theirs, rtol=0, atol=roundings * 2.0**-53 * 16 * size
        )  # 16: of cancelled terms


@pytest.mark.slow
@pytest.mark.data
def test_a_sweep_of_a_residual_network_has_a_launch_for_hundreds_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a GPU sweeps it: in its chunks, and this way. torch's own would launch twice for every image.
    problem = PROBLEMS[0]
    graph = problem.load()
    lower, upper = (b.unsqueeze(0) for b in problem.box(problem.images(1, graph)[0][0]))
    images = 0

    class Images(_Calls):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal images
            images += args[0].shape[0] if func.overloadpacket.__name__ == "im2col" else 0
            return super().__torch_dispatch__(func, types, args, kwargs)

    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", memory.CHUNK_BYTES["cuda"])
    monkeypatch.setattr(convolution, "unfolds", lambda x: True)
    with torch.no_grad(), summed_products(), Images() as counted:
        sweep(graph, Zonotope.from_box(lower, upper))
    assert problem.name == "cifar10_resnet_4b"
    assert images > 30_000
    assert counted.calls["convolution"] == 0
    assert counted.calls["im2col"] <= images / 300
    assert counted.calls["mm"] + counted.calls["bmm"] <= counted.calls["im2col"] + 40  # and those of linear layers
