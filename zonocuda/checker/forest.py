"""The trees of a certificate: their grammar, and the arrays that hold them; :mod:`zonocuda.checker.walk` walks them.

    Forest = (Tree of a lemma)... (Tree of disjuncts)...
    Tree = Leaf | InputSplit(j, t) Tree Tree | NeuronSplit(i, t) Tree Tree

in preorder, the part with x_j <= t (z_i <= t for the input z of a neuron) before that with x_j >= t. Both halves are
closed, so that they cover what is split, whatever t is. No other rule: a cut of a box is an input split whose one side
is a leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.certificate import CertificateError
from zonocuda.checker.claims import SLOPE_UNIT

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

LEAF, INPUT, NEURON = 0, 1, 2
"""What ``kind`` holds."""
MAX_NODES = 2**25


@dataclass(frozen=True)
class Lemma:
    """A bound of the input of a neuron: an upper or a lower one."""

    relu: int
    neuron: int
    upper: bool


@dataclass(frozen=True, eq=False)
class Lemmas(Sequence[Lemma]):
    """Lemmas in the order of their ReLUs, each made when it is asked for.

    Attributes:
        relus, neurons, upper: ``[M]``.
    """

    relus: Ints
    neurons: Ints
    upper: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.relus)

    def __getitem__(self, k: Any) -> Any:
        """One of them, or those of a slice."""
        if isinstance(k, slice):
            return Lemmas(self.relus[k], self.neurons[k], self.upper[k])
        return Lemma(int(self.relus[k]), int(self.neurons[k]), bool(self.upper[k]))

    def of_relu(self) -> Iterator[slice]:
        """Where those of each ReLU are that has some."""
        ends = [0, *(np.flatnonzero(np.diff(self.relus)) + 1).tolist(), len(self)]
        return (slice(first, last) for first, last in pairwise(ends) if first < last)


@dataclass(frozen=True, eq=False)
class Forest:
    """What a certificate says of a region's trees.

    Attributes:
        lemmas: one tree for each, in the order of their ReLUs.
        trees: then one for each of these: the disjuncts (by position among those that are left) that it refutes.
        kind: ``[n]``, of every node, in preorder.
        inputs, at: of input splits, in that order: j and t.
        relus, neurons, points: of neuron splits: activation (ReLUs before the others) and place, and t.
        scope: ``[L]``, of leaves in preorder: on how many splits above bounds are derived; -1 for the region's own.
        slopes: ``[L]``, of these bounds: a row of the tables, or -1 for those by rule.
        counts: ``[P]``, of every pair of a leaf and a disjunct of its tree: how many rows are combined.
        rows, weights: of all of them, one after the other.
        row_slopes: ``[P]``, as ``slopes``, of the combined row.
        multiplied: ``[P]``, how many splits above have multipliers.
        splits, multipliers: of all of them: which neuron split above the leaf, the first one being 0, and beta >= 0.
        columns: ``[K]``, of the tables: places among all ReLUs' neurons.
        nonnegative: ``[T, K]`` (uint8), slopes where v >= 0, in units of SLOPE_UNIT.
        negative: the same where v < 0; None where these are by rule.
    """

    lemmas: Lemmas
    trees: tuple[tuple[int, ...], ...]
    kind: NDArray[np.uint8]
    inputs: Ints
    at: Floats
    relus: Ints
    neurons: Ints
    points: Floats
    scope: Ints
    slopes: Ints
    counts: Ints
    rows: Ints
    weights: Floats
    row_slopes: Ints
    multiplied: Ints
    splits: Ints
    multipliers: Floats
    columns: Ints
    nonnegative: NDArray[np.uint8]
    negative: NDArray[np.uint8] | None


def check_shape(forest: Forest) -> None:
    """Raises CertificateError unless the nodes are so many trees, and the other arrays have what they take: before
    anything is proven."""
    kind = forest.kind
    if len(kind) and kind.max() > NEURON:
        raise CertificateError("forest: kind holds other numbers than 0, 1 and 2")
    trees = len(forest.lemmas) + len(forest.trees)
    due = np.minimum.accumulate(np.cumsum(np.where(kind == LEAF, np.int32(-1), np.int32(1)), dtype=np.int32))
    if not len(due) or due[-1] > -trees:  # every tree takes one leaf more than splits
        raise CertificateError("forest: a child is missing")
    ends = np.searchsorted(-due, np.arange(1, trees + 1)) + 1  # nodes up to the end of each tree
    leaves = np.diff(np.cumsum(kind == LEAF)[ends - 1], prepend=0)
    disjuncts = np.array([1] * len(forest.lemmas) + [len(tree) for tree in forest.trees])
    counts, multiplied = (int(values.sum(dtype=np.int64)) for values in (forest.counts, forest.multiplied))
    takes: list[tuple[int, NDArray[Any]]] = [
        (int(ends[-1]), kind),
        (int((kind == INPUT).sum()), forest.at),
        (int((kind == NEURON).sum()), forest.points),
        (int(leaves.sum()), forest.scope),
        (int(leaves @ disjuncts), forest.counts),
        (counts, forest.rows),
        (multiplied, forest.splits),
    ]
    if any(count > len(values) for count, values in takes):
        raise CertificateError("forest: an array holds too little for its trees")
    if any(count < len(values) for count, values in takes):
        raise CertificateError("forest: there is more than its trees take")


def read_forest(
    fields: Mapping[str, Any], relus: Sequence[int], inputs: int, disjuncts: int, others: Sequence[int] = ()
) -> Forest:
    """The object ``forest`` of a region, whose arrays were read.

    Args:
        fields: arrays by name, and ``trees``.
        relus: how many neurons each ReLU has.
        inputs: of the network.
        disjuncts: how many are left.
        others: how many numbers each other activation reads.

    Raises:
        CertificateError: a field that is missing or has another type or size, or numbers outside their range: slopes
            outside [0, 1], weights or multipliers that are negative, points that are not finite.
    """
    neurons = sum(relus)

    def ints(name: str, size: int | None, least: int, below: int) -> Ints:
        values = _array(fields, name, "int32", size)
        if len(values) and not bool(((values >= least) & (values < below)).all()):
            raise CertificateError(f"forest: {name} holds a number outside its range")
        return values

    def reals(name: str, size: int, least: float) -> Floats:
        values = _array(fields, name, "float64", size)
        if not bool((np.isfinite(values) & (values >= least)).all()):
            raise CertificateError(f"forest: {name} holds a number outside its range")
        return values

    def pairs_of(relu: str, neuron: str, sizes: Sequence[int]) -> tuple[Ints, Ints]:
        which = ints(relu, None, 0, len(sizes))
        places = ints(neuron, len(which), 0, max(sizes, default=0))
        if not bool((places < np.array([*sizes, 0])[which]).all()):
            raise CertificateError(f"forest: {neuron} holds a place that its activation has not")
        return which, places

    kind = _array(fields, "kind", "uint8", None)
    if len(kind) > MAX_NODES:
        raise CertificateError(f"forest: has more than {MAX_NODES} nodes")
    j = ints("inputs", None, 0, inputs)
    which, places = pairs_of("relus", "neurons", [*relus, *others])
    of, at = pairs_of("lemma_relus", "lemma_neurons", relus)
    sides = _array(fields, "lemma_upper", "uint8", len(of))
    if not bool((np.diff(of) >= 0).all()) or not bool((sides <= 1).all()):
        raise CertificateError("forest: lemmas must be in the order of their ReLUs, and lemma_upper 0 or 1")
    columns = ints("columns", None, 0, neurons)
    if not bool((np.diff(columns) > 0).all()):
        raise CertificateError("forest: columns must be ascending")
    nonnegative = _table(fields, "nonnegative", len(columns))
    negative = _table(fields, "negative", len(columns)) if fields.get("negative") is not None else None
    if negative is not None and len(negative) != len(nonnegative):
        raise CertificateError("forest: negative and nonnegative must have as many rows")
    scope = ints("scope", None, -1, MAX_NODES)
    counts = ints("counts", None, 0, MAX_NODES)
    rows = ints("rows", None, 0, MAX_NODES)
    splits = ints("splits", None, 0, MAX_NODES)
    forest = Forest(
        Lemmas(of, at, sides.astype(bool)),
        _trees(fields.get("trees"), disjuncts),
        kind,
        j,
        reals("at", len(j), -np.inf),
        which,
        places,
        reals("points", len(which), -np.inf),
        scope,
        ints("slopes", len(scope), -1, len(nonnegative)),
        counts,
        rows,
        reals("weights", len(rows), 0),
        ints("row_slopes", len(counts), -1, len(nonnegative)),
        ints("multiplied", len(counts), 0, MAX_NODES),
        splits,
        reals("multipliers", len(splits), 0),
        columns,
        nonnegative,
        negative,
    )
    check_shape(forest)
    return forest


def _trees(entry: object, disjuncts: int) -> tuple[tuple[int, ...], ...]:
    """For every tree its disjuncts: each one is refuted by some tree."""
    trees: list[Any] = entry if isinstance(entry, list) else [None]
    for tree in trees:
        if not isinstance(tree, list) or not tree or not all(type(d) is int and 0 <= d < disjuncts for d in tree):
            raise CertificateError("forest: trees must be lists of disjuncts")
    if {d for tree in trees for d in tree} != set(range(disjuncts)):
        raise CertificateError("forest: trees must name every disjunct")
    return tuple(tuple(tree) for tree in trees)


def _array(fields: Mapping[str, Any], name: str, dtype: str, size: int | None) -> NDArray[Any]:
    values = fields.get(name)
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != np.dtype(dtype):
        raise CertificateError(f"forest: {name} must be a {dtype} array of one dimension")
    if size is not None and len(values) != size:
        raise CertificateError(f"forest: {name} has {len(values)} elements where there must be {size}")
    return values


def _table(fields: Mapping[str, Any], name: str, columns: int) -> NDArray[np.uint8]:
    values = fields.get(name)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype != np.uint8 or values.shape[1] != columns:
        raise CertificateError(f"forest: {name} must be a uint8 array with a column for each of columns")
    if values.size and int(values.max()) * SLOPE_UNIT > 1:
        raise CertificateError(f"forest: a slope of {name} lies outside [0, 1]")
    return values
