"""What a norm's values are at most, whatever it reads: in bounds, in proofs, and found again by a check; and networks
whose exponentials overflow, which have finite bounds where a softmax or a norm comes after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from benchmarks.smooth.models import Vit
from zonocuda.checker import check
from zonocuda.checker.maps import Maps
from zonocuda.checker.norms import confined
from zonocuda.domains import Zonotope
from zonocuda.graph import Add, Bilinear, Elementary, Expand, Graph, Linear, Node, Reduce, ScaleShift
from zonocuda.importers import from_module
from zonocuda.relaxations import rule_of
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, compute_bounds, verify

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def norm(n: int, centered: bool = True) -> Graph:
    module = nn.LayerNorm(n, elementwise_affine=False) if centered else nn.RMSNorm(n, 1e-5, elementwise_affine=False)
    return from_module(module.eval(), (n,))


def products(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.op, Bilinear)]


def limit_of(graph: Graph) -> float:
    ((limit,),) = [[node.op.most for node in products(graph) if isinstance(node.op, Bilinear)]]
    return limit


@DTYPES
@pytest.mark.parametrize("centered", [True, False], ids=["layer norm", "rms norm"])
def test_a_limit_is_no_smaller_than_the_root_and_at_most_two_units_larger(centered: bool, dtype: torch.dtype) -> None:
    for n in (2, 3, 5, 6, 17, 64, 1000, 4097):
        graph = norm(n, centered)
        (product,) = products(graph)
        wide = torch.full((1, 2 * n), 1e15, dtype=dtype)
        low, high = rule_of(product).range(-wide, wide)
        lines = rule_of(product).lines(-wide, wide, None)
        squared, unit = n - centered, Fraction(torch.finfo(dtype).eps)
        for end in (-low, high, -lines.below, lines.above):  # type: ignore[operator]
            for number in {Fraction(x) for x in end.flatten().tolist()}:
                assert squared <= number**2 <= squared * (1 + 2 * unit) ** 2
        assert bool((lines.slope == 0).all())
        assert squared <= Fraction(limit_of(confined(graph))) ** 2


@DTYPES
def test_bounds_of_a_norm_are_what_it_comes_near_to(dtype: torch.dtype) -> None:
    """At (n - 1, -1, ..., -1) t its first number is sqrt(n - 1) but for eps / t^2."""
    n, t = 6, 1e4
    graph = norm(n).to(dtype, "cpu")
    radius = torch.full((1, n), t * n, dtype=dtype)
    bounds = compute_bounds(graph, Zonotope.from_box(-radius, radius))
    d = [Fraction(n - 1), *[Fraction(-1)] * (n - 1)]
    mean = sum(x * x for x in d) / n + Fraction(1e-5) / Fraction(t) ** 2
    assert Fraction(float(bounds.upper.min())) ** 2 >= d[0] ** 2 / mean
    assert float(bounds.upper.max()) <= math.sqrt(n - 1) * (1 + 1e-6)
    assert float(bounds.lower.min()) >= -math.sqrt(n - 1) * (1 + 1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_check_finds_the_limits_of_group_norms_and_layer_norms_by_itself(groups: int) -> None:
    module = nn.Sequential(nn.GroupNorm(groups, 4), nn.Flatten(), nn.Linear(12, 6), nn.LayerNorm(6)).eval()
    graph = from_module(module, (4, 3))
    found = [node.op.most for node in products(confined(graph)) if isinstance(node.op, Bilinear)]
    own = [node.op.most for node in products(graph) if isinstance(node.op, Bilinear)]
    assert found == own
    for limit, n in zip(found, (12 // groups, 6), strict=True):
        assert n - 1 <= Fraction(limit) ** 2 <= (n - 1) * (1 + Fraction(1, 2**50))


def changed(graph: Graph, kind: type, change: Callable[[Node], Node]) -> Graph:
    """The graph with its last node of a kind changed."""
    last = [node for node in graph.nodes if isinstance(node.op, kind)][-1]
    return Graph(tuple(change(node) if node is last else node for node in graph.nodes), graph.output)


def test_a_check_believes_no_limit_that_the_network_does_not_have() -> None:
    graph = norm(6)
    assert limit_of(confined(graph)) < 3

    def of(kind: type, change: Callable[[Node], Node]) -> float:
        return limit_of(confined(changed(graph, kind, change)))

    assert of(Bilinear, lambda node: replace(node, op=Bilinear(1, 0.5))) == limit_of(confined(graph))
    negative = ScaleShift(None, torch.tensor([-1e-5]))
    assert of(ScaleShift, lambda node: replace(node, op=negative)) == math.inf
    nothing = ScaleShift(None, torch.tensor([0.0]))  # a constant input has no value then
    assert of(ScaleShift, lambda node: replace(node, op=nothing)) == math.inf
    assert of(ScaleShift, lambda node: replace(node, op=ScaleShift(torch.ones(1), torch.ones(1)))) == math.inf
    unsure = ScaleShift(None, torch.tensor([1e-5]).double(), doubt={"shift": torch.tensor([1e-5]).double()})
    assert of(ScaleShift, lambda node: replace(node, op=unsure)) == math.inf
    assert of(Elementary, lambda node: replace(node, op=Elementary("reciprocal"))) == math.inf
    assert of(Reduce, lambda node: replace(node, op=replace(node.op, mean=False))) == math.inf
    square = next(node for node in graph.nodes if isinstance(node.op, Elementary))
    cube = Graph(
        tuple(replace(n, op=Elementary("power", 3.0)) if n is square else n for n in graph.nodes), graph.output
    )
    assert limit_of(confined(cube)) == math.inf
    other = changed(graph, Reduce, lambda node: replace(node, inputs=(graph.nodes[0].name,)))
    assert limit_of(confined(other)) == math.inf
    plain = Fraction(limit_of(confined(changed(graph, Add, lambda node: replace(node, op=Add(1)))))) ** 2
    assert 6 <= plain <= 6 * (1 + Fraction(1, 2**50))  # no number is known to be the sum of the others then


def test_a_check_believes_no_limit_of_a_product_that_is_no_norm() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] * x[:, 1:]

    graph = from_module(Gate(), (2,))
    lie = changed(graph, Bilinear, lambda node: replace(node, op=Bilinear(1, 0.5)))
    assert limit_of(confined(lie)) == limit_of(Maps(lie).graph) == math.inf


@pytest.mark.parametrize("radius", [0.3, 30.0])
def test_a_proof_that_rests_on_a_limit_is_confirmed(radius: float) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    graph = from_module(module, (3,))
    with torch.no_grad():
        center = torch.zeros(1, 3, dtype=torch.float64)
        zonotope = Zonotope.from_box(center - radius, center + radius)
        bound = float(compute_bounds(graph, zonotope).lower[0, 0])
        most = 2.001 * sum(abs(float(w)) for w in module[4].weight[0]) + 10  # type: ignore[union-attr,index]
    assert abs(bound) < most
    property_ = Spec.linear([-radius] * 3, [radius] * 3, [[-1, 0]], [-(bound - 1e-3)])
    result = verify(graph, property_, certificate=True, split="none")
    assert result.verdict is Verdict.VERIFIED
    for exact in (False, True):
        assert check(result, graph, property_, exact=exact).confirmed


@DTYPES
@pytest.mark.parametrize("radius", [1e4])
def test_a_transformer_has_finite_bounds_for_any_box(radius: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = Vit().eval()
    graph = from_module(module, (64,)).to(dtype, "cpu")
    x = torch.rand(1, 64, dtype=dtype)
    with torch.no_grad():
        bounds = compute_bounds(graph, Zonotope.from_box(x - radius, x + radius), max_symbols=100)
        values = graph(x + radius * (2 * torch.rand(100, 64, dtype=dtype) - 1))
    assert bool(bounds.lower.isfinite().all())
    assert bool(bounds.upper.isfinite().all())
    assert bool((values >= bounds.lower - 1e-4).all())
    assert bool((values <= bounds.upper + 1e-4).all())
    assert float((bounds.upper - bounds.lower).max()) < 100


@DTYPES
def test_a_proof_of_a_softmax_whose_exponentials_overflow_is_found(dtype: torch.dtype) -> None:
    class Shares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x, 1) @ torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25]])

    graph = from_module(Shares(), (3,))
    property_ = Spec.linear([-1e3] * 3, [1e3] * 3, [[1, 1]], [2.8])
    result = verify(graph, property_, split="none", effort="fast", dtype=dtype)
    assert result.verdict is Verdict.VERIFIED
    assert result.margin is not None
    assert 0 < result.margin <= 2.8 - 1  # (1, 0) is attained, but for e^-1000


def test_a_constant_that_is_nan_gives_no_bounds() -> None:
    graph = from_module(nn.Sequential(nn.Linear(2, 3), nn.Softmax(1), nn.Linear(3, 1)).eval(), (2,))
    (first,) = (node for node in graph.nodes if isinstance(node.op, Linear) and node.inputs == (graph.nodes[0].name,))
    assert isinstance(first.op, Linear)
    weight = first.op.weight.detach().clone()
    weight[0, 0] = math.nan
    nodes = (replace(n, op=replace(first.op, weight=weight)) if n is first else n for n in graph.nodes)
    box = Zonotope.from_box(torch.zeros(1, 2), torch.ones(1, 2))
    with torch.no_grad():
        bounds = compute_bounds(Graph(tuple(nodes), graph.output), box)
    assert not bool(bounds.lower.isfinite().any())
    assert not bool(bounds.upper.isfinite().any())


def test_expansions_are_what_a_limit_is_found_through() -> None:
    """The network has one root for each group of numbers: of another grouping nothing is known."""
    graph = norm(6)
    expanded = [node for node in graph.nodes if isinstance(node.op, Expand)][-1]
    wrong = changed(graph, Expand, lambda node: replace(node, op=Expand((1, 6)), shape=(1, 6)))
    assert expanded.shape == (6,)
    assert limit_of(confined(wrong)) == math.inf
