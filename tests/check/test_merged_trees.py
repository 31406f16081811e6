"""Trees get smaller, and stay trees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from zonocuda.branch import RecordedTree, Recorder, Subproblems
from zonocuda.prove.box_merge import Refuting, merged_boxes
from zonocuda.prove.lemma_replay import shared
from zonocuda.prove.sign_merge import lightened, merged
from zonocuda.prove.sign_record import SignLeaves, tree_of

NEURONS = 6


def random_leaves(seed: int, splits: int = 12) -> SignLeaves:
    """The leaves of a random tree, each with a multiplier for each of its signs."""
    generator = np.random.default_rng(seed)
    leaves = [np.zeros(NEURONS, np.int8)]
    for _ in range(splits):
        open_ = [k for k, leaf in enumerate(leaves) if not leaf.all()]
        leaf = leaves.pop(int(generator.choice(open_)))
        u = int(generator.choice(np.flatnonzero(leaf == 0)))
        for sign in (1, -1):
            half = leaf.copy()
            half[u] = sign
            leaves.append(half)
    signs = np.array([leaves[k] for k in generator.permutation(len(leaves))])
    return of(signs, np.where(signs != 0, generator.uniform(0.1, 2.0, signs.shape), 0.0))


def of(signs: NDArray[np.int8], multipliers: NDArray[np.float64]) -> SignLeaves:
    count = len(signs)
    zeros, slopes = np.zeros(count, np.int64), np.full(signs.shape, 64, np.uint8)
    return SignLeaves(np.arange(NEURONS), zeros, zeros, signs, slopes, multipliers.astype(np.float16))


def covering(signs: NDArray[np.int8], pattern: Sequence[int]) -> int:
    """How many leaves hold the inputs of a pattern of signs of all neurons."""
    return int(((signs == 0) | (signs == np.array(pattern, np.int8))).all(1).sum())


@pytest.mark.parametrize("seed", range(6))
def test_what_is_merged_is_a_tree_that_covers_everything_once(seed: int) -> None:
    leaves, generator = random_leaves(seed), np.random.default_rng(seed)
    asked: list[SignLeaves] = []

    other = random_leaves(seed + 100)

    def proves(some: SignLeaves, tree: NDArray[np.int64]) -> NDArray[np.bool_]:
        asked.append(some.at(np.flatnonzero(tree == 1)))
        return (generator.random(len(some.row)) < 0.4) & (tree == 1)

    (same, found) = merged([other, leaves], proves)
    assert asked
    assert same.signs.tobytes() == other.signs.tobytes()
    assert len(found.row) <= len(leaves.row)
    assert sum(node.neuron < 0 for node in tree_of(found.signs)) == len(found.row)
    assert all(covering(found.signs, pattern) == 1 for pattern in itertools.product((-1, 1), repeat=NEURONS))
    assert not found.multipliers[found.signs == 0].any()
    known = {leaf.tobytes() for some in (leaves, *asked) for leaf in some.signs}
    assert all(leaf.tobytes() in known for leaf in found.signs)  # nothing that nobody has bounded


def test_leaves_are_merged_exactly_where_a_bound_says_so() -> None:
    leaves = random_leaves(1)
    assert len(merged([leaves], lambda some, tree: np.ones(len(tree), dtype=bool))[0].row) == 1
    (same,) = merged([leaves], lambda some, tree: np.zeros(len(tree), dtype=bool))
    assert same.signs.tobytes() == leaves.signs.tobytes()


@pytest.mark.parametrize("needed", [0, 1, 2, 6])
def test_multipliers_are_left_out_while_the_bound_stands(needed: int) -> None:
    leaves = random_leaves(2)

    def proves(some: SignLeaves, tree: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (some.multipliers > 0).sum(1) >= needed

    found = lightened(leaves, proves)
    before, after = ((one.multipliers > 0).sum(1) for one in (leaves, found))
    assert (after >= np.minimum(before, needed)).all()
    assert ((after == 0) | (needed > 0)).all()
    assert (after <= before).all()
    kept = found.multipliers > 0
    assert (found.multipliers[kept] == leaves.multipliers[kept]).all()
    assert found.signs.tobytes() == leaves.signs.tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_for_other_neurons_covers_what_is_left_once(seed: int) -> None:
    """Two neurons have a sign now, two are new: for inputs of those signs nothing is missing."""
    leaves, generator = random_leaves(seed), np.random.default_rng(seed)
    known = np.zeros(9, np.int8)
    settled = generator.choice(NEURONS, 2, replace=False)
    known[settled] = generator.choice([-1, 1], 2)
    columns = generator.permutation([c for c in range(8) if not known[c]])
    found = leaves.onto(columns, np.arange(len(columns), dtype=np.uint8), known)
    assert sum(node.neuron < 0 for node in tree_of(found.signs)) == len(found.row)
    for pattern in itertools.product((-1, 1), repeat=8):
        if all(pattern[c] == known[c] for c in settled):
            (before,) = np.flatnonzero(((leaves.signs == 0) | (leaves.signs == pattern[:NEURONS])).all(1))
            (after,) = np.flatnonzero(((found.signs == 0) | (found.signs == np.array(pattern)[columns])).all(1))
            for place, column in enumerate(columns.tolist()):
                if column < NEURONS:
                    assert found.multipliers[after, place] == leaves.multipliers[before, column]
                assert found.slopes[after, place] == (64 if column < NEURONS else place)


@pytest.mark.parametrize("seed", range(4))
def test_leaves_share_slopes_where_each_proves_no_less_than_its_tree(seed: int) -> None:
    generator = np.random.default_rng(seed)
    trees = [random_leaves(seed), random_leaves(seed + 9, splits=5)]
    trees = [replace(t, slopes=generator.integers(0, 129, t.slopes.shape).astype(np.uint8)) for t in trees]
    weight = generator.random(NEURONS)

    def least(some: SignLeaves) -> NDArray[np.float64]:
        depth = (some.signs != 0).sum(1)
        return depth - (some.slopes / 128 @ weight) * generator_free(some.signs)

    def generator_free(signs: NDArray[np.int8]) -> NDArray[np.float64]:
        """A number of each part that hangs on nothing else."""
        return np.abs(np.sin(signs.astype(np.float64) @ np.arange(1, NEURONS + 1)))

    found, goal = shared(trees, least)
    for before, after, wanted in zip(trees, found, goal, strict=True):
        assert least(after).min() >= wanted == least(before).min()
        assert all(covering(after.signs, pattern) == 1 for pattern in itertools.product((-1, 1), repeat=NEURONS))
        kinds = {leaf.tobytes() for leaf in after.slopes}
        assert len(kinds) < len({leaf.tobytes() for leaf in before.slopes})


def box_tree(seed: int, count: int = 60) -> tuple[Recorder, NDArray[np.float64], NDArray[np.float64]]:
    """A search of boxes in [0, 1]^2 as a recorder was told it: some are refuted, others cut, and then split."""
    generator = torch.Generator().manual_seed(seed)
    recorder = Recorder([[0]])
    queue = [Subproblems.of(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))]
    for number in range(count):
        box = queue.pop(0)
        chance = torch.rand(3, generator=generator)
        note = torch.full((1, 3), number, dtype=torch.uint8)
        if chance[0] < 0.4 and queue:
            recorder.refuted(box.node, torch.ones(1, 1), note)
            continue
        if chance[1] < 0.7:
            low, high = box.lower.clone(), box.upper - (box.upper - box.lower) * torch.tensor([[0.25, 0.0]])
            if chance[2] < 0.5:
                low = low + (box.upper - box.lower) * torch.tensor([[0.0, 0.25]])
            nodes = recorder.cut(box, low, high, -torch.ones(1, 1), torch.ones(1, 1, 2), note)
            box = replace(box, lower=low, upper=high, node=nodes)
        parts = box.split(torch.tensor([number % 2]))
        at = parts.lower[1:, number % 2]
        parts = replace(parts, node=recorder.split(box.node, torch.tensor([number % 2]), at))
        queue += [parts.at(slice(k, k + 1)) for k in range(2)]
    for box in queue:
        recorder.refuted(box.node, torch.ones(1, 1), torch.full((1, 3), 200, dtype=torch.uint8))
    return recorder, np.zeros(2), np.ones(2)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_merged_where_a_bound_of_what_a_cut_left_says_so(seed: int) -> None:
    recorder, lower, upper = box_tree(seed)
    tree, chance, asked = recorder.tree(), np.random.default_rng(seed), []

    def refute(low: NDArray[np.float64], high: NDArray[np.float64]) -> Refuting:
        asked.extend(zip(low.tolist(), high.tolist(), strict=True))
        proven = chance.random(len(low)) < 0.5
        answers.extend(proven.tolist())
        return Refuting(
            proven, np.zeros((len(low), 1), np.int64), np.arange(len(low), dtype=np.uint8)[:, None].repeat(3, 1)
        )

    answers: list[bool] = []
    found = merged_boxes(tree, lower, upper, refute)
    before, after = ({(*low, *high): scope for low, high, scope in leaf_boxes(t)} for t in (tree, found))
    bounded = {(*low, *high) for low, high in asked}
    assert bounded
    assert not bounded & set(before)  # parts, and not leaves
    assert found.leaves < tree.leaves
    assert sum((a[2] - a[0]) * (a[3] - a[1]) for a in after) == pytest.approx(1.0)
    proven = {(*low, *high) for (low, high), ok in zip(asked, answers, strict=True) if ok}
    fresh = set(after) - set(before)
    assert fresh <= proven
    for box in fresh:
        low, high = after[box]
        assert (*low, *high) == box  # its bounds are those of itself
    for box in set(after) & set(before):
        assert after[box] == before[box]
    same = merged_boxes(
        tree, lower, upper, lambda low, high: replace(refute(low, high), proven=np.zeros(len(low), bool))
    )
    assert same is tree


def leaf_boxes(tree: RecordedTree) -> list[tuple[list[float], list[float], tuple[list[float], list[float]]]]:
    """Of every leaf the ends of its box, and the box that its bounds are of."""
    splits, scopes, found = iter(zip(tree.inputs, tree.at, strict=True)), iter(tree.scope), []
    stack: list[list[tuple[list[float], list[float]]]] = [[([0.0, 0.0], [1.0, 1.0])]]
    for kind in tree.kind.tolist():
        path = stack.pop()
        low, high = path[-1]
        if not kind:
            found.append((low, high, path[next(scopes)]))
            continue
        j, at = next(splits)
        below, above = list(high), list(low)
        below[j], above[j] = at, at
        stack += [[*path, (above, high)], [*path, (low, below)]]
    assert not stack
    return found
