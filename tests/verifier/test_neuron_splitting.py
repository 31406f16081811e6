"""Verdicts by splitting neurons, against exact values; the leaves of the trees, and lemmas."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from typing import Any

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from tests.verifier.graphs import NETWORKS, Builder, constraint, fc, random_box, region, sample_box, spec
from tests.verifier.piecewise import smallest
from tests.verifier.test_splitting import above, decide, evaluate_before, hard
from zonocuda.bounds.dual.dual_pass import flatten_positions
from zonocuda.bounds.dual.problem import RowProblem, output_rows
from zonocuda.bounds.dual.signs import KnownSigns, SignLayer, SignProblem, _SignedImage
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.interval import Bounds
from zonocuda.branch import SignParts, SignSearch, SignSettings
from zonocuda.graph import Graph, Linear, Node, Relu, interpret
from zonocuda.prove.lemmas import LemmaEffort, find_lemmas
from zonocuda.prove.sign_bounds import ROOT, SignBounds
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region
from zonocuda.verifier import Verdict, neuron_search
from zonocuda.verifier.neuron_search import NeuronSearch

CPU = torch.device("cpu")


def course(graph: Graph, part: Region, dtype: torch.dtype = torch.float32, seconds: float = 20.0) -> Any:
    """A search in a region, for bounds of the ReLUs' inputs by reduced zonotopes."""
    arithmetic = Arithmetic.of(graph, dtype, CPU)
    inputs = reduced_bounds(arithmetic.graph, arithmetic.box(part), arithmetic.rounding)
    every = range(len(part.disjuncts))
    end = time.monotonic() + seconds
    return neuron_search.NeuronCourse(NeuronSearch(part, 0, [arithmetic], inputs, every, lambda points: None, end))


# ---- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semantics", ["real", "float32"])
@pytest.mark.parametrize("seed", range(2))
def test_splitting_decides_what_the_exact_minimum_says(seed: int, semantics: Any) -> None:
    graph = fc(seed, (1, 6, 6, 1)).to(torch.float32).to(torch.float64)
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    size = 1 + abs(least)
    proven = decide(graph, above(least - size / 1000), semantics=semantics, split="neuron")
    assert proven.verdict is Verdict.VERIFIED
    broken = decide(graph, above(least + size / 1000), semantics=semantics, split="neuron")
    assert broken.verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("seed", range(2))
def test_every_activation_pattern_together_says_what_the_search_says(seed: int) -> None:
    graph = fc(seed, (2, 4, 4, 1))
    least = pattern_minimum(graph)
    ends = torch.ones(2).double()
    for margin, verdict in ((1e-3, Verdict.VERIFIED), (-1e-3, Verdict.FALSIFIED)):
        problem = spec(-ends, ends, [[constraint({0: 1.0}, margin - least)]], 1)
        assert decide(graph, problem, split="neuron").verdict is verdict


def pattern_minimum(graph: Graph) -> float:
    """The smallest output of a chain on [-1, 1]^2: the least of the linear programs of all patterns."""
    layers = [node.op for node in graph.nodes if isinstance(node.op, Linear)]
    width = layers[0].weight.shape[0]
    found = []
    for pattern in itertools.product((1.0, 0.0), repeat=2 * width):
        matrix, offset = torch.eye(2).double(), torch.zeros(2).double()
        rows, limits = [], []
        for number, layer in enumerate(layers):
            assert layer.bias is not None
            matrix, offset = layer.weight @ matrix, layer.weight @ offset + layer.bias
            if number < 2:
                on = torch.tensor(pattern[number * width : (number + 1) * width]).double()
                sign = (1 - 2 * on).unsqueeze(1)  # sign (matrix x + offset) <= 0
                rows.append(sign * matrix)
                limits.append(-sign.squeeze(1) * offset)
                matrix, offset = on.unsqueeze(1) * matrix, on * offset
        result = linprog(matrix[0].numpy(), torch.cat(rows).numpy(), torch.cat(limits).numpy(), bounds=[(-1, 1)] * 2)
        if result.status == 0:
            found.append(float(result.fun) + float(offset[0]))
    return min(found)


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
@pytest.mark.parametrize("seed", range(2))
def test_a_minimum_that_is_attained_is_never_verified(seed: int, dtype: Any) -> None:
    graph = fc(seed, (1, 5, 5, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    for hair in (Fraction(0), Fraction(1, 10**12)):
        result = decide(graph, above(least + hair * abs(least)), dtype=dtype, timeout=1.0, split="neuron")
        assert result.verdict is not Verdict.VERIFIED


def test_float64_proves_the_parts_that_rounding_alone_leaves_open_in_float32() -> None:
    graph = fc(3, (1, 5, 5, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    problem = above(least - abs(least) / 10**8)
    assert decide(graph, problem, split="neuron").verdict is Verdict.VERIFIED
    assert decide(graph, problem, split="neuron", dtype=torch.float32).verdict is not Verdict.VERIFIED


def test_a_conjunction_is_refuted_part_by_part_by_one_row_or_another() -> None:
    b = Builder(2, seed=1)
    first = b.linear(2, 2)
    assert first.bias is not None
    first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    first.bias.zero_()
    b(first)
    b(Relu())
    graph, ends = b.graph(), torch.ones(2).double()  # relu(x0), relu(-x0)

    def unsafe(least: float) -> Region:  # x0 <= -least and x0 >= least
        return region(-ends, ends, [[constraint({0: 1.0, 1: -1.0}, least), constraint({0: -1.0, 1: 1.0}, least)]])

    _, stats = course(graph, unsafe(0.1)).run()
    assert stats.is_proven
    assert stats.boxes >= 2
    assert not course(graph, unsafe(0.0)).run()[1].is_proven


# ---- the result ------------------------------------------------------------------------------------------------------


def test_what_is_left_open_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, problem = hard()
    result = decide(graph, problem, split="neuron", timeout=1.0)
    assert result.splits[0].split == "neuron"
    if result.verdict is not Verdict.VERIFIED:
        assert "parts are open after" in result.reason


def test_without_timeout_there_is_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zonocuda.verifier.splitting.SECONDS", 0.0)
    graph, problem = hard()
    result = decide(graph, problem, split="neuron", timeout=None)
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason.startswith("1 parts are open after 0 were bounded")


@pytest.mark.parametrize("options", [{"split": "none"}, {"split": "neuron", "effort": "fast"}])
def test_nothing_is_split_where_nobody_asks(options: dict[str, Any]) -> None:
    assert not decide(*hard(), **options).splits


def test_little_memory_ends_the_search_and_proves_nothing() -> None:
    graph, problem = hard()
    search = course(graph, problem.regions[0])
    search.settings = SignSettings(8, memory=1)
    outcome = search.look()
    assert outcome.is_full
    assert not outcome.is_proven
    assert outcome.open >= 2


# ---- leaves ----------------------------------------------------------------------------------------------------------


def leaves(graph: Graph, part: Region, most: float = 600) -> tuple[SignProblem, SignParts, Any]:
    """The refuted parts of a search."""
    search = course(graph, part)
    bounder: SignBounds = search.rows_on(search.intermediate)
    closed: list[SignParts] = []
    roots, settings = search.roots(bounder, ROOT), SignSettings(64)
    tree = SignSearch(roots, search.members, bounder, lambda points: None, settings, closed.append)
    outcome = tree.run(lambda: True, most)
    return bounder.problem, SignParts.cat(closed), outcome


def signs_at(graph: Graph, problem: SignProblem, x: Tensor) -> Tensor:
    """``[n, U]``, the inputs of the problem's crossing neurons at points, in float64."""
    seen: dict[str, Tensor] = {}

    def step(node: Node, values: tuple[Tensor, ...]) -> Tensor:
        if isinstance(node.op, Relu):
            seen[node.name] = values[0].flatten(1)
        result: Tensor = node.op.apply(*values)
        return result

    interpret(graph, x, step)
    places = [(layer, flatten_positions(graph[layer.name].shape)[layer.index]) for layer in problem.layers]
    return torch.cat([seen[layer.name][:, place] for layer, place in places], 1)


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (4, 6, 6, 6, 1)])
def test_every_point_lies_in_a_leaf_and_what_it_claims_holds_there(shape: tuple[int, ...]) -> None:
    graph = fc(1, shape).to(torch.float32).to(torch.float64)
    ends = torch.ones(shape[0]).double()
    points = sample_box(-ends, ends, 2000, seed=5)
    part = region(-ends, ends, [[constraint({0: 1.0}, 0.06 - float(graph(points).min()))]])
    problem, closed, outcome = leaves(graph, part)
    assert outcome.is_proven
    assert len(closed) > 4
    values = graph(points)[:, 0] + float(part.disjuncts[0][0].constant)
    at = signs_at(problem.graph.to(torch.float64), problem, points).sign()
    inside = ((closed.signs.unsqueeze(0) * at.unsqueeze(1)) >= 0).all(2)  # [points, leaves]
    assert bool(inside.any(1).all())
    claimed = torch.where(inside, closed.bound.double(), -torch.inf).amax(1)
    assert bool((claimed > 0).all())
    assert bool((claimed <= values).all())


def test_two_runs_make_the_same_tree() -> None:
    graph = fc(5, (3, 12, 12, 1))
    ends = torch.ones(3).double()
    part = region(-ends, ends, [[constraint({0: 1.0}, 1.5)]])
    (_, first, one), (_, second, two) = (leaves(graph, part, most=300) for _ in range(2))
    assert (one.bounded, one.depth, one.open, one.worst) == (two.bounded, two.depth, two.open, two.worst)
    assert torch.equal(first.signs, second.signs)
    assert torch.equal(first.bound, second.bound)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_split_neuron_is_one_that_is_known_to_be_active_or_dead(name: str) -> None:
    graph = NETWORKS[name](0)
    low, high = random_box(graph, width=0.4)
    part = region(low[0].flatten(), high[0].flatten(), [[constraint({0: 1.0, 1: -0.5})]])
    search = course(graph, part, torch.float64)
    arithmetic = search.search.arithmetics[0]
    rows = arithmetic.rows(part, search.box)
    whole = SignProblem(
        graph,
        lambda ledger: output_rows(graph, rows, 1, ledger),
        search.box,
        search.intermediate,
        search.rows_on(search.intermediate).problem._flows[True].tally.ledger,
    )
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(-1, 2, (1, whole.count), generator=generator).double()
    slopes = torch.rand(1, whole.count, generator=generator).double()
    flow = whole.flow(torch.zeros(1, dtype=torch.int64), False)
    found = whole.run(flow, whole.known(signs), slopes, torch.zeros_like(slopes))
    known: dict[str, Bounds] = dict(search.intermediate)
    given: dict[str, Slopes] = {}
    for layer, sign, slope in zip(whole.layers, signs[0].split(whole.sizes), slopes[0].split(whole.sizes), strict=True):
        shape = graph[layer.name].shape
        order = flatten_positions(shape)
        full, free = torch.zeros(order.numel()).double(), torch.zeros(order.numel()).double()
        full[order[layer.index]], free[layer.index] = sign, slope
        lower, upper = known[layer.name]
        full = full.reshape(lower.shape)
        known[layer.name] = torch.where(full > 0, 0.0, lower), torch.where(full < 0, 0.0, upper)
        given[layer.name] = Slopes(None, free.reshape(1, 1, -1))
    lower, _ = RowProblem(output_rows(graph, rows, 1), search.box, known).bound(
        lambda node: given.get(node.name, Slopes())
    )
    torch.testing.assert_close(found.lower, lower[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_sign_makes_of_a_row_is_one_of_the_coefficients_that_it_allows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    shape = 64, 9

    def numbers() -> Tensor:  # of any size, zeros among them
        size = 10.0 ** torch.randint(-30, 31, shape, generator=generator)
        return (torch.randn(shape, generator=generator) * size * (torch.rand(shape, generator=generator) > 0.1)).to(
            dtype
        )

    v, multiplier, slope = numbers(), numbers(), torch.rand(shape, generator=generator).to(dtype) * 1.4 - 0.2
    lam = torch.rand(shape[1], generator=generator).to(dtype)
    sign = torch.randint(-1, 2, shape, generator=generator).to(dtype)
    every = torch.arange(shape[1])
    layer = SignLayer("relu", every, lam, -lam, lam, None)
    image, low = _SignedImage.apply(v, slope, multiplier, KnownSigns.of(sign, lam), layer)
    for r, (rows, row_low) in enumerate(zip(image.tolist(), low.tolist(), strict=True)):
        charged = []
        for k, own in enumerate(rows):
            was, known = Fraction(float(v[r, k])), int(sign[r, k])
            if known > 0:
                assert Fraction(own) <= was
            elif known < 0:
                assert own >= 0
            else:  # the product that the ledger charges, rounded once
                used = lam[k] if was < 0 else slope[r, k].clamp(0, 1)
                assert own == float(v[r, k] * used)
                charged.append(min(was, Fraction(0)) * -Fraction(float(lam[k])))
        total, units = sum(charged, Fraction(0)), (len(charged) + 1) * Fraction(torch.finfo(dtype).eps)
        assert abs(Fraction(row_low) - total) <= units * abs(total)


def test_the_derivatives_are_those_of_the_bound() -> None:
    graph = NETWORKS["residual"](2)
    low, high = random_box(graph, width=0.4)
    part = region(low[0], high[0], [[constraint({0: 1.0, 1: -0.5})]])
    problem = course(graph, part, torch.float64)
    problem = problem.rows_on(problem.intermediate).problem
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(-1, 2, (3, problem.count), generator=generator).double()
    free = [torch.rand(3, problem.count, generator=generator).double().requires_grad_() for _ in range(2)]
    assert bool((signs != 0).any())
    assert bool((signs == 0).any())

    def bound(slopes: Tensor, multipliers: Tensor) -> Tensor:
        lower: Tensor = problem.run(
            problem.flow(torch.zeros(3, dtype=torch.int64), False), problem.known(signs), slopes, multipliers
        ).lower
        return lower

    assert torch.autograd.gradcheck(bound, free)


@pytest.mark.parametrize("count", [1, 5, 13])
def test_parts_that_go_together_are_bounded_as_each_alone(count: int) -> None:
    graph = NETWORKS["residual"](2)  # convolutions, whose passes carry usual numbers of rows
    low, high = random_box(graph, width=0.4)
    part = region(low[0], high[0], [[constraint({0: 1.0, 1: -0.5})], [constraint({1: 1.0})]])
    search = course(graph, part, torch.float64)
    bounder = search.rows_on(search.intermediate)
    roots = search.roots(bounder, ROOT)
    chosen = roots.at(torch.arange(count) % len(roots))
    neurons = torch.arange(count) % bounder.problem.count
    parts = chosen.split(neurons)
    together, estimated = bounder.bound(parts).parts, bounder.estimate(parts)
    assert len(together) == len(estimated) == 2 * count
    for number in range(2 * count):
        alone = parts.at(slice(number, number + 1))
        torch.testing.assert_close(estimated[number], bounder.estimate(alone)[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.bound[number], bounder.bound(alone).parts.bound[0], rtol=1e-6, atol=1e-6)


# ---- lemmas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_lemmas_enclose_and_are_no_looser(name: str, dtype: torch.dtype) -> None:
    graph = NETWORKS[name](0)
    arithmetic = Arithmetic.of(graph, dtype, CPU)
    box = tuple(b.to(dtype) for b in random_box(graph, width=0.4))
    before = reduced_bounds(arithmetic.graph, (box[0], box[1]), arithmetic.rounding)

    def costs(inputs: Any, relu: str) -> Tensor:
        return torch.ones(inputs[relu][0].numel())

    used, boxes = [arithmetic], [(box[0], box[1])]
    if dtype is torch.float32:  # to climb in; proofs are in float64
        used, boxes = [*used, Arithmetic.of(graph, torch.float64, CPU)], [*boxes, (box[0].double(), box[1].double())]
    found = find_lemmas(used, boxes, before, LemmaEffort(8, 3), costs, lambda node: None, lambda share: True)
    assert found.finished
    for relu, (lower, upper) in found.intermediate.items():
        assert bool((lower >= before[relu][0]).all())
        assert bool((upper <= before[relu][1]).all())
    for x in sample_box(box[0][0].double(), box[1][0].double(), 6).to(dtype).clamp(box[0][0], box[1][0]):
        seen: dict[str, list[Fraction]] = {}
        evaluate_before(graph, x, seen)
        for relu, values in seen.items():
            lower, upper = (end[0].flatten().tolist() for end in found.intermediate[relu])
            assert all(a <= v <= c for a, v, c in zip(lower, values, upper, strict=True)), relu


def test_lemmas_prove_what_a_relaxation_does_not_see() -> None:
    b = Builder(2)
    first, second, last = b.linear(2, 2), b.linear(2, 1), b.linear(1, 1)
    for layer, weight in ((first, [[1.0, 0.0], [-1.0, 0.0]]), (second, [[1.0, 1.0]])):
        layer.weight.copy_(torch.tensor(weight))
        assert layer.bias is not None
        layer.bias.zero_()
    assert second.bias is not None
    second.bias.fill_(-0.5)
    for op in (first, Relu(), second, Relu(), last):  # |x0| - 0.5 before the second ReLU
        b(op)
    arithmetic = Arithmetic.of(b.graph(), torch.float32, CPU)
    ends = {relu.name: torch.full((1, *relu.shape), 5.0) for relu in b.graph().relus}
    before = {name: (-end, end) for name, end in ends.items()}

    def costs(inputs: Any, relu: str) -> Tensor:
        return torch.ones(inputs[relu][0].numel())

    box = -torch.ones(1, 2), torch.ones(1, 2)
    found = find_lemmas([arithmetic], [box], before, LemmaEffort(4, 3), costs, lambda node: None, lambda share: True)
    lower, upper = found.intermediate[b.graph().relus[1].name]
    assert -0.51 <= float(lower) <= -0.5
    assert 0.5 <= float(upper) <= 0.51
    assert found.improved >= 1


def test_a_layer_whose_time_is_up_leaves_the_others_theirs() -> None:
    graph = fc(3, (4, 12, 12, 12, 2))
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    box = -torch.ones(1, 4).double(), torch.ones(1, 4).double()
    before = reduced_bounds(arithmetic.graph, box, arithmetic.rounding)
    asked: list[float] = []

    def proceed(share: float) -> bool:
        asked.append(share)
        return share == 1.0  # that of the last layer

    def costs(inputs: Any, relu: str) -> Tensor:
        return torch.ones(inputs[relu][0].numel()).double()

    found = find_lemmas([arithmetic], [box], before, LemmaEffort(8, 3), costs, lambda node: None, proceed)
    assert found.finished
    assert found.bounded > 0
    assert found.improved > 0
    shares = [share for share in asked if share < 1.0]
    assert shares == sorted(shares)
    assert asked[-1] == 1.0
