"""Networks of smooth functions, alone and mixed with ReLUs: every bound and verdict."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb
from torch import Tensor

import zonocuda
from tests.relaxations.functions import CASES, Case
from tests.relaxations.ways import both_ends, claims, property_of
from tests.verifier.graphs import Builder, conv, fc, random_box, residual, sample_box
from zonocuda.bounds.dual.neurons import Relaxed, neuron_bounds
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.slopes import initial_slopes
from zonocuda.bounds.forward.sweep import Means, sweep
from zonocuda.domains import Zonotope, use_backend
from zonocuda.graph import Add, Elementary, Graph, Linear, Node, Relu, interpret
from zonocuda.importers import UnsupportedNetworkError
from zonocuda.precision import summed_products
from zonocuda.tighten.ascent import Ascent, ascend
from zonocuda.tighten.joint import margin, slope_gradients, sweep_to
from zonocuda.verifier import Verdict, optimize_bounds, verify

EVERYWHERE = [case for case in CASES if case.least == -float("inf") and case.most == float("inf")]
"""Functions without a domain to leave."""
NETWORKS = {"fc": fc, "conv": conv, "residual": residual}


def mixed(graph: Graph, seed: int, share: float = 0.8) -> Graph:
    """The graph with random smooth functions in place of most of its ReLUs."""
    generator = random.Random(seed)
    tame = [case for case in EVERYWHERE if case.function != "power" or case.parameter == 2]

    def other(node: Node) -> Node:
        chosen = isinstance(node.op, Relu) and generator.random() < share
        return replace(node, op=generator.choice(tame).op) if chosen else node

    return Graph(tuple(other(node) for node in graph.nodes), graph.output)


def all_of(case: Case, graph: Graph) -> Graph:
    """The graph with a function in place of its ReLUs."""
    return Graph(tuple(replace(n, op=case.op) if isinstance(n.op, Relu) else n for n in graph.nodes), graph.output)


def run_in_balls(graph: Graph, x: list[float]) -> tuple[dict[str, list[arb]], list[arb]]:
    """Balls around the inputs of every activation, by name, and around the output."""
    seen: dict[str, list[arb]] = {}

    def step(node: Node, values: tuple[list[arb], ...]) -> list[arb]:
        op = node.op
        if isinstance(op, Linear):
            bias = [0.0] * len(op.weight) if op.bias is None else op.bias.tolist()
            return [
                sum((arb(w) * v for w, v in zip(row, values[0], strict=True)), arb(b))
                for row, b in zip(op.weight.tolist(), bias, strict=True)
            ]
        if isinstance(op, Add):
            return [a + op.sign * b for a, b in zip(*values, strict=True)]
        seen[node.name] = values[0]
        if isinstance(op, Relu):
            return [v.max(arb(0)) for v in values[0]]
        assert isinstance(op, Elementary)
        case = Case(op.function, op.parameter)
        return [case.of_ball(v) for v in values[0]]

    return seen, interpret(graph, [arb(v) for v in x], step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("width", [2.0**-20, 0.3, 4.0])
@pytest.mark.parametrize("seed", range(6))
def test_every_proven_bound_holds_in_balls(seed: int, width: float, dtype: torch.dtype) -> None:
    graph = mixed((fc, residual)[seed % 2](seed), seed)
    box = tuple(b.to(dtype) for b in random_box(graph, 1, width, seed))
    low, high = box[0], box[1]
    points = [low[0], high[0], *sample_box(low, high, 2, seed=1)[:2].reshape(2, *low[0].shape)]
    runs = [run_in_balls(graph, p.flatten().tolist()) for p in points]
    count = 0
    with torch.no_grad(), summed_products():
        for what, inputs, bound in claims(graph, dtype, (low, high)):
            assert bool(bound.isfinite().all()) or width == 4.0, what
            for seen, y in runs:
                for node, (below, above) in inputs.items():
                    for v, a, b in zip(seen[node], below.flatten().tolist(), above.flatten().tolist(), strict=True):
                        assert not arb(a) > v, f"{what}: {node}"
                        assert not arb(b) < v, f"{what}: {node}"
                for value, claim in zip([*y, *(-v for v in y)], bound.flatten().tolist(), strict=True):
                    assert not arb(claim) > value, what
                    count += 1
    assert count >= 5 * 4 * 6


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_the_dual_with_minimum_area_slopes_is_the_forward_zonotope(name: str, seed: int) -> None:
    graph = mixed(NETWORKS[name](seed), seed + 10)
    box = random_box(graph, 2, 0.3)
    result = sweep(graph, Zonotope.from_box(*box))
    assert result.output is not None
    low, high = (b.flatten(1) for b in result.output.bounds())
    index = torch.arange(low.shape[1])
    found = neuron_bounds(Relaxed(graph, box, result.intermediate), graph.output, index)
    for one, other in zip(found, (low, high), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    rows = both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, result.intermediate, "minimum_area").items()}
    bound, _ = RowProblem(output_rows(graph, rows, 2), box, result.intermediate).bound(lambda node: start[node.name])
    torch.testing.assert_close(bound, torch.cat([low, -high], 1), rtol=1e-10, atol=1e-10)


def test_a_sweep_by_dual_passes_finds_the_bounds_of_the_forward_one() -> None:
    """Nobody leaves a pass when its sign is known, which tells little about a function that bends everywhere."""
    graph = all_of(Case("tanh"), fc(2, (10, 20, 20, 20, 5)))
    zonotope = Zonotope.from_box(*random_box(graph, 2, 0.1))
    forward, dual = (sweep(graph, zonotope, Means(way)) for way in ("forward", "dual"))  # type: ignore[arg-type]
    for name, bounds in forward.intermediate.items():
        torch.testing.assert_close(dual.intermediate[name], bounds, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_ascent_improves_the_bounds_and_they_hold(seed: int) -> None:
    graph = mixed(fc(seed, (4, 8, 6, 3)), seed + 20, 1.0)
    box = random_box(graph, 1, 0.8, seed)
    inputs, rows = dict(sweep(graph, Zonotope.from_box(*box)).intermediate), both_ends(graph, box[0])
    start = {n: s.flat() for n, s in initial_slopes(graph, inputs, "adaptive").items()}
    plain, _ = RowProblem(output_rows(graph, rows, 1), box, inputs).bound(lambda node: start[node.name])
    found = ascend(RowProblem(output_rows(graph, rows, 1), box, inputs), Ascent(), start).lower
    assert bool((found >= plain).all())
    assert float((found - plain).sum()) > 1e-4
    outputs = graph(sample_box(*box, 1000)[:, 0])
    assert bool((found <= (outputs @ rows.output.T).amin(0) + 1e-9).all())


def test_the_adjoint_of_a_sweep_is_autograds_derivative() -> None:
    graph = mixed(residual(3), 33, 1.0)
    zonotope = Zonotope.from_box(*random_box(graph, 2, 0.4))
    loss = margin(torch.eye(graph.output_shape[0], dtype=torch.float64))
    swept = sweep_to(graph, zonotope, {})
    slopes = {name: crossed.slope * 0.9 + 0.01 for name, crossed in swept.crossed.items()}
    found = slope_gradients(graph, sweep_to(graph, zonotope, slopes), loss)
    leaves = {n: s.clone().requires_grad_() for n, s in slopes.items()}
    with use_backend("reference"), torch.enable_grad():
        output = sweep(graph, zonotope, slopes=leaves).output
        assert output is not None
        expected = torch.autograd.grad(loss(output).sum(), list(leaves.values()))
    for node, other in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[node], other, rtol=1e-8, atol=1e-10)


def test_joint_slopes_improve_the_margin() -> None:
    graph = mixed(fc(6), 6, 1.0)
    zonotope = Zonotope.from_box(*random_box(graph, 1, 0.8))
    rows = torch.eye(graph.output_shape[0], dtype=torch.float64)
    first = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=0))
    best = optimize_bounds(graph, zonotope, rows, mode="forward", ascent=Ascent(iterations=15, rate=0.1))
    assert bool((best.lower >= first.lower).all())
    assert float((best.lower - first.lower).sum()) > 1e-4


# ---- verdicts ------------------------------------------------------------------------------------------------------


def single_box(graph: Graph, width: float, seed: int) -> tuple[Tensor, Tensor]:
    low, high = (b.float().double() for b in random_box(graph, 1, width, seed))
    return low, high


@pytest.mark.parametrize("case", EVERYWHERE, ids=str)
def test_what_holds_is_verified_and_a_planted_violation_never_is(case: Case) -> None:
    graph = all_of(case, fc(7, (3, 5, 4, 2)))
    box = single_box(graph, 0.1, 1)
    least = float(graph(sample_box(box[0], box[1], 2000)[:, 0])[:, 0].min())
    lower = float(zonocuda.compute_bounds(graph, Zonotope.from_box(*box)).lower[0, 0])
    slack = 1e-4 * (1 + abs(lower))
    proven = verify(graph, property_of(graph, box, lower - slack), split="none", certificate=True)
    assert proven.verdict is Verdict.VERIFIED
    assert proven.certificate is not None
    planted = verify(graph, property_of(graph, box, least + slack), split="none", timeout=20)
    assert planted.verdict in (Verdict.FALSIFIED, Verdict.UNKNOWN)


def test_a_box_is_split() -> None:
    graph = all_of(Case("tanh"), fc(8))
    box = single_box(graph, 1.0, 0)
    least = float(graph(sample_box(box[0], box[1], 5000)[:, 0])[:, 0].min())
    question = property_of(graph, box, least - 0.1)
    assert verify(graph, question, effort="fast", split="none").verdict is Verdict.UNKNOWN
    split = verify(graph, question, split="input", timeout=60)
    assert split.verdict is Verdict.VERIFIED
    assert split.splits


@pytest.mark.parametrize("semantics", ["float32", "float64"])
def test_an_execution_is_refused(semantics: str) -> None:
    graph = all_of(Case("sigmoid"), fc(0))
    box = single_box(graph, 0.1, 0)
    with pytest.raises(
        UnsupportedNetworkError,
        match=r"node 'relu2' \(op sigmoid\) is a part of what .* nothing can be stated; use 'real'",
    ):
        verify(graph, property_of(graph, box, -100.0), semantics=semantics)  # type: ignore[arg-type]


def test_a_logarithm_that_may_leave_its_domain_is_never_verified() -> None:
    b = Builder(2, seed=1)
    b(Linear(torch.eye(2, dtype=torch.float64), torch.tensor([0.05, 3.0], dtype=torch.float64)))
    b(Elementary("log"))
    b(Linear(torch.tensor([[-1.0, 0.0]], dtype=torch.float64)))
    graph = b.graph()
    box = torch.full((1, 2), -0.0625, dtype=torch.float64), torch.full((1, 2), 0.0625, dtype=torch.float64)
    result = verify(graph, property_of(graph, box, -1e6), split="none", timeout=10)
    assert result.verdict is not Verdict.VERIFIED
    inside = box[0] / 2, box[1] / 2
    assert verify(graph, property_of(graph, inside, -1e6), timeout=10).verdict is Verdict.VERIFIED


def test_a_proof_by_splitting_has_a_certificate() -> None:
    graph = all_of(Case("tanh"), fc(8))
    box = single_box(graph, 1.0, 0)
    least = float(graph(sample_box(box[0], box[1], 5000)[:, 0])[:, 0].min())
    split = verify(graph, property_of(graph, box, least - 0.1), split="input", timeout=60, certificate=True)
    assert split.verdict is Verdict.VERIFIED
    assert split.splits
    assert split.certificate is not None
    assert not split.certificate.reason
    assert split.certificate.forest is not None
