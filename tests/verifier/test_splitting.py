"""Verdicts by splitting the box, against exact values."""

from __future__ import annotations

import time
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import NETWORKS, Builder, constraint, fc, random_box, region, sample_box, spec
from tests.verifier.piecewise import smallest
from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.rows import Rows
from zonocuda.branch import Settings, Subproblems, search
from zonocuda.graph import Gather, Graph, Relu
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import LinearConstraint, Spec
from zonocuda.verifier import Verdict, VerifyResult, splitting, verify
from zonocuda.verifier.falsify import falsify
from zonocuda.verifier.model import Subject
from zonocuda.verifier.result import SplitStats

CPU = torch.device("cpu")
INTERVAL = torch.tensor([-1.0]).double(), torch.tensor([1.0]).double()


def decide(graph: Graph, problem: Spec, **options: Any) -> VerifyResult:
    """Ten seconds at most."""
    return verify(graph, problem, **{"timeout": 10.0, "device": "cpu", **options})


def above(least: Fraction) -> Spec:
    """Safe: the output is more than so much on [-1, 1]."""
    return Spec(1, 1, (region(*INTERVAL, [[LinearConstraint({0: Fraction(1)}, {}, -least)]]),))


@pytest.mark.parametrize("semantics", ["real", "float32"])
@pytest.mark.parametrize("seed", range(8))
def test_splitting_decides_what_the_exact_minimum_says(seed: int, semantics: Any) -> None:
    graph = fc(seed, (1, 6, 6, 1)).to(torch.float32).to(torch.float64)
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    size = 1 + abs(least)
    proven = decide(graph, above(least - size / 1000), semantics=semantics)
    assert proven.verdict is Verdict.VERIFIED
    broken = decide(graph, above(least + size / 1000), semantics=semantics)
    assert broken.verdict is Verdict.FALSIFIED


@pytest.mark.parametrize(("seed", "dtype"), enumerate(["auto", torch.float32, torch.float64] * 2))
def test_a_minimum_that_is_attained_is_never_verified(seed: int, dtype: Any) -> None:
    graph = fc(seed, (1, 5, 5, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    for hair in (Fraction(0), Fraction(1, 10**14), Fraction(1, 10**9)):
        result = decide(graph, above(least + hair * abs(least)), dtype=dtype, timeout=0.4)
        assert result.verdict is not Verdict.VERIFIED


def test_float64_goes_on_where_the_boxes_of_float32_end() -> None:
    graph = fc(3, (1, 5, 5, 1))
    _, least = smallest(graph, Fraction(-1), Fraction(1))
    result = decide(graph, above(least - abs(least) / 10**11))
    assert result.verdict is Verdict.VERIFIED
    assert decide(graph, above(least - abs(least) / 10**11), dtype=torch.float32).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_reduced_bounds_enclose_and_a_smaller_box_has_smaller_ones(name: str, dtype: torch.dtype) -> None:
    graph = NETWORKS[name](0)
    arithmetic = Arithmetic.of(graph, dtype, CPU)
    low, high = (b.to(dtype) for b in random_box(graph, batch=3, width=0.2))
    found = reduced_bounds(arithmetic.graph, (low, high), arithmetic.rounding)
    assert found.keys() == {node.name for node in graph.relus}
    for b in range(3):
        for x in sample_box(low[b].double(), high[b].double(), 6, seed=b).to(dtype).clamp(low[b], high[b]):
            seen: dict[str, list[Fraction]] = {}
            evaluate_before(graph, x, seen)
            for relu, values in seen.items():
                lower, upper = (end[b].flatten().tolist() for end in found[relu])
                assert all(a <= v <= c for a, v, c in zip(lower, values, upper, strict=True)), (relu, dtype)
    middle = low + (high - low) / 2
    known = reduced_bounds(arithmetic.graph, (low, middle), arithmetic.rounding, found)
    for relu, (lower, upper) in known.items():
        assert bool((lower >= found[relu][0]).all())
        assert bool((upper <= found[relu][1]).all())


def evaluate_before(graph: Graph, x: Tensor, seen: dict[str, list[Fraction]]) -> None:
    """The exact inputs of every ReLU."""
    for node in graph.relus:
        kept = tuple(n for n in graph.nodes[: graph.nodes.index(node)])
        seen[node.name] = evaluate(Graph(kept, node.inputs[0]), exactly(x))


@pytest.mark.parametrize("name", ["fc", "conv", "residual", "pooling"])
def test_a_batch_of_boxes_is_bounded_as_each_of_them(name: str) -> None:
    graph = NETWORKS[name](1)
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    low, high = (b.flatten(1) for b in random_box(graph, batch=4, width=0.2))
    part = region(low[0], high[0], [[constraint({0: 1.0})], [constraint({1: -1.0, 0: 0.5}, 0.2)]])
    bounder = BoxBounder(arithmetic, arithmetic.rows(part, arithmetic.box(part)))
    together = bounder.bound(low, high)
    for b in range(4):
        alone = bounder.bound(low[b : b + 1], high[b : b + 1])
        torch.testing.assert_close(together.lower[b : b + 1], alone.lower, rtol=1e-6, atol=1e-9)


def test_what_float32_lacks_by_rounding_alone_is_bounded_again_in_float64() -> None:
    graph = fc(0, (2, 6, 6, 1))
    point = torch.tensor([[0.3, -0.2]])
    value = evaluate(graph, exactly(point))[0]
    part = region(point[0], point[0], [[LinearConstraint({0: Fraction(1)}, {}, -value + Fraction(1, 10**10))]])
    bounders = []
    for dtype in (torch.float64, torch.float32):
        arithmetic = Arithmetic.of(graph, dtype, CPU)
        wide = partial(bounders.__getitem__, 0) if bounders else None
        bounders.append(BoxBounder(arithmetic, arithmetic.rows(part, arithmetic.box(part)), wide))
    assert float(BoxBounder(bounders[1].arithmetic, bounders[1].rows).bound(point, point).lower) <= 0
    assert 0 < float(bounders[1].bound(point, point).lower) < 1e-9


def hard() -> tuple[Graph, Spec]:
    """A property that holds at all points seen, by little."""
    graph = fc(2, (4, 30, 30, 1))
    ends = torch.ones(4).double()
    least = float(graph(sample_box(-ends, ends, 4000)).min())
    return graph, spec(-ends, ends, [[constraint({0: 1.0}, -least + 1e-3)]], 1)


def test_a_split_without_timeout_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "SECONDS", 0.0)
    result = verify(*hard(), device="cpu")
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason == "1 boxes are open after 0 were bounded; the worst bound is -inf"


def test_a_split_that_reaches_the_timeout_says_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(self: splitting.RegionSearch) -> tuple[None, SplitStats, None]:
        time.sleep(max(0.0, self.remaining()))
        return None, SplitStats(0, 7, 3, 2, -0.5, False, 1.0), None

    monkeypatch.setattr(splitting.RegionSearch, "run", late)
    result = decide(*hard(), timeout=5.0)
    assert result.verdict is Verdict.TIMEOUT
    assert result.reason.endswith("s: 2 boxes are open after 7 were bounded; the worst bound is -0.5")


def wide(inputs: int) -> tuple[Graph, Spec]:
    """|x_0| >= 0 on a box of so many inputs, which no zonotope proves on all of it with 1e-3 to spare."""
    b = Builder(inputs)
    first, last = b.linear(inputs, 2), b.linear(2, 1)
    for layer in (first, last):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    first.weight[:, 0] = torch.tensor([1.0, -1.0])
    last.weight[0] = 1.0
    b(first)
    b(Relu())
    b(last)
    ends = torch.ones(inputs).double()
    return b.graph(), spec(-ends, ends, [[constraint({0: 1.0}, 1e-3)]], 1)


def test_auto_splits_where_few_inputs_vary() -> None:
    few = decide(*wide(splitting.MAX_INPUTS))
    many = decide(*wide(splitting.MAX_INPUTS + 1))
    for inputs, boxes, neurons in (
        (splitting.FEW_INPUTS, True, False),
        (splitting.FEW_INPUTS + 1, True, True),
        (splitting.MAX_INPUTS, True, True),
        (splitting.MAX_INPUTS + 1, False, True),
    ):
        problem = wide(inputs)
        part = problem[1].regions[0]
        assert splitting.wants_split("auto", part) is boxes
        assert splitting.wants_neurons("auto", part, problem[0]) is neurons
    assert few.verdict is many.verdict is Verdict.VERIFIED
    asked = decide(*wide(splitting.MAX_INPUTS + 1), split="input")
    assert asked.verdict is Verdict.VERIFIED


def test_neurons_are_split_where_boxes_do_not_end_in_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "BOX_SHARE", 0.0)
    for inputs, kinds in ((splitting.FEW_INPUTS, ["input"]), (splitting.FEW_INPUTS + 1, ["input", "neuron"])):
        graph, ends = fc(3, (inputs, 16, 16, 1)), torch.full((inputs,), 0.5).double()
        least = float(graph(sample_box(-ends, ends, 20_000)).min())
        problem = spec(-ends, ends, [[constraint({0: 1.0}, 0.3 - least)]], 1)
        result = decide(graph, problem, timeout=20.0)
        assert result.verdict is Verdict.VERIFIED
        assert [stats.split for stats in result.splits] == kinds
        assert result.splits[-1].is_proven


@pytest.mark.parametrize("options", [{"split": "none"}, {"effort": "fast"}])
def test_nothing_is_split_where_nobody_asks(options: dict[str, Any]) -> None:
    assert not decide(*hard(), **options).splits


def test_an_unknown_way_to_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of auto, input, neuron, none"):
        verify(*wide(1), split="both")  # type: ignore[arg-type]


def test_two_runs_split_into_the_same_boxes() -> None:
    graph = fc(5, (3, 12, 12, 1))
    arithmetic = Arithmetic.of(graph, torch.float32, CPU)
    low, high = -torch.ones(3), torch.ones(3)
    part = region(low, high, [[constraint({0: 1.0}, 5.0)]])
    rows = arithmetic.rows(part, arithmetic.box(part))
    counts = set()
    for _ in range(2):
        left = iter(range(20))
        found = search(
            Subproblems.of(low.unsqueeze(0), high.unsqueeze(0)),
            rows.disjuncts,
            BoxBounder(arithmetic, rows),
            lambda points: None,
            lambda left=left: next(left, None) is not None,  # type: ignore[misc]
            Settings(16),
        )
        counts.add((found.bounded, found.depth, found.open, found.worst))
    assert len(counts) == 1


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_an_input_as_wide_as_float32_that_nobody_reads_is_left_alone(dtype: Any) -> None:
    b = Builder(2, seed=3)
    b(Gather(0, (1,)))
    for layer in (b.linear(1, 8), b.linear(8, 8), b.linear(8, 1)):
        b(layer)
        b(Relu())
    graph = Graph(tuple(b.nodes[:-1]), b.nodes[-2].name)
    low, high = torch.tensor([-3e38, -1.0]).double(), torch.tensor([3e38, 1.0]).double()
    one = torch.tensor([0.0, 1.0]).double()
    least = float(graph(sample_box(-one, one, 2000)).min())
    problem = spec(low, high, [[constraint({0: 1.0}, 1e-2 - least)]], 1)
    assert decide(graph, problem, dtype=dtype).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("bounder", [BoxBounder, DenseBounder])
def test_time_that_runs_out_in_the_middle_of_a_batch_leaves_its_boxes_open(
    bounder: type[BoxBounder] | type[DenseBounder], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bounder is BoxBounder:
        monkeypatch.setattr(DenseNetwork, "of", lambda rounding, box: None)
    clock = [0.0]

    monkeypatch.setattr(splitting.time, "monotonic", lambda: clock[0])
    real = bounder.bound

    def slow(self: Any, lower: Tensor, upper: Tensor, known: Tensor) -> object:
        clock[0] += 100.0
        return real(self, lower, upper, known)

    monkeypatch.setattr(bounder, "bound", slow)
    monkeypatch.setattr(splitting, "SECONDS", 50.0)
    result = verify(*hard(), device="cpu", effort="standard")
    assert result.splits[0].open == 1
    assert result.splits[0].boxes == 0
    assert result.verdict is Verdict.UNKNOWN


def ridge() -> tuple[Graph, Spec]:
    """Unsafe where |w . x - 0.375| <= 2^-16: beside a plane."""
    b = Builder(6, seed=1)
    first, last = b.linear(6, 2), b.linear(2, 2)
    for layer in (first, last):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    first.weight[0] = torch.tensor([1.0, 1.0, 0.5, -0.5, 0.25, 1.0])
    first.weight[1] = -first.weight[0]
    first.bias.copy_(torch.tensor([7.0 - 0.375, 7.0 + 0.375]))  # type: ignore[union-attr]
    last.weight.copy_(torch.eye(2))
    b(first)
    b(Relu())
    b(last)
    ends = torch.ones(6).double()
    rows = [constraint({0: 1.0}, -7.0 - 2.0**-16), constraint({1: 1.0}, -7.0 - 2.0**-16)]
    return b.graph(), spec(-ends, ends, [rows], 2)


def test_short_steps_from_the_best_of_many_points_stay_beside_a_ridge() -> None:
    graph, problem = ridge()
    part = problem.regions[0]
    subject = Subject.of(graph, None)
    single = graph.to(torch.float32)
    rows = Rows.of(part, 6, 2, torch.empty((), dtype=torch.float32))
    how: dict[str, Any] = {"restarts": 8, "steps": 12}
    found = [
        [
            falsify(subject, single, part, 0, rows, Deadline(), seed=s, candidates=n, **how) is not None
            for s in range(12)
        ]
        for n in (4096, 0)
    ]
    assert sum(found[0]) > 2 * sum(found[1])


def test_two_verdicts_of_one_seed_come_of_one_tree() -> None:
    graph, problem = hard()
    trees = {
        tuple((s.boxes, s.depth, s.open, s.worst) for s in decide(graph, problem, timeout=60.0, seed=5).splits)
        for _ in range(2)
    }
    assert len(trees) == 1
    assert next(iter(trees))


@pytest.mark.parametrize("bounder", ["matrices", "any network"])
def test_a_tiny_budget_of_memory_decides_all_the_same(bounder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bounder == "any network":
        monkeypatch.setattr(DenseNetwork, "of", lambda rounding, box: None)
    graph = fc(2, (3, 10, 10, 1))
    ends = torch.ones(3).double()
    least = float(graph(sample_box(-ends, ends, 4000)).min())
    problem = spec(-ends, ends, [[constraint({0: 1.0}, 0.05 - least)]], 1)
    result = decide(graph, problem, memory_budget=2**12, timeout=60.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.splits[0].boxes > 4
