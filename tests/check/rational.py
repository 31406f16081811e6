"""A second checker of forests, in rational numbers and plain Python, for small networks, after docs/certificate.md.

Bounds of whole boxes are those of intervals and of rows, with slopes of the certificate where it has them. Slopes and
intermediate bounds are rounded, outward where that matters, so that numbers stay short.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from tests.verifier.exact import Matrix, Vector, affine_map
from zonocuda.graph import Add, Affine, Graph, Input, Node, Relu
from zonocuda.specs import LinearConstraint, Region, Spec

ZERO, ONE, GRID = Fraction(0), Fraction(1), 2**40
Split = tuple[int, int, bool, Fraction]
"""ReLU, neuron, whether z >= t, t."""


def confirmed(path: Path, graph: Graph, spec: Spec) -> bool:
    """Whether every disjunct of every region is refuted by its forest."""
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("certificate.json"))

        def array(entry: dict[str, str]) -> Any:
            return np.load(io.BytesIO(archive.read(entry["file"])), allow_pickle=False).tolist()

        entries = {entry["region"]: entry for entry in document["certificate"]["regions"]}
        for number, region in enumerate(spec.regions):
            forest = entries[number]["forest"]
            arrays = {key: array(value) for key, value in forest.items()}
            claims = [_Claim.of(one, array) for one in entries[number]["activations"]]
            if not _Region(graph, region, arrays, entries[number]["trees"], claims).holds():
                return False
    return True


@dataclass
class _Claim:
    """Of one ReLU: by place, what its listed neurons have; and by place of a neuron the numbers of its two rows, whose
    slopes are by the name of the ReLU that they pass, by side, row and place."""

    name: str
    place: dict[int, int]
    slopes: dict[str, list[float]]
    rows: dict[int, tuple[int, int]]
    own: dict[str, dict[str, Any]]

    @staticmethod
    def of(entry: dict[str, Any], array: Callable[[dict[str, str]], Any]) -> _Claim:
        place = {j: k for k, j in enumerate(array(entry["neurons"]))}
        slopes = {key: array(entry[key]) for key in ("area", "negative", "nonnegative")}
        rows, own = {}, {}
        if entry["refined"] is not None:
            neurons = array(entry["refined"]["neurons"])
            rows = {j: (k, k + len(neurons)) for k, j in enumerate(neurons)}
            for one in entry["refined"]["slopes"]:
                sides = {"nonnegative": one["slopes"], "negative": one["negative"]}
                own[one["name"]] = {side: array(held) for side, held in sides.items() if held is not None}
        return _Claim(entry["name"], place, slopes, rows, own)


Pick = Callable[[int, int, Fraction, Fraction, Fraction], Fraction]
"""The slope of a ReLU at a neuron, for a coefficient and bounds."""


@dataclass
class _Set:
    """A box, the splits of neurons above it, and bounds of every ReLU's input, as they are derived."""

    low: Vector
    high: Vector
    splits: list[Split] = field(default_factory=list)
    relus: list[tuple[Vector, Vector]] = field(default_factory=list)
    ends: dict[str, tuple[Vector, Vector]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        pairs = [(self.low, self.high), *self.relus]
        return any(a > b for low, high in pairs for a, b in zip(low, high, strict=True))


class _Region:
    def __init__(
        self, graph: Graph, region: Region, arrays: dict[str, Any], trees: list[list[int]], claims: list[_Claim]
    ) -> None:
        self.graph, self.region, self.trees, self.claims = graph, region, trees, claims
        self.maps: dict[str, tuple[Matrix, Vector]] = {}
        shapes = {node.name: node.shape for node in graph.nodes}
        for node in graph.nodes:
            if isinstance(node.op, Affine):
                self.maps[node.name] = affine_map(node.op, shapes[node.inputs[0]])
        self.queue = {key: iter(values) for key, values in arrays.items()}
        self.arrays = arrays
        self.known: dict[tuple[int, int, bool], Fraction] = {}
        self.low, self.high = ([Fraction(v) for v in end.tolist()] for end in (region.box.lower, region.box.upper))
        self.number = {node.name: i for i, node in enumerate(graph.relus)}
        self.offsets = np.cumsum([0, *(int(np.prod(node.shape)) for node in graph.relus)]).tolist()

    def next(self, key: str) -> Any:
        return next(self.queue[key])

    def holds(self) -> bool:
        """Every lemma, then every tree; at the end nothing is left over."""
        pre = [node.inputs[0] for node in self.graph.relus]
        arrays = self.arrays
        for relu, neuron, upper in zip(*(arrays[f"lemma_{k}"] for k in ("relus", "neurons", "upper")), strict=True):
            row = {neuron: -ONE if upper else ONE}
            bounds = [self.bound(leaf, pre[relu], row, ZERO, pair) for leaf, (pair,) in self.tree(1) if pair[0]]
            key, least = (relu, neuron, bool(upper)), min((b for b in bounds if b is not None), default=None)
            if None not in bounds and least is not None:
                found = -least if upper else least
                old = self.known.get(key, found)
                self.known[key] = min(old, found) if upper else max(old, found)
        for disjuncts in self.trees:
            for leaf, pairs in self.tree(len(disjuncts)):
                for disjunct, pair in zip(disjuncts, pairs, strict=True):
                    if not self.refuted(leaf, self.region.disjuncts[disjunct], pair):
                        return False
        return {d for tree in self.trees for d in tree} == set(range(len(self.region.disjuncts))) and all(
            next(left, None) is None
            for key, left in self.queue.items()
            if key not in ("columns", "nonnegative", "negative") and not key.startswith("lemma")
        )

    def tree(self, disjuncts: int) -> Iterator[tuple[tuple[_Set, _Set | None, int], list[Any]]]:
        """The leaves: their own set, the one on which bounds are derived (None: the region's), slopes, and rows."""
        stack = [[_Set(self.low, self.high)]]
        while stack:
            path = stack.pop()
            here, kind = path[-1], self.next("kind")
            if kind == 0:
                scope, slopes = self.next("scope"), self.next("slopes")
                pairs = []
                for _ in range(disjuncts):
                    count, own, many = self.next("counts"), self.next("row_slopes"), self.next("multiplied")
                    rows = [(self.next("rows"), Fraction(self.next("weights"))) for _ in range(count)]
                    pairs.append((rows, own, [(self.next("splits"), self.next("multipliers")) for _ in range(many)]))
                yield (here, None if scope < 0 else path[scope], slopes), pairs
            elif kind == 1:
                j, t = self.next("inputs"), Fraction(self.next("at"))
                for side in (True, False):
                    low, high = list(here.low), list(here.high)
                    if side:
                        low[j] = max(low[j], t)
                    else:
                        high[j] = min(high[j], t)
                    stack.append([*path, _Set(low, high, here.splits)])
            else:
                relu, neuron, t = self.next("relus"), self.next("neurons"), Fraction(self.next("points"))
                for side in (True, False):
                    stack.append([*path, _Set(here.low, here.high, [*here.splits, (relu, neuron, side, t)])])

    def refuted(self, leaf: Any, rows: tuple[LinearConstraint, ...], pair: Any) -> bool:
        """Whether a combination of rows is positive on a leaf's set."""
        v: dict[int, Fraction] = {}
        x: dict[int, Fraction] = {}
        constant, strict = ZERO, False
        for number, weight in pair[0]:
            row = rows[number]
            assert weight >= 0
            constant, strict = constant + weight * row.constant, strict or (row.strict and weight > 0)
            for total, coefficients in ((v, row.outputs), (x, row.inputs)):
                for i, c in coefficients.items():
                    total[i] = total.get(i, ZERO) + weight * c
        bound = self.bound(leaf, self.graph.output, v, constant, pair, x)
        return bound is None or bound > 0 or (strict and bound == 0)

    # ---- bounds ------------------------------------------------------------------------------------------------------

    def bound(
        self, leaf: Any, name: str, row: dict[int, Fraction], constant: Fraction, pair: Any, x: Any = None
    ) -> Fraction | None:
        """The least a row can be on a leaf's set; None where that is empty."""
        here, scope, slopes = leaf
        assert scope is not None or self.claims
        if scope is None:  # the bounds of the whole box, with the splits of neurons
            base = _Set(self.low, self.high, here.splits)
            for number, (low, high) in enumerate(self.root):
                base.relus.append(self.clip(number, base.splits, low, high))
        else:
            base = _Set(scope.low, scope.high, scope.splits)
            self.derive(base, slopes)
        if base.is_empty or here.is_empty:
            return None
        own = pair[1] if pair[1] >= 0 else slopes
        start: dict[str, dict[int, Fraction]] = {name: dict(row)}
        pre = [node.inputs[0] for node in self.graph.relus]
        for split, beta in pair[2]:
            relu, neuron, side, t = here.splits[split]
            assert beta >= 0
            signed = Fraction(beta) if side else -Fraction(beta)
            start.setdefault(pre[relu], {})
            start[pre[relu]][neuron] = start[pre[relu]].get(neuron, ZERO) - signed
            constant += signed * t
        if x:
            source = start.setdefault(self.graph.nodes[0].name, {})
            for j, c in x.items():
                source[j] = source.get(j, ZERO) + c
        value, v = self.carry(base, start, self.told(own, pair[1] >= 0))
        return constant + value + least(v, here.low, here.high)

    def derive(self, base: _Set, slopes: int) -> None:
        """Bounds of every ReLU's input, layer by layer."""

        def passes(number: int, j: int, sign: Fraction) -> list[Pick]:
            return [self.told(-2, False), self.told(slopes, False)]

        self.layers(base, passes, lambda number, j: False)

    @cached_property
    def root(self) -> list[tuple[Vector, Vector]]:
        """Bounds of every ReLU's input on the whole box, by the slopes of the certificate."""

        def passes(number: int, j: int, sign: Fraction) -> list[Pick]:
            claim = self.claims[number]
            row = claim.rows[j][0 if sign > 0 else 1] if j in claim.rows else None
            picks = [self.listed(claim, "area", None)]
            return picks if claim.rows and row is None else [*picks, self.listed(claim, "", row)]

        base = _Set(self.low, self.high)
        self.layers(base, passes, lambda number, j: j in self.claims[number].place)
        return base.relus

    def listed(self, claim: _Claim, key: str, row: int | None) -> Pick:
        """Slopes of the certificate: ``key``, or by the sign of the coefficient, of a row of its own if it has one."""

        def pick(number: int, j: int, c: Fraction, low: Fraction, high: Fraction) -> Fraction:
            passed = self.claims[number]
            side = "nonnegative" if c >= 0 else "negative"
            if j not in passed.place:
                return Fraction(float(high / (high - low)))
            k, own = passed.place[j], claim.own.get(passed.name, {})
            found = Fraction(passed.slopes[key or side][k])
            if row is not None and side in own:
                found = Fraction(own[side][row][k], 128)
            assert 0 <= found <= 1
            return found

        return pick

    def layers(
        self,
        base: _Set,
        passes: Callable[[int, int, Fraction], list[Pick]],
        wanted: Callable[[int, int], bool],
    ) -> None:
        """Bounds of every ReLU's input by intervals, and by rows with slopes for neurons that are open or wanted."""
        ends: dict[str, tuple[Vector, Vector]] = {}
        for node in self.graph.nodes:
            if isinstance(node.op, Relu):
                number, pre = self.number[node.name], node.inputs[0]
                low, high = self.clip(number, base.splits, *ends[pre])
                for j in range(len(low)):
                    if low[j] < 0 < high[j] or wanted(number, j):
                        for sign in (ONE, -ONE):
                            for pick in passes(number, j, sign):
                                value, v = self.carry(base, {pre: {j: sign}}, pick)
                                found = Fraction(floor((value + least(v, base.low, base.high)) * GRID), GRID)
                                if sign > 0:
                                    low[j] = max(low[j], found)
                                else:
                                    high[j] = min(high[j], -found)
                base.relus.append((low, high))
                ends[pre] = low, high
            ends[node.name] = self.interval(node, ends, base)

    def clip(self, number: int, splits: list[Split], low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """Bounds with what lemmas and splits say."""
        low, high = list(low), list(high)
        for (relu, neuron, upper), value in self.known.items():
            if relu == number:
                if upper:
                    high[neuron] = min(high[neuron], value)
                else:
                    low[neuron] = max(low[neuron], value)
        for relu, neuron, side, t in splits:
            if relu == number:
                if side:
                    low[neuron] = max(low[neuron], t)
                else:
                    high[neuron] = min(high[neuron], t)
        return low, high

    def interval(self, node: Node, ends: dict[str, tuple[Vector, Vector]], base: _Set) -> tuple[Vector, Vector]:
        """Rounded outward."""
        if isinstance(node.op, Input):
            return base.low, base.high
        low, high = ends[node.inputs[0]]
        if isinstance(node.op, Relu):
            return [max(v, ZERO) for v in low], [max(v, ZERO) for v in high]
        if isinstance(node.op, Add):
            other = ends[node.inputs[1]]
            b, a = other if node.op.sign == 1 else ([-v for v in other[1]], [-v for v in other[0]])
            return [p + q for p, q in zip(low, b, strict=True)], [p + q for p, q in zip(high, a, strict=True)]
        matrix, offset = self.maps[node.name]
        below = [c + least(row, low, high) for row, c in zip(matrix, offset, strict=True)]
        above = [c - least({j: -w for j, w in row.items()}, low, high) for row, c in zip(matrix, offset, strict=True)]
        return [Fraction(floor(v * GRID), GRID) for v in below], [Fraction(ceil(v * GRID), GRID) for v in above]

    def carry(
        self, base: _Set, start: dict[str, dict[int, Fraction]], pick: Pick
    ) -> tuple[Fraction, dict[int, Fraction]]:
        """A row that begins at several nodes as one of the input, and a constant."""
        pending = {name: dict(row) for name, row in start.items()}
        value = ZERO

        def send(name: str, row: dict[int, Fraction]) -> None:
            total = pending.setdefault(name, {})
            for j, c in row.items():
                total[j] = total.get(j, ZERO) + c

        for node in reversed(self.graph.nodes[1:]):
            if node.name not in pending:
                continue
            v = pending.pop(node.name)
            if isinstance(node.op, Relu):
                number, image = self.number[node.name], {}
                low, high = base.relus[number]
                for j, c in v.items():
                    l, u = low[j], high[j]  # noqa: E741
                    if l >= 0:
                        image[j] = c
                    elif u > 0:
                        slope = pick(number, j, c, l, u)
                        image[j] = c * slope
                        value += min(c, ZERO) * max(-slope * l, (1 - slope) * u)
                send(node.inputs[0], image)
            elif isinstance(node.op, Add):
                send(node.inputs[0], v)
                send(node.inputs[1], {j: c * node.op.sign for j, c in v.items()})
            else:
                matrix, offset = self.maps[node.name]
                back: dict[int, Fraction] = {}
                for i, c in v.items():
                    value += c * offset[i]
                    for j, w in matrix[i].items():
                        back[j] = back.get(j, ZERO) + c * w
                send(node.inputs[0], back)
        return value, pending.get(self.graph.nodes[0].name, {})

    def told(self, slopes: int, is_own: bool) -> Pick:
        """Slopes of a row of the table, or by rule."""
        return lambda *where: self.slope(*where, slopes, is_own)

    def slope(
        self, number: int, j: int, c: Fraction, low: Fraction, high: Fraction, slopes: int, is_own: bool
    ) -> Fraction:
        """The table's, or by rule; -2: that of the least area for both signs."""
        area = Fraction(float(high / (high - low)))
        table = "nonnegative" if c >= 0 else "negative"
        if slopes == -2 or (c < 0 and not (is_own and table in self.arrays)):
            return area
        place = self.offsets[number] + j
        if slopes >= 0 and place in self.arrays["columns"]:
            found = Fraction(self.arrays[table][slopes][self.arrays["columns"].index(place)], 128)
            assert 0 <= found <= 1
            return found
        return (ONE if high >= -low else ZERO) if c >= 0 else area


def least(row: dict[int, Fraction], low: Vector, high: Vector) -> Fraction:
    """The least of a row on a box."""
    return sum((c * (low[j] if c >= 0 else high[j]) for j, c in row.items()), ZERO)
