"""Proofs by splitting as they are written down: trees in preorder, in one set of arrays (docs/certificate.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zonocuda.branch import RecordedTree

LEAF, INPUT, NEURON = 0, 1, 2

_DTYPES = {
    "kind": np.uint8,
    "inputs": np.int32,
    "at": np.float64,
    "relus": np.int32,
    "neurons": np.int32,
    "points": np.float64,
    "lemma_relus": np.int32,
    "lemma_neurons": np.int32,
    "lemma_upper": np.uint8,
    "scope": np.int32,
    "slopes": np.int32,
    "counts": np.int32,
    "rows": np.int32,
    "weights": np.float64,
    "row_slopes": np.int32,
    "multiplied": np.int32,
    "splits": np.int32,
    "multipliers": np.float64,
}


@dataclass(frozen=True, eq=False)
class ForestRecord:
    """The trees of one region.

    Attributes:
        trees: for each tree that is no lemma's, the disjuncts that it refutes.
        arrays: what docs/certificate.md lists, by name.
        depth: the most splits above a leaf.
    """

    trees: tuple[tuple[int, ...], ...]
    arrays: Mapping[str, NDArray[np.generic]]
    depth: int

    @property
    def leaves(self) -> int:
        """How many leaves all trees have."""
        return len(self.arrays["scope"])

    @property
    def lemmas(self) -> int:
        """How many lemmas there are."""
        return len(self.arrays["lemma_relus"])

    @property
    def bytes(self) -> int:
        """Of the arrays, before they are packed."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True)
class LeafRow:
    """What refutes a disjunct at a leaf, or bounds a lemma's neuron.

    Attributes:
        rows: rows of the disjunct, by their place in it, and their weights; none says that no input reaches the leaf.
        slopes: a row of the table, or -1 for those of the leaf's bounds.
        multipliers: of neuron splits above the leaf, the first one being 0, and beta >= 0.
    """

    rows: Sequence[tuple[int, float]] = ((0, 1.0),)
    slopes: int = -1
    multipliers: Sequence[tuple[int, float]] = ()


class ForestWriter:
    """Takes trees node after node, in preorder: first all lemmas, in the order of their ReLUs, then the others."""

    def __init__(self, columns: NDArray[np.int64] | None = None) -> None:
        """``columns``: places ``[K]`` among the neurons of all ReLUs, ascending, that the table of slopes is for; by
        default all of them."""
        self._columns = columns
        self._lists: dict[str, list[float]] = {name: [] for name in _DTYPES}
        self._trees: list[tuple[int, ...]] = []
        self._nonnegative: list[NDArray[np.uint8]] = []
        self._negative: list[NDArray[np.uint8]] = []
        self._open: list[int] = []  # depths of nodes that are still to come, the next one last
        self.depth = 0

    def lemma(self, layer: int, neuron: int, upper: bool) -> None:
        """Begins the tree of a lemma: an upper or a lower bound of the input of a neuron of a ReLU (by position)."""
        assert not self._open, "a tree is not finished"
        assert not self._trees, "lemmas come first"
        self._add(**{"lemma_relus": layer, "lemma_neurons": neuron, "lemma_upper": upper})
        self._open = [0]

    def tree(self, disjuncts: Sequence[int]) -> None:
        """Begins a tree that refutes disjuncts."""
        assert not self._open, "a tree is not finished"
        self._trees.append(tuple(disjuncts))
        self._open = [0]

    def input_split(self, dimension: int, at: float) -> None:
        """The part with x <= at comes first."""
        self._node(INPUT)
        self._add(inputs=dimension, at=at)

    def neuron_split(self, layer: int, neuron: int, point: float = 0.0) -> None:
        """The part where the neuron's input is at most ``point`` comes first."""
        self._node(NEURON)
        self._add(**{"relus": layer, "neurons": neuron, "points": point})

    def leaf(self, rows: Sequence[LeafRow], scope: int = -1, slopes: int = -1) -> None:
        """A leaf, with a row for every disjunct of its tree.

        Args:
            rows: what refutes them.
            scope: how many splits lie above the box, and the neurons' parts, on which bounds are derived; -1 for the
                bounds of the region.
            slopes: of these bounds where v >= 0, a row of the table; -1 by rule.
        """
        self._node(LEAF)
        self._add(scope=scope, slopes=slopes)
        for row in rows:
            self._add(counts=len(row.rows), row_slopes=row.slopes, multiplied=len(row.multipliers))
            for number, weight in row.rows:
                self._add(rows=number, weights=weight)
            for split, beta in row.multipliers:
                self._add(splits=split, multipliers=beta)

    def table(self, nonnegative: NDArray[np.uint8], negative: NDArray[np.uint8] | None = None) -> int:
        """Adds slopes ``[T, K]``, in units of 1 / UNIT, of all ReLUs' neurons; returns the number of the first row.

        ``negative``, where v < 0, is given always or never.
        """
        first = sum(map(len, self._nonnegative))
        self._nonnegative.append(nonnegative)
        if negative is not None:
            self._negative.append(negative)
        return first

    def boxes(self, tree: RecordedTree, disjuncts: Sequence[int]) -> None:
        """A whole tree of a search that split boxes."""
        first = self.table(tree.notes)
        self.tree(disjuncts)
        note = np.where(tree.note >= 0, tree.note + first, -1)
        rows = tree.rows.ravel()
        told: dict[str, NDArray[np.generic]] = {
            "kind": tree.kind,
            "inputs": tree.inputs,
            "at": tree.at,
            "scope": tree.scope,
            "slopes": note,
            "counts": rows >= 0,
            "row_slopes": np.full(len(rows), -1),
            "multiplied": np.zeros(len(rows)),
            "rows": rows[rows >= 0],
            "weights": np.ones(int((rows >= 0).sum())),
        }
        for name, values in told.items():
            self._lists[name] += values.tolist()
        self.depth = max(self.depth, tree.depth)
        self._open = []

    def finish(self) -> ForestRecord:
        """All trees."""
        assert not self._open, "a tree is not finished"
        arrays: dict[str, NDArray[np.generic]] = {
            name: np.array(values, _DTYPES[name]) for name, values in self._lists.items()
        }
        table = np.concatenate(self._nonnegative) if self._nonnegative else np.zeros((0, 0), np.uint8)
        below = np.concatenate(self._negative) if self._negative else None
        kept, place = _distinct(table, below, np.unique(np.concatenate([arrays["slopes"], arrays["row_slopes"]])))
        arrays |= {name: place[arrays[name]] for name in ("slopes", "row_slopes")}
        table = table[kept]
        columns = np.arange(table.shape[1]) if self._columns is None else self._columns
        arrays |= {"columns": columns.astype(np.int32), "nonnegative": table.reshape(len(table), len(columns))}
        if below is not None:
            arrays["negative"] = below[kept]
            assert arrays["negative"].shape == table.shape, "slopes where v < 0 are given always or never"
        return ForestRecord(tuple(self._trees), arrays, self.depth)

    def _add(self, **values: float) -> None:
        for name, value in values.items():
            self._lists[name].append(value)

    def _node(self, kind: int) -> None:
        depth = self._open.pop()
        self._add(kind=kind)
        if kind != LEAF:
            self._open += [depth + 1] * 2
        self.depth = max(self.depth, depth)


def _distinct(
    table: NDArray[np.uint8], below: NDArray[np.uint8] | None, used: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Of the rows ``used`` (-1 aside) of one table, or of two, those that are the first of their content, and for every
    row, and for -1, its place among them."""
    place = np.full(len(table) + 1, -1, np.int32)  # the last one is that of -1
    known: dict[tuple[bytes, ...], int] = {}
    kept: list[int] = []
    for row in used[used >= 0].tolist():
        key = table[row].tobytes(), b"" if below is None else below[row].tobytes()
        if key not in known:
            known[key] = len(kept)
            kept.append(row)
        place[row] = known[key]
    return np.array(kept, np.int64), place
