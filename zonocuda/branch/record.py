"""A search written down: the tree of its splits, and what refutes each leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.branch.subproblems import Subproblems

_NONE = -1


@dataclass(frozen=True, eq=False)
class RecordedTree:
    """A tree of boxes in preorder, the lower part of a split before the upper one.

    Attributes:
        kind: ``[n]`` (uint8), 0 for leaves, 1 for splits.
        inputs, at: of splits, in that order: which coordinate, and where.
        scope: ``[L]``, of leaves: how many splits lie above the box that its bounds were found on.
        note: ``[L]``, of leaves: the row of ``notes`` of these bounds, or -1.
        rows: ``[L, D]``, of every disjunct the row that is refuted, by its place in it, or -1 for an empty box.
        notes: ``[T, K]`` (uint8).
        depth: the most splits above a leaf.
    """

    kind: NDArray[np.uint8]
    inputs: NDArray[np.int32]
    at: NDArray[np.float64]
    scope: NDArray[np.int32]
    note: NDArray[np.int32]
    rows: NDArray[np.int32]
    notes: NDArray[np.uint8]
    depth: int

    @property
    def leaves(self) -> int:
        """L."""
        return len(self.scope)


@dataclass(frozen=True, eq=False)
class RecorderState:
    """What a recorder of n nodes was told.

    Attributes:
        inputs, at, child: ``[n]``: the coordinate of a split, or -1, where, and the lower child.
        owner, note: ``[n]``: of refuted boxes, the node of the bounds, or -1, and their row of ``notes``, or -1.
        rows: ``[n, D]``, what refutes each disjunct there.
        notes: ``[T, K]`` (uint8).
    """

    inputs: NDArray[np.int32]
    at: NDArray[np.float64]
    child: NDArray[np.int64]
    owner: NDArray[np.int64]
    note: NDArray[np.int64]
    rows: NDArray[np.int32]
    notes: NDArray[np.uint8]


def best_rows(lower: Tensor, disjuncts: Sequence[Sequence[int]]) -> Tensor:
    """``[S, D]``, of every disjunct the place in it of the row with the largest bound of ``lower`` ``[S, R]``."""
    return torch.stack([lower[:, list(rows)].nan_to_num(-torch.inf).argmax(1) for rows in disjuncts], 1)


class Recorder:
    """What a search tells about its boxes; each has a number, its ``node``."""

    def __init__(self, disjuncts: Sequence[Sequence[int]], roots: int = 1) -> None:
        """Of a search that begins with so many boxes, the nodes from 0 on; a tree has one."""
        self.disjuncts = [list(rows) for rows in disjuncts]
        self._split: list[tuple[int, float, int]] = [(_NONE, 0.0, _NONE)] * roots  # coordinate, where, lower child
        self._leaf: list[tuple[int, int, tuple[int, ...]] | None] = [None] * roots  # node of its bounds, note, rows
        self._notes: list[NDArray[np.uint8]] = []
        self._count = 0

    def state(self) -> RecorderState:
        """All that it was told."""
        nothing = _NONE, _NONE, (_NONE,) * len(self.disjuncts)
        owner, note, rows = zip(*(leaf or nothing for leaf in self._leaf), strict=True)
        inputs, at, child = zip(*self._split, strict=True)
        notes = np.concatenate(self._notes) if self._notes else np.zeros((0, 0), np.uint8)
        return RecorderState(
            np.array(inputs, np.int32),
            np.array(at, np.float64),
            np.array(child, np.int64),
            np.array(owner, np.int64),
            np.array(note, np.int64),
            np.array(rows, np.int32).reshape(len(owner), -1),
            notes,
        )

    @staticmethod
    def of(state: RecorderState, disjuncts: Sequence[Sequence[int]]) -> Recorder:
        """One that goes on.

        Raises:
            ValueError: a state of no tree of so many disjuncts.
        """
        count = len(state.child)
        columns = state.inputs, state.at, state.child, state.owner, state.note
        if not count or any(column.shape != (count,) for column in columns) or state.notes.ndim != 2:
            raise ValueError("the record is no tree")
        if state.rows.shape != (count, len(disjuncts)):
            raise ValueError("the record has another number of disjuncts")
        split, nodes = state.child >= 0, np.arange(count)
        inside = np.where(split, (state.child > nodes) & (state.child < count - 1), True)
        if not (inside & (state.owner < count) & (state.note < len(state.notes))).all():
            raise ValueError("the record is no tree")
        result = Recorder(disjuncts)
        result._split = list(zip(state.inputs.tolist(), state.at.tolist(), state.child.tolist(), strict=True))
        leaves = zip(state.owner.tolist(), state.note.tolist(), map(tuple, state.rows.tolist()), strict=True)
        result._leaf = [None if leaf[0] < 0 else leaf for leaf in leaves]
        result._notes, result._count = ([state.notes], len(state.notes)) if len(state.notes) else ([], 0)
        return result

    def graft(self, nodes: Sequence[int], told: RecorderState) -> int:
        """Takes over what a recorder of another search was told, whose first boxes are the leaves ``nodes`` here.

        Returns:
            What the numbers of its other nodes are larger by here.
        """
        more, notes = len(self._split) - len(nodes), self._count
        if len(told.notes):
            self._notes.append(told.notes)
            self._count += len(told.notes)
        self._split += [(_NONE, 0.0, _NONE)] * (len(told.child) - len(nodes))
        self._leaf += [None] * (len(told.child) - len(nodes))
        columns = (told.inputs, told.at, told.child, told.owner, told.note, told.rows)
        for k, (j, at, child, owner, note, rows) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            here = nodes[k] if k < len(nodes) else k + more
            place = nodes[owner] if 0 <= owner < len(nodes) else owner + more
            self._split[here] = j, at, child + more if child >= 0 else _NONE
            self._leaf[here] = None if owner < 0 else (place, note + notes if note >= 0 else _NONE, tuple(rows))
        return more

    def refuted(self, node: Tensor, lower: Tensor, notes: Tensor | None) -> None:
        """Boxes ``node`` ``[S]`` are refuted by the rows' bounds ``lower`` ``[S, R]``."""
        best = best_rows(lower, self.disjuncts)
        first = self._keep(notes)
        for k, (number, rows) in enumerate(zip(node.tolist(), best.tolist(), strict=True)):
            self._leaf[number] = (number, first + k if first >= 0 else _NONE, tuple(rows))
            self._split[number] = _NONE, 0.0, _NONE  # a batch that was stopped in the middle may have split it

    def cut(
        self, before: Subproblems, low: Tensor, high: Tensor, lower: Tensor, weight: Tensor, notes: Tensor | None
    ) -> Tensor:
        """Boxes ``before`` are cut to ``low``, ``high`` ``[S, N]``; returns the nodes ``[S]`` of what is left.

        Where nothing is left, low exceeds high in some coordinate.
        """
        sides = torch.stack([high < before.upper, low > before.lower], 2)  # [S, N, 2]
        touched = sides.flatten(1).any(1).nonzero().squeeze(1)
        nodes = before.node.clone()
        if not len(touched):
            return nodes
        first = self._keep(None if notes is None else notes[touched])
        far = self._far(lower[touched], weight[touched])
        tops, bottoms = high.double().tolist(), low.double().tolist()
        for k, s in enumerate(touched.tolist()):
            owner = int(before.node[s])
            note = first + k if first >= 0 else _NONE
            here = owner
            empty = (low[s] > high[s]).nonzero().flatten().tolist()
            rows = far[k]
            if empty:
                j = empty[0]
                child = self._children(here, j, tops[s][j])
                self._leaf[child] = (owner, note, tuple(rows[j][1]))
                self._leaf[child + 1] = (owner, note, tuple(rows[j][0]))
                continue
            for j, side in sides[s].nonzero().tolist():
                child = self._children(here, j, (tops, bottoms)[side][s][j])
                gone, here = (child + 1, child) if side == 0 else (child, child + 1)
                self._leaf[gone] = (owner, note, tuple(rows[j][side]))
            nodes[s] = here
        return nodes

    def split(self, node: Tensor, dimension: Tensor, at: Tensor) -> Tensor:
        """Boxes ``node`` ``[S]`` are split; returns the nodes ``[2 S]`` of the parts, first all lower ones."""
        told = zip(node.tolist(), dimension.tolist(), at.double().tolist(), strict=True)
        children = torch.tensor([self._children(*one) for one in told], dtype=node.dtype, device=node.device)
        return torch.cat([children, children + 1])

    def _children(self, node: int, dimension: int, at: float) -> int:
        child = len(self._split)
        self._split[node] = dimension, at, child
        self._split += [(_NONE, 0.0, _NONE)] * 2
        self._leaf += [None, None]
        return child

    def _keep(self, notes: Tensor | None) -> int:
        """The number of the first of some notes."""
        if notes is None:
            return _NONE
        self._notes.append(notes.cpu().numpy())
        self._count += len(notes)
        return self._count - len(notes)

    def _far(self, lower: Tensor, weight: Tensor) -> list[list[list[list[int]]]]:
        """``[S][N][2][D]``: what refutes a disjunct beyond a cut from above, and from below."""
        refuted = ((lower > 0) & lower.isfinite()).unsqueeze(2)
        says = lower.isfinite().unsqueeze(2) & ~refuted
        reach = -lower.double().unsqueeze(2) / weight.double().abs()  # [S, R, N]
        found = []
        for sign in (1, -1):
            own = torch.where(says & (weight * sign > 0), reach, torch.inf).masked_fill(refuted, -torch.inf)
            found.append(torch.stack([own[:, rows].argmin(1) for rows in self.disjuncts], 2))  # [S, N, D]
        result: list[list[list[list[int]]]] = torch.stack(found, 2).tolist()
        return result

    def tree(self) -> RecordedTree:
        """The whole tree, once every box is refuted."""
        kind: list[int] = []
        inputs: list[int] = []
        at: list[float] = []
        leaves: list[tuple[int, int, tuple[int, ...]]] = []
        depths = {0: 0}
        stack = [0]
        missing = tuple([_NONE] * len(self.disjuncts))
        while stack:
            node = stack.pop()
            dimension, where, child = self._split[node]
            depth = depths[node]
            if child >= 0:
                kind.append(1)
                inputs.append(dimension)
                at.append(where)
                depths[child] = depths[child + 1] = depth + 1
                stack += [child + 1, child]
            else:
                kind.append(0)
                owner, note, rows = self._leaf[node] or (node, _NONE, missing)
                leaves.append((depths[owner], note, rows))
        notes = np.concatenate(self._notes) if self._notes else np.zeros((0, 0), np.uint8)
        used, place = np.unique(np.array([note for _, note, _ in leaves]), return_inverse=True)
        if len(used) and used[0] < 0:
            used, place = used[1:], place - 1
        return RecordedTree(
            np.array(kind, np.uint8),
            np.array(inputs, np.int32),
            np.array(at, np.float64),
            np.array([scope for scope, _, _ in leaves], np.int32),
            place.astype(np.int32),
            np.array([rows for _, _, rows in leaves], np.int32).reshape(len(leaves), len(self.disjuncts)),
            notes[used] if len(used) else notes[:0],
            max(depths.values()),
        )
