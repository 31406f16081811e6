"""Sets of inputs, in batches: bounds of every ReLU's input on each, and rows carried over them, in float64.

A set is a box, less what neurons split above it leave out. Each bound counts its own rounding, a priori and for any
order of the sums (:mod:`zonocuda.checker.floats`): a row v of floats at a node y stands for v . y, and every step finds
floats v' at the node's input x, a float s and a float E >= 0 with

    v . y >= v' . x + s - E   for every input in the set.

At y = A x + b it is |v A - v'| m, at most |v| . error(m), where m bounds |x| on the set; at y = relu(x), with a slope
lam in [0, 1], v relu(x) >= v lam x + min(v, 0) max(-lam l, (1 - lam) u) for l <= x <= u, and v' = fl(v lam) is within
u |v'| (and an underflow) of v lam. At other activations lines lie below and above (:mod:`zonocuda.checker.lines`), and
s gets v times their offsets. NaN and infinity are never above anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.ends import Endings
from zonocuda.checker.floats import TINY, FloatMap, Floats, U, above, gamma
from zonocuda.checker.lines import Lines, Smooth
from zonocuda.checker.maps import FORMATS, Maps
from zonocuda.graph import Add, Affine, Cast, Concat, Input, Node, Relu

NUMBERS_AT_ONCE = 2**18
"""Of rows that are carried together: what a processor's cache holds."""

Index = NDArray[np.intp]


class FloatNet:
    """A network's operators in float64, made once.

    Attributes:
        maps: the same in balls.
        operations: the most roundings that a summand of a bound goes through.
        rows: how many rows go together.
        split: the activations as splits number them: all ReLUs, then the others.
    """

    def __init__(self, maps: Maps) -> None:
        self.maps, self.graph, self.size = maps, maps.graph, maps.size
        self.affine = {n.name: FloatMap(maps.of(n)[0]) for n in self.graph.nodes if isinstance(n.op, Affine)}
        self.source = self.graph.nodes[0].name
        widest = max(self.size.values())
        spread = max([b.inputs.size + b.outputs.size for m in self.affine.values() for b in m.blocks], default=0)
        self.operations = widest + 4 * len(self.graph.nodes) + 64
        self.rows = max(1, NUMBERS_AT_ONCE // max(widest, spread))
        self.relus = {node.name: node for node in self.graph.relus}
        self.names = list(self.relus)
        others = [node for node in self.graph.nodes if isinstance(node.op, Smooth)]
        self.split = [*self.relus.values(), *others]

    def departure(self, node: Node, sizes: Mapping[str, Floats], own: Floats) -> Floats | None:
        """How far a machine's value may be from that of a node's operator ``[S, N]``, for values of at most the
        absolute ``sizes``, and of at most ``own`` of the operator itself; None where it is the same."""
        execution = self.maps.execution
        if execution is None or not self.maps.rounds(node):
            return None
        if node.name in execution.assumed:
            return np.array(execution.assumed[node.name].departure(own.ravel().tolist())).reshape(own.shape)
        share = execution.shares[node.name]
        first, second = sizes[node.inputs[0]], sizes[node.inputs[-1]]
        if isinstance(node.op, Affine):
            map_ = self.affine[node.name]
            first, second = map_.reach(first), np.abs(map_.bias) + map_.bias_error
        most = np.max([sizes[name].max(1) for name in share.sources], axis=0).clip(min=1)[:, None]
        costs = execution.gamma(share.first) * first, execution.gamma(share.second) * second, share.flushed * most
        return above(sum(costs[1:], costs[0]), 8)


@dataclass(frozen=True, eq=False)
class Slopes:
    """Of one ReLU: slopes ``[S, N]`` or ``[R, N]`` where v < 0 and where v >= 0, all in [0, 1]."""

    negative: Floats
    nonnegative: Floats


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Of one ReLU: bounds ``[S, N]`` of its inputs, slopes by rule, and max(-lam l, (1 - lam) u) of the negative ones.

    The rule: 1 where l >= 0, 0 where u <= 0; else u / (u - l) where v < 0, and 1 or 0 where v >= 0, as u >= -l or not.
    """

    low: Floats
    high: Floats
    slopes: Slopes
    twice: Floats

    @staticmethod
    def of(low: Floats, high: Floats, nonnegative: Floats | None = None, mask: Any = None) -> Relaxed:
        """By rule, or with the slopes ``nonnegative`` of crossing neurons where ``mask`` is true."""
        active, dead = low >= 0, high <= 0
        with np.errstate(all="ignore"):
            negative = high / (high - low)
        negative = np.where(active, 1.0, np.where(dead | ~((negative >= 0) & (negative <= 1)), 0.0, negative))
        chosen = np.where(active, 1.0, np.where(dead, 0.0, (high >= -low).astype(np.float64)))
        if nonnegative is not None:
            chosen = np.where(~(active | dead) & mask, nonnegative, chosen)
        return Relaxed(low, high, Slopes(negative, chosen), twice(negative, low, high))


def twice(slope: Floats, low: Floats, high: Floats) -> Floats:
    """At least max(-lam l, (1 - lam) u, 0), NaN where a bound is."""
    return np.where(
        (low >= 0) & (slope == 1), 0.0, above(np.maximum(np.maximum(-slope * low, (1 - slope) * high), 0), 3)
    )


@dataclass(eq=False)
class Sets:
    """S sets: boxes, bounds of every node's value, and what passes over them need.

    Arrays are ``[S, N]``, or ``[1, N]`` where they hold for all sets.

    Attributes:
        lower, upper: the boxes ``[S, N]``.
        relus: by ReLU, of its input.
        lines: by other activation.
        sizes: by node, a bound of the absolute values.
        errors: by affine node or cast, and by sums and functions that a machine rounds, what rounding costs for each
            |v_i|.
        lost: by node, what may underflow on the way through it, in all.
    """

    net: FloatNet
    lower: Floats
    upper: Floats
    relus: dict[str, Relaxed] = field(default_factory=dict)
    sizes: dict[str, Floats] = field(default_factory=dict)
    errors: dict[str, Floats] = field(default_factory=dict)
    lost: dict[str, Floats] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lower)

    def keep(self, node: Node, low: Floats, high: Floats, before: list[str]) -> None:
        """Keeps what passes need of a node whose value lies between ``low`` and ``high``."""
        self.sizes[node.name] = np.maximum(np.abs(low), np.abs(high))
        if not before:
            return
        size, departure = self.sizes[before[0]], self.net.departure(node, self.sizes, self.sizes[node.name])
        self.lost[node.name] = above(size.sum(1) * TINY, self.net.operations)
        if isinstance(node.op, Affine):
            map_ = self.net.affine[node.name]
            own = gamma(self.net.size[node.name] + 1) * np.abs(map_.bias) + map_.bias_error
            if isinstance(node.op, Cast):
                own = own + cast_error(node.op, size)
            if departure is not None:
                own = own + departure
            self.errors[node.name] = above(map_.error(size) + own, 4)
            self.lost[node.name] = map_.lost(size)
        elif departure is not None:
            self.errors[node.name] = departure


def cast_error(op: Cast, size: Floats) -> Floats:
    """How far rounding to the type of a cast may take numbers of at most that ``size``
    (:func:`zonocuda.checker.maps.cast_error`)."""
    digits, least, top = FORMATS[op.target]
    error = above((size * 2.0**-digits + 2.0 ** (least - 1)) * (1 + 2.0**-12), 4)
    largest = 2.0 ** (top - 1) * (2 - 2.0 ** (1 - digits))
    return np.asarray(np.where(size <= largest, error, np.inf))


Pick = Callable[[str, Index, Index], tuple[Slopes, Floats]]
"""For a ReLU, the sets of some rows and the numbers of these rows: slopes ``[R, N]``, and :func:`twice` of the negative
ones."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Rows at the input: v ``[R, N0]``, s ``[R]``, E ``[R]``, and offsets ``[R]`` >= 0 of what is below and above.

    row >= v . x + s - E - below on the set, and row <= v . x + s + E + above where slopes do not depend on v's sign;
    behind lines, and where rows end, ``above`` is infinite.
    """

    rows: Floats
    constant: Floats
    error: Floats
    below: Floats
    above: Floats

    def least(self, lower: Floats, upper: Floats, operations: int) -> Floats:
        """Lower bounds ``[R]`` on boxes with ends ``[R, N0]``."""
        at = np.where(self.rows >= 0, lower, upper)
        return self._sum(at, -1.0, self.below, lower, upper, operations)

    def most(self, lower: Floats, upper: Floats, operations: int) -> Floats:
        """Upper bounds."""
        at = np.where(self.rows >= 0, upper, lower)
        return self._sum(at, 1.0, self.above, lower, upper, operations)

    @property
    def scale(self) -> Floats:
        """``[R]``, the size of what bounds are the sum of."""
        return np.asarray(np.abs(self.constant) + self.below + np.abs(self.rows).sum(1))

    def _sum(self, at: Floats, sign: float, offset: Floats, lower: Floats, upper: Floats, operations: int) -> Floats:
        total = self.constant + (self.rows * at).sum(1)
        sizes = (np.abs(self.rows) * np.maximum(np.abs(lower), np.abs(upper))).sum(1)
        cost = self.error + offset + gamma(operations) * above(sizes, operations) + U * np.abs(total)
        found = total + sign * above(cost, operations)
        return np.asarray(np.nextafter(found, sign * np.inf))

    def at(self, index: Index) -> Carried:
        """Some of the rows."""
        return Carried(*(t[index] for t in (self.rows, self.constant, self.error, self.below, self.above)))


def carry(
    sets: Sets,
    which: Index,
    start: Sequence[tuple[str, Callable[[Index], Floats]]],
    pick: Pick,
    endings: Endings | None = None,
) -> Carried:
    """Carries R rows to the input, the r-th over the set ``which[r]``.

    Args:
        sets: the sets.
        which: ``[R]``.
        start: nodes, and what gives the rows ``[r, N]`` that some of the R begin with there; a row is the sum of them.
        pick: gives slopes.
        endings: where all of the rows end.
    """
    parts = []
    for first in range(0, len(which), sets.net.rows):
        chosen = np.arange(first, min(first + sets.net.rows, len(which)))
        begun = [(name, rows(chosen)) for name, rows in start]
        parts.append(_chunk(sets, which[chosen], chosen, begun, pick, endings or {}))
    columns = zip(*((p.rows, p.constant, p.error, p.below, p.above) for p in parts), strict=True)
    return Carried(*(np.concatenate(column) for column in columns))


def _of(values: Floats, which: Index) -> Floats:
    """Rows of ``[S, N]`` or ``[1, N]``."""
    return values if len(values) == 1 else np.asarray(values[which])


def _chunk(
    sets: Sets, which: Index, chosen: Index, start: list[tuple[str, Floats]], pick: Pick, endings: Endings
) -> Carried:
    net, count = sets.net, len(which)
    pending: dict[str, Floats] = {}
    constant, error, below, over = (np.zeros(count) for _ in range(4))

    def send(target: str, v: Floats) -> None:
        nonlocal error
        if target in pending:
            v = pending[target] + v
            error = error + U * (np.abs(v) * _of(sets.sizes[target], which)).sum(1)
        pending[target] = v

    for name, v in start:
        send(name, v)
    for node in reversed(net.graph.nodes):
        if node.name not in pending or isinstance(node.op, Input):
            continue
        v = pending.pop(node.name)
        error = error + _of(sets.lost[node.name], which)
        if node.name in endings:
            v, summands = endings[node.name].floats(v)
            constant = constant + summands.sum(1)
            error = error + gamma(net.operations) * np.abs(summands).sum(1) + U * np.abs(constant)
            error, over = error + TINY * summands.shape[1], over + np.inf
        if isinstance(node.op, Relu):
            slopes, offset = pick(node.name, which, chosen)
            image = v * np.where(v >= 0, slopes.nonnegative, slopes.negative)
            below = below - (np.minimum(v, 0) * offset).sum(1)
            over = over + (np.maximum(v, 0) * offset).sum(1)
            error = error + U * (np.abs(image) * _of(sets.sizes[node.inputs[0]], which)).sum(1)
            send(node.inputs[0], image)
        elif node.name in sets.lines:
            image, summands = sets.lines[node.name].image(v, which)
            constant = constant + summands.sum(1)
            error = error + gamma(net.operations) * np.abs(summands).sum(1) + U * np.abs(constant)
            if node.name in sets.errors:
                error = error + (np.abs(v) * _of(sets.errors[node.name], which)).sum(1)
            over = over + np.inf
            error = error + U * (np.abs(image) * _of(sets.sizes[node.inputs[0]], which)).sum(1)
            send(node.inputs[0], image)
        elif isinstance(node.op, Add):
            if node.name in sets.errors:
                error = error + (np.abs(v) * _of(sets.errors[node.name], which)).sum(1)
            send(node.inputs[0], v)
            send(node.inputs[1], v if node.op.sign == 1 else -v)
        elif isinstance(node.op, Concat):
            for target, places in zip(node.inputs, net.maps.parts(node), strict=True):
                send(target, v[:, places])
        else:
            map_ = net.affine[node.name]
            constant = constant + v @ map_.bias
            error = error + (np.abs(v) * _of(sets.errors[node.name], which)).sum(1) + U * np.abs(constant)
            send(node.inputs[0], map_.adjoint(v))
    rows = pending.get(net.source, np.zeros((count, net.size[net.source])))
    operations = net.operations
    return Carried(rows, constant, *(above(t, operations) for t in (error, below, over)))
