"""Small trees of rows: only what is proven of their leaves counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from zonocuda.branch import SearchStopped, SignBounded, SignParts, deepen

NEURONS = 6


class Bounder:
    """Proves that a part has the bound -1 / (1 + splits), and guesses what it is told to."""

    def __init__(self, guess: float, most: float = math.inf) -> None:
        self.guess, self.left = guess, most
        self.proven: list[tuple[int, ...]] = []

    def count(self, parts: SignParts) -> None:
        self.left -= len(parts)
        if self.left < 0:
            raise SearchStopped

    def sketch(self, parts: SignParts) -> SignParts:
        self.count(parts)
        wishes = parts.signs.abs().argmin(1, keepdim=True)  # the first that is not known
        return replace(parts, bound=torch.full_like(parts.bound, self.guess), wishes=wishes)

    def as_it_is(self, parts: SignParts) -> SignBounded:
        self.count(parts)
        self.proven += [(int(row), *signs) for row, signs in zip(parts.row, parts.signs.tolist(), strict=True)]
        bound = -1.0 / (1 + parts.signs.abs().sum(1))
        return SignBounded(replace(parts, bound=torch.fmax(parts.bound, bound.to(parts.bound))), parts.signs.float())

    def bound(self, parts: SignParts, thorough: bool = False) -> SignBounded:
        raise AssertionError("what is split is not proven")

    def estimate(self, parts: SignParts) -> Tensor:
        raise AssertionError("nothing is chosen")


def roots(count: int) -> SignParts:
    signs = torch.zeros(count, NEURONS, dtype=torch.int8)
    values = torch.zeros(count, NEURONS)
    bound, every = torch.full((count,), -2.0), torch.arange(count)
    depth, wishes = torch.zeros(count, dtype=torch.int32), torch.zeros(count, 1, dtype=torch.int64)
    return SignParts(every, every, signs, values, values, bound, depth, wishes)


@pytest.mark.parametrize("guess", [-0.5, 0.5, math.inf, -math.inf, math.nan])
def test_a_bound_is_the_least_that_is_proven_of_the_leaves_whatever_was_guessed(guess: float) -> None:
    bounder = Bounder(guess)
    found = deepen(roots(3), bounder, 4, 4, lambda: True)
    finite = math.isfinite(guess) and guess > 0  # then a row is done once both of its parts seem positive
    leaves = 2 if finite else 5
    assert found.bounded == 3 * 2 * (leaves - 1)
    taken = found.leaf_bounds < math.inf
    assert taken.sum(1).tolist() == [leaves] * 3
    kept = found.leaves.at(taken.flatten())
    assert sorted(bounder.proven) == sorted((int(r), *s) for r, s in zip(kept.row, kept.signs.tolist(), strict=True))
    expected = -1.0 / (1 + kept.signs.abs().sum(1).reshape(3, leaves))
    assert torch.equal(found.leaf_bounds[taken].reshape(3, leaves), expected.float())
    assert torch.equal(found.bound, expected.amin(1).float())
    for row in range(3):  # every pattern of signs lies in exactly one leaf
        signs = kept.signs[kept.row == row]
        patterns = torch.cartesian_prod(*[torch.tensor([-1, 1])] * NEURONS)
        inside = ((signs == 0) | (signs == patterns.unsqueeze(1))).all(2)
        assert bool((inside.sum(1) == 1).all())


@pytest.mark.parametrize("most", [0, 3, 9, 26])
def test_what_is_stopped_before_all_is_proven_proves_nothing(most: int) -> None:
    found = deepen(roots(3), Bounder(-0.5, most), 4, 4, lambda: True)
    assert bool((found.bound == -math.inf).all())


def test_no_time_to_split_leaves_what_the_roots_have() -> None:
    found = deepen(roots(3), Bounder(-0.5), 4, 4, lambda: False)
    assert found.bounded == 0
    assert found.bound.tolist() == [-2.0] * 3
