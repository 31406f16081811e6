"""What a search writes down: a tree whose leaves cover the box, and are refuted by what is said of them, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.branch.test_search import Paraboloids, boxes, limited, nothing
from zonocuda.branch import Bounded, RecordedTree, Recorder, RecorderState, SearchState, Settings, search
from zonocuda.branch.record import _COLUMNS

Box = tuple[tuple[float, ...], tuple[float, ...]]
DISJUNCTS = [[0, 1], [2], [3, 0]]
CENTERS = torch.tensor([[3.0, 0.0, 0.2], [-1.2, 2.4, 0.0], [0.1, 0.2, 3.1], [2.2, -2.2, 0.5]], dtype=torch.float64)
LEVELS = torch.tensor([3.5, 1.2, 4.0, 2.4], dtype=torch.float64)


@dataclass
class Noted(Paraboloids):
    """The same with notes: the number of the box, in three bytes."""

    def bound(self, lower: Tensor, upper: Tensor, known: Tensor | None = None) -> Bounded:
        first = sum(len(low) for low, _ in self.seen)
        numbers = torch.arange(first, first + len(lower))
        digits = [(numbers // 256**k) % 256 for k in range(3)]
        return replace(super().bound(lower, upper), notes=torch.stack(digits, 1).to(torch.uint8))


def run(settings: Settings, loss: float = 0.3, batches: int = 4000) -> tuple[Recorder, Noted, Any]:
    """A search with a recorder."""
    recorder, bounder = Recorder(DISJUNCTS), Noted(CENTERS, LEVELS, loss)
    found = search(boxes(1, 3), DISJUNCTS, bounder, nothing, limited(batches), settings, recorder)
    return recorder, bounder, found


def leaves_of(tree: RecordedTree) -> list[tuple[Box, Box, int]]:
    """Of every leaf its box, the box of its bounds, and how many splits lie above."""
    splits, scopes, found = (
        iter(zip(tree.inputs.tolist(), tree.at.tolist(), strict=True)),
        iter(tree.scope.tolist()),
        [],
    )
    stack: list[list[Box]] = [[((-1.0,) * 3, (1.0,) * 3)]]
    for kind in tree.kind.tolist():
        path = stack.pop()
        low, high = path[-1]
        if not kind:
            found.append((path[-1], path[next(scopes)], len(path) - 1))
            continue
        j, at = next(splits)
        below, above = list(high), list(low)
        below[j], above[j] = min(high[j], at), max(low[j], at)
        stack += [[*path, (tuple(above), high)], [*path, (low, tuple(below))]]
    assert not stack
    assert next(scopes, None) is None
    return found


def volume(box: Box) -> Fraction:
    """0 where it is empty."""
    result = Fraction(1)
    for low, high in zip(*box, strict=True):
        result *= max(Fraction(0), Fraction(high) - Fraction(low))
    return result


def check(tree: RecordedTree, bounder: Noted) -> None:
    """Every leaf is refuted by the row that it names, with the bounds of the box that it names, in rationals."""
    seen = [
        (tuple(low), tuple(high))
        for lower, upper in bounder.seen
        for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
    ]
    leaves = leaves_of(tree)
    assert sum(volume(box) for box, _, _ in leaves) == 8
    assert tree.depth == max(depth for _, _, depth in leaves)
    cut = 0
    for number, (box, scope, _) in enumerate(leaves):
        if tree.note[number] < 0:  # no point is left of it
            assert any(low > high for low, high in zip(*box, strict=True))
            continue
        own = int.from_bytes(tree.notes[tree.note[number]].tobytes(), "little")
        assert seen[own] == scope
        cut += box != scope
        if any(low > high for low, high in zip(*box, strict=True)):
            continue
        low, high = (torch.tensor([end], dtype=torch.float64) for end in scope)
        bounds = bounder._bound(low, high)
        for members, place in zip(DISJUNCTS, tree.rows[number].tolist(), strict=True):
            row = members[place]
            least = Fraction(float(bounds.lower[0, row]))
            for v, a, b, c, d in zip(bounds.weight[0, row].tolist(), *box, *scope, strict=True):
                least += Fraction(v) * (Fraction(a) - Fraction(c) if v >= 0 else Fraction(b) - Fraction(d))
            assert least > 0
    assert cut > 5


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("again", [0.0, 0.7])
def test_every_leaf_is_refuted_by_what_is_said_of_it(batch: int, again: float) -> None:
    recorder, bounder, found = run(Settings(batch, "alternate", again=again))
    assert found.is_proven
    check(recorder.tree(), bounder)


def test_what_a_cut_leaves_little_of_is_bounded_as_a_whole() -> None:
    counts = {}
    for again in (0.0, 0.7):
        recorder, bounder, found = run(Settings(16, "gradient", again=again))
        assert found.is_proven
        counts[again] = sum(len(low) for low, _ in bounder.seen), recorder.tree().leaves
    assert counts[0.7] < counts[0.0]


def test_a_tree_that_was_kept_goes_on() -> None:
    states: list[tuple[SearchState, RecorderState | None]] = []
    recorder, bounder = Recorder(DISJUNCTS), Noted(CENTERS, LEVELS, 0.3)
    search(
        boxes(1, 3),
        DISJUNCTS,
        bounder,
        nothing,
        limited(4000),
        Settings(8),
        recorder,
        lambda make: states.append((make(), recorder.state())),
    )
    wanted = recorder.tree()
    for state, told in states[1 : len(states) - 1 : 3]:
        own = Recorder.of(told, DISJUNCTS)
        again = Noted(CENTERS, LEVELS, 0.3, list(bounder.seen))
        assert search(state, DISJUNCTS, again, nothing, limited(4000), Settings(8), own).is_proven
        check(own.tree(), again)
        assert own.tree().leaves == wanted.leaves


def test_what_takes_more_memory_than_it_may_is_not_kept_and_the_search_goes_on() -> None:
    whole, _, found = run(Settings(8))
    assert whole.bytes >= 40 * len(whole.state().child)  # type: ignore[union-attr]
    for most in (0, whole.bytes // 2, whole.bytes):
        recorder, again = Recorder(DISJUNCTS, most=most), Noted(CENTERS, LEVELS, 0.3)
        other = search(boxes(1, 3), DISJUNCTS, again, nothing, limited(4000), Settings(8), recorder)
        assert (other.bounded, other.is_proven) == (found.bounded, True)
        assert recorder.is_whole == (most == whole.bytes)
        assert (recorder.state() is None) == (most < whole.bytes)
        assert recorder.bytes == (whole.bytes if recorder.is_whole else 0)
        assert Recorder.of(recorder.state(), DISJUNCTS).is_whole == recorder.is_whole


def test_a_record_that_is_no_tree_is_refused() -> None:
    recorder, _, _ = run(Settings(8))
    state = recorder.state()
    assert state is not None
    for name in _COLUMNS:
        with pytest.raises(ValueError, match="the record"):
            Recorder.of(replace(state, **{name: getattr(state, name)[:-1]}), DISJUNCTS)
    for name, value in (("child", len(state.child)), ("owner", len(state.child)), ("note", len(state.notes))):
        wrong = getattr(state, name).copy()
        wrong[0] = value
        with pytest.raises(ValueError, match="is no tree"):
            Recorder.of(replace(state, **{name: wrong}), DISJUNCTS)


def test_a_tree_of_parts_that_others_searched_is_one_tree() -> None:
    recorder, bounder = Recorder(DISJUNCTS), Noted(CENTERS, LEVELS, 0.3)
    states: list[SearchState] = []
    search(
        boxes(1, 3),
        DISJUNCTS,
        bounder,
        nothing,
        limited(4),
        Settings(4),
        recorder,
        lambda make: states.append(make()),
    )
    left = states[-1].open
    assert len(left) > 2
    for some in (left.at(slice(0, 2)), left.at(slice(2, None))):
        own = Recorder(DISJUNCTS, len(some))
        given = replace(some, node=torch.arange(len(some)))
        assert search(given, DISJUNCTS, bounder, nothing, limited(4000), Settings(4), own).is_proven
        told = own.state()
        assert told is not None
        recorder.graft(some.node.tolist(), told)
    check(recorder.tree(), bounder)
