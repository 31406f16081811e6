"""A new activation: its operator, its rule and one line of the table, and every bound there is knows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import zonocuda
from tests.relaxations.toy import Toy, exact, known, toyed
from tests.relaxations.ways import both_ends, check_claims, property_of
from tests.verifier.exact import Vector, value_step
from tests.verifier.graphs import conv, fc, random_box, residual, sample_box
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Graph, Node
from zonocuda.relaxations import RULES
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.joint import margin, slope_gradients, sweep_to
from zonocuda.verifier import Verdict, optimize_bounds, verify
from zonocuda.verifier.splitting import Split

NETWORKS = {"fc": fc, "conv": conv, "residual": residual}
EACH_NETWORK = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    """The table has the toy."""
    with known():
        yield


def network(name: str, seed: int = 0, every: int = 1) -> Graph:
    return toyed(NETWORKS[name](seed), every)


# ---- bounds --------------------------------------------------------------------------------------------------------


@EACH_NETWORK
@pytest.mark.parametrize("every", [1, 2])
def test_the_dual_with_minimum_area_slopes_is_the_forward_zonotope(name: str, every: int) -> None:
    """Windows, dense rows, and rows from the output; alone and among ReLUs."""
    graph = network(name, 1, every)
    box = random_box(graph, 2, 0.4)
    result = sweep(graph, Zonotope.from_box(*box))
    assert result.output is not None
    low, high = (b.flatten(1) for b in result.output.bounds())
    for node in (graph.output, *(n.inputs[0] for n in graph.nodes if isinstance(n.op, Toy))):
        index = torch.arange(torch.Size(graph[node].shape).numel())
        found = neuron_bounds(Relaxed(graph, box, result.intermediate), node, index)
        of_toy = [n.name for n in graph.nodes if n.inputs[:1] == (node,) and n.name in result.intermediate]
        wanted = (low, high) if node == graph.output else tuple(b.flatten(1) for b in result.intermediate[of_toy[0]])
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    rows = both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, result.intermediate, "minimum_area").items()}
    bound, _ = RowProblem(output_rows(graph, rows, 2), box, result.intermediate).bound(lambda node: start[node.name])
    torch.testing.assert_close(bound, torch.cat([low, -high], 1), rtol=1e-11, atol=1e-11)


@EACH_NETWORK
def test_both_backends_find_the_same(name: str) -> None:
    graph = network(name, 2)
    zonotope = Zonotope.from_box(*random_box(graph, 2, 0.5))
    found = []
    for backend in ("native", "reference"):
        result = zonocuda.compute_bounds(graph, zonotope, direction="dual", backend=backend)  # type: ignore[arg-type]
        found.append(torch.stack([result.lower, result.upper]))
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def toy_step(graph: Graph, node: Node, values: tuple[Vector, ...]) -> Vector:
    """The exact value of a node."""
    return [exact(v) for v in values[0]] if isinstance(node.op, Toy) else value_step(graph, node, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [2.0**-20, 0.5, 30.0])
@EACH_NETWORK
def test_proven_bounds_hold_in_rational_arithmetic(name: str, width: float, dtype: torch.dtype) -> None:
    graph = network(name, 3, 1)
    low, high = (b.to(dtype) for b in random_box(graph, 1, width))
    points = [low[0], high[0], *sample_box(low, high, 2, seed=1)[:2].reshape(2, *low[0].shape)]
    assert check_claims(graph, dtype, (low, high), points, toy_step) >= 5 * 4 * 6


# ---- slopes that learn ---------------------------------------------------------------------------------------------


@EACH_NETWORK
def test_ascent_improves_the_bounds(name: str) -> None:
    graph = network(name, 4)
    box = random_box(graph, 1, 0.8)
    inputs, rows = dict(sweep(graph, Zonotope.from_box(*box)).intermediate), both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, inputs, "adaptive").items()}
    plain, _ = RowProblem(output_rows(graph, rows, 1), box, inputs).bound(lambda node: start[node.name])
    found = ascend(RowProblem(output_rows(graph, rows, 1), box, inputs), Ascent(signs="both"), start).lower
    assert bool((found >= plain).all())
    assert float((found - plain).sum()) > 1e-3
    outputs = graph(sample_box(*box, 500)[:, 0])
    assert bool((found <= (outputs @ rows.output.T).amin(0) + 1e-9).all())


@pytest.mark.parametrize("name", ["fc", "residual"])
def test_the_adjoint_of_a_sweep_is_autograds_derivative(name: str) -> None:
    graph = network(name, 5)
    zonotope = Zonotope.from_box(*random_box(graph, 2, 0.4))
    loss = margin(torch.eye(graph.output_shape[0], dtype=torch.float64))
    slopes = {n.name: torch.full((2, *n.shape), 0.4, dtype=torch.float64) for n in graph.nodes if isinstance(n.op, Toy)}
    found = slope_gradients(graph, sweep_to(graph, zonotope, slopes), loss)
    leaves = {n: s.clone().requires_grad_() for n, s in slopes.items()}
    with use_backend("reference"), torch.enable_grad():
        output = sweep(graph, zonotope, slopes=leaves).output
        assert output is not None
        expected = torch.autograd.grad(loss(output).sum(), list(leaves.values()))
    for node, other in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[node], other, rtol=1e-9, atol=1e-12)


def test_joint_slopes_improve_the_margin() -> None:
    graph = network("fc", 6)
    zonotope = Zonotope.from_box(*random_box(graph, 1, 0.8))
    rows = torch.eye(graph.output_shape[0], dtype=torch.float64)
    first = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=0))
    best = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=15, rate=0.1))
    assert bool((best.lower >= first.lower).all())
    assert float((best.lower - first.lower).sum()) > 1e-4


# ---- verdicts ------------------------------------------------------------------------------------------------------


@EACH_NETWORK
def test_what_holds_is_verified_and_a_planted_violation_never_is(name: str) -> None:
    graph = network(name, 7)
    box = tuple(b.float().double() for b in random_box(graph, 1, 0.4))
    least = float(graph(sample_box(box[0], box[1], 2000)[:, 0])[:, 0].min())
    lower = float(zonocuda.compute_bounds(graph, Zonotope.from_box(*box)).lower[0, 0])
    proven = verify(graph, property_of(graph, box, lower - 1e-4), split="none", certificate=True)
    assert proven.verdict is Verdict.VERIFIED
    assert proven.certificate is not None
    assert "certificates of op Toy" in proven.certificate.reason
    planted = verify(graph, property_of(graph, box, least + 1e-3), split="none", timeout=20)
    assert planted.verdict in (Verdict.FALSIFIED, Verdict.UNKNOWN)


@pytest.mark.parametrize(("split", "width", "gap"), [("input", 1.5, 0.05), ("neuron", 4.0, 0.1)])
def test_boxes_are_split_and_so_are_neurons(split: Split, width: float, gap: float) -> None:
    graph = network("fc", 8)
    box = tuple(b.float().double() for b in random_box(graph, 1, width))
    least = float(graph(sample_box(box[0], box[1], 5000)[:, 0])[:, 0].min())
    question = property_of(graph, box, least - gap)
    assert verify(graph, question, effort="fast", split="none").verdict is Verdict.UNKNOWN
    found = verify(graph, question, split=split, timeout=30)
    assert found.verdict is Verdict.VERIFIED
    assert found.splits[-1].boxes > 1


def test_an_execution_is_refused() -> None:
    graph = network("fc", 0)
    with pytest.raises(NotImplementedError, match=r"nothing is known about the rounding of node 'relu2' \(op Toy\)"):
        Execution.of(graph, torch.float32)


def test_without_its_line_in_the_table_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network("fc", 0)
    monkeypatch.delitem(RULES, Toy)
    with pytest.raises(NotImplementedError, match="op Toy"):
        zonocuda.compute_bounds(graph, Zonotope.from_box(*random_box(graph)))
