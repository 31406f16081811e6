"""Rows of the dual pass as windows: the same bounds as with whole maps, and the adjoint of a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.importers.modules import Apply
from tests.soundness.rational import claims
from tests.verifier.graphs import NETWORKS, Builder, constraint, random_box
from zonocuda.bounds.dual.neurons import EarlyEnd, Relaxed, neuron_bounds
from zonocuda.bounds.dual.window_rows import WindowRows
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Dense, Symbols, Windowed, Zonotope, windowed
from zonocuda.domains.geometry import Convolution
from zonocuda.graph import Add, Concat, Conv, Gather, Graph, Relu, ScaleShift
from zonocuda.importers import from_module
from zonocuda.windows import Pair

FIRST = constraint({0: 1.0})


def branches(seed: int = 0) -> Graph:
    """Strides, dilation, groups and uneven padding, normalisation per channel, a sum and a difference of branches."""
    b = Builder(3, 11, 10, seed=seed)
    b(b.conv(3, 4, kernel=3, stride=2))
    b(ScaleShift(b.random(4, 1, 1), b.random(4, 1, 1)))
    first = b(Relu())
    b(Conv(b.random(4, 2, 3, 3, scale=0.3), b.random(4), (1, 1), ((2, 2), (1, 3)), (2, 2), 2))
    b(Relu())
    second = b(Conv(b.random(4, 4, 3, 2, scale=0.3), None, (1, 1), ((0, 2), (0, 1)), (1, 1), 1))
    b(Add(-1), second, first)
    third = b(Relu())
    b(Add(), b(b.conv(4, 4), third), third)
    b(Relu())
    b(b.conv(4, 2, kernel=2, stride=3, pad=0))
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def twice(seed: int = 0) -> Graph:
    """A value that a sum reads twice, after a convolution of it: 3x1 windows meet a 1x3 one, and become a 3x3 map."""
    b = Builder(2, 5, 5, seed=seed)
    b(b.conv(2, 2))
    value = b(Relu())
    double = b(Add(), value, value)
    tall = b(Conv(b.random(2, 2, 3, 1), None, (1, 1), ((1, 1), (0, 0)), (1, 1), 1), double)
    wide = b(Conv(b.random(2, 2, 1, 3), b.random(2), (1, 1), ((0, 0), (1, 1)), (1, 1), 1), value)
    b(Add(-1), tall, wide)
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def strided(seed: int = 0) -> Graph:
    """Maxima of neighbours: every other row and column, of a map whose first column is repeated before it."""
    b = Builder(2, 6, 7, seed=seed)
    x = b(b.conv(2, 2))
    x = b(Concat(2), b(Gather(2, (0,)), x), x)
    for dim in (2, 1):
        first, second = (b(Gather(dim, tuple(range(i, b.shape(x)[dim] - 1 + i, 2))), x) for i in (0, 1))
        x = b(Add(), second, b(Relu(), b(Add(-1), first, second)))
    b(b.conv(2, 2))
    b(Relu())
    b.flat()
    b(b.linear(b.shape()[0], 3))
    return b.graph()


def piecewise(seed: int = 0) -> Graph:
    """Leaky ReLUs, limits, magnitudes and maxima over windows that overlap and hang over the map."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 2, 2), nn.Hardtanh(-1, 1),
        nn.Conv2d(2, 2, 2, padding=1), nn.PReLU(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3), Apply(torch.abs),
    ).eval()  # fmt: skip
    return from_module(model, (2, 9, 9)).to(torch.float64)


GRAPHS = {**NETWORKS, "branches": branches, "twice": twice, "strided": strided, "piecewise": piecewise}


@pytest.mark.parametrize("name", sorted(GRAPHS))
@pytest.mark.parametrize("early", [None, EarlyEnd(keep_best=False)], ids=["whole way", "early end"])
@pytest.mark.parametrize("share", [0.35, 1e9])
def test_windows_and_whole_maps_give_the_same_bounds(
    name: str, early: EarlyEnd | None, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = GRAPHS[name](3)
    box = random_box(graph, batch=2, seed=5)
    with torch.no_grad():
        inputs = sweep(graph, Zonotope.from_box(*box)).intermediate
        for node in graph.nodes[1:]:
            every = torch.arange(torch.Size(node.shape).numel())
            found = []
            for used in (-1.0, share):
                monkeypatch.setattr(windowed, "DENSE_SHARE", used)
                found.append(neuron_bounds(Relaxed(graph, box, inputs), node.name, every, early=early))
            for whole, windows in zip(*found, strict=True):
                torch.testing.assert_close(windows, whole, rtol=1e-11, atol=1e-11)


def test_windows_meet_a_sum_that_is_dense_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """x + x where x has rows already: the first copy makes them dense, the second is added to that. Bounds that count
    rounding hold exactly there."""
    met = []
    send = WindowRows._send

    def watched(rows: WindowRows, name: str, block: Windowed) -> None:
        met.append(isinstance(rows.pending.get(name), Dense))
        send(rows, name, block)

    monkeypatch.setattr(WindowRows, "_send", watched)
    for seed in range(4):
        graph = twice(seed)
        for dtype in (torch.float32, torch.float64):
            low, high = (bound.to(dtype) for bound in random_box(graph, width=(0.0, 0.3)[seed % 2], seed=seed))
            wrong = [c for c in claims(graph, (low, high), [FIRST], dtype, True) if not c.holds]
            assert not wrong, wrong[:3]
    assert any(met)


def test_rows_stay_windows_through_convolutions_relus_and_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed, "DENSE_SHARE", 1e9)
    graph = branches()
    last = graph.relus[-1]
    rows = WindowRows(graph, graph[last.inputs[0]], torch.arange(2), 1, torch.zeros((), dtype=torch.float64))
    assert rows.run(lambda node, block: block, lambda node: None)
    assert list(rows.pending) == [graph.nodes[0].name]
    assert isinstance(rows.pending[graph.nodes[0].name], Windowed)


@pytest.mark.parametrize(
    "how",
    [
        Convolution((3, 3)),
        Convolution((3, 2), (2, 1), ((1, 0), (0, 2))),
        Convolution((2, 3), (3, 2), ((2, 2), (1, 1)), (2, 1)),
        Convolution((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
        Convolution((1, 1), (2, 2)),
        Convolution((9, 9), (1, 1), ((4, 4), (4, 4))),
    ],
)
@pytest.mark.parametrize("window", [(2, 2), (1, 1), (1, 2)])
def test_the_adjoint_of_windows_is_the_adjoint_of_the_convolution(how: Convolution, window: Pair) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 2 // how.groups, *how.kernel, generator=generator, dtype=torch.float64)
    size = (8, 7)
    height, width = how.output_size(size)
    corners = torch.stack([torch.randint(-1, n, (6,), generator=generator) for n in (height, width)], 1)
    patches = torch.randn(2, 6, 4, *window, generator=generator, dtype=torch.float64)
    rows = Windowed(Symbols(6), patches, corners, (height, width)).masked()
    image = rows.convolve_adjoint(weight, how, size)
    assert image.map == (2, *size)
    op = Conv(weight, None, how.stride, how.padding, how.dilation, how.groups)
    expected = op.adjoint(rows.dense((4, height, width)).flatten(0, 1), (2, *size))
    torch.testing.assert_close(image.dense((2, *size)).flatten(0, 1), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(image.masked().patches, image.patches)
