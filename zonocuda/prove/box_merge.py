"""Smaller trees of boxes: parts that one bound of the whole part refutes, and that no search has bounded as a whole.

A search bounds boxes before it cuts them, and splits what a cut leaves at once. Bounds of that may be so much better
that they refute it: it is then one leaf, in the stead of all that lies below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from zonocuda.branch import RecordedTree, best_rows, worst_bound
from zonocuda.prove.boxes import BoxBounder
from zonocuda.prove.dense_boxes import DenseBounder
from zonocuda.prove.sign_merge import outermost

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BYTES = 2**28
"""Of boxes that are bounded together."""
SPARE = 2.0**-6
"""Of what a row's linear bound varies by on a box, what its bound is to exceed zero by: who derives it anew finds other
bounds of neurons, and other slopes where these follow from them."""


@dataclass(frozen=True, eq=False)
class Refuting:
    """Of S boxes which are refuted, of every disjunct the row that is, and what is written down of the bounds.

    Attributes:
        proven: ``[S]``.
        rows: ``[S, D]``, by their places in the disjuncts.
        notes: ``[S, K]`` (uint8).
    """

    proven: NDArray[np.bool_]
    rows: NDArray[np.int64]
    notes: NDArray[np.uint8]


def refute_by(method: BoxBounder | DenseBounder, lower: Floats, upper: Floats) -> Refuting:
    """What a bound method, which says what is to be written down, finds of boxes ``[S, N]``."""
    rows, proven, best, notes = method.rows, [], [], []
    count = method.batch(BYTES)
    for first in range(0, len(lower), count):
        ends = (torch.from_numpy(end[first : first + count]).to(rows.constant) for end in (lower, upper))
        low, high = ends
        found = method.bound(low, high)
        assert found.notes is not None, "they are asked for"
        spared = found.lower - SPARE * (found.weight.abs() @ (high - low).unsqueeze(2)).squeeze(2)
        proven.append(worst_bound(spared, rows.disjuncts) > 0)
        best.append(best_rows(spared, rows.disjuncts))
        notes.append(found.notes)
    told = (torch.cat(some).cpu().numpy() for some in (proven, best, notes))
    return Refuting(*told)


def merged_boxes(
    tree: RecordedTree, lower: Floats, upper: Floats, refute: Callable[[Floats, Floats], Refuting]
) -> RecordedTree:
    """A tree over a box with ends ``[N]``, no larger than it is; ``refute`` bounds boxes ``[S, N]``."""
    ends, leaf, split = _ends(tree.kind), np.cumsum(tree.kind == 0) - 1, np.cumsum(tree.kind != 0) - 1
    candidates, boxes, depths = [], [], {}
    stack = [(lower, upper, 0, False)]
    for node, kind in enumerate(tree.kind.tolist()):
        low, high, depth, is_cut = stack.pop()
        if not kind:
            continue
        if is_cut:
            candidates.append(node)
            boxes.append((low, high))
            depths[node] = depth
        j, at = tree.inputs[split[node]], tree.at[split[node]]
        below, above = high.copy(), low.copy()
        below[j], above[j] = min(high[j], at), max(low[j], at)
        first, second = node + 1, int(ends[node + 1])
        # beyond a cut lies a leaf whose bounds are those of what was cut
        cuts = [tree.kind[other] == 0 and tree.scope[leaf[other]] <= depth for other in (second, first)]
        stack += [(above, high, depth + 1, cuts[1]), (low, below, depth + 1, cuts[0])]
    if not candidates:
        return tree
    found = refute(np.array([low for low, _ in boxes]), np.array([high for _, high in boxes]))
    parts = [np.arange(leaf[node] + 1, leaf[ends[node] - 1] + 1) for node in candidates]
    chosen = outermost(parts, found.proven, tree.leaves)
    return _with_leaves(tree, ends, leaf, found, {candidates[k]: (k, depths[candidates[k]]) for k in chosen})


def _ends(kind: NDArray[np.uint8]) -> Ints:
    """Of every node in preorder, where what lies below it ends."""
    ends = np.arange(1, len(kind) + 1)
    for node in range(len(kind) - 1, -1, -1):
        if kind[node]:
            ends[node] = ends[ends[node + 1]]
    return ends


def _with_leaves(
    tree: RecordedTree, ends: Ints, leaf: Ints, found: Refuting, chosen: dict[int, tuple[int, int]]
) -> RecordedTree:
    """The tree with leaves in the stead of some nodes: by node, which of those found it is, and its depth."""
    if not chosen:
        return tree
    kept, kind = np.ones(len(tree.kind), dtype=bool), tree.kind.copy()
    source = np.where(kind == 0, leaf, -1)  # of leaves: their numbers here, or beyond them
    for node, (number, _) in chosen.items():
        kept[node + 1 : ends[node]], kind[node], source[node] = False, 0, tree.leaves + number
    splits, leaves = kept[tree.kind != 0] & (kind[tree.kind != 0] != 0), source[kept & (kind == 0)]
    size = len(found.proven)
    scope, note = np.zeros(size, np.int32), (len(tree.notes) + np.arange(size)).astype(np.int32)
    for number, depth in chosen.values():
        scope[number] = depth
    told = {
        "scope": np.concatenate([tree.scope, scope])[leaves],
        "note": np.concatenate([tree.note, note])[leaves],
        "rows": np.concatenate([tree.rows, found.rows.astype(np.int32)])[leaves],
        "notes": np.concatenate([tree.notes.reshape(len(tree.notes), found.notes.shape[1]), found.notes]),
    }
    return replace(tree, kind=kind[kept], inputs=tree.inputs[splits], at=tree.at[splits], **told)
