"""Windows through whole networks: the generators of the definition, symbol by symbol, whatever is stored as windows."""

from __future__ import annotations

import csv
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import networks
from tests.data import data_root
from tests.verifier.graphs import NETWORKS, as_dense, random_box, sample_box
from tests.verifier.naive import Generators, gamma, generators, propagate, rounding
from tests.verifier.whole import WholeBuilder, halves, whole_input
from zonocuda.bounds.forward.sweep import Sweep, sweep
from zonocuda.domains import Windowed, Zonotope, use_backend, windowed
from zonocuda.graph import Add, AveragePool, Concat, Gather, Graph, Pad, Reduce, Relu, Transpose
from zonocuda.importers import from_module, load_network
from zonocuda.specs import load_vnnlib

SHARES = (-1.0, 0.35, 1e9)
"""Of the map, above which windows are stored dense: nothing stays windowed, the default, everything does."""


def swept(
    graph: Graph, start: Zonotope, share: float, slopes: Mapping[str, Tensor] | None = None, grad: bool = False
) -> Sweep:
    """The sweep with another DENSE_SHARE."""
    with pytest.MonkeyPatch.context() as patch, torch.set_grad_enabled(grad):
        patch.setattr(windowed, "DENSE_SHARE", share)
        return sweep(graph, start, slopes=slopes, all_layers=grad)


def assert_equal(got: Generators, expected: Generators) -> None:
    """Bit for bit, symbol by symbol."""
    assert got.groups.keys() == expected.groups.keys()
    assert torch.equal(got.center, expected.center)
    for name, rows in expected.groups.items():
        assert torch.equal(got.groups[name], rows), name


def assert_close(got: Generators, expected: Generators, slack: Tensor) -> None:
    """|c - c'| + sum_k |G_k - G'_k| <= slack, for every neuron."""
    assert got.groups.keys() == expected.groups.keys()
    distance = (got.center - expected.center).abs()
    for name, rows in expected.groups.items():
        assert got.groups[name].shape == rows.shape, name
        distance = distance + (got.groups[name] - rows).abs().sum(1)
    assert bool((distance <= slack).all()), (distance - slack).max()


# ---- random graphs ---------------------------------------------------------------------------------------------------

sides = st.integers(1, 3)
amounts = st.tuples(st.integers(0, 2), st.integers(0, 2))


class Drawn:
    """A random network on maps: each step reads any earlier value, so that branches and residual sums arise."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw
        shape = (self.draw(st.integers(1, 3)), self.draw(st.integers(3, 6)), self.draw(st.integers(3, 6)))
        self.b = WholeBuilder(*shape, seed=self.draw(st.integers(0, 2**16)))
        self.maps = ["x"]
        steps = (self.conv, self.conv, self.relu, self.relu, self.residual, self.join, self.pool, self.pad, self.scale)
        for _ in range(self.draw(st.integers(2, 7))):
            step = self.draw(st.sampled_from((*steps, self.transpose, self.turn, self.gather, self.shift, self.total)))
            name = step(self.draw(st.sampled_from(self.maps[-3:])))
            if name is not None:
                self.maps.append(name)

    def graph(self) -> Graph:
        """Everything that nobody read, flattened, joined and through a linear layer."""
        read = {name for node in self.b.nodes for name in node.inputs}
        ends = [self.b.flat(name) for name in self.maps if name not in read]
        self.b.dense(3, self.b(Concat(0), *ends) if len(ends) > 1 else ends[0])
        return self.b.graph()

    def conv(self, name: str) -> str | None:
        channels, height, width = self.b.shape(name)
        kernel, padding = self.draw(st.tuples(sides, sides)), self.draw(st.tuples(amounts, amounts))
        dilation = self.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        if any(
            n + sum(p) < (k - 1) * d + 1 for n, p, k, d in zip((height, width), padding, kernel, dilation, strict=True)
        ):
            return None
        groups = self.draw(st.sampled_from((1, channels)))
        outputs = groups * self.draw(st.integers(1, 2))
        stride = self.draw(st.tuples(sides, sides))
        return self.b.convolution(outputs, kernel, stride, padding, dilation, groups, name)

    def relu(self, name: str) -> str:
        return self.b(Relu(), name)

    def residual(self, name: str) -> str:
        channels = self.b.shape(name)[0]
        inner = self.b.convolution(channels, source=self.b(Relu(), name))
        return self.b(Add(self.draw(st.sampled_from((1, -1)))), *self.draw(st.permutations((name, inner))))

    def total(self, name: str) -> str:
        alike = [other for other in self.maps if self.b.shape(other) == self.b.shape(name)]
        return self.b(Add(self.draw(st.sampled_from((1, -1)))), name, self.draw(st.sampled_from(alike)))

    def join(self, name: str) -> str:
        dim = self.draw(st.integers(0, 2))

        def rest(shape: tuple[int, ...]) -> tuple[int, ...]:
            return (*shape[:dim], *shape[dim + 1 :])

        alike = [other for other in self.maps if rest(self.b.shape(other)) == rest(self.b.shape(name))]
        return self.b(Concat(dim), name, self.draw(st.sampled_from(alike)))

    def pool(self, name: str) -> str | None:
        kernel = self.draw(st.sampled_from(((2, 2), (1, 2), (2, 1))))  # shares of 1/2 and 1/4 are exact
        if min(n - k for n, k in zip(self.b.shape(name)[1:], kernel, strict=True)) < 0:
            return None
        return self.b(AveragePool(kernel, self.draw(st.tuples(sides, sides))), name)

    def pad(self, name: str) -> str:
        amount = st.tuples(st.integers(-1, 2), st.integers(-1, 2))
        pads = [self.draw(amount) if n + 2 > 4 else (0, self.draw(st.integers(0, 1))) for n in self.b.shape(name)]
        return self.b(Pad(tuple(pads), 1.0), name)

    def scale(self, name: str) -> str:
        channels, height, width = self.b.shape(name)
        shapes = ((channels, 1, 1), (channels, height, width), (1,), (height, width), (1, width), (channels, height, 1))
        return self.b.factor(*self.draw(st.sampled_from(shapes)), source=name)

    def transpose(self, name: str) -> str:
        return self.b(Transpose(tuple(self.draw(st.permutations(range(3))))), name)

    def turn(self, name: str) -> str:
        """What windows under another order of the dimensions go through as they are."""
        turned = self.b(Transpose(self.draw(st.sampled_from(((1, 2, 0), (2, 0, 1), (2, 1, 0))))), name)
        return self.b(Relu(), self.b.factor(*self.b.shape(turned), source=turned))

    def gather(self, name: str) -> str:
        dim = self.draw(st.integers(0, 2))
        index = st.lists(st.integers(0, self.b.shape(name)[dim] - 1), min_size=1, max_size=4)
        return self.b(Gather(dim, tuple(self.draw(index))), name)

    def shift(self, name: str) -> str:
        first = self.draw(st.integers(0, self.b.shape(name)[0] - 1))
        return self.b(Gather(0, tuple(range(first, self.b.shape(name)[0]))), name)


@hypothesis_seed(20250213)
@settings(max_examples=80, deadline=None, database=None)
@given(st.data(), st.sampled_from(["native", "native", "reference"]), st.booleans(), st.integers(1, 2))
def test_random_networks_have_the_generators_of_the_definition(
    data: st.DataObject, backend: str, grad: bool, batch: int
) -> None:
    """Bit for bit: whole numbers and slopes of 1/2 make every number exact, in any order of the sums."""
    graph = Drawn(data).graph()
    start, slopes = whole_input(graph, batch), halves(graph)
    expected = propagate(graph, generators(start), slopes)
    with use_backend(backend):  # type: ignore[arg-type]
        for share in SHARES:
            found = swept(graph, start, share, slopes, grad)
            assert_equal(generators(found.output), expected)
            for got, bound in zip(found.output.bounds(), expected.bounds(), strict=True):
                assert torch.equal(got, bound)


@hypothesis_seed(20250214)
@settings(max_examples=40, deadline=None, database=None)
@given(st.data(), st.sampled_from(SHARES), st.booleans())
def test_the_bounds_of_random_networks_contain_every_sampled_output(
    data: st.DataObject, share: float, grad: bool
) -> None:
    graph = Drawn(data).graph()
    start = whole_input(graph, 1)
    low, high = start.bounds()
    outputs = graph(sample_box(low[0], high[0], 40))
    layers = swept(graph, start, share, grad=True).layers
    found = swept(graph, start, share, grad=grad).output
    slack = rounding(graph, layers, found.symbols)[graph.output] + gamma(found.symbols + 2) * found.radius()
    slack = 2 * slack + gamma(2**12) * outputs.abs().amax(0)  # the network's own sums
    lower, upper = found.bounds()
    assert bool(((outputs >= lower - slack) & (outputs <= upper + slack)).all())


# ---- gradients -------------------------------------------------------------------------------------------------------


@hypothesis_seed(20250215)
@settings(max_examples=40, deadline=None, database=None)
@given(st.data(), st.sampled_from(["native", "reference"]))
def test_gradients_through_windows_are_those_through_the_dense_form(data: st.DataObject, backend: str) -> None:
    """Of weights, slopes, centers and radii, bit for bit."""
    graph = Drawn(data).graph()
    start = whole_input(graph)
    (block,) = start.blocks
    slopes = {name: slope.clone().requires_grad_() for name, slope in halves(graph).items()}
    weights = [node.op.weight for node in graph.nodes if hasattr(node.op, "weight")]
    variables = [t.requires_grad_() for t in (start.center, block.tensors[0], *weights)] + list(slopes.values())
    results = []
    with use_backend(backend):  # type: ignore[arg-type]
        for share in SHARES:
            lower, upper = swept(graph, start, share, slopes, grad=True).output.bounds()
            value = (lower * torch.tensor([1.0, -2.0, 3.0])).sum() + (upper * torch.tensor([2.0, 1.0, -1.0])).sum()
            results.append(torch.autograd.grad(value, variables, allow_unused=True, materialize_grads=True))
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            assert torch.equal(got, expected)


def test_gradients_through_windows_are_those_of_autograd_through_the_definition() -> None:
    """A tie has a chosen derivative, so slopes off u / (u - l), which no autograd of a maximum would agree on."""
    for seed in range(4):
        b = WholeBuilder(2, 7, 6, seed=seed)
        start = b.convolution(3, stride=(2, 1), padding=((1, 0), (1, 1)))
        total = b(Add(), b.convolution(3, source=b(Relu())), start)
        b(Relu(), b.convolution(2, (2, 3), (3, 2), source=b(Relu(), total)))
        b.dense(3, b.flat())
        graph = b.graph()
        z = whole_input(graph)
        slopes = {name: slope + 2.0**-7 for name, slope in halves(graph).items()}
        (block,) = z.blocks
        weights = [node.op.weight for node in graph.nodes if hasattr(node.op, "weight")]
        variables = [t.requires_grad_() for t in (z.center, block.tensors[0], *weights, *slopes.values())]
        expected = torch.autograd.grad(propagate(graph, generators(z), slopes).bounds()[0].sum(), variables)
        for share in SHARES:
            found = swept(graph, z, share, slopes, grad=True).output.bounds()[0].sum()
            for got, wanted in zip(torch.autograd.grad(found, variables), expected, strict=True):
                assert bool(wanted.any())
                assert torch.equal(got, wanted)


# ---- named shapes ----------------------------------------------------------------------------------------------------


def _kinds(found: Zonotope) -> list[str]:
    return [block.kind for block in found.blocks]


def test_residual_branches_keep_windows_and_cancel_what_they_share() -> None:
    b = WholeBuilder(1, 16, 16)
    start = b.convolution(2)
    inner = b.convolution(2, source=b(Relu()))
    b(Add(), start, inner)
    graph = b.graph()
    z = whole_input(graph)
    with torch.no_grad():
        found = sweep(graph, z, slopes=halves(graph)).output
    assert _kinds(found) == ["windowed", "windowed"]
    assert [block.window for block in found.blocks if isinstance(block, Windowed)] == [(5, 5), (3, 3)]
    assert_equal(generators(found), propagate(graph, generators(z), halves(graph)))
    again = found - found
    assert not bool(again.radius().any())


def test_a_pooling_that_does_not_count_its_padding_scales_by_position() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(2, 2, 2)
    ).double()
    graph = from_module(model.eval(), (1, 15, 15))
    z = Zonotope.from_box(*random_box(graph, 2))
    found = swept(graph, z, 0.35)
    layers = swept(graph, z, 0.35, grad=True).layers
    assert "windowed" in _kinds(found.output)
    slack = 2 * rounding(graph, layers, found.output.symbols)[graph.output]
    assert_close(generators(found.output), propagate(graph, generators(z)), slack)
    point = Zonotope.from_box(z.center, z.center)  # the network itself
    assert bool(((swept(graph, point, 0.35).output.center - model(z.center)).abs() <= slack).all())


def test_a_mean_over_the_map_sums_the_windows() -> None:
    b = WholeBuilder(2, 16, 8)
    b.convolution(3, stride=(2, 1))
    for keepdim in (True, False):
        graph = Graph((*b.nodes, _mean(b, keepdim)), "mean")
        z = whole_input(graph)
        with torch.no_grad():
            assert_equal(generators(sweep(graph, z).output), propagate(graph, generators(z)))


def _mean(b: WholeBuilder, keepdim: bool):  # type: ignore[no-untyped-def]
    copy = WholeBuilder(1)
    copy.nodes = list(b.nodes)
    copy(Reduce((1, 2), True, keepdim))
    node = copy.nodes[-1]
    return type(node)("mean", node.op, node.inputs, node.shape)


def test_networks_without_symbols_are_carried_as_points() -> None:
    for name in NETWORKS:
        graph = NETWORKS[name](2)
        center = random_box(graph, 2)[0]
        for share in SHARES:
            for grad in (True, False):
                found = swept(graph, Zonotope.from_box(center, center), share, grad=grad).output
                assert found.symbols == 0
                assert torch.equal(found.bounds()[0], found.bounds()[1])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", SHARES)
def test_networks_with_smallest_area_slopes_agree_with_the_definition_to_rounding(name: str, share: float) -> None:
    for seed in range(3):
        graph = NETWORKS[name](seed)
        z = Zonotope.from_box(*random_box(graph, 2, seed=seed))
        expected = propagate(graph, generators(z))
        found = swept(graph, z, share, grad=True)
        slack = 2 * rounding(graph, found.layers, found.output.symbols)[graph.output]
        assert_close(generators(found.output), expected, slack)
        assert_close(generators(swept(graph, z, share).output), expected, slack)
        assert_close(generators(swept(graph, as_dense(z), share).output), expected, slack)


# ---- real networks ---------------------------------------------------------------------------------------------------

REAL = {
    **{name: networks.rtai2019 for name in networks.RTAI2019},
    **{name: networks.wong_kolter for name in networks.WONG_KOLTER},
    **{name: networks.eran for name in networks.ERAN},
}


VNNCOMP = {
    "acasxu": 1,
    "cifar10_resnet_4b": 1,
    "collins_rul_cnn": 3,
    "marabou_cifar10_small_medium": 2,
    "mnist_fc": 3,
    "oval21_base_wide": 2,
    "reach_prob_density": 3,
    "sri_resnet_a": 1,
}
"""Sets of the test data, and how many networks of different architectures they have."""


def check_real(graph: Graph, center: Tensor, radius: Tensor) -> None:
    """Dense and windowed, symbol by symbol; of large inputs a patch is perturbed, which keeps the sweeps small."""
    wide = graph.to(torch.float64)
    perturbed = torch.full_like(center, float(center.numel() < 150))
    perturbed[(0, ..., *(slice(n // 3, n // 3 + 8) for n in center.shape[2:]))] = 1.0
    z = Zonotope.from_box(center - radius * perturbed, center + radius * perturbed)
    dense = swept(wide, as_dense(z), -1.0)
    with torch.no_grad():
        layers = sweep(wide, z, all_layers=True).layers
    errors = rounding(wide, layers, dense.output.symbols)
    for share in (0.35, 1e9):
        windows = swept(wide, z, share)
        slack = 2 * errors[graph.output]
        assert bool((slack <= 1e-3 * (dense.output.center.abs() + dense.output.radius())).all()), "it would say nothing"
        assert_close(generators(windows.output), generators(dense.output), slack)
        for node in graph.relus:
            low, high = dense.intermediate[node.name]
            of_sums = gamma(dense.output.symbols + 2) * torch.maximum(low.abs(), high.abs())
            for one, two in zip(windows.intermediate[node.name], (low, high), strict=True):
                assert bool(((one - two).abs() <= 2 * (errors[node.inputs[0]] + of_sums)).all())


@pytest.mark.data
@pytest.mark.parametrize("name", [*REAL, "fp_realadv"])
def test_real_modules_agree_dense_and_windowed_symbol_by_symbol(name: str) -> None:
    module = networks.fp_realadv() if name == "fp_realadv" else REAL[name](name)
    pixels, _ = networks.images("cifar10" if name.startswith("cifar") else "mnist")
    graph = from_module(module, networks.input_shape(name))
    check_real(graph, pixels[:1].double(), torch.full((), 0.01, dtype=torch.float64))


@pytest.mark.data
@pytest.mark.parametrize("name", VNNCOMP)
def test_real_onnx_networks_agree_dense_and_windowed_symbol_by_symbol(name: str) -> None:
    folder = data_root() / "vnncomp" / name
    with (folder / "instances.csv").open() as table:
        found = {row["onnx"]: row["vnnlib"] for row in csv.DictReader(table)}
    chosen = dict(sorted(found.items())[: VNNCOMP[name]])
    assert len(chosen) == VNNCOMP[name]
    for onnx, vnnlib in chosen.items():
        graph = load_network(folder / onnx).graph
        region = load_vnnlib(folder / vnnlib).regions[0].box
        low, high = (t.double().reshape(1, *graph.input_shape) for t in (region.lower, region.upper))
        check_real(graph, (low + high) / 2, (high - low) / 2 + 0.02)  # some boxes are almost a point
