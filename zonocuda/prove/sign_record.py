"""Searches by signs of neurons as they are written down: from the leaves that they closed, back to trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact
from zonocuda.bounds.dual.dual_pass import flatten_positions, flatten_rows
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.interval import Bounds
from zonocuda.branch import SignParts
from zonocuda.graph import Graph
from zonocuda.prove.certificate import UNIT
from zonocuda.prove.forest import ForestWriter, LeafRow
from zonocuda.relaxations import activations

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SignLeaves:
    """L leaves.

    Attributes:
        columns: ``[U]``, places of the neurons that have signs, slopes and multipliers among those of all activations.
        row, group: ``[L]``, what they refute.
        signs: ``[L, U]`` (int8).
        slopes: ``[L, U]`` (uint8), in units of 1 / UNIT.
        multipliers: ``[L, U]`` (half precision), 0 where there is no sign.
    """

    columns: Ints
    row: Ints
    group: Ints
    signs: NDArray[np.int8]
    slopes: NDArray[np.uint8]
    multipliers: NDArray[np.float16]

    @staticmethod
    def of(parts: SignParts, columns: Ints) -> SignLeaves:
        """Parts whose slopes are multiples of 1 / UNIT, and whose multipliers are of half precision."""
        slopes = (parts.slopes.float() * UNIT).round().to(torch.uint8)
        multipliers = parts.multipliers.half() * (parts.signs != 0)
        tensors = parts.row, parts.group, parts.signs, slopes, multipliers
        return SignLeaves(columns, *(t.cpu().numpy() for t in tensors))

    @staticmethod
    def cat(some: Sequence[SignLeaves]) -> SignLeaves:
        """All leaves of one search."""
        names = ("row", "group", "signs", "slopes", "multipliers")
        return SignLeaves(some[0].columns, **{n: np.concatenate([getattr(one, n) for one in some]) for n in names})

    def at(self, index: Ints) -> SignLeaves:
        """Those at an index."""
        row, group, signs = self.row[index], self.group[index], self.signs[index]
        return SignLeaves(self.columns, row, group, signs, self.slopes[index], self.multipliers[index])

    def parts(self, like: Tensor) -> SignParts:
        """As parts that were not bounded, on the device of ``like``, in its dtype."""
        row, group, signs, slopes, multipliers = (
            torch.from_numpy(t).to(like.device)
            for t in (self.row, self.group, self.signs, self.slopes, self.multipliers)
        )
        bound = like.new_full((len(row),), -torch.inf)
        nothing = row.new_full((len(row), 1), -1)
        return SignParts(
            row, group, signs, slopes.to(bound) / UNIT, multipliers.to(bound), bound, bound.int().zero_(), nothing
        )

    def onto(self, columns: Ints, start: NDArray[np.uint8], known: NDArray[np.int8]) -> SignLeaves:
        """The same tree for other neurons ``columns`` ``[V]`` that may have signs: without the parts, and the splits,
        that the others leave no choice.

        Args:
            columns: places among those of all activations.
            start: ``[V]``, slopes of neurons that had none.
            known: of all neurons of all activations: 1 and -1 where the sign is known, 0 for those of ``columns``.
        """
        where = np.full(len(known), -1)
        where[columns] = np.arange(len(columns))
        at = where[self.columns]
        held, gone = np.flatnonzero(at >= 0), np.flatnonzero(at < 0)
        there = (self.signs[:, gone] * known[self.columns[gone]] >= 0).all(1)
        count = int(there.sum())
        signs, slopes = np.zeros((count, len(columns)), np.int8), np.tile(start, (count, 1))
        multipliers = np.zeros((count, len(columns)), np.float16)
        for new, old in ((signs, self.signs), (slopes, self.slopes), (multipliers, self.multipliers)):
            new[:, at[held]] = old[there][:, held]
        return SignLeaves(columns, self.row[there], self.group[there], signs, slopes, multipliers)

    @property
    def bytes(self) -> int:
        """Of all arrays with a row for each leaf."""
        return self.signs.nbytes + self.slopes.nbytes + self.multipliers.nbytes


@dataclass(frozen=True, eq=False)
class LemmaProof:
    """A lower or an upper bound of the input of a neuron, by its place in the features of an activation's input, and
    the leaves that prove it."""

    name: str
    neuron: int
    upper: bool
    leaves: SignLeaves


@dataclass(frozen=True, eq=False)
class SignNode:
    """A node of a tree of neuron splits.

    Attributes:
        index: the leaves below it.
        path: the neurons that are split above it, from the root on.
        neuron: that is split, or -1 for a leaf.
        above, below: the leaves where it is at least, and at most, 0.
    """

    index: Ints
    path: tuple[int, ...]
    neuron: int
    above: Ints
    below: Ints


def tree_of(signs: NDArray[np.int8]) -> Iterator[SignNode]:
    """The tree whose leaves ``[L, U]`` these are, in preorder, below before above.

    A neuron whose sign all leaves of a part know may be split first, whichever the search split: the leaves of each
    sign are those of its tree on that part.
    """
    known = signs != 0
    stack: list[tuple[Ints, tuple[int, ...]]] = [(np.arange(len(signs)), ())]
    while stack:
        index, path = stack.pop()
        if len(index) == 1:
            assert int(known[index[0]].sum()) == len(path), "the leaves are not those of a tree"
            yield SignNode(index, path, -1, index[:0], index[:0])
            continue
        shared = known[index].all(0)
        shared[list(path)] = False
        u = int(shared.argmax())
        is_above = signs[index, u] > 0
        assert shared[u], "the leaves are not those of a tree"
        assert 0 < is_above.sum() < len(index), "the leaves are not those of a tree"
        yield SignNode(index, path, u, index[is_above], index[~is_above])
        stack += [(index[is_above], (*path, u)), (index[~is_above], (*path, u))]


def firsts(graph: Graph) -> dict[str, int]:
    """Where the neurons of each activation begin among those of all of them."""
    result, total = {}, 0
    for node in activations(graph):
        result[node.name] = total
        total += prod(node.shape)
    return result


def places(graph: Graph, left: Compact, problem: SignProblem) -> Ints:
    """``[U]``, the places of a problem's crossing neurons among those of all activations of the whole network."""
    first, found = firsts(graph), []
    for layer in problem.layers:
        index = flatten_positions(left.graph[layer.name].shape).to(layer.index.device)[layer.index]
        kept = left.kept.get(layer.name)
        found.append((index if kept is None else kept[index]).cpu().numpy() + first[layer.name])
    return np.concatenate([np.zeros(0, np.int64), *found])


def known_signs(graph: Graph, intermediate: Mapping[str, Bounds]) -> NDArray[np.int8]:
    """Of all neurons of all activations the sign that bounds ``[1, *features]`` of their inputs tell: 1, -1, or 0."""
    found = [np.zeros(0, np.int8)]
    for node in activations(graph):
        lower, upper = (flatten_rows(b)[0].cpu().numpy() for b in intermediate[node.name])
        signs = np.zeros(len(lower), np.int8)
        signs[flatten_positions(node.shape).numpy()] = np.where(lower >= 0, 1, np.where(upper <= 0, -1, 0))
        found.append(signs)
    return np.concatenate(found)


def start_units(problem: SignProblem) -> NDArray[np.uint8]:
    """``[U]``, the slopes that a problem's crossing neurons begin with."""
    return (problem.start().float() * UNIT).round().to(torch.uint8).cpu().numpy()


class TreeWriter:
    """Writes trees of neuron splits, whose table of slopes has columns for chosen neurons only."""

    def __init__(self, graph: Graph, columns: Ints) -> None:
        """``columns``: ascending places among the neurons of all activations, of all that may cross."""
        self.writer, self.columns = ForestWriter(columns), columns
        self.first = firsts(graph)
        self.number = {name: number for number, name in enumerate(self.first)}
        self._starts = np.array([*self.first.values()])

    def lemma(self, proof: LemmaProof) -> None:
        """One more lemma."""
        self.writer.lemma(self.number[proof.name], proof.neuron, proof.upper)
        self.write(proof.leaves, {int(row): (0, 1.0) for row in proof.leaves.row})

    def tree(self, group: int, leaves: SignLeaves, rows: Mapping[int, tuple[int, float]]) -> None:
        """One more tree, that refutes a disjunct; ``rows`` says of a row its place in it, and its unit."""
        self.writer.tree([group])
        self.write(leaves, rows)

    def write(self, leaves: SignLeaves, rows: Mapping[int, tuple[int, float]]) -> None:
        """The nodes of a tree, from its leaves."""
        first = self.writer.table(self._spread(leaves))
        splits = [self._split(int(column)) for column in leaves.columns]
        for node in tree_of(leaves.signs):
            if node.neuron >= 0:
                self.writer.neuron_split(*splits[node.neuron])
                continue
            leaf = int(node.index[0])
            row, unit = rows[int(leaves.row[leaf])]
            betas = [(k, unit * float(leaves.multipliers[leaf, u])) for k, u in enumerate(node.path)]
            multipliers = [(k, beta) for k, beta in betas if beta > 0]
            self.writer.leaf([LeafRow(((row, 1.0),), first + leaf, multipliers)])

    def _split(self, column: int) -> tuple[int, int]:
        layer = int(np.searchsorted(self._starts, column, side="right")) - 1
        return layer, column - int(self._starts[layer])

    def _spread(self, leaves: SignLeaves) -> NDArray[np.uint8]:
        """``[L, K]``, slopes in the columns of the table."""
        at = np.searchsorted(self.columns, leaves.columns)
        table = np.zeros((len(leaves.row), len(self.columns)), np.uint8)
        table[:, at] = leaves.slopes
        return table
