"""A search written down: the tree of its splits, and what refutes each leaf."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.branch.subproblems import Subproblems

Ints = NDArray[np.int64]
_NONE = -1
_COLUMNS: dict[str, tuple[type[np.generic], int]] = {
    "inputs": (np.int32, _NONE),
    "at": (np.float64, 0),
    "child": (np.int64, _NONE),
    "owner": (np.int64, _NONE),
    "note": (np.int64, _NONE),
    "rows": (np.int32, _NONE),
}
"""Of every node, what :class:`RecorderState` has of it: the type, and what is there to begin with."""


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
    """What a search tells about its boxes; each has a number, its ``node``.

    What it was told takes ``bytes`` of memory; where that is more than ``most``, nothing is kept of it any more.
    """

    def __init__(self, disjuncts: Sequence[Sequence[int]], roots: int = 1, most: float = math.inf) -> None:
        """Of a search that begins with so many boxes, the nodes from 0 on; a tree has one."""
        self.disjuncts, self.most, self.is_whole = [list(rows) for rows in disjuncts], most, True
        self._columns: dict[str, NDArray[Any]] = {}
        self._count = 0
        self._notes: list[NDArray[np.uint8]] = []
        self._noted = 0
        self._grow(roots)

    def _grow(self, more: int) -> int:
        """Adds nodes of which nothing is known; the number of the first."""
        first, self._count = self._count, self._count + more
        if not self._columns or self._count > len(self._columns["child"]):
            room = max(self._count, 2 * first, 64)
            for name, (dtype, nothing) in _COLUMNS.items():
                shape = (room, len(self.disjuncts)) if name == "rows" else (room,)
                column = np.full(shape, nothing, dtype)
                if first:
                    column[:first] = self._columns[name][:first]
                self._columns[name] = column
        return first

    def _put(self, nodes: Ints, **values: NDArray[Any] | int) -> None:
        for name, value in values.items():
            self._columns[name][nodes] = value

    @property
    def bytes(self) -> int:
        """That all of it takes."""
        notes = self._noted * self._notes[0].shape[1] if self._notes else 0
        return notes + sum(column.nbytes for column in self._columns.values())

    def _kept(self) -> bool:
        """Whether it still keeps what it is told."""
        if self.is_whole and self.bytes > self.most:
            self.is_whole, self._columns, self._notes = False, {}, []
        return self.is_whole

    def state(self) -> RecorderState | None:
        """All that it was told; None where it is not kept."""
        if not self._kept():
            return None
        if len(self._notes) > 1:
            self._notes = [np.concatenate(self._notes)]
        notes = self._notes[0] if self._notes else np.zeros((0, 0), np.uint8)
        return RecorderState(**{name: held[: self._count].copy() for name, held in self._columns.items()}, notes=notes)

    @staticmethod
    def of(state: RecorderState | None, disjuncts: Sequence[Sequence[int]], most: float = math.inf) -> Recorder:
        """One that goes on.

        Raises:
            ValueError: a state of no tree of so many disjuncts.
        """
        result = Recorder(disjuncts, most=most)
        if state is None:
            result.is_whole = False
            return result
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
        result._grow(count - 1)
        result._put(nodes, **{name: getattr(state, name) for name in _COLUMNS})
        if len(state.notes):
            result._keep(state.notes)
        return result

    def graft(self, nodes: Sequence[int], told: RecorderState) -> int:
        """Takes over what a recorder of another search was told, whose first boxes are the leaves ``nodes`` here.

        Returns:
            What the numbers of its other nodes are larger by here.
        """
        if not self._kept():
            return 0
        roots = np.array(nodes, np.int64)
        first = self._keep(told.notes) if len(told.notes) else _NONE
        shift = self._grow(len(told.child) - len(roots)) - len(roots)
        here = np.concatenate([roots, np.arange(len(roots), len(told.child)) + shift])
        self._put(
            here,
            inputs=told.inputs,
            at=told.at,
            child=np.where(told.child >= 0, told.child + shift, _NONE),
            owner=np.where(told.owner >= 0, here[told.owner], _NONE),
            note=np.where(told.note >= 0, told.note + first, _NONE),
            rows=told.rows,
        )
        return shift

    def refuted(self, node: Tensor, lower: Tensor, notes: Tensor | None) -> None:
        """Boxes ``node`` ``[S]`` are refuted by the rows' bounds ``lower`` ``[S, R]``."""
        if not self._kept():
            return
        nodes, first = node.cpu().numpy(), self._keep(None if notes is None else notes.cpu().numpy())
        note = first + np.arange(len(nodes)) if first >= 0 else _NONE
        self._put(nodes, owner=nodes, note=note, rows=best_rows(lower, self.disjuncts).cpu().numpy())
        self._put(nodes, inputs=_NONE, at=0, child=_NONE)  # a batch that was stopped in the middle may have split it

    def cut(
        self, before: Subproblems, low: Tensor, high: Tensor, lower: Tensor, weight: Tensor, notes: Tensor | None
    ) -> Tensor:
        """Boxes ``before`` are cut to ``low``, ``high`` ``[S, N]``; returns the nodes ``[S]`` of what is left.

        Where nothing is left, low exceeds high in some coordinate.
        """
        sides = torch.stack([high < before.upper, low > before.lower], 2)  # [S, N, 2]
        touched = sides.flatten(1).any(1).nonzero().squeeze(1)
        if not len(touched) or not self._kept():
            return before.node
        first = self._keep(None if notes is None else notes[touched].cpu().numpy())
        far = self._far(lower[touched], weight[touched]).cpu().numpy()  # [T, N, 2, D]
        nodes, at = before.node.cpu().numpy().copy(), touched.cpu().numpy()
        ends = [end[touched].double().cpu().numpy() for end in (high, low)]
        gone = ends[1] > ends[0]
        empty, some = np.asarray(gone.any(1)), sides[touched].cpu().numpy()
        some &= ~empty[:, None, None]
        some[empty, gone[empty].argmax(1), 0] = True  # both sides of one split are empty, and that is all
        t, j, side = some.nonzero()
        child = self._grow(2 * len(t)) + 2 * np.arange(len(t))
        beyond, here = child + (side == 0), child + (side == 1)
        is_first = np.diff(t, prepend=-1) != 0
        owner, note = nodes[at[t]], first + t if first >= 0 else _NONE
        parent = np.where(is_first, owner, np.roll(here, 1))
        self._put(parent, inputs=j, at=np.where(side == 0, ends[0][t, j], ends[1][t, j]), child=child)
        self._put(beyond, owner=owner, note=note, rows=far[t, j, side])
        both = empty[t]
        self._put(here[both], owner=owner[both], rows=far[t, j, 1][both])
        self._put(here[both], note=note if isinstance(note, int) else note[both])
        last = np.append(is_first[1:], True) & ~both
        nodes[at[t[last]]] = here[last]
        return torch.from_numpy(nodes).to(before.node.device)

    def split(self, node: Tensor, dimension: Tensor, at: Tensor) -> Tensor:
        """Boxes ``node`` ``[S]`` are split; returns the nodes ``[2 S]`` of the parts, first all lower ones."""
        if not self._kept():
            return node.repeat(2)
        child = self._grow(2 * len(node)) + 2 * np.arange(len(node))
        where = at.double().cpu().numpy()
        self._put(node.cpu().numpy(), inputs=dimension.cpu().numpy(), at=where, child=child)
        return torch.from_numpy(np.concatenate([child, child + 1])).to(node)

    def _keep(self, notes: NDArray[np.uint8] | None) -> int:
        """The number of the first of some notes."""
        if notes is None:
            return _NONE
        first, self._noted = self._noted, self._noted + len(notes)
        self._notes.append(notes)
        return first

    def _far(self, lower: Tensor, weight: Tensor) -> Tensor:
        """``[S, N, 2, D]``: what refutes a disjunct beyond a cut from above, and from below."""
        refuted = ((lower > 0) & lower.isfinite()).unsqueeze(2)
        says = lower.isfinite().unsqueeze(2) & ~refuted
        reach = -lower.double().unsqueeze(2) / weight.double().abs()  # [S, R, N]
        found = []
        for sign in (1, -1):
            own = torch.where(says & (weight * sign > 0), reach, torch.inf).masked_fill(refuted, -torch.inf)
            found.append(torch.stack([own[:, rows].argmin(1) for rows in self.disjuncts], 2))  # [S, N, D]
        return torch.stack(found, 2)

    def tree(self) -> RecordedTree:
        """The whole tree, once every box is refuted."""
        state = self.state()
        assert state is not None, "it was not kept"
        below, order, depths = state.child.tolist(), [], [0] * len(state.child)
        stack = [0]
        while stack:
            node = stack.pop()
            order.append(node)
            child = below[node]
            if child >= 0:
                depths[child] = depths[child + 1] = depths[node] + 1
                stack += [child + 1, child]
        every, depth = np.array(order), np.array(depths)
        is_split = state.child[every] >= 0
        splits, leaves = every[is_split], every[~is_split]
        owner = np.where(state.owner[leaves] >= 0, state.owner[leaves], leaves)
        used, place = np.unique(state.note[leaves], return_inverse=True)
        if len(used) and used[0] < 0:
            used, place = used[1:], place - 1
        return RecordedTree(
            is_split.astype(np.uint8),
            state.inputs[splits],
            state.at[splits],
            depth[owner].astype(np.int32),
            place.astype(np.int32),
            state.rows[leaves],
            state.notes[used] if len(used) else state.notes[:0],
            int(depth.max()),
        )
