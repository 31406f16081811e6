"""Bounds by matrices, of small chains of layers, beside exact values."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.verifier.exact import evaluate, exactly, gamma
from tests.verifier.graphs import NETWORKS, Builder, constraint, fc, region, sample_box
from zonocuda.bounds.rounding.executed import Execution
from zonocuda.bounds.rows import Rows
from zonocuda.branch import Bounded, Settings, Subproblems, search, worst_bound
from zonocuda.graph import Cast, Elementary, Graph, Linear, Relu, Reshape, ScaleShift
from zonocuda.prove.boxes import BoxBounder, with_wide
from zonocuda.prove.dense import DenseNetwork
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import LinearConstraint

CPU = torch.device("cpu")
ROWS = [[constraint({0: 1.0}, 0.1)], [constraint({0: -0.3, 1: 1.0}), constraint({1: -1.0}, 0.7)]]


def chain(seed: int, weight: float = 1.0) -> Graph:
    """Two affine maps before, between and behind ReLUs, with constants of very different size."""
    b = Builder(3, seed=seed)
    b(ScaleShift(torch.tensor([0.1, 3.0, 1.0]).double(), torch.tensor([1e3, -0.3, 1 / 3]).double()))
    for inputs, outputs in ((3, 7), (7, 6), (6, 5)):
        layer = b.linear(inputs, outputs)
        layer.weight.mul_(weight)
        if inputs == 3 and layer.bias is not None:
            layer.bias.sub_(layer.weight @ torch.tensor([1e3, -0.3, 1 / 3]).double())
        b(layer)
        if outputs != 6:
            b(Relu())
    b(Reshape((5, 1)))
    b(Reshape((5,)))
    b(b.linear(5, 2))
    return b.graph()


def dense(graph: Graph, low: Tensor, high: Tensor, notes: bool = False) -> tuple[DenseBounder, Rows]:
    """For a root box."""
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    part = region(low, high, ROWS)
    rows = arithmetic.rows(part, arithmetic.box(part))
    network = DenseNetwork.of(arithmetic.rounding, arithmetic.box(part))
    assert network is not None
    return DenseBounder(network, rows, lambda: BoxBounder(arithmetic, rows, notes=notes), notes=notes), rows


def before_relus(graph: Graph, x: Tensor) -> list[list[Fraction]]:
    """The exact inputs of every ReLU."""
    heads = [Graph(graph.nodes[: graph.nodes.index(node)], node.inputs[0]) for node in graph.relus]
    return [evaluate(head, exactly(x)) for head in heads]


@pytest.mark.parametrize("weight", [1.0, 1e12, 1e-12])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_in_every_part_of_the_root_with_what_was_known_of_larger_ones(seed: int, weight: float) -> None:
    graph = chain(seed, weight)
    ends = torch.full((3,), 0.7).double()
    bounder, rows = dense(graph, -ends, ends)
    part = Subproblems.of(-ends.unsqueeze(0), ends.unsqueeze(0))
    generator = torch.Generator().manual_seed(seed)
    for depth in range(0, 40, 3):
        found = bounder.bound(part.lower, part.upper, part.known)
        inputs = bounder.intermediate(part.lower, part.upper)
        points = [part.lower[0], part.upper[0], *sample_box(part.lower[0], part.upper[0], 2, seed=depth)]
        points += list(torch.where(found.weight[0] >= 0, part.lower, part.upper))
        for x in points:
            for (low, high), exact in zip(inputs, before_relus(graph, x), strict=True):
                ends_of = zip(low[0].tolist(), exact, high[0].tolist(), strict=True)
                assert all(below <= value <= above for below, value, above in ends_of)
            y = evaluate(graph, exactly(x))
            for r in range(rows.count):
                terms = zip(exactly(rows.output[r]), y, strict=True)
                value = sum((c * v for c, v in terms), exactly(rows.constant[r : r + 1])[0])
                corner = torch.where(found.weight[0, r] >= 0, part.lower[0], part.upper[0])
                moved = zip(exactly(found.weight[0, r]), exactly(x), exactly(corner), strict=True)
                assert float(found.lower[0, r]) <= value - sum((v * (a - b) for v, a, b in moved), Fraction(0))
        if found.known is not None:
            part = Subproblems(part.lower, part.upper, part.bound, part.depth, part.node, found.known)
        for _ in range(3):
            part = part.split(torch.randint(0, 3, (1,), generator=generator))
            part = part.at(torch.randint(0, 2, (1,), generator=generator))


@pytest.mark.parametrize("seed", range(3))
def test_they_are_as_tight_as_those_of_any_network(seed: int) -> None:
    graph = fc(seed, (3, 12, 12, 2))
    ends = torch.ones(3).double()
    bounder, rows = dense(graph, -ends, ends)
    other = BoxBounder(Arithmetic.of(graph, torch.float64, CPU), rows)
    boxes = Subproblems.of(-ends.unsqueeze(0), ends.unsqueeze(0))
    for column in (0, 1, 2, 0, 1):
        boxes = boxes.split(torch.full((len(boxes),), column))
    found, expected = bounder.bound(boxes.lower, boxes.upper), other.bound(boxes.lower, boxes.upper)
    left = worst_bound(found.lower, rows.disjuncts) <= 0  # where the first pass refutes a box no second one is made
    assert bool(left.any()) or seed == 0
    torch.testing.assert_close(found.lower[left], expected.lower[left], rtol=1e-9, atol=1e-9)
    assert bool((worst_bound(expected.lower, rows.disjuncts) > 0)[~left].all())
    written, others = (
        b.bound(boxes.lower, boxes.upper)
        for b in (dense(graph, -ends, ends, notes=True)[0], BoxBounder(other.arithmetic, rows, notes=True))
    )
    torch.testing.assert_close(written.lower, expected.lower, rtol=1e-9, atol=1e-9)  # with all passes, as it is checked
    assert written.notes is not None
    assert others.notes is not None
    assert torch.equal(written.notes, others.notes)
    torch.testing.assert_close(
        bounder.estimate(boxes.lower, boxes.upper), other.estimate(boxes.lower, boxes.upper), rtol=1e-4, atol=1e-4
    )


def test_what_is_known_of_a_box_makes_bounds_of_it_and_its_parts_no_worse() -> None:
    graph = fc(1, (3, 12, 12, 12, 2))
    ends = torch.ones(3).double()
    bounder, _ = dense(graph, -ends, ends)
    box = Subproblems.of(-ends.unsqueeze(0), ends.unsqueeze(0))
    known = bounder.bound(box.lower, box.upper).known
    assert known is not None
    assert bool((known[:, :36] <= known[:, 36:]).all())
    gained = bounder.estimate(box.lower, box.upper, known) - bounder.estimate(box.lower, box.upper)
    assert bool((gained > 1e-3).any())
    parts = box.split(torch.tensor([1]))
    alone = bounder.bound(parts.lower, parts.upper).lower
    together = bounder.bound(parts.lower, parts.upper, known.repeat(2, 1)).lower
    assert bool((together >= alone - 1e-9).all())


@pytest.mark.parametrize("seed", range(3))
def test_bounds_to_be_written_down_do_without_what_is_known_and_say_what_holds(seed: int) -> None:
    graph = chain(seed)
    ends = torch.full((3,), 0.7).double()
    bounder, _ = dense(graph, -ends, ends, notes=True)
    whole = Subproblems.of(-ends.unsqueeze(0), ends.unsqueeze(0))
    known = bounder.bound(whole.lower, whole.upper).known
    assert known is not None
    parts = whole.split(torch.tensor([seed]))
    alone, told = (bounder.bound(parts.lower, parts.upper, one) for one in (None, known.repeat(2, 1)))
    assert alone.notes is not None
    assert told.notes is not None
    assert torch.equal(alone.lower, told.lower)  # whoever checks them knows nothing of the whole
    assert torch.equal(alone.notes, told.notes)
    assert alone.known is not None
    for part, bounds in zip((0, 1), alone.known, strict=True):
        low, high = (exactly(end) for end in bounds.chunk(2))
        corners = parts.lower[part], parts.upper[part]
        for x in [*corners, *sample_box(*corners, 3, seed=seed)]:
            values = [value for layer in before_relus(graph, x) for value in layer]
            assert all(below <= value <= above for below, value, above in zip(low, values, high, strict=True))
    better = bounder.estimate(parts.lower, parts.upper, known.repeat(2, 1)) - bounder.estimate(parts.lower, parts.upper)
    assert bool((better >= -1e-4).all())
    nothing = bounder.estimate(parts.lower, parts.upper, torch.full_like(alone.known, torch.nan))
    assert torch.equal(nothing, bounder.estimate(parts.lower, parts.upper))


def test_a_bound_found_again_in_another_arithmetic_keeps_what_is_known() -> None:
    graph = fc(1, (3, 12, 12, 2))
    ends = torch.ones(3).double()
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    _, rows = dense(graph, -ends, ends)
    lower, upper = -ends.unsqueeze(0), ends.unsqueeze(0)
    known = torch.arange(48.0).unsqueeze(0)
    near = Bounded(torch.full((1, rows.count), -1e-12).double(), torch.zeros(1, rows.count, 3).double(), None, known)
    asked = []

    def wide() -> BoxBounder:
        asked.append(1)
        return BoxBounder(arithmetic, rows)

    found = with_wide(near, torch.ones(1, rows.count).double(), lower, upper, wide)
    assert asked
    assert found.known is not None
    assert torch.equal(found.known, known)


@pytest.mark.parametrize("name", ["residual", "conv", "pooling"])
def test_other_networks_than_chains_of_matrices_are_left_to_others(name: str) -> None:
    graph = NETWORKS[name](0)
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    box = tuple(torch.full((1, *graph.input_shape), end).double() for end in (-1.0, 1.0))
    assert DenseNetwork.of(arithmetic.rounding, box) is None  # type: ignore[arg-type]


def test_float32_and_magnitudes_beyond_all_bounds_are_left_to_others() -> None:
    box = -torch.ones(1, 3), torch.ones(1, 3)
    assert DenseNetwork.of(Arithmetic.of(chain(0), torch.float32, CPU).rounding, box) is None
    wide = box[0].double(), box[1].double() * 1e30
    assert DenseNetwork.of(Arithmetic.of(chain(0, 1e30), torch.float64, CPU).rounding, wide) is None
    assert DenseNetwork.of(Arithmetic.of(chain(0), torch.float64, CPU).rounding, wide) is not None


@pytest.mark.parametrize("what", ["execution", "doubt", "cast", "function", "inner output"])
def test_what_its_count_of_roundings_says_nothing_about_is_left_to_others(what: str) -> None:
    b, weight = Builder(2), torch.ones(2, 2).double()
    b(Linear(weight, doubt={"weight": weight * 1e-3} if what == "doubt" else {}))
    b(Cast(torch.float16) if what == "cast" else Relu())
    b(Elementary("tanh") if what == "function" else Relu())
    graph = b.graph()
    if what == "inner output":
        graph = Graph(graph.nodes, graph.nodes[2].name)
    execution = Execution.of(graph, torch.float32) if what == "execution" else None
    arithmetic = Arithmetic.of(graph, torch.float64, CPU, execution)
    box = -torch.ones(1, 2).double(), torch.ones(1, 2).double()
    assert DenseNetwork.of(arithmetic.rounding, box) is None
    plain = Arithmetic.of(fc(0, (2, 2, 2)), torch.float64, CPU)
    assert DenseNetwork.of(plain.rounding, box) is not None


def test_constants_hardly_known_and_layers_as_wide_as_a_matrix_is_large_are_left_to_others() -> None:
    def held(weight: Tensor, roundings: int = 0) -> DenseNetwork | None:
        b = Builder(weight.shape[1])
        b(Linear(weight, roundings=roundings))
        b(Relu())
        box = tuple(torch.full((1, weight.shape[1]), end).double() for end in (-1.0, 1.0))
        return DenseNetwork.of(Arithmetic.of(b.graph(), torch.float64, CPU).rounding, box)  # type: ignore[arg-type]

    weight = torch.ones(4, 1).double()
    assert held(weight, 2**20) is not None
    assert held(weight, 2**30) is None
    assert held(torch.ones(4100, 1).double()) is None
    assert held(torch.ones(1, 4100).double()) is None


def moved(graph: Graph, x: list[Fraction], share: Fraction, signs: random.Random) -> list[list[Fraction]]:
    """Inputs of the ReLUs, and the output, of the network whose constants are off by a ``share`` of themselves: for
    each number so that it becomes as large, or as small, as possible."""
    seen = []
    for node in graph.nodes[1:]:
        if isinstance(node.op, Relu):
            seen.append(x)
            x = [max(v, Fraction(0)) for v in x]
            continue
        assert isinstance(node.op, Linear)
        assert node.op.bias is not None
        matrix = torch.cat([node.op.weight, node.op.bias.unsqueeze(1)], 1).tolist()
        terms = [[Fraction(w) * v for w, v in zip(row, [*x, Fraction(1)], strict=True)] for row in matrix]
        x = [sum(row, Fraction(0)) + signs.choice((-1, 1)) * share * sum(map(abs, row)) for row in terms]
    return [*seen, x]


@pytest.mark.parametrize("large", ["nothing", "input", "between", "offset", "constant", "direct"])
@pytest.mark.parametrize(("count", "maps", "width"), [(2**20, 1, 0.0), (2**20, 2, 0.3), (0, 1, 0.0), (0, 2, 1e-9)])
def test_bounds_hold_for_every_network_that_the_constants_may_stand_for(
    large: str, count: int, maps: int, width: float
) -> None:
    """Whichever numbers are large and cancel, so that no other charge hides theirs."""
    for seed in range(4):
        b, at = Builder(3, seed=seed), 1e6 if large in ("input", "direct") else 0.0
        for inputs, outputs in ((3, 5), (5, 4), (4, 4), (4, 2)):
            for size in (inputs, outputs)[-maps:]:
                op = Linear(b.random(size, inputs), b.random(size), roundings=count)
                assert op.bias is not None
                if len(b.nodes) == 1:
                    op.bias.sub_(op.weight.sum(1) * at)
                if large == "offset" and size == 2:
                    op.bias.add_(1e6)
                if large == "between" and inputs == 5:  # of two maps, which take it off again
                    op.bias.add_(-1e6 * op.weight.sum(1) if size == outputs else 1e6)
                b(op)
            b(Relu())
        graph = Graph(tuple(b.nodes[:-1]), b.nodes[-2].name)
        arithmetic, end = Arithmetic.of(graph, torch.float64, CPU), torch.ones(3).double()
        share, constant = Fraction(1e-6 if large == "direct" else 1), Fraction(1e6 if large == "constant" else 0.1)
        wanted = [
            [LinearConstraint({k: sign * share}, {0: sign * (1 - share)}, sign * constant)]
            for k in (0, 1)
            for sign in (1, -1)
        ]
        part = region(at - end, at + end, wanted)
        box = arithmetic.box(part)
        rows, network = arithmetic.rows(part, box), DenseNetwork.of(arithmetic.rounding, box)
        assert network is not None
        bounder = DenseBounder(network, rows, partial(BoxBounder, arithmetic, rows))
        low = (at + b.random(3).clamp(-0.9, 0.6)).unsqueeze(0)
        high = low + width
        found, known, signs = bounder.bound(low, high), bounder.intermediate(low, high), random.Random(seed)
        for x in [*low, *high] * 6:
            *before, y = moved(graph, exactly(x), gamma(count), signs)
            for (below, above), values in zip(known, before, strict=True):
                ends_of = zip(below[0].tolist(), values, above[0].tolist(), strict=True)
                assert all(a <= value <= c for a, value, c in ends_of)
            for r, bound in enumerate(found.lower[0].tolist()):
                terms = zip(exactly(torch.cat([rows.output[r], rows.input[r]])), [*y, *exactly(x)], strict=True)
                assert bound <= sum((c * v for c, v in terms), exactly(rows.constant[r : r + 1])[0])


@pytest.mark.parametrize("is_offset", [False, True])
def test_a_product_of_maps_that_underflows_and_is_made_large_again_counts_for_what_it_may_be(is_offset: bool) -> None:
    b = Builder(1)
    for position, factor in enumerate((1e-200, 1e-130, 1e150)):
        number = torch.tensor([[-factor]], dtype=torch.float64)
        b(Linear(torch.zeros_like(number), number[0]) if is_offset and not position else Linear(number))
    graph, end = b.graph(), torch.ones(1).double()  # -1e-180 x, or -1e-180
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    part = region(end / 2, end, [[constraint({0: 1.0}, 1e-181)]])
    box = arithmetic.box(part)
    rows, network = arithmetic.rows(part, box), DenseNetwork.of(arithmetic.rounding, box)
    assert network is not None
    bound = DenseBounder(network, rows, lambda: BoxBounder(arithmetic, rows)).bound(*box).lower
    assert Fraction(float(bound)) <= evaluate(graph, exactly(end))[0] + exactly(rows.constant)[0] < 0


@pytest.mark.parametrize("cuts", [True, False])
def test_every_point_lies_in_a_leaf_whose_claim_holds_there(cuts: bool) -> None:
    graph = fc(4, (2, 10, 10, 1))
    ends = torch.ones(2).double()
    values = graph(sample_box(-ends, ends, 4000))
    part = region(-ends, ends, [[constraint({0: 1.0}, 0.01 - float(values.min()))]])
    arithmetic = Arithmetic.of(graph, torch.float64, CPU)
    box = arithmetic.box(part)
    rows, network = arithmetic.rows(part, box), DenseNetwork.of(arithmetic.rounding, box)
    assert network is not None
    bounder = DenseBounder(network, rows, lambda: BoxBounder(arithmetic, rows))
    leaves: list[tuple[Tensor, Tensor, Tensor]] = []

    class Seen:
        estimate = staticmethod(bounder.estimate)

        @staticmethod
        def bound(lower: Tensor, upper: Tensor, known: Tensor | None = None) -> object:
            found = bounder.bound(lower, upper, known)
            leaves.append((lower, upper, found.lower[:, 0]))
            return found

    roots = Subproblems.of(*(end.reshape(1, -1) for end in box))
    found = search(roots, rows.disjuncts, Seen(), lambda points: None, lambda: True, Settings(16, cuts=cuts))  # type: ignore[arg-type]
    assert found.is_proven
    assert found.bounded > 4
    lower, upper, bound = (torch.cat(column) for column in zip(*leaves, strict=True))
    for x in sample_box(-ends, ends, 60, seed=3):
        inside = ((x >= lower) & (x <= upper)).all(1)
        value = evaluate(graph, exactly(x))[0] + exactly(rows.constant)[0]
        assert all(claim <= value for claim in bound[inside].tolist())
        assert not cuts or bool(inside.any())
        assert cuts or bool((bound[inside] > 0).any())
