"""Intermediate bounds tightened by the dual pass, and the efforts of a verification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.verifier import programs
from tests.verifier.graphs import NETWORKS, constraint, fc, random_box, sample_box, spec
from tests.verifier.verdicts import check
from zonocuda.bounds.forward.sweep import sweep
from zonocuda.bounds.interval import Bounds
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph, interpret
from zonocuda.prove.prover import EFFORTS, LADDERS, check_effort
from zonocuda.specs import LinearConstraint
from zonocuda.tighten.ascent import Ascent
from zonocuda.tighten.refine import refine
from zonocuda.verifier import Verdict, verification, verify

EACH_NETWORK = pytest.mark.parametrize("kind", NETWORKS)


def forward(kind: str, seed: int, batch: int = 1, width: float = 0.6) -> tuple[Bounds, dict[str, Bounds]]:
    """A box and the forward bounds of the ReLUs' inputs."""
    graph = NETWORKS[kind](seed)
    box = random_box(graph, batch, width=width, seed=seed + 3)
    return box, dict(sweep(graph, Zonotope.from_box(*box)).intermediate)


@EACH_NETWORK
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("iterations", [0, 4])
def test_refined_bounds_are_tighter_and_enclose_every_sampled_value(kind: str, batch: int, iterations: int) -> None:
    graph = NETWORKS[kind](1)
    box, inputs = forward(kind, 1, batch)
    refined = refine(graph, box, inputs, Ascent(iterations=iterations))
    assert refined.width <= 1 + 1e-12
    assert refined.unstable[1] <= refined.unstable[0]
    for element in range(batch):
        values: dict[str, Tensor] = {}
        interpret(
            graph,
            sample_box(box[0][element], box[1][element], 400, seed=element),
            lambda node, x: node.op.apply(*x),
            lambda node, y, values=values: values.update({node.name: y}),
        )
        for relu in graph.relus:
            low, high = (b[element] for b in refined.intermediate[relu.name])
            old = [b[element] for b in inputs[relu.name]]
            assert bool((low >= old[0]).all())
            assert bool((high <= old[1]).all())
            y = values[relu.inputs[0]]
            assert bool((y >= low - 1e-11).all())
            assert bool((y <= high + 1e-11).all())


def test_refinement_pays_on_wide_boxes_and_more_with_optimised_slopes() -> None:
    widths = []
    for seed in range(4):
        graph = fc(seed, (5, 12, 12, 12, 3))
        box = random_box(graph, width=0.8, seed=seed)
        inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
        plain, learned = (refine(graph, box, inputs, Ascent(iterations=n)).width for n in (0, 20))
        assert learned <= plain + 1e-9
        widths.append((plain, learned))
    assert min(plain for plain, _ in widths) < 0.95
    assert min(learned / plain for plain, learned in widths) < 0.98


def test_the_first_layer_and_stable_neurons_are_left_as_they_are() -> None:
    graph = fc(0)
    box, inputs = forward("fc", 0)
    refined = refine(graph, box, inputs, Ascent(iterations=2)).intermediate
    first, second = (node.name for node in graph.relus)
    assert refined[first] is inputs[first]
    low, high = inputs[second]
    stable = (low >= 0) | (high <= 0)
    for old, new in zip(inputs[second], refined[second], strict=True):
        assert torch.equal(old[stable], new[stable])


def test_nan_bounds_stay_unproven() -> None:
    graph = fc(0)
    box, inputs = forward("fc", 0)
    nan = {name: (torch.full_like(b[0], torch.nan), torch.full_like(b[1], torch.nan)) for name, b in inputs.items()}
    for low, high in list(refine(graph, box, nan, Ascent(iterations=2)).intermediate.values())[1:]:
        assert not bool(((low >= 0) | (high <= 0)).any())


@pytest.mark.parametrize("seed", range(3))
def test_no_refined_bound_of_a_neuron_exceeds_its_exact_range(seed: int) -> None:
    """The exact range by a mixed-integer program over the network up to the neuron's layer, from the first bounds."""
    graph = fc(seed, (4, 7, 7, 3))
    box = random_box(graph, width=0.7, seed=seed)
    inputs = dict(sweep(graph, Zonotope.from_box(*box)).intermediate)
    refined = refine(graph, box, inputs, Ascent(iterations=30)).intermediate
    second = graph.relus[1]
    position = graph.nodes.index(second)
    head = Graph(graph.nodes[:position], second.inputs[0])
    tightened = 0
    for n in range(7):
        unit = torch.zeros(7, dtype=torch.float64)
        unit[n] = 1
        least, most = (sign * programs.minimum(head, box, inputs, sign * unit, exact=True) for sign in (1.0, -1.0))
        low, high = (float(b[0, n]) for b in refined[second.name])
        assert low <= least + 1e-7
        assert high >= most - 1e-7
        tightened += low > float(inputs[second.name][0][0, n]) + 1e-6
    assert tightened > 0


@pytest.fixture
def prover_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only proofs decide."""
    for name in ("falsify", "replay"):
        monkeypatch.setattr(verification, name, lambda *args, **options: None)
    monkeypatch.setattr(verification, "wants_split", lambda split, region: False)


# ---- efforts ---------------------------------------------------------------------------------------------------------


def row(index: int, constant: float) -> LinearConstraint:
    """Y_index + constant <= 0."""
    return constraint({index: 1}, constant)


@pytest.mark.usefixtures("prover_only")
def test_each_effort_proves_what_the_one_before_leaves_open() -> None:
    """The property's constant is put between the margins of two efforts."""
    gained = dict.fromkeys(EFFORTS, 0)
    for seed in range(3):
        graph = fc(seed, (5, 16, 16, 16, 3))
        box = random_box(graph, width=0.8, seed=seed)
        low, high = (b[0] for b in box)
        plain = verify(graph, spec(low, high, [[row(0, -100.0)]], 3), effort="fast").margin
        assert plain is not None
        near = -100.0 - plain - 1.0  # a constant with which the margins are of ordinary size
        margins: list[float] = []
        for effort in EFFORTS:
            result = verify(graph, spec(low, high, [[row(0, near - 5.0)]], 3), effort=effort)
            check(result, Verdict.UNKNOWN)
            assert result.margin is not None
            margins.append(result.margin)
        assert margins == sorted(margins)
        for position, effort in enumerate(EFFORTS[1:], 1):
            before, after = margins[position - 1 : position + 1]
            if after - before < 1e-3:
                continue
            gained[effort] += 1
            problem = spec(low, high, [[row(0, near - 5.0 - before - 0.9 * (after - before))]], 3)
            check(verify(graph, problem, effort=EFFORTS[position - 1]), Verdict.UNKNOWN)
            check(verify(graph, problem, effort=effort), Verdict.VERIFIED)
    assert gained["standard"] >= 2
    assert gained["max"] >= 1


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("effort", EFFORTS)
def test_no_effort_proves_what_a_sampled_point_violates(effort: str) -> None:
    for seed in range(3):
        graph = fc(seed, (4, 10, 10, 2))
        box = random_box(graph, width=0.7, seed=seed)
        low, high = (b[0] for b in box)
        least = graph(sample_box(low, high, 2000, seed)).amin(0)
        disjuncts = [[row(0, -float(least[0]))], [row(1, -float(least[1]) + 0.5)]]
        result = verify(graph, spec(low, high, disjuncts, 2), effort=effort)  # type: ignore[arg-type]
        assert result.verdict is not Verdict.VERIFIED
        assert result.margin is not None
        assert result.margin <= 1e-9


@pytest.mark.usefixtures("prover_only")
def test_a_disjunct_needs_only_one_of_its_rows() -> None:
    graph = fc(1, (4, 10, 10, 2))
    box = random_box(graph, width=0.5, seed=1)
    low, high = (b[0] for b in box)
    hopeless, easy = row(0, -100.0), row(1, 100.0)
    check(verify(graph, spec(low, high, [[hopeless, easy]], 2), effort="max"), Verdict.VERIFIED)
    check(verify(graph, spec(low, high, [[hopeless], [easy]], 2), effort="max"), Verdict.UNKNOWN)


def test_an_unknown_effort_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"effort must be one of fast, standard, max, got 'heroic'"):
        check_effort("heroic")
    graph = fc(0)
    low, high = (b[0] for b in random_box(graph))
    with pytest.raises(ValueError, match="effort must be one of"):
        verify(graph, spec(low, high, [[row(0, 0.0)]], 3), effort="heroic")  # type: ignore[arg-type]


def test_ladders_grow_with_the_effort() -> None:
    assert set(LADDERS) == set(EFFORTS)
    steps = [sum(rung.intermediate + rung.rows for rung in LADDERS[effort]) for effort in EFFORTS]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
