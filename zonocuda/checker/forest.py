"""The trees of a certificate: their grammar, read and walked.

    Forest = (Tree of a lemma)... (Tree of disjuncts)...
    Tree = Leaf | InputSplit(j, t) Tree Tree | NeuronSplit(i, t) Tree Tree

in preorder, the part with x_j <= t (z_i <= t for the input z of a neuron) before that with x_j >= t. Both halves are
closed, so that they cover what is split, whatever t is. No other rule: a cut of a box is an input split whose one side
is a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.certificate import SLOPE_UNIT, CertificateError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAF, INPUT, NEURON = 0, 1, 2
"""What ``kind`` holds."""
MAX_NODES = 2**25
MAX_BOXES = 2**26
"""Numbers of all boxes' ends."""
MAX_DEPTH = 2**14
"""Of a tree."""


@dataclass(frozen=True)
class Lemma:
    """A bound of the input of a neuron: an upper or a lower one."""

    relu: int
    neuron: int
    upper: bool


@dataclass(frozen=True, eq=False)
class Forest:
    """What a certificate says of a region's trees.

    Attributes:
        lemmas: one tree for each, in the order of their ReLUs.
        trees: then one for each of these: the disjuncts (by position among those that are left) that it refutes.
        kind: ``[n]``, of every node, in preorder.
        inputs, at: of input splits, in that order: j and t.
        relus, neurons, points: of neuron splits: ReLU and place, and t.
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

    lemmas: tuple[Lemma, ...]
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


@dataclass(frozen=True)
class Cut:
    """What one split of a neuron leaves: z >= point, or z <= point."""

    relu: int
    neuron: int
    above: bool
    point: float


@dataclass(frozen=True)
class Pair:
    """A row of a leaf: of which disjunct, combined of what, with which slopes and multipliers (by neuron split)."""

    disjunct: int
    rows: tuple[tuple[int, float], ...]
    slopes: int
    multipliers: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf and what lies above it.

    Attributes:
        box: the number of its box among ``Walk.boxes``.
        cuts: the neuron splits above it, from the root on.
        scope: on which box bounds are derived, and how many of ``cuts`` count there; None for the region's own.
        slopes: of these bounds.
        pairs: its rows.
    """

    box: int
    cuts: tuple[Cut, ...]
    scope: tuple[int, int] | None
    slopes: int
    pairs: tuple[Pair, ...]


@dataclass(eq=False)
class Walk:
    """The leaves of every tree, and the boxes ``[N0]`` that occur, the region's first."""

    trees: list[list[Leaf]] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)


def halves(boxes: Walk, box: int, j: int, t: float) -> tuple[int, int]:
    """Adds the part of a box with x_j >= t and that with x_j <= t."""
    low, high = boxes.lower[box].copy(), boxes.upper[box].copy()
    low[j], high[j] = max(low[j], t), min(high[j], t)
    boxes.lower += [low, boxes.lower[box]]
    boxes.upper += [boxes.upper[box], high]
    return len(boxes.lower) - 2, len(boxes.lower) - 1


def walk(forest: Forest, lower: Floats, upper: Floats) -> Walk:
    """All leaves of a forest over a box with ends ``[N0]``.

    Raises:
        CertificateError: nodes that are no forest of so many trees, or fields that do not fit them.
    """
    return _Walker(forest, lower, upper).run()


class _Walker:
    """A walk under way: positions in the arrays."""

    def __init__(self, forest: Forest, lower: Floats, upper: Floats) -> None:
        self.forest, self.result = forest, Walk([], [lower], [upper])
        self.room = MAX_BOXES - 2 * len(lower)
        self.node = self.input = self.neuron = self.leaf = self.pair = self.row = self.multiplier = 0
        self.kinds, self.inputs, self.at = forest.kind.tolist(), forest.inputs.tolist(), forest.at.tolist()
        splits = zip(forest.relus.tolist(), forest.neurons.tolist(), forest.points.tolist(), strict=True)
        self.cuts = list(splits)
        names = ("scope", "slopes", "counts", "rows", "weights", "row_slopes", "multiplied", "splits", "multipliers")
        self.fields: dict[str, list[Any]] = {name: getattr(forest, name).tolist() for name in names}

    def run(self) -> Walk:
        """Tree after tree."""
        everyone: Sequence[tuple[int, ...]] = [(0,)] * len(self.forest.lemmas) + list(self.forest.trees)
        for disjuncts in everyone:
            self.result.trees.append(self.tree(disjuncts))
        given = (self.node, len(self.kinds)), (self.input, len(self.inputs)), (self.neuron, len(self.cuts))
        used = (self.leaf, "scope"), (self.pair, "counts"), (self.row, "rows"), (self.multiplier, "splits")
        if any(a != b for a, b in given) or any(a != len(self.fields[name]) for a, name in used):
            raise CertificateError("forest: there is more than its trees take")
        return self.result

    def tree(self, disjuncts: tuple[int, ...]) -> list[Leaf]:
        """The leaves of the next tree."""
        found: list[Leaf] = []
        stack = [_Place(0, (), None, 0)]
        while stack:
            place = stack.pop()
            if place.depth > MAX_DEPTH:
                raise CertificateError(f"forest: a tree is deeper than {MAX_DEPTH}")
            kind = self.take("node", self.kinds)
            if kind == LEAF:
                found.append(self.read(place, disjuncts))
            elif kind == INPUT:
                boxes = self.halves(place.box, self.take("input", self.inputs), self.at[self.input - 1])
                stack += [_Place(box, place.cuts, place, place.depth + 1) for box in boxes]
            elif kind == NEURON:
                relu, neuron, point = self.take("neuron", self.cuts)
                for above in (True, False):
                    cuts = (*place.cuts, Cut(relu, neuron, above, point))
                    stack.append(_Place(place.box, cuts, place, place.depth + 1))
            else:
                raise CertificateError("forest: kind holds other numbers than 0, 1 and 2")
        return found

    def halves(self, box: int, j: int, t: float) -> tuple[int, int]:
        """The upper and the lower part of a box."""
        self.room -= 4 * len(self.result.lower[box])
        if self.room < 0:
            raise CertificateError(f"forest: its boxes have more than {MAX_BOXES} numbers")
        return halves(self.result, box, j, t)

    def read(self, place: _Place, disjuncts: tuple[int, ...]) -> Leaf:
        """The next leaf."""
        scope = self.take("leaf", self.fields["scope"])
        slopes = self.fields["slopes"][self.leaf - 1]
        if not -1 <= scope <= place.depth:
            raise CertificateError("forest: scope is no number of splits above the leaf")
        on = None
        if scope >= 0:
            on = place
            while on.depth > scope:
                assert on.parent is not None, "the root's depth is 0"
                on = on.parent
        pairs = tuple(self.read_pair(disjunct, len(place.cuts)) for disjunct in disjuncts)
        return Leaf(place.box, place.cuts, None if on is None else (on.box, len(on.cuts)), slopes, pairs)

    def read_pair(self, disjunct: int, cuts: int) -> Pair:
        """The next row of a leaf."""
        count = self.take("pair", self.fields["counts"])
        many = self.fields["multiplied"][self.pair - 1]
        rows = self.some("row", "rows", "weights", count)
        multipliers = self.some("multiplier", "splits", "multipliers", many)
        if not all(0 <= split < cuts for split, _ in multipliers):
            raise CertificateError("forest: a multiplier belongs to no split above its leaf")
        return Pair(disjunct, rows, self.fields["row_slopes"][self.pair - 1], multipliers)

    def some(self, position: str, keys: str, values: str, count: int) -> tuple[tuple[int, float], ...]:
        """The next ``count`` pairs of two fields."""
        first = getattr(self, position)
        part = slice(first, first + count)
        setattr(self, position, part.stop)
        if part.stop > len(self.fields[keys]):
            raise CertificateError(f"forest: {keys} holds too little")
        return tuple(zip(self.fields[keys][part], self.fields[values][part], strict=True))

    def take(self, position: str, values: Sequence[Any]) -> Any:
        """The next one."""
        place = getattr(self, position)
        if place >= len(values):
            raise CertificateError("forest: a child is missing")
        setattr(self, position, place + 1)
        return values[place]


@dataclass(frozen=True, eq=False)
class _Place:
    """A node: its box, the neuron splits above it, its parent, and its depth."""

    box: int
    cuts: tuple[Cut, ...]
    parent: _Place | None
    depth: int


def read_forest(fields: Mapping[str, Any], relus: Sequence[int], inputs: int, disjuncts: int) -> Forest:
    """The object ``forest`` of a region, whose arrays were read.

    Args:
        fields: arrays by name, and ``trees``.
        relus: how many neurons each ReLU has.
        inputs: of the network.
        disjuncts: how many are left.

    Raises:
        CertificateError: a field that is missing or has another type or size, or numbers outside their range: slopes
            outside [0, 1], weights or multipliers that are negative, points that are not finite.
    """
    neurons = sum(relus)

    def ints(name: str, size: int | None, least: int, below: int) -> Ints:
        values = _array(fields, name, "int32", size)
        if len(values) and not bool(((values >= least) & (values < below)).all()):
            raise CertificateError(f"forest: {name} holds a number outside its range")
        return values.astype(np.int64)

    def reals(name: str, size: int, least: float) -> Floats:
        values = _array(fields, name, "float64", size)
        if not bool((np.isfinite(values) & (values >= least)).all()):
            raise CertificateError(f"forest: {name} holds a number outside its range")
        return values

    def pairs_of(relu: str, neuron: str) -> tuple[Ints, Ints]:
        which = ints(relu, None, 0, len(relus))
        places = ints(neuron, len(which), 0, max(relus, default=0))
        if not bool((places < np.array([*relus, 0])[which]).all()):
            raise CertificateError(f"forest: {neuron} holds a place that its ReLU has not")
        return which, places

    kind = _array(fields, "kind", "uint8", None)
    if len(kind) > MAX_NODES:
        raise CertificateError(f"forest: has more than {MAX_NODES} nodes")
    j = ints("inputs", None, 0, inputs)
    which, places = pairs_of("relus", "neurons")
    of, at = pairs_of("lemma_relus", "lemma_neurons")
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
    return Forest(
        tuple(Lemma(*one) for one in zip(of.tolist(), at.tolist(), sides.astype(bool).tolist(), strict=True)),
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
