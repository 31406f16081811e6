"""Trees of neuron splits get smaller, and stay trees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

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

    def proves(some: SignLeaves) -> NDArray[np.bool_]:
        asked.append(some)
        return generator.random(len(some.row)) < 0.4

    found = merged(leaves, proves)
    assert asked
    assert len(found.row) <= len(leaves.row)
    assert sum(node.neuron < 0 for node in tree_of(found.signs)) == len(found.row)
    assert all(covering(found.signs, pattern) == 1 for pattern in itertools.product((-1, 1), repeat=NEURONS))
    assert not found.multipliers[found.signs == 0].any()
    known = {leaf.tobytes() for some in (leaves, *asked) for leaf in some.signs}
    assert all(leaf.tobytes() in known for leaf in found.signs)  # nothing that nobody has bounded


def test_leaves_are_merged_exactly_where_a_bound_says_so() -> None:
    leaves = random_leaves(1)
    assert len(merged(leaves, lambda some: np.ones(len(some.row), dtype=bool)).row) == 1
    same = merged(leaves, lambda some: np.zeros(len(some.row), dtype=bool))
    assert same.signs.tobytes() == leaves.signs.tobytes()


@pytest.mark.parametrize("needed", [0, 1, 2, 6])
def test_multipliers_are_left_out_while_the_bound_stands(needed: int) -> None:
    leaves = random_leaves(2)

    def proves(some: SignLeaves) -> NDArray[np.bool_]:
        return (some.multipliers > 0).sum(1) >= needed

    found = lightened(leaves, proves)
    before, after = ((one.multipliers > 0).sum(1) for one in (leaves, found))
    assert (after >= np.minimum(before, needed)).all()
    assert ((after == 0) | (needed > 0)).all()
    assert (after <= before).all()
    kept = found.multipliers > 0
    assert (found.multipliers[kept] == leaves.multipliers[kept]).all()
    assert found.signs.tobytes() == leaves.signs.tobytes()
