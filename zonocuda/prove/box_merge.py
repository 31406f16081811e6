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

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BYTES = 2**28
"""Of boxes that are bounded together."""
MOST = 8
"""Leaves of what may become one: of larger parts hardly any is refuted as a whole."""
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
    """A tree over a box with ends ``[N]``, no larger than it is; ``refute`` bounds boxes ``[S, N]``.

    Larger parts are bounded first, and what lies inside one that is refuted is not.
    """
    ends, leaf = _ends(tree.kind), np.cumsum(tree.kind == 0) - 1
    parts = _parts(tree, lower, upper, ends, leaf)
    chosen: dict[int, tuple[int, int]] = {}
    results: list[Refuting] = []
    while parts:
        outer: list[_Part] = []
        inner: list[_Part] = []
        last = 0
        for part in parts:  # in preorder: those inside one come behind it
            (inner if part.node < last else outer).append(part)
            last = max(last, int(ends[part.node]))
        found = refute(np.array([part.lower for part in outer]), np.array([part.upper for part in outer]))
        first = sum(len(one.proven) for one in results)
        results.append(found)
        gone = [(part.node, int(ends[part.node])) for part, ok in zip(outer, found.proven, strict=True) if ok]
        chosen |= {part.node: (first + k, part.depth) for k, part in enumerate(outer) if found.proven[k]}
        starts = np.array([node for node, _ in gone], np.int64)
        stops = np.array([stop for _, stop in gone], np.int64)
        before = np.searchsorted(starts, [part.node for part in inner]) - 1
        parts = [part for part, k in zip(inner, before.tolist(), strict=True) if k < 0 or part.node >= stops[k]]
    if not chosen:
        return tree
    names = ("proven", "rows", "notes")
    every = Refuting(*(np.concatenate([getattr(one, name) for one in results]) for name in names))
    return _with_leaves(tree, ends, leaf, every, chosen)


@dataclass(frozen=True, eq=False)
class _Part:
    """What a cut left, which was then split, by its node, and how many splits lie above."""

    node: int
    depth: int
    lower: Floats
    upper: Floats


def _parts(tree: RecordedTree, lower: Floats, upper: Floats, ends: Ints, leaf: Ints) -> list[_Part]:
    """What no search has bounded as a whole, of no more than MOST leaves, in preorder."""
    split = np.cumsum(tree.kind != 0) - 1
    is_leaf, scope = (tree.kind == 0).tolist(), tree.scope[np.maximum(leaf, 0)].tolist()
    parts, stack = [], [(lower, upper, 0, False)]
    for node, ends_at in enumerate(ends.tolist()):
        low, high, depth, is_cut = stack.pop()
        if is_leaf[node]:
            continue
        j, at = tree.inputs[split[node]], tree.at[split[node]]
        below, above = high.copy(), low.copy()
        below[j], above[j] = min(high[j], at), max(low[j], at)
        first, second = node + 1, int(ends[node + 1])
        # beyond a cut lies a leaf whose bounds are those of what was cut
        cuts = [is_leaf[other] and scope[other] <= depth for other in (second, first)]
        if is_cut and not any(cuts) and leaf[ends_at - 1] - leaf[node] <= MOST:
            parts.append(_Part(node, depth, low, high))
        stack += [(above, high, depth + 1, cuts[1]), (low, below, depth + 1, cuts[0])]
    return parts


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
