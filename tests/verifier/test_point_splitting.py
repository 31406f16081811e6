"""Splitting neurons at points: what constraints add to a row, exactly; the parts of a search, in balls; verdicts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from flint import arb
from torch import Tensor

from tests.relaxations.functions import Case
from tests.relaxations.ways import property_of
from tests.verifier.graphs import Builder, constraint, fc, random_box, region, residual, sample_box
from tests.verifier.test_smooth_networks import all_of, mixed, run_in_balls
from zonocuda.bounds.dual.points import Constraints, PointProblem, Reads
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.forward.reduced import reduced_bounds
from zonocuda.bounds.rounding.tally import Tally
from zonocuda.bounds.rows import Rows
from zonocuda.branch import PointParts, SignBounded, SignParts
from zonocuda.graph import Bilinear, Graph, Relu, Staircase
from zonocuda.graph.elementwise import StepName
from zonocuda.precision import summed_products
from zonocuda.prove.point_bounds import PointBounds
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Region
from zonocuda.verifier import Verdict, verify
from zonocuda.verifier.point_search import PointCourse

CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def course(graph: Graph, part: Region, seconds: float = 20.0, **more: Any) -> PointCourse:
    """A search in a region, for bounds of the activations' inputs by reduced zonotopes."""
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    known = reduced_bounds(arithmetic.graph, arithmetic.box(part), arithmetic.rounding)
    every = tuple(range(len(part.disjuncts)))
    return PointCourse(part, 0, arithmetic, known, every, lambda points: None, time.monotonic() + seconds, **more)


def steps(name: StepName, graph: Graph) -> Graph:
    """The graph with a step function in place of its ReLUs."""
    return Graph(
        tuple(replace(n, op=Staircase(name)) if isinstance(n.op, Relu) else n for n in graph.nodes), graph.output
    )


def products(seed: int) -> Graph:
    """Products of linear maps of the inputs, and a linear layer."""
    b = Builder(3, seed=seed)
    b(b.linear(3, 8))
    b(Bilinear())
    b(b.linear(4, 1))
    return b.graph()


# ---- what constraints add to a row -----------------------------------------------------------------------------------


def free_row(dtype: torch.dtype, seed: int) -> tuple[float, Fraction]:
    """The proven bound of the row 0 less two constraints on the inputs x_0 and x_1 of a function, of which the products
    of multipliers and points all but cancel; and what it is exactly on the box."""
    generator = random.Random(seed)
    graph = all_of(Case("tanh"), fc(0, (2, 2, 1)))
    first, last = graph.nodes[1].op, graph.nodes[-1].op
    first.weight.copy_(torch.eye(2, dtype=torch.float64))  # type: ignore[attr-defined]
    first.bias.zero_()  # type: ignore[attr-defined]
    last.weight.zero_()  # type: ignore[attr-defined]
    last.bias.zero_()  # type: ignore[attr-defined]
    arithmetic = Arithmetic.of(graph, dtype, CPU)
    tiny = 2.0**-40
    box = tuple(torch.tensor([[end, end]], dtype=dtype) for end in (-tiny, tiny))
    one, two = (torch.tensor(generator.uniform(1, 2), dtype=dtype) for _ in range(2))
    beta, other = torch.tensor(generator.uniform(1, 2), dtype=dtype), torch.tensor(generator.uniform(1, 2), dtype=dtype)
    two = one * beta / other  # rounded: the difference of the products is what rounding leaves
    rows = Rows(*(torch.zeros(1, 1, n, dtype=dtype) for n in (1, 2)), torch.zeros(1, 1, dtype=dtype), (), (), ())
    reads = Reads(arithmetic.graph)
    known = {name: (box[0], box[1]) for name in reads.first}
    constraints = Constraints(
        torch.tensor([[0, 1]]), torch.tensor([[1, -1]], dtype=torch.int8), torch.stack([one, two]).unsqueeze(0)
    )
    problem = PointProblem(reads, rows, (box[0], box[1]), known, constraints, arithmetic.rounding)
    slope = torch.zeros(1, 1, 2, dtype=dtype)
    with torch.no_grad(), summed_products():
        found = problem.run(lambda node: Slopes(slope, slope), torch.stack([beta, other]).unsqueeze(0), True)
    p, q = (Fraction(b.item()) * Fraction(t.item()) for b, t in ((beta, one), (other, two)))
    exact = p - q - (Fraction(beta.item()) + Fraction(other.item())) * Fraction(tiny)
    return float(found.lower), exact


@DTYPES
def test_the_products_of_multipliers_and_points_round_and_that_is_counted(dtype: torch.dtype) -> None:
    for seed in range(200):
        lower, exact = free_row(dtype, seed)
        assert Fraction(lower) <= exact
        assert exact - Fraction(lower) < 200 * Fraction(torch.finfo(dtype).eps)


@DTYPES
def test_without_that_charge_a_bound_would_be_wrong(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tally, "constraints", lambda self, count, offsets: None)
    assert any(Fraction(lower) > exact for lower, exact in (free_row(dtype, seed) for seed in range(200)))


def test_of_two_constraints_on_one_side_the_later_one_counts() -> None:
    neuron = torch.tensor([[3, 3, 3, 2, 0]])
    side = torch.tensor([[1, -1, 1, 1, 0]], dtype=torch.int8)
    last = Constraints(neuron, side, torch.zeros(1, 5)).last
    assert last.tolist() == [[False, True, True, True, False]]


# ---- parts -----------------------------------------------------------------------------------------------------------


class Seen(PointBounds):
    """Keeps all parts that were bounded."""

    parts: list[PointParts]

    def bound(self, parts: SignParts, thorough: bool = False) -> SignBounded:
        found = super().bound(parts, thorough)
        assert isinstance(found.parts, PointParts)
        self.parts.append(found.parts)
        return found


def in_order(reads: Reads, values: dict[str, list[arb]]) -> list[arb]:
    """What the activations of a network without maps read, as :class:`Reads` numbers it."""
    return [value for node in reads.nodes for value in values[node.name]]


NETWORKS: dict[str, Callable[[], Graph]] = {
    "tanh": lambda: all_of(Case("tanh"), fc(0, (3, 6, 5, 1))),
    "gelu": lambda: all_of(Case("gelu"), fc(2, (3, 6, 5, 1))),
    "sin": lambda: all_of(Case("sin"), fc(3, (3, 6, 5, 1))),
    "mixed": lambda: mixed(residual(1), 1),
    "mixed with ReLUs": lambda: mixed(fc(4, (3, 6, 5, 1)), 4, 0.5),
}


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("name", ["tanh", "mixed", "mixed with ReLUs"])
def test_what_is_claimed_of_a_part_holds_in_balls_at_points_of_it(name: str, written: bool) -> None:
    graph = NETWORKS[name]()
    low, high = box_of(graph)
    least = float(graph(sample_box(low, high, 500)[:, 0])[:, 0].min())
    part = property_of(graph, (low, high), least - 1e-3).regions[0]
    search = course(graph, part, written=written)
    bounder = Seen(
        search.arithmetic,
        search.arithmetic.rows(part, search.arithmetic.box(part)),
        search.arithmetic.box(part),
        search.intermediate,
        lambda node: None,
        written,
    )
    bounder.parts = []
    search.__dict__["bounder"] = bounder
    search.plant().run(lambda: True, 30)
    every = PointParts.cat(bounder.parts)
    assert isinstance(every, PointParts)
    assert len(every) >= 20
    held = 0
    for x in sample_box(low, high, 8, seed=5)[:, 0]:
        seen, y = run_in_balls(graph, x.flatten().tolist())
        z = in_order(bounder.reads, seen)
        value = y[0] - arb(least - 1e-3)
        for s in range(len(every)):
            splits = int(every.depth[s])
            sides = zip(*(t[s, :splits].tolist() for t in (every.neuron, every.side, every.point)), strict=True)
            if not all((z[j] - t) * side > 0 for j, side, t in sides):
                continue
            held += 1
            assert not value < float(every.bound[s])
            for ball, a, b in zip(z, every.lower[s].tolist(), every.upper[s].tolist(), strict=True):
                assert not ball < a
                assert not ball > b
    assert held >= 16  # each point lies in the parts of several depths


def test_parts_are_closed_and_share_one_float() -> None:
    graph = NETWORKS["tanh"]()
    low, high = box_of(graph)
    bounder = course(graph, property_of(graph, (low, high), 0.0).regions[0]).bounder
    root = bounder.roots([(0, 0)])
    neuron = root.wishes[:, 1]
    both = root.split(neuron)
    j, t = int(neuron), float(root.points[0, 1])
    assert float(root.lower[0, j]) < t < float(root.upper[0, j])
    assert both.lower[0, j] == t == both.upper[1, j]
    assert both.upper[0, j] == root.upper[0, j]
    assert both.lower[1, j] == root.lower[0, j]
    assert both.side[:, 0].tolist() == [1, -1]
    assert both.point[:, 0].tolist() == [t, t]
    assert both.neuron[:, 0].tolist() == [j, j]


# ---- verdicts --------------------------------------------------------------------------------------------------------


def box_of(graph: Graph) -> tuple[Tensor, Tensor]:
    """A box of float32 numbers."""
    low, high = (end.float().double() for end in random_box(graph, 1, 1.0, 3))
    return low, high


def least_of(graph: Graph, box: tuple[Tensor, Tensor]) -> float:
    """About the least output, by descents from the best of many points."""
    x = sample_box(box[0], box[1], 20000)[:, 0]
    x = x[graph(x)[:, 0].argsort()[:16]]
    for number in range(200):
        x = x.requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(graph(x).sum(), x)
        x = (x.detach() - 0.98**number * 0.05 * slope.sign()).clamp(box[0], box[1])
    return float(graph(x)[:, 0].min())


def beyond(graph: Graph, box: tuple[Tensor, Tensor], least: float) -> float:
    """A little more than what bounds of the whole box prove, for about the least output."""
    margin = verify(graph, property_of(graph, box, least - 1e-3), split="none").margin
    assert margin is not None
    assert margin < 0, "the bounds of the whole box do not do"
    return least - 1e-3 + 0.85 * margin


@pytest.mark.parametrize("name", ["tanh", "sin", "mixed with ReLUs"])
def test_splitting_proves_what_bounds_of_the_whole_box_do_not(name: str) -> None:
    graph = NETWORKS[name]()
    box = box_of(graph)
    least = least_of(graph, box)
    question = property_of(graph, box, beyond(graph, box, least))
    assert verify(graph, question, split="none").verdict is Verdict.UNKNOWN
    found = verify(graph, question, split="neuron", timeout=30)
    assert found.verdict is Verdict.VERIFIED
    assert found.splits[-1].split == "neuron"
    assert found.splits[-1].boxes >= 2
    planted = verify(graph, property_of(graph, box, least + 1e-6), split="neuron", timeout=0.5)
    assert planted.verdict is not Verdict.VERIFIED


def difference(name: StepName) -> tuple[Graph, tuple[Tensor, Tensor]]:
    """f(x) - f(x - 3/4), which is 0 somewhere and never less, and the box [-1/2, 3/2]."""
    graph = steps(name, fc(0, (1, 2, 1)))
    first, last = graph.nodes[1].op, graph.nodes[-1].op
    first.weight.fill_(1.0)  # type: ignore[attr-defined]
    first.bias.copy_(torch.tensor([0.0, -0.75]))  # type: ignore[attr-defined]
    last.weight.copy_(torch.tensor([[1.0, -1.0]]))  # type: ignore[attr-defined]
    last.bias.zero_()  # type: ignore[attr-defined]
    return graph, (torch.tensor([[-0.5]]).double(), torch.tensor([[1.5]]).double())


@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "round"])
def test_splits_at_jumps_prove_what_bounds_of_the_whole_box_do_not(name: StepName) -> None:
    graph, box = difference(name)
    question = property_of(graph, box, -0.125)
    assert verify(graph, question, split="none").verdict is Verdict.UNKNOWN
    found = verify(graph, question, split="neuron", timeout=60)
    assert found.verdict is Verdict.VERIFIED
    assert found.splits
    assert verify(graph, property_of(graph, box, 0.0), split="neuron", timeout=3).verdict is not Verdict.VERIFIED


@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "round"])
def test_both_parts_keep_the_values_on_both_sides_of_a_jump(name: StepName) -> None:
    """f = step(x) on [-1, 1], and a row that is 0 at one value of f alone: at the jump itself, or next to it."""
    b = Builder(1)
    b(b.linear(1, 1))
    b(Staircase(name))
    b(b.linear(1, 1))
    graph = b.graph()
    for node in (graph.nodes[1], graph.nodes[-1]):
        node.op.weight.fill_(1.0)  # type: ignore[attr-defined]
        node.op.bias.zero_()  # type: ignore[attr-defined]
    for x in (-0.5, -(2.0**-30), 0.0, 2.0**-30, 0.5):
        value = float(graph(torch.tensor([[x]]).double()))
        for sign in (1.0, -1.0):
            ends = torch.tensor([-1.0 if sign * value <= 0 else x]), torch.tensor([1.0 if sign * value >= 0 else x])
            lower, upper = (end.double() for end in ends)
            if lower > upper:
                continue
            part = region(lower, upper, [[constraint({0: sign}, -sign * value)]])
            _, stats = course(graph, part, seconds=0.3).run()
            assert not stats.is_proven


def test_as_executed_nothing_is_split_at_points_and_the_reason_says_so() -> None:
    graph = steps("floor", fc(0, (3, 6, 1)))
    box = box_of(graph)
    least = float(graph(sample_box(*box, 500)[:, 0])[:, 0].min())
    found = verify(graph, property_of(graph, box, least - 1e-3), split="neuron", semantics="float32", timeout=5)
    assert found.verdict is Verdict.UNKNOWN
    assert not found.splits
    assert "is not split as executed" in found.reason


def test_products_are_split_at_a_factor() -> None:
    graph = products(1)
    box = box_of(graph)
    question = property_of(graph, box, beyond(graph, box, least_of(graph, box)))
    assert verify(graph, question, split="none").verdict is Verdict.UNKNOWN
    found = verify(graph, question, split="neuron", timeout=30)
    assert found.verdict is Verdict.VERIFIED
    assert found.splits[-1].boxes >= 2


def test_a_search_without_time_leaves_its_parts_open_and_says_so() -> None:
    graph = NETWORKS["tanh"]()
    low, high = box_of(graph)
    least = float(graph(sample_box(low, high, 500)[:, 0])[:, 0].min())
    part = property_of(graph, (low, high), least + 0.1).regions[0]
    _, stats = course(graph, part, seconds=1.0).run()
    assert not stats.is_proven
    assert stats.open > 0


def test_tensors_of_parts_say_how_much_memory_they_take() -> None:
    graph = NETWORKS["tanh"]()
    low, high = box_of(graph)
    root = course(graph, property_of(graph, (low, high), 0.0).regions[0]).bounder.roots([(0, 0)])
    assert root.part_bytes >= sum(t[0].nbytes for t in vars(root).values() if isinstance(t, Tensor))
