"""The search along ridges by linear programs: it only goes down, stays in the box, and ends where gradients do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.verifier.graphs import constraint, fc
from tests.verifier.test_falsify import subject, unit_region
from zonocuda.bounds.deadline import Deadline
from zonocuda.bounds.rows import Rows
from zonocuda.graph import Graph
from zonocuda.specs import LinearConstraint, Region
from zonocuda.verifier import attack
from zonocuda.verifier.attack import Attack
from zonocuda.verifier.falsify import falsify
from zonocuda.verifier.ridge import along_ridge

BOX = (-torch.ones(4), torch.ones(4))


def pinned(graph: Graph, width: float) -> tuple[Region, Rows]:
    """Outputs within ``width`` of those at one point."""
    y = graph(torch.tensor([[0.5, -0.25, 0.75, -0.5]], dtype=torch.float64))[0].tolist()
    near: list[LinearConstraint] = [constraint({i: s}, -s * v - width) for i, v in enumerate(y) for s in (1.0, -1.0)]
    where = unit_region(near)
    return where, Rows.of(where, 4, len(y), torch.empty(()))


def largest(graph: Graph, rows: Rows, point: Tensor) -> float:
    """Of the rows at a point."""
    return float(rows.values(point.unsqueeze(0), graph(point.unsqueeze(0))).max())


@pytest.mark.parametrize("seed", range(6))
def test_it_only_goes_down_and_stays_in_the_box(seed: int) -> None:
    graph = fc(seed).to(torch.float32)
    _, rows = pinned(fc(seed), 1e-4)
    for begin in torch.rand((4, 4), generator=torch.Generator().manual_seed(seed)) * 2 - 1:
        end = along_ridge(graph, rows, rows.disjuncts[0], BOX, begin)
        assert end.shape == begin.shape
        assert bool((end.abs() <= 1).all())
        assert largest(graph, rows, end) <= largest(graph, rows, begin)


def test_it_ends_where_several_rows_meet_which_gradients_miss() -> None:
    network, single = fc(1), fc(1).to(torch.float32)
    where, rows = pinned(network, 1e-5)
    assert falsify(subject(network), single, where, 0, rows, Deadline(60), restarts=512) is None
    begins = torch.rand((8, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1
    ends = [along_ridge(single, rows, rows.disjuncts[0], BOX, begin) for begin in begins]
    assert min(largest(single, rows, end) for end in ends) <= 0


def test_a_search_of_boxes_goes_along_ridges_from_its_best_points(monkeypatch: pytest.MonkeyPatch) -> None:
    network, single = fc(1), fc(1).to(torch.float32)
    where, rows = pinned(network, 1e-5)
    monkeypatch.setattr(attack, "falsify", lambda *given, **named: None)
    points = torch.rand((5 * attack.FIRST_DESCENT, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert Attack(subject(network), single, where, 0, rows)(points) is None, "no deadline, no descent"
    judge = Attack(subject(network), single, where, 0, rows, Deadline(60))
    assert judge(points[: attack.FIRST_DESCENT - 1]) is None, "too few points"
    found = judge(points)
    assert found is not None
    assert all(row.holds(found.x.tolist(), found.y.tolist()) for row in where.disjuncts[0])


def test_what_is_no_number_ends_it() -> None:
    graph = fc(0).to(torch.float32)
    _, rows = pinned(fc(0), 1e-4)
    begin = torch.full((4,), torch.nan)
    assert bool(along_ridge(graph, rows, rows.disjuncts[0], BOX, begin).isnan().all())
