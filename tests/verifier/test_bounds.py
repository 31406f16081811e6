"""Forward sweep and dual pass: equal to each other, above every sample, on every kind of network."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.graphs import NETWORKS, fc, rand, random_box, random_slopes, region, sample_box
from zonocuda.bounds.dual.problem import dual_bound
from zonocuda.bounds.dual.slopes import Slopes, initial_slopes
from zonocuda.bounds.forward.sweep import Bounds, sweep
from zonocuda.bounds.rows import Rows
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Add, Graph, Node, Relu, interpret
from zonocuda.relaxations.relu import ReluRule
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import compute_bounds

EPS = torch.finfo(torch.float64).eps


def rows_of(graph: Graph, count: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> Rows:
    """Random rows with terms of the output, of the input, and constants."""
    outputs = graph.output_shape[0]
    inputs = torch.Size(graph.input_shape).numel()
    coefficients = rand(count, outputs + 3, seed=seed).tolist()
    constraints = [
        LinearConstraint(
            {i: Fraction(c) for i, c in enumerate(values[:outputs])},
            {0: Fraction(values[outputs]), inputs - 1: Fraction(values[outputs + 1])} if r % 2 else {},
            Fraction(values[-1]),
        )
        for r, values in enumerate(coefficients)
    ]
    box = torch.zeros(inputs), torch.ones(inputs)
    return Rows.of(region(*box, [[row] for row in constraints]), inputs, outputs, torch.empty((), dtype=dtype))


def forward_bound(graph: Graph, rows: Rows, box: Bounds, slopes: dict[str, Tensor] | None) -> tuple[Tensor, dict]:
    """Lower bounds of the rows from the forward sweep, and the bounds of every ReLU's input."""
    z = Zonotope.from_box(*box)
    result = sweep(graph, z, slopes=slopes)
    return rows.image(z, result.output).bounds()[0], dict(result.intermediate)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("slopes", ["minimum_area", "random"])
@pytest.mark.parametrize("batch", [1, 3])
def test_forward_and_dual_bounds_are_equal_for_the_same_slopes(name: str, slopes: str, batch: int) -> None:
    for seed in range(2):
        graph = NETWORKS[name](seed)
        rows, box = rows_of(graph, seed=seed), random_box(graph, batch, seed=seed)
        given = random_slopes(graph, batch, seed) if slopes == "random" else None
        forward, inputs = forward_bound(graph, rows, box, given)
        for backend in ("native", "reference"):
            with use_backend(backend):
                dual = dual_bound(graph, rows, box, inputs, given).lower
            assert dual.shape == forward.shape == (batch, 4)
            assert ((dual - forward).abs() <= 1e-12 * (1 + forward.abs())).all(), f"seed {seed}"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_sampled_output_lies_inside_the_bounds_of_every_node(name: str) -> None:
    for seed in range(2):
        graph = NETWORKS[name](seed)
        box = random_box(graph, 2, seed=seed)
        result = sweep(graph, Zonotope.from_box(*box), slopes=random_slopes(graph, 2, seed), all_layers=True)
        assert set(result.layers) == {node.name for node in graph.nodes}
        for element in range(2):
            values: dict[str, Tensor] = {}
            interpret(
                graph,
                sample_box(box[0][element], box[1][element], 200, seed),
                lambda node, inputs: node.op.apply(*inputs),
                lambda node, value, values=values: values.update({node.name: value}),
            )
            for node_name, (lower, upper) in result.layers.items():
                slack = 1e-12 * (1 + torch.maximum(lower.abs(), upper.abs())[element])
                assert (values[node_name] >= lower[element] - slack).all(), node_name
                assert (values[node_name] <= upper[element] + slack).all(), node_name


@pytest.mark.parametrize("name", NETWORKS)
def test_no_dual_bound_exceeds_a_sampled_row(name: str) -> None:
    """For minimum-area, adaptive and random slopes, one for each sign."""
    for seed in range(2):
        graph = NETWORKS[name](seed)
        rows, (lower, upper) = rows_of(graph, seed=seed), random_box(graph, 2, seed=seed)
        _, inputs = forward_bound(graph, rows, (lower, upper), None)
        one, other = random_slopes(graph, 2, seed), random_slopes(graph, 2, seed + 1)
        mixed = {relu: Slopes(one[relu].unsqueeze(1), other[relu].unsqueeze(1)) for relu in one}
        for slopes in (None, initial_slopes(graph, inputs, "adaptive"), mixed):
            result = dual_bound(graph, rows, (lower, upper), inputs, slopes)
            for element in range(2):
                x = sample_box(lower[element], upper[element], 300, seed)
                values = rows.values(x, graph(x))
                slack = 1e-12 * (1 + values.abs().amax(0))
                assert (result.lower[element] <= values.amin(0) + slack).all()
                # the linear bound holds at every point, and the corner minimises it
                line = x.flatten(1) @ result.weight[element].flatten(1).T + rows.constant
                corner = result.corner[element]
                at_corner = (corner * result.weight[element]).flatten(1).sum(1)
                assert (at_corner <= (line - rows.constant).amin(0) + slack).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_duals_corner_is_a_vertex_of_the_box(name: str) -> None:
    graph = NETWORKS[name](0)
    rows, (lower, upper) = rows_of(graph), random_box(graph, 2)
    _, inputs = forward_bound(graph, rows, (lower, upper), None)
    corner = dual_bound(graph, rows, (lower, upper), inputs, initial_slopes(graph, inputs, "adaptive")).corner
    assert corner.shape == (2, 4, *graph.input_shape)
    assert ((corner == lower.unsqueeze(1)) | (corner == upper.unsqueeze(1))).all()


def test_adaptive_slopes_beat_minimum_area_slopes_somewhere_and_lose_somewhere() -> None:
    better = []
    for seed in range(12):
        graph = fc(seed)
        rows, box = rows_of(graph, seed=seed), random_box(graph, width=0.6, seed=seed)
        _, inputs = forward_bound(graph, rows, box, None)
        plain = dual_bound(graph, rows, box, inputs).lower
        better.append(dual_bound(graph, rows, box, inputs, initial_slopes(graph, inputs, "adaptive")).lower > plain)
    assert 0 < torch.cat(better).sum() < torch.cat(better).numel()


def magnitude(graph: Graph, box: Bounds) -> Tensor:
    """The largest output of the network with every weight and input replaced by its magnitude, and no ReLU."""

    def step(node: Node, values: tuple[Tensor, ...]) -> Tensor:
        if isinstance(node.op, Relu):
            return values[0]
        if isinstance(node.op, Add):
            return values[0] + values[1]
        fields = {f.name: getattr(node.op, f.name) for f in dataclasses.fields(node.op)}
        positive = {k: v.abs() for k, v in fields.items() if isinstance(v, Tensor)}
        return dataclasses.replace(node.op, **positive).apply(*values)

    return interpret(graph, torch.maximum(box[0].abs(), box[1].abs()), step).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_bounds_agree_with_float64_to_rounding(name: str) -> None:
    """Every layer sums at most 100 products and 100 symbols: gamma of all of them, times the magnitudes summed."""
    graph = NETWORKS[name](0)
    box = random_box(graph)
    box32 = box[0].float(), box[1].float()
    wide = sweep(graph, Zonotope.from_box(*(b.double() for b in box32)))
    single = graph.to(torch.float32)
    narrow = sweep(single, Zonotope.from_box(*box32))
    terms = 200 * len(graph.nodes)
    tolerance = terms * torch.finfo(torch.float32).eps / 2 * magnitude(graph, box)
    for a, b in zip(narrow.output.bounds(), wide.output.bounds(), strict=True):
        assert a.dtype == torch.float32
        assert ((a.double() - b).abs() <= tolerance).all()
    dual = dual_bound(single, rows_of(graph, dtype=torch.float32), box32, narrow.intermediate)
    assert dual.lower.dtype == torch.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_native_and_reference_sweeps_agree(name: str) -> None:
    graph = NETWORKS[name](1)
    box = random_box(graph, 2, seed=1)
    results = [compute_bounds(graph, Zonotope.from_box(*box), backend=b) for b in ("native", "reference")]
    for a, b in ((results[0].lower, results[1].lower), (results[0].upper, results[1].upper)):
        assert ((a - b).abs() <= 1e-12 * (1 + b.abs())).all()
    assert [s.unstable for s in results[0].stats] == [s.unstable for s in results[1].stats]


# ---- compute_bounds --------------------------------------------------------------------------------------------------


def test_bounds_report_every_relu_and_every_node_where_asked() -> None:
    graph = fc(0)
    z = Zonotope.from_box(*random_box(graph, 2))
    result = compute_bounds(graph, z)
    assert not result.layers
    assert set(result.intermediate) == {node.name for node in graph.relus}
    assert result.lower.shape == result.upper.shape == (2, 3)
    everything = compute_bounds(graph, z, layers="all")
    assert set(everything.layers) == {node.name for node in graph.nodes}
    assert torch.equal(everything.layers[graph.output][0], result.lower)
    for stats in result.stats:
        low, high = result.intermediate[stats.name]
        dead, active = int((high <= 0).sum()), int((low >= 0).sum())
        assert (stats.neurons, stats.dead, stats.active) == (low.numel(), dead, active)
        assert stats.unstable == low.numel() - dead - active
        assert stats.mean_width == pytest.approx(float((high - low).mean()))


def test_bounds_take_slopes_by_name() -> None:
    graph = fc(0)
    z = Zonotope.from_box(*random_box(graph))
    name = graph.relus[0].name
    tight = compute_bounds(graph, z)
    loose = compute_bounds(graph, z, slopes={name: torch.zeros((), dtype=torch.float64)})
    best = {name: ReluRule().initial(*tight.intermediate[name])}
    assert not torch.equal(loose.lower, tight.lower)
    assert torch.allclose(compute_bounds(graph, z, slopes=best).lower, tight.lower, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"\['linear1'\], which are no activations"):
        compute_bounds(graph, z, slopes={"linear1": torch.zeros((), dtype=torch.float64)})


def test_a_zonotope_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"features \[5\], the network's input \[4\]"):
        compute_bounds(fc(0), Zonotope.from_box(torch.zeros(1, 5), torch.ones(1, 5)))


def test_bounds_of_a_module_follow_its_parameters() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    z = Zonotope.from_ball(torch.zeros(1, 3), 0.1)
    result = compute_bounds(module, z)
    result.upper.sum().backward()
    gradient = module[2].bias.grad
    assert gradient is not None
    assert torch.allclose(gradient, torch.ones(2))
    assert module[0].weight.grad is not None
    assert module[0].weight.grad.abs().max() > 0
    x = z.sample(100).squeeze(1)
    with torch.no_grad():
        assert (module(x) <= result.upper + 1e-5).all()
        assert (module(x) >= result.lower - 1e-5).all()


def test_bounds_restore_the_backend() -> None:
    with use_backend("reference"):
        compute_bounds(fc(0), Zonotope.from_box(*random_box(fc(0))), backend="native")
        from zonocuda.domains import current_backend

        assert current_backend() == "reference"


def test_dual_bounds_cancel_what_intervals_round_away() -> None:
    """In float32 1e8 + x is 1e8 at both ends of an interval of width 2; the terms of a row cancel exactly."""
    layers: list[nn.Module] = [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]
    for layer, shift in zip(layers[::2], (0.0, 1e8, -1e8), strict=True):
        assert isinstance(layer, nn.Linear)
        nn.init.eye_(layer.weight)
        nn.init.constant_(layer.bias, shift)
    with torch.no_grad():
        z = Zonotope.from_ball(torch.full((2, 3), 5.0), 1.0)
        result = compute_bounds(nn.Sequential(*layers).eval(), z, direction="dual")
    assert torch.equal(result.lower, torch.full((2, 3), 4.0))
    assert torch.equal(result.upper, torch.full((2, 3), 6.0))


def test_dual_bounds_of_an_empty_batch_are_empty() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        result = compute_bounds(module, Zonotope.from_ball(torch.zeros(0, 3), 0.1), direction="dual")
    assert result.lower.shape == result.upper.shape == (0, 2)
