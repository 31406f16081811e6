"""The search, with a bound method of its own: f(x) = a - |x - p|^2 by its tangents, in float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from zonocuda.branch import CHOICES, Bounded, Choice, Outcome, SearchStopped, Settings, Subproblems, search
from zonocuda.branch.choice import without_refuting
from zonocuda.branch.queue import Queue


@dataclass
class Paraboloids:
    """Rows |x - p_r|^2 - c_r, bounded from below by the plane that touches in the middle, less nothing: it is convex.

    ``seen`` keeps every box that was bounded.
    """

    centers: Tensor
    levels: Tensor
    loss: float = 0.0
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def values(self, x: Tensor) -> Tensor:
        """The rows at points ``[n, N]``."""
        return ((x.unsqueeze(1) - self.centers) ** 2).sum(2) - self.levels

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        """By the tangent plane, made worse by ``loss`` times the box's width."""
        self.seen.append((lower, upper))
        return self._bound(lower, upper)

    def _bound(self, lower: Tensor, upper: Tensor) -> Bounded:
        middle = lower + (upper - lower) / 2
        weight = 2 * (middle.unsqueeze(1) - self.centers)
        radius = ((upper - lower) / 2).unsqueeze(1)
        least = self.values(middle) - (weight.abs() * radius).sum(2) - self.loss * (upper - lower).amax(1, keepdim=True)
        return Bounded(least, weight)

    def estimate(self, lower: Tensor, upper: Tensor, known: Tensor) -> Tensor:
        """The same, for the choice."""
        return self._bound(lower, upper).lower


def boxes(count: int = 1, inputs: int = 2) -> Subproblems:
    """Boxes [-1, 1]^N."""
    return Subproblems.of(-torch.ones(count, inputs).double(), torch.ones(count, inputs).double())


def nothing(points: Tensor) -> None:
    """No counterexample."""


def limited(batches: int):  # type: ignore[no-untyped-def]
    """True so many times."""
    left = iter(range(batches))
    return lambda: next(left, None) is not None


FAR = torch.tensor([[3.0, 0.0]]).double(), torch.tensor([3.9]).double()  # |x - (3, 0)|^2 > 3.9 on the box: 4 at (1, 0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("cuts", [True, False])
def test_a_property_that_holds_is_proven(choice: Choice, cuts: bool) -> None:
    bounder = Paraboloids(*FAR, loss=1.0)
    found = search(boxes(), [[0]], bounder, nothing, limited(400), Settings(8, choice, cuts))
    assert found.is_proven
    assert (found.open, len(found.stuck), found.worst) == (0, 0, torch.inf)
    assert found.bounded == sum(len(lower) for lower, _ in bounder.seen) > 1
    assert found.depth >= 1


def test_without_cuts_every_point_lies_in_a_box_that_was_refuted() -> None:
    bounder = Paraboloids(*FAR, loss=1.0)
    assert search(boxes(), [[0]], bounder, nothing, limited(400), Settings(8, "gradient", cuts=False)).is_proven
    lower, upper = (torch.cat(ends) for ends in zip(*bounder.seen, strict=True))
    refuted = (bounder._bound(lower, upper).lower > 0).all(1)
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    inside = ((points.unsqueeze(1) >= lower[refuted]) & (points.unsqueeze(1) <= upper[refuted])).all(2)
    assert bool(inside.any(1).all())


@pytest.mark.parametrize("choice", CHOICES)
def test_a_violation_is_never_proven_away(choice: Choice) -> None:
    for level in (4.0, 4.0 + 1e-12, 4.5):  # |x - (3, 0)|^2 <= level holds at (1, 0)
        bounder = Paraboloids(FAR[0], torch.tensor([level]).double(), loss=0.1)
        found = search(boxes(), [[0]], bounder, nothing, limited(60), Settings(16, choice))
        assert not found.is_proven
        assert found.open or len(found.stuck)
        assert found.worst <= 0


def test_the_attack_ends_the_search() -> None:
    bounder = Paraboloids(FAR[0], torch.tensor([5.0]).double())

    def attack(points: Tensor) -> Tensor | None:
        unsafe = bounder.values(points)[:, 0] <= 0
        return points[unsafe][0] if bool(unsafe.any()) else None

    found: Outcome[Tensor] = search(boxes(), [[0]], bounder, attack, limited(100))
    assert found.found is not None
    assert float(bounder.values(found.found.unsqueeze(0))) <= 0
    assert not found.is_proven


def test_a_conjunction_is_refuted_box_by_box_by_one_row_or_another() -> None:
    centers = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
    apart, meeting = torch.tensor([0.9, 0.9]).double(), torch.tensor([1.1, 1.1]).double()
    assert search(boxes(), [[0, 1]], Paraboloids(centers, apart), nothing, limited(400)).is_proven
    assert not search(boxes(), [[0, 1]], Paraboloids(centers, meeting), nothing, limited(40)).is_proven
    assert not search(boxes(), [[0], [1]], Paraboloids(centers, apart), nothing, limited(40)).is_proven


def test_bounds_that_are_no_numbers_prove_nothing() -> None:
    for said in (torch.nan, torch.inf):

        class Silent(Paraboloids):
            def _bound(self, lower: Tensor, upper: Tensor, said: float = said) -> Bounded:
                return Bounded(torch.full((len(lower), 1), said).double(), torch.zeros(len(lower), 1, 2).double())

        found = search(boxes(), [[0]], Silent(*FAR), nothing, limited(5))
        assert not found.is_proven
        assert found.worst == -torch.inf


def test_boxes_without_a_float_between_their_ends_are_stuck() -> None:
    lower = torch.tensor([[1.0, 1.0]]).double()
    upper = torch.nextafter(lower, torch.full_like(lower, 2.0))
    close = Paraboloids(torch.tensor([[1.0, 1.0]]).double(), torch.tensor([1.0]).double())
    found = search(Subproblems.of(lower, upper), [[0]], close, nothing, limited(50))
    assert len(found.stuck) == 1
    assert not found.is_proven


def test_the_same_search_gives_the_same_tree() -> None:
    trees = []
    for _ in range(2):
        bounder = Paraboloids(*FAR, loss=1.0)
        search(boxes(), [[0]], bounder, nothing, limited(400), Settings(8))
        trees.append(torch.cat([torch.cat(pair, 1) for pair in bounder.seen]))
    assert torch.equal(*trees)


def test_a_search_that_is_stopped_says_how_many_boxes_are_open() -> None:
    bounder = Paraboloids(*FAR, loss=1.0)
    found = search(boxes(3), [[0]], bounder, nothing, limited(0))
    assert (found.open, found.bounded, found.worst, found.is_proven) == (3, 0, -torch.inf, False)


@pytest.mark.parametrize("disjuncts", [[], [[0], []]])
def test_a_disjunct_without_rows_is_refused(disjuncts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="every disjunct needs a row"):
        search(boxes(), disjuncts, Paraboloids(*FAR), nothing, limited(1))


def test_both_halves_of_a_split_share_a_float_and_cover_the_box() -> None:
    lower, upper = torch.tensor([[0.0, -1.0], [0.1, 0.2]]), torch.tensor([[1.0, 3.0], [0.3, 0.2]])
    both = Subproblems.of(lower, upper).split(torch.tensor([1, 0]))
    assert both.lower.tolist()[:2] == lower.tolist()
    assert both.upper.tolist()[2:] == upper.tolist()
    assert both.upper[0, 1] == both.lower[2, 1] == 1.0
    assert both.upper[1, 0] == both.lower[3, 0]
    assert both.depth.tolist() == [1, 1, 1, 1]


def test_the_queue_gives_back_what_came_last_the_least_bound_first() -> None:
    queue = Queue()
    for values in ([-1.0, -2.0], [-3.0, -5.0, -4.0]):
        part = boxes(len(values))
        queue.push(Subproblems(part.lower, part.upper, torch.tensor(values), part.depth, part.node, part.known))
    assert (len(queue), queue.worst) == (5, -5.0)
    assert queue.pop(2).bound.sort().values.tolist() == [-5.0, -4.0]
    assert sorted(queue.pop(9).bound.tolist()) == [-3.0, -2.0, -1.0]
    assert (len(queue), queue.worst) == (0, torch.inf)


def test_a_bound_method_may_stop_in_the_middle_of_a_batch() -> None:
    class Late(Paraboloids):
        def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
            if len(self.seen) == 3:
                raise SearchStopped
            return super().bound(lower, upper, known)

    bounder = Late(*FAR, loss=1.0)
    found = search(boxes(), [[0]], bounder, nothing, limited(400), Settings(1, again=0.0))
    assert len(bounder.seen) == 3
    assert found.open == 4  # each of three was split
    assert not found.is_proven
    assert found.worst <= 0


def test_boxes_of_a_batch_that_was_stopped_are_there_once() -> None:
    class Late(Paraboloids):
        asked = 0

        def estimate(self, lower: Tensor, upper: Tensor, known: Tensor) -> Tensor:
            self.asked += 1
            if self.asked == 3:
                raise SearchStopped
            return super().estimate(lower, upper, known)

    states: list[Subproblems] = []
    bounder = Late(*FAR, loss=1.0)
    keep = lambda make: states.append(make().open)  # noqa: E731
    found = search(boxes(), [[0]], bounder, nothing, limited(400), Settings(4, "lookahead"), keep=keep)
    assert bounder.asked == 3
    assert not found.is_proven
    left = states[-1]
    assert len(left) == found.open
    for i in range(len(left)):
        for j in range(i):
            low, high = torch.maximum(left.lower[i], left.lower[j]), torch.minimum(left.upper[i], left.upper[j])
            assert bool((low >= high).any())


def test_a_box_whose_cut_is_no_number_stays_open() -> None:
    def lost(lower: Tensor, upper: Tensor, *rest: object, **how: object) -> tuple[Tensor, Tensor]:
        return lower * torch.nan, upper

    with patch.dict(search.__globals__, cut=lost):
        found = search(boxes(), [[0]], Paraboloids(*FAR, loss=9.0), nothing, limited(4), Settings(1))
    assert not found.is_proven


def test_estimates_are_asked_for_so_many_boxes_at_a_time() -> None:
    asked = []

    class Small(Paraboloids):
        def estimate(self, lower: Tensor, upper: Tensor, known: Tensor) -> Tensor:
            asked.append(len(lower))
            return super().estimate(lower, upper, known)

    rows = Small(torch.full((1, 4), 3.0).double(), FAR[1], loss=9.0)
    search(boxes(3, 4), [[0]], rows, nothing, limited(6), Settings(4, again=0.0))
    assert asked
    assert max(asked) <= 4


def test_boxes_that_do_not_fit_in_memory_go_to_files_and_the_tree_is_the_same(tmp_path: Path) -> None:
    with patch("tempfile.tempdir", str(tmp_path)):
        ends = [
            search(boxes(), [[0]], Paraboloids(*FAR, loss=1.0), nothing, limited(4000), Settings(2, memory=memory))
            for memory in (2**30, 1)
        ]
        assert (ends[0].bounded, ends[0].depth) == (ends[1].bounded, ends[1].depth)
        assert all(end.is_proven for end in ends)
    assert not list(tmp_path.iterdir())


def test_a_queue_in_files_gives_back_what_it_was_given_in_the_order_of_one_in_memory(tmp_path: Path) -> None:
    with patch("tempfile.tempdir", str(tmp_path)):
        queues = Queue(), Queue(memory=1)
        generator = torch.Generator().manual_seed(0)
        for count in (3, 2, 5, 1, 4):
            part = boxes(count)
            bound = torch.rand(count, generator=generator)
            part = replace(part, bound=bound, node=torch.arange(count) + 10 * count, known=torch.rand(count, 7))
            for queue in queues:
                queue.push(part)
        assert list(tmp_path.glob("*/*"))
        assert len(queues[0]) == len(queues[1]) == 15
        assert queues[0].worst == queues[1].worst
        orders: list[list[int]] = []
        for queue in queues:
            orders.append([])
            while len(queue):
                orders[-1] += queue.pop(1).node.tolist()
        assert orders[0] == orders[1]
        assert not list(tmp_path.glob("*/*"))


def test_open_boxes_that_fit_nowhere_are_an_error_of_memory(tmp_path: Path) -> None:
    queue = Queue(memory=1)
    with patch("tempfile.tempdir", str(tmp_path / "missing")):
        queue.push(boxes(2))
        with pytest.raises(MemoryError, match="open boxes cannot be written to a file"):
            queue.push(boxes(2))


def test_what_is_known_of_a_box_is_left_aside_where_an_estimate_refutes_with_it() -> None:
    boxes = Subproblems.of(torch.zeros(3, 2), torch.ones(3, 2))
    known = torch.tensor([[0.5, 2.0], [-0.5, 2.0], [0.0, 3.0]])

    def estimate(lower: Tensor, upper: Tensor, held: Tensor) -> Tensor:
        return held[:, :1]

    told = without_refuting(replace(boxes, known=known), [[0]], estimate)
    assert told.known[0].isnan().all()
    assert torch.equal(told.known[1:], known[1:])
    assert without_refuting(boxes, [[0]], estimate) is boxes
