"""Rows carried from a node to the input, in balls.

A row v is carried back by the adjoints of affine operators (design of CROWN, Zhang et al. 2018); what an
activation makes of it is the business of those who know bounds of its input.

Numbers of the network that are known up to an error (:func:`zonocuda.checker.arithmetic.constants`) are taken at the
middles of their balls, and |v| (|A - A'| m + |b - b'|), for |x| <= m, is what that may cost. A row of balls that are
wide would be multiplied by |A| layer after layer instead, and its bound fall without end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from flint import arb

from zonocuda.checker.arithmetic import Array, as_bytes, from_bytes, lower, upper, zeros
from zonocuda.checker.ends import Endings
from zonocuda.checker.journal import Arrays
from zonocuda.checker.maps import Ends, Maps, is_activation
from zonocuda.checker.parallel import Work
from zonocuda.graph import Add, Cast, Concat, Input, Node


class Passes:
    """Passes over a box ``[N]``.

    Attributes:
        maps: the network.
        box: exact ends of the inputs.
        departures: by node, how far its value may be from that of its operator.
        endings: by node, where the rows under way end.
        passes: how many rows were carried.
        work: who carries them.
    """

    def __init__(self, maps: Maps, box: Ends, work: Work | None = None) -> None:
        self.maps, self.box, self.work = maps, box, work or Work()
        self.middle, self.radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
        self.departures: dict[str, Array] = {}
        self.endings: Endings = {}
        self.passes = 0
        self._doubts: dict[str, Array] = {}

    def through(self, name: str, v: Array, first: int) -> tuple[Array, Array, Array]:
        """Rows ``[R, N]`` of an activation's output as rows of its input, and the offsets ``[R]`` below and above.

        ``first`` is the number of the first of these rows among those of a call of :meth:`carry`.
        """
        raise NotImplementedError

    def size(self, name: str) -> Array:
        """At least the absolute values ``[N]`` of a node that rows go through."""
        raise NotImplementedError

    def _doubt(self, node: Node) -> Array:
        if node.name not in self._doubts:
            self._doubts[node.name] = self.maps.of(node)[0].doubt(self.size(node.inputs[0]))
        return self._doubts[node.name]

    def carry(self, name: str, rows: Array, at: Sequence[tuple[str, Array]] = ()) -> Ends:
        """Exact lower and upper bounds of rows ``[R, N]`` of a node, and of rows of other nodes that are added ``at``
        them; upper ones hold where no slope looks at the sign of v, and are infinite where rows end."""
        parts = [slice(first, first + self.maps.rows) for first in range(0, len(rows), self.maps.rows)]
        self.passes += len(rows)

        def part(number: int) -> Arrays:
            some = parts[number]
            more = [(target, v[some]) for target, v in at]
            return [as_bytes(end) for end in self._chunk({name: rows[some]}, more, some.start)]

        found = self.work.each(part, len(parts), lambda: f"{name} {len(rows)}".encode())
        told = [[from_bytes(end) for end in ends] for ends in found]
        low, high = (np.concatenate([zeros(0), *(ends[side] for ends in told)]) for side in (0, 1))
        return low, high

    def _chunk(self, pending: dict[str, Array], more: Sequence[tuple[str, Array]], first: int) -> Ends:
        count = len(next(iter(pending.values())))
        low, high = zeros(count), zeros(count)

        def send(target: str, v: Array) -> None:
            pending[target] = pending[target] + v if target in pending else v

        for target, v in more:
            send(target, v)
        source = self.maps.graph.nodes[0].name
        for node in reversed(self.maps.graph.nodes):
            if node.name not in pending or isinstance(node.op, Input):
                continue
            v = pending.pop(node.name)
            if node.name in self.endings:
                v, worth = self.endings[node.name].balls(v)
                low, high = low + worth, high + arb("inf")
            if node.name in self.departures:
                error = np.abs(v) @ self.departures[node.name]
                low, high = low - error, high + error
            if is_activation(node.op):
                image, below, above = self.through(node.name, v, first)
                low, high = low + below, high + above
                send(node.inputs[0], image)
            elif isinstance(node.op, Cast):
                send(node.inputs[0], v)
            elif isinstance(node.op, Add):
                send(node.inputs[0], v)
                send(node.inputs[1], v if node.op.sign == 1 else -v)
            elif isinstance(node.op, Concat):
                for target, places in zip(node.inputs, self.maps.parts(node), strict=True):
                    send(target, v[:, places])
            else:
                map_ = self.maps.of(node)[0]
                middle = map_.middle
                if middle is not map_:
                    error = np.abs(v) @ self._doubt(node)
                    low, high = low - error, high + error
                if middle.bias is not None:
                    constant = v @ middle.bias
                    low, high = low + constant, high + constant
                send(node.inputs[0], middle.adjoint(v))
        if source in pending:
            v = pending[source]
            center, spread = v @ self.middle, np.abs(v) @ self.radius
            low, high = low + center - spread, high + center + spread
        return lower(low), upper(high)
