"""Smaller trees of neuron splits: parts that the row of one of their leaves refutes, and multipliers nobody needs.

A leaf and whatever lies on the other side of a split are one leaf where the row of the leaf proves of what was split
what its tree is to prove, with its slopes and without the multiplier of the split: that the part is refuted, or, of a
lemma, the lemma's bound. What is kept was bounded as any leaf is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zonocuda.prove.sign_record import Ints, SignLeaves, tree_of

Proves = Callable[[SignLeaves, Ints], NDArray[np.bool_]]
"""Of which leaves the rows, with their slopes and multipliers, prove what their trees, by number, are to prove."""

SHARES = (1.0, 0.5, 0.25)
"""Of a leaf's multipliers, the smallest ones, what is left out together."""


def outermost(parts: Sequence[Ints], proven: NDArray[np.bool_], count: int) -> list[int]:
    """The numbers of those ``parts`` of so many leaves that are ``proven``, without those inside others, which come
    behind them."""
    gone, found = np.zeros(count, dtype=bool), []
    for number in np.flatnonzero(proven).tolist():
        if not gone[parts[number]].any():
            gone[parts[number]] = True
            found.append(number)
    return found


def merged(trees: Sequence[SignLeaves], proves: Proves) -> list[SignLeaves]:
    """The leaves ``[L]`` of trees of the same columns, no more than there are."""
    result = list(trees)
    fresh = [np.ones(len(leaves.row), dtype=bool) for leaves in trees]  # those that were not tried yet
    while True:
        tried = [(number, _sides(result[number], fresh[number])) for number in range(len(trees)) if fresh[number].any()]
        tried = [(number, found) for number, found in tried if found]
        if not tried:
            return result
        parts = [
            _without(result[number].at(np.array([leaf for _, leaf, _ in found])), np.array([u for _, _, u in found]))
            for number, found in tried
        ]
        counts = [len(part.row) for part in parts]
        proven = proves(SignLeaves.cat(parts), np.repeat([number for number, _ in tried], counts))
        for (number, found), whole, ok in zip(tried, parts, np.split(proven, np.cumsum(counts)[:-1]), strict=True):
            leaves = result[number]
            new = outermost([index for index, _, _ in found], ok, len(leaves.row))
            gone = np.zeros(len(leaves.row), dtype=bool)
            for one in new:
                gone[found[one][0]] = True
            fresh[number] = np.repeat([False, True], [int((~gone).sum()), len(new)])
            if new:
                result[number] = SignLeaves.cat([leaves.at(np.flatnonzero(~gone)), whole.at(np.array(new))])


def _sides(leaves: SignLeaves, fresh: NDArray[np.bool_]) -> list[tuple[Ints, int, int]]:
    """Splits of a tree with a fresh leaf on one side: all leaves below, that one, and the neuron; larger ones first."""
    return [
        (node.index, int(side[0]), node.neuron)
        for node in tree_of(leaves.signs)
        for side in (node.above, node.below)
        if len(side) == 1 and fresh[side[0]]
    ]


def lightened(leaves: SignLeaves, proves: Proves) -> SignLeaves:
    """The leaves without multipliers that they do not need, as far as a few attempts tell."""
    multipliers = leaves.multipliers.copy()
    for share in SHARES:
        tried = multipliers.copy()
        for held in tried:
            some = np.flatnonzero(held)
            if len(some):
                held[some[np.argsort(held[some], kind="stable")[: max(1, int(share * len(some)))]]] = 0
        changed = np.flatnonzero((tried != multipliers).any(1))
        if len(changed):
            asked = replace(leaves, multipliers=tried).at(changed)
            better = changed[proves(asked, np.zeros(len(changed), np.int64))]
            multipliers[better] = tried[better]
    return replace(leaves, multipliers=multipliers)


def _without(leaves: SignLeaves, neuron: Ints) -> SignLeaves:
    """Each leaf without the sign of a neuron."""
    signs, multipliers, index = leaves.signs.copy(), leaves.multipliers.copy(), np.arange(len(neuron))
    signs[index, neuron], multipliers[index, neuron] = 0, 0
    return replace(leaves, signs=signs, multipliers=multipliers)
