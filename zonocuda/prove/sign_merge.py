"""Smaller trees of neuron splits: parts that the row of one of their leaves refutes, and multipliers nobody needs.

A leaf and whatever lies on the other side of a split are one leaf where the row of the leaf refutes what was split,
with its slopes and without the multiplier of the split. What is kept was bounded as any leaf is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zonocuda.prove.sign_record import Ints, SignLeaves, tree_of

Proves = Callable[[SignLeaves], NDArray[np.bool_]]
"""Which of some leaves are refuted by their rows, with their slopes and multipliers."""

SHARES = (1.0, 0.5, 0.25)
"""Of a leaf's multipliers, the smallest ones, what is left out together."""


def merged(leaves: SignLeaves, proves: Proves) -> SignLeaves:
    """The leaves ``[L]`` of a tree, no more than there are."""
    fresh = np.ones(len(leaves.row), dtype=bool)  # those that were not tried yet
    while True:
        found = [
            (node.index, int(side[0]), node.neuron)
            for node in tree_of(leaves.signs)
            for side in (node.above, node.below)
            if len(side) == 1 and fresh[side[0]]
        ]
        if not found:
            return leaves
        chosen = leaves.at(np.array([leaf for _, leaf, _ in found]))
        whole = _without(chosen, np.array([neuron for _, _, neuron in found]))
        gone, new = np.zeros(len(leaves.row), dtype=bool), []
        for number in np.flatnonzero(proves(whole)).tolist():  # those of larger parts come before those inside them
            index = found[number][0]
            if not gone[index].any():
                gone[index] = True
                new.append(number)
        if not new:
            return leaves
        fresh = np.repeat([False, True], [int((~gone).sum()), len(new)])
        leaves = SignLeaves.cat([leaves.at(np.flatnonzero(~gone)), whole.at(np.array(new))])


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
            better = changed[proves(replace(leaves, multipliers=tried).at(changed))]
            multipliers[better] = tried[better]
    return replace(leaves, multipliers=multipliers)


def _without(leaves: SignLeaves, neuron: Ints) -> SignLeaves:
    """Each leaf without the sign of a neuron."""
    signs, multipliers, index = leaves.signs.copy(), leaves.multipliers.copy(), np.arange(len(neuron))
    signs[index, neuron], multipliers[index, neuron] = 0, 0
    return replace(leaves, signs=signs, multipliers=multipliers)
