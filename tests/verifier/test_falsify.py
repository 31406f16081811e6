"""The search for counterexamples: what it finds replays, and what does not replay it never returns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import constraint, fc, region
from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph
from zonocuda.specs import Box, LinearConstraint, Region
from zonocuda.verifier import Counterexample
from zonocuda.verifier.falsify import _excess_and_loss, falsify, replay
from zonocuda.verifier.model import Subject


def subject(graph: Graph, execute: Callable[[Tensor], Tensor] | None = None) -> Subject:
    """A graph that replays itself, or something else."""
    single = graph.to(torch.float32)
    return Subject(graph, execute or (lambda x: single(x)), lambda lower, upper: None, "test")


def unit_region(*disjuncts: list[LinearConstraint], inputs: int = 4) -> Region:
    """A region of [-1, 1]^n."""
    return region(-torch.ones(inputs), torch.ones(inputs), disjuncts)


def search(judge: Subject, where: Region, seconds: float = 60, **options: object) -> Counterexample | None:
    """``falsify`` in float32 on the CPU."""
    inputs, outputs = where.box.lower.numel(), judge.graph.output_shape[0]
    rows = Rows.of(where, inputs, outputs, torch.empty(()))
    graph = judge.graph.to(torch.float32)
    return falsify(judge, graph, where, 3, rows, Deadline(seconds), **options)  # type: ignore[arg-type]


def lowest(graph: Graph, output: int, n: int = 20000) -> float:
    """The smallest sampled value of an output on [-1, 1]^n."""
    x = torch.rand((n, *graph.input_shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return float(graph(x)[:, output].min())


@pytest.mark.parametrize("seed", range(5))
def test_an_easy_counterexample_is_found_and_replays(seed: int) -> None:
    graph = fc(seed)
    row = constraint({0: 1}, -(lowest(graph, 0) + 0.01))  # unsafe: Y_0 <= lowest sampled value + 0.01
    found = search(subject(graph), unit_region([row]))
    assert found is not None
    assert found.region == 3
    assert found.x.shape == (4,)
    assert found.x.dtype == torch.float32
    assert (found.x.abs() <= 1).all()
    y = graph.to(torch.float32)(found.x.unsqueeze(0))[0]
    assert torch.equal(y, found.y)
    assert row.holds(found.x.tolist(), y.tolist())


def test_a_conjunction_needs_all_of_its_rows_at_one_point() -> None:
    graph = fc(1)
    x = torch.tensor([[0.5, -0.25, 0.75, -0.5]], dtype=torch.float64)
    y = graph(x)[0].tolist()
    near = [constraint({i: s}, -s * v - 0.02) for i, v in enumerate(y) for s in (1.0, -1.0)]  # |Y_i - y_i| <= 0.02
    found = search(subject(graph), unit_region(near), restarts=512)
    assert found is not None
    assert all(abs(a - b) <= 0.02 + 1e-6 for a, b in zip(found.y.tolist(), y, strict=True))
    apart = [constraint({0: 1}, -y[0] - 0.02), constraint({0: -1}, y[0] + 0.03)]  # y0 + 0.03 <= Y_0 <= y0 + 0.02
    assert search(subject(graph), unit_region(apart)) is None


def test_any_disjunct_will_do() -> None:
    graph = fc(2)
    impossible = constraint({0: 1}, 1000)
    possible = constraint({1: 1}, -lowest(graph, 1) - 0.05)
    found = search(subject(graph), unit_region([impossible], [possible], [impossible, possible]))
    assert found is not None
    assert possible.holds(found.x.tolist(), found.y.tolist())


def test_what_the_network_itself_does_not_confirm_is_never_returned() -> None:
    graph = fc(0)
    easy = unit_region([constraint({0: 1}, -1000)])  # every point
    assert search(subject(graph), easy) is not None
    for lie in (1001.0, float("nan"), float("inf"), float("-inf")):
        calls: list[int] = []

        def execute(x: Tensor, lie: float = lie, calls: list[int] = calls) -> Tensor:
            calls.append(len(x))
            return torch.full((len(x), 3), lie)

        assert search(subject(graph, execute), easy) is None
        assert 0 < len(calls) <= 200


def test_a_safe_region_has_no_counterexample() -> None:
    graph = fc(0)
    assert search(subject(graph), unit_region([constraint({0: 1}, 1000)])) is None
    assert search(subject(graph), unit_region()) is None


def test_a_strict_constraint_does_not_hold_on_its_boundary() -> None:
    graph = fc(0)
    constant = subject(graph, lambda x: torch.zeros(len(x), 3))
    zero = graph.to(torch.float32)
    points = torch.zeros(1, 4)
    for strict in (False, True):
        where = unit_region([constraint({0: 1}, strict=strict)])
        assert (replay(constant, where, 0, points) is None) is strict
    assert zero(points).shape == (1, 3)


def test_a_box_of_one_float32_point_is_searched_at_that_point() -> None:
    graph = fc(0)
    x = torch.tensor([0.1, 0.2, 0.3, 0.4])  # float32
    inner = Box(x.double() + 1e-10, x.double() + 2e-10, x, x)  # the exact box holds no float32 point at all
    unsafe = Region(inner, ((constraint({0: 1}, -1000),),))
    found = search(subject(graph), unsafe)
    assert found is not None
    assert torch.equal(found.x, x)
    assert search(subject(graph), Region(inner, ((constraint({0: 1}, 1000),),))) is None


def test_points_outside_the_float32_box_do_not_count() -> None:
    graph = fc(0)
    where = unit_region([constraint({0: 1}, -1000)])
    outside = torch.tensor([[0.0, 0.0, 0.0, 1.0 + 2.0**-23]])
    assert replay(subject(graph), where, 0, outside) is None
    assert replay(subject(graph), where, 0, outside * torch.nan) is None
    inside = torch.cat([outside, torch.ones(1, 4)])
    found = replay(subject(graph), where, 0, inside)
    assert found is not None
    assert torch.equal(found.x, torch.ones(4))


def test_the_seed_decides_what_is_found() -> None:
    graph = fc(3)
    where = unit_region([constraint({0: 1}, -(lowest(graph, 0) + 0.05))])
    one, again, other = (search(subject(graph), where, seed=s) for s in (5, 5, 6))
    assert one is not None
    assert again is not None
    assert other is not None
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.x, other.x)


def test_given_starts_are_searched_first_and_brought_into_the_box() -> None:
    graph = fc(0)
    low = torch.tensor([[-1.0, 1.0, 1.0, -1.0]])
    target = graph.to(torch.float32)(low)[0].tolist()
    near = [constraint({i: s}, -s * v - 1e-5) for i, v in enumerate(target) for s in (1.0, -1.0)]
    starts = low * 3  # outside; its projection is the point
    found = search(subject(graph), unit_region(near), starts=starts, steps=0)
    assert found is not None
    assert torch.equal(found.x, low[0])


def test_the_search_ends_with_its_deadline() -> None:
    graph = fc(0)
    where = unit_region([constraint({0: 1}, 1000)])
    assert search(subject(graph), where, seconds=0) is None
    begin = time.monotonic()
    assert search(subject(graph), where, seconds=0.3, steps=10**9) is None
    assert time.monotonic() - begin < 10


def test_rows_without_a_gradient_end_the_search() -> None:
    graph = fc(0)
    no_terms = LinearConstraint({}, {}, constraint({}, 1).constant)
    assert search(subject(graph), unit_region([no_terms])) is None


def test_an_infinite_box_is_not_searched() -> None:
    graph = fc(0)
    infinite = region(torch.full((4,), -torch.inf), torch.ones(4), [[constraint({0: 1}, -1000)]])
    assert search(subject(graph), infinite) is None


def test_the_loss_of_several_rows_is_their_largest_smoothed_and_that_of_one_is_the_row() -> None:
    graph, x = fc(2).to(torch.float32), torch.rand(64, 4) * 2 - 1
    rows = [constraint({i: 1}, 5.0) for i in range(2)]
    where = unit_region(rows, [rows[1]], [constraint({0: -1}, 5.0), rows[1]])
    held = Rows.of(where, 4, graph.output_shape[0], torch.empty(()))
    target = torch.arange(64) % 3
    excess, loss = _excess_and_loss(held, x, graph(x), target)
    values = held.values(x, graph(x))
    for point in range(64):
        own = values[point, list(held.disjuncts[target[point]])]
        assert excess[point, target[point]] == own.max()
        assert own.max() > 0
        assert own.max() <= loss[point] + 1e-5
        assert loss[point] <= own.max() * (1 + math.log(len(own))) + 1e-5


def test_starts_that_lack_most_leave_a_search() -> None:
    network, single = fc(0), fc(0).to(torch.float32)
    where = unit_region([constraint({0: 1}, 1000)])  # impossible
    rows = Rows.of(where, 4, network.output_shape[0], torch.empty(()))
    counts: list[int] = []

    class Counting:
        input_shape = single.input_shape

        def __call__(self, x: Tensor) -> Tensor:
            counts.append(len(x))
            return single(x)

    assert falsify(subject(network), Counting(), where, 0, rows, Deadline(60), restarts=256, steps=20) is None  # type: ignore[arg-type]
    assert counts == [256] * 5 + [64] * 5 + [16] * 11
