"""The adjoint of a sweep in its slopes: against autograd through the reference, and against differences on the kink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.networks import PROBLEMS
from tests import networks
from tests.verifier.graphs import NETWORKS, rand, random_box, random_slopes
from tests.verifier.whole import halves, whole_input
from zonocuda.bounds.forward.adjoint import Adjoint, chunk_size, runs
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Graph, Relu
from zonocuda.importers import from_module, load_network
from zonocuda.kink import KINK_RULES, KinkRule
from zonocuda.relaxations import use_kink
from zonocuda.specs import load_vnnlib
from zonocuda.tighten.joint import Loss, Point, slope_gradients, sweep_to

EXAMPLES = Path(__file__).parents[2] / "examples"
EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)
EACH_RULE = pytest.mark.parametrize("kink", KINK_RULES)
Slopes = dict[str, Tensor]


def loss(output: Zonotope) -> Tensor:
    """A fixed linear function of the output's bounds."""
    lower, upper = output.bounds()
    return (lower * rand(*lower.shape, seed=4)).sum() + (upper * rand(*upper.shape, seed=5)).sum()


def through_autograd(
    graph: Graph, zonotope: Zonotope, slopes: Mapping[str, Tensor], kink: KinkRule, of: Loss = loss
) -> Slopes:
    """The derivatives that autograd finds through the reference, the whole network at once."""
    leaves = {name: slope.clone().requires_grad_() for name, slope in slopes.items()}
    with use_backend("reference"), use_kink(kink), torch.enable_grad():
        output = sweep(graph, zonotope, slopes=leaves).output
        assert output is not None
        value = of(output).sum()
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def gradients(graph: Graph, point: Point, of: Loss, kink: KinkRule, budget: int | None = None) -> Slopes:
    """The adjoint's derivatives, by a rule on the kink."""
    with use_kink(kink):
        return slope_gradients(graph, point, of, budget)


def inputs(graph: Graph, kind: str) -> Zonotope:
    """A batch of two boxes, or of two zonotopes with dense generators."""
    if kind == "box":
        return Zonotope.from_box(*random_box(graph, 2, width=0.4, seed=5))
    shape = graph.input_shape
    return Zonotope.from_generators(rand(2, *shape, seed=1), 0.1 * rand(2, 4, *shape, seed=2))


def on_the_kink(graph: Graph, zonotope: Zonotope) -> Slopes:
    """u / (u - l) for every crossing neuron, 1/2 for the others, which do not read it."""
    result = {}
    for name, crossed in sweep_to(graph, zonotope, {}).crossed.items():
        low, high = crossed.lower, crossed.upper
        crossing = (low < 0) & (high > 0)
        result[name] = torch.where(crossing, high / torch.where(crossing, high - low, torch.ones_like(low)), 0.5)
    return result


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-10) -> None:
    """Relative to the largest derivative of any slope."""
    assert found.keys() == expected.keys()
    largest = max(float(e.abs().max()) for e in expected.values())
    assert largest > 1e-6
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= tolerance * largest, name


# ---- small networks --------------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("start", ["box", "dense"])
@pytest.mark.parametrize("budget", [None, 2000])
def test_gradients_equal_autograd_through_the_reference(kind: str, start: str, budget: int | None) -> None:
    graph = NETWORKS[kind](1)
    zonotope, slopes = inputs(graph, start), random_slopes(graph, 2, seed=3)
    if budget is not None:
        budget = max(budget, 20 * chunk_bytes(graph))
    found = slope_gradients(graph, sweep_to(graph, zonotope, slopes), loss, memory_budget=budget)
    compare(found, through_autograd(graph, zonotope, slopes, "envelope"))


def chunk_bytes(graph: Graph) -> int:
    """Bytes of the values of one symbol in a batch of two."""
    return sum(2 * 8 * torch.Size(node.shape).numel() for node in graph.nodes)


@EACH_NETWORK
@EACH_RULE
@pytest.mark.parametrize("start", ["box", "dense"])
def test_on_the_kink_every_rule_is_that_of_the_reference(kind: str, kink: KinkRule, start: str) -> None:
    graph = NETWORKS[kind](1)
    zonotope = inputs(graph, start)
    slopes = on_the_kink(graph, zonotope)
    point = sweep_to(graph, zonotope, slopes)
    found, expected = gradients(graph, point, loss, kink), through_autograd(graph, zonotope, slopes, kink)
    if kink == "min_norm":  # zeros, mostly: relative to the one-sided derivatives
        sided = gradients(graph, point, loss, "left")
        largest = max(float(g.abs().max()) for g in sided.values())
        assert all(float((found[n] - expected[n]).abs().max()) <= 1e-10 * largest for n in expected)
        assert sum(float(g.abs().sum()) for g in found.values()) < sum(float(g.abs().sum()) for g in sided.values())
    else:
        compare(found, expected)


@EACH_NETWORK
def test_minimum_area_slopes_are_slopes_on_their_kink(kind: str) -> None:
    graph = NETWORKS[kind](2)
    zonotope = inputs(graph, "box")
    tied, given = sweep_to(graph, zonotope, {}), sweep_to(graph, zonotope, on_the_kink(graph, zonotope))
    compare(gradients(graph, tied, loss, "left"), gradients(graph, given, loss, "left"))


@pytest.mark.parametrize("kind", ["fc", "residual", "conv"])
def test_left_and_right_are_the_one_sided_differences_of_a_slope_on_its_kink(kind: str) -> None:
    """One neuron of each ReLU in turn sits on its kink; the others' slopes are random."""
    graph, h = NETWORKS[kind](1), 1e-6
    zonotope = inputs(graph, "box")
    for relu in graph.relus:
        slopes = random_slopes(graph, 2, seed=3)
        crossed = sweep_to(graph, zonotope, slopes).crossed[relu.name]
        stars = crossed.upper / (crossed.upper - crossed.lower)
        layer = sweep_to(graph, zonotope, {**slopes, relu.name: stars.clamp(0, 1)})
        sides = [gradients(graph, layer, loss, side)[relu.name] for side in ("left", "right")]
        place = int((sides[0] - sides[1]).abs().argmax())
        star = float(stars.flatten()[place])

        def value(slope: float, name: str = relu.name, at: int = place, given: Slopes = slopes) -> Point:
            given[name].view(-1)[at] = slope
            return sweep_to(graph, zonotope, given)

        outside = {side: float(loss(value(star + s * h).output)) for side, s in (("left", -1), ("right", 1))}
        point = value(star)
        center = float(loss(point.output))
        left, right = (
            float(gradients(graph, point, loss, side)[relu.name].view(-1)[place]) for side in ("left", "right")
        )
        size = abs(left) + abs(right)
        assert abs((center - outside["left"]) / h - left) <= 1e-4 * size
        assert abs((outside["right"] - center) / h - right) <= 1e-4 * size
        assert abs(left - right) > 1e-3 * size, "no kink to see"


@pytest.mark.parametrize("kind", ["conv", "residual", "concat"])
def test_of_whole_numbers_the_gradients_are_exact(kind: str) -> None:
    """Sums of dyadic numbers do not round: symbol by symbol and all at once are the same bits."""
    graph = NETWORKS[kind](1)
    for node in graph.nodes:
        for field in ("weight", "bias"):
            tensor = getattr(node.op, field, None)
            if tensor is not None:
                tensor.mul_(8).round_().div_(4)
    zonotope, slopes = whole_input(graph), {n: s.expand(2, *graph[n].shape) for n, s in halves(graph).items()}

    def of(output: Zonotope) -> Tensor:
        lower, upper = output.bounds()
        return (lower * torch.tensor([1.0, -2.0, 3.0])).sum() + (upper * torch.tensor([2.0, 1.0, -1.0])).sum()

    expected = through_autograd(graph, zonotope, slopes, "left", of)
    for budget in (None, 40 * chunk_bytes(graph)):
        found = gradients(graph, sweep_to(graph, zonotope, slopes), of, "left", budget)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(bool(g.any()) for g in expected.values())


@pytest.mark.parametrize("of", [lambda z: z.center.sum(), lambda z: z.radius().square().sum(1)])
def test_a_loss_of_the_center_or_of_the_radius_alone_has_its_gradient(of: Loss) -> None:
    graph = NETWORKS["residual"](3)
    zonotope, slopes = inputs(graph, "box"), random_slopes(graph, 2, seed=3)
    found = slope_gradients(graph, sweep_to(graph, zonotope, slopes), of)
    compare(found, through_autograd(graph, zonotope, slopes, "envelope", of))


def test_a_network_that_ends_with_a_relu_has_gradients_of_its_errors() -> None:
    base = NETWORKS["fc"](1)
    nodes = base.nodes[:-1]
    assert isinstance(nodes[-1].op, Relu)
    graph = Graph(nodes, nodes[-1].name)
    zonotope, slopes = inputs(graph, "box"), random_slopes(graph, 2, seed=3)
    compare(
        slope_gradients(graph, sweep_to(graph, zonotope, slopes), loss),
        through_autograd(graph, zonotope, slopes, "envelope"),
    )


def test_symbols_that_a_budget_cut_into_parts_have_the_same_gradients() -> None:
    graph = NETWORKS["conv"](1)
    slopes = random_slopes(graph, 2, seed=3)
    whole = slope_gradients(graph, sweep_to(graph, inputs(graph, "box"), slopes), loss)
    zonotope = inputs(graph, "box")
    zonotope.blocks[0].symbols.cut(7)
    point = sweep_to(graph, zonotope, slopes)
    assert sum(block.symbols.parent is zonotope.blocks[0].symbols for block in point.output.blocks) > 1
    compare(slope_gradients(graph, point, loss), whole)


# ---- chunks and refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "step"), [(0, 4), (3, 4), (4, 4), (29, 8), (5, 1)])
def test_runs_cover_every_symbol_once(count: int, step: int) -> None:
    pieces = list(runs(count, step))
    assert [k for piece in pieces for k in range(piece.start, piece.stop)] == list(range(count))
    sizes = {piece.stop - piece.start for piece in pieces}
    assert all(size == step or size & (size - 1) == 0 for size in sizes)


def test_the_budget_bounds_a_chunk() -> None:
    graph = NETWORKS["conv"](0)
    like = torch.zeros(1, dtype=torch.float64)
    one = chunk_bytes(graph)
    assert chunk_size(graph, 2, like, None) > 100
    assert 1 <= chunk_size(graph, 2, like, 10 * one) <= 10
    with pytest.raises(ValueError, match=r"the values of one symbol take \d+ bytes .*; raise the budget"):
        chunk_size(graph, 2, like, one // 2)


def test_a_loss_without_derivative_is_refused() -> None:
    graph = NETWORKS["fc"](0)
    point = sweep_to(graph, inputs(graph, "box"), {})
    with pytest.raises(ValueError, match="does not depend on the output's zonotope differentiably"):
        slope_gradients(graph, point, lambda output: output.center.detach().sum())


def test_derivatives_of_another_sweep_are_refused() -> None:
    graph = NETWORKS["fc"](0)
    point = sweep_to(graph, inputs(graph, "box"), {})
    adjoint = Adjoint(graph, point.zonotope, point.crossed)
    block = point.zonotope.blocks[0]
    with pytest.raises(ValueError, match="they are not of this sweep"):
        adjoint._carry(graph.nodes[0], block, torch.zeros(2, block.symbols.count + 1, 3, dtype=torch.float64))


# ---- the examples and real networks ----------------------------------------------------------------------------------


def check(graph: Graph, zonotope: Zonotope, seed: int = 0) -> None:
    """Off the kink with slopes near the minimum-area ones, and on it from both sides."""
    stars = on_the_kink(graph, zonotope)
    generator = torch.Generator().manual_seed(seed)
    near = {
        name: (star + 0.2 * torch.rand(star.shape, generator=generator, dtype=torch.float64) - 0.1).clamp(0, 1)
        for name, star in stars.items()
    }
    cases: tuple[tuple[Slopes, KinkRule], ...] = ((near, "envelope"), (stars, "left"), (stars, "right"))
    for slopes, kink in cases:
        point = sweep_to(graph, zonotope, slopes)
        assert all(bool(((c.lower < 0) & (c.upper > 0)).any()) for c in point.crossed.values()), "a ReLU all stable"
        compare(gradients(graph, point, loss, kink), through_autograd(graph, zonotope, slopes, kink), 1e-8)


@pytest.mark.parametrize("name", ["fc", "conv", "residual"])
def test_gradients_of_the_examples_equal_autograd_through_the_reference(name: str) -> None:
    graph = load_network(EXAMPLES / "networks" / f"{name}.onnx").graph.to(torch.float64)
    file = next((EXAMPLES / "specs").glob(f"{name}_*_0.15.vnnlib"))
    box = load_vnnlib(file).regions[0].box
    check(graph, Zonotope.from_box(*(t.double().reshape(1, *graph.input_shape) for t in (box.lower, box.upper))))


def patch_box(graph: Graph, image: Tensor, radius: float, side: int) -> Zonotope:
    """A box of some pixels in the middle of an image ``[C, H, W]``: few symbols, so that the reference can follow."""
    reach = torch.zeros_like(image, dtype=torch.float64)
    rows, columns = image.shape[1] // 2, image.shape[2] // 2
    reach[:, rows : rows + side, columns : columns + side] = radius
    low, high = image.double() - reach, image.double() + reach
    return Zonotope.from_box(low.reshape(1, *graph.input_shape), high.reshape(1, *graph.input_shape))


def resnet() -> tuple[Graph, Zonotope]:
    """cifar10_resnet_4b, with residual adds; normalised pixels."""
    problem = next(p for p in PROBLEMS if p.name == "cifar10_resnet_4b")
    graph = problem.load().to(torch.float64)
    low, high = problem.box(networks.images("cifar10")[0][0])
    return graph, patch_box(graph, (low + high) / 2, 0.1, 4)


def wong_kolter() -> tuple[Graph, Zonotope]:
    """A convolutional network of certified training."""
    graph = from_module(networks.wong_kolter("cifar_small_8px"), (3, 32, 32)).to(torch.float64)
    return graph, patch_box(graph, networks.images("cifar10")[0][0], 0.2, 16)


def mnist() -> tuple[Graph, Zonotope]:
    """Six wide linear layers."""
    graph = from_module(networks.eran("mnist_6_200_nat"), (1, 28, 28)).to(torch.float64)
    return graph, patch_box(graph, networks.images("mnist")[0][0], 0.03, 12)


@pytest.mark.data
@pytest.mark.parametrize("load", [mnist, wong_kolter, resnet])
def test_gradients_of_real_networks_equal_autograd_through_the_reference(
    load: Callable[[], tuple[Graph, Zonotope]],
) -> None:
    check(*load())
