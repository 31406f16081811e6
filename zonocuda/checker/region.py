"""One region's proof again: bounds of every activation's input, then of the rows, by dual passes in ball arithmetic.

A row v is carried from a node to the input (design of CROWN, Zhang et al. 2018), through activations by lines around
them (:mod:`zonocuda.checker.relaxed`). At a ReLU with l <= x <= u, and for any slope lam in [0, 1],

    lam x <= relu(x) <= lam x + 2 mu,   2 mu = max(-lam l, (1 - lam) u),

so that v relu(x) >= v lam x + min(v, 0) 2 mu for v of either sign. Slopes come from the certificate and may depend on
the sign of v; a neuron that crosses zero and has none takes u / (u - l). (The inequality holds for neurons of known
sign, too.) The bounds l, u are the ones found here, layer by layer; they shrink what lies between the lines, and
nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flint import arb

from zonocuda.checker.arithmetic import ONE, Array, balls, lower, upper, zeros
from zonocuda.checker.claims import ActivationSlopes, EndClaim, OwnSlopes, RegionClaim, RowClaim
from zonocuda.checker.ends import Ended
from zonocuda.checker.execution import box_of, sized
from zonocuda.checker.maps import Ends, Maps, cast_error, interval, is_activation, known_of, ratio
from zonocuda.checker.parallel import Work
from zonocuda.checker.passes import Passes
from zonocuda.checker.relaxed import Chosen, Relaxed, relaxed
from zonocuda.graph import Cast, Input, Node, Relu
from zonocuda.specs import LinearConstraint, Region

Progress = Callable[[str, int, int], None]
"""Called with a phase and how much of it is done: (phase, done, total)."""

Pick = Callable[[str, int], Chosen]
"""For an activation and the first row of a chunk: the slopes of the neurons that are listed."""


class RegionCheck(Passes):
    """A region under way."""

    def __init__(
        self,
        maps: Maps,
        region: Region,
        claim: RegionClaim,
        progress: Progress = lambda phase, done, total: None,
        work: Work | None = None,
    ) -> None:
        """Bounds every activation's input; ``progress`` is told how many nodes are done, and ``work`` does the rows."""
        lower_, upper_ = box_of(region.box, maps.execution)
        super().__init__(maps, (balls(lower_.tolist()), balls(upper_.tolist())), work)
        self.claim = claim
        self.sizes: dict[str, Array] = {}
        self.relaxed: dict[str, Relaxed] = {}
        self.missed = 0
        ended = [one.ended.ends for one in claim.activations.values() if one.ended is not None]
        self.ended = {name for ends in [*ended, *(row.ends for row in claim.rows.values())] for name in ends}
        self.known: dict[str, Ends] = {}
        ends: dict[str, Ends] = {}
        for done, node in enumerate(maps.graph.nodes):
            progress("check", done, len(maps.graph.nodes))
            ends[node.name] = self._bounds(node, ends)
            if node.name in self.ended:
                self.known[node.name] = ends[node.name]
            self.sizes[node.name] = sized(*ends[node.name])
        self.overflow = maps.overflow(lambda name: self.sizes[name])

    # ---- forward: intervals, and passes for what they leave open ----------------------------------------------------

    def _bounds(self, node: Node, ends: dict[str, Ends]) -> Ends:
        if isinstance(node.op, Input):
            return self.box
        before = [ends[name] for name in node.inputs]
        if is_activation(node.op):
            before = [self._tightened(node, *before[0])]
            self.relaxed[node.name] = self._relaxed(node, before[0])
            self.sizes[node.inputs[0]] = sized(*before[0])
        low, high = interval(self.maps, node, before)
        error = self.maps.departure(node, lambda name: self.sizes[name], (low, high))
        if error is not None:
            low, high = lower(low - error), upper(high + error)
        if isinstance(node.op, Cast):  # of which the interval knows
            error = cast_error(node.op, *before[0])
        if error is not None:
            self.departures[node.name] = error
        return known_of(self.maps, node, (low, high), ends)

    def _tightened(self, node: Node, low: Array, high: Array) -> Ends:
        """Bounds of an activation's input: of intervals, and of passes for neurons that are open after them, or
        listed; open are those of smooth functions and of products, and of ReLUs those whose sign is not known."""
        if self.maps.is_exact(node.inputs[0]):
            return low, high
        low, high = low.copy(), high.copy()
        claim = self.claim.activations[node.name]
        passes: list[Callable[[Any], tuple[Array, Array]]] = [lambda index: self._both(node, index)]
        if claim.ended is not None:
            passes.append(lambda index: self._ended(node, index))
        if claim.refined is not None:
            passes.append(lambda index: self._refined(node, index))
        elif self.claim.second_pass:
            passes.append(lambda index: self._split(node, index))
        for one in passes:
            signed = isinstance(node.op, Relu)
            unsettled = [i for i in range(len(low)) if not (signed and (low[i] >= 0 or high[i] <= 0))]
            index = np.union1d(np.array(unsettled, dtype=np.int64), claim.neurons)
            if claim.refined is not None and one is passes[-1]:
                index = np.intersect1d(index, claim.refined.neurons)
            if len(index):
                found = one(index)
                low[index] = [a if not b > a else b for a, b in zip(low[index], found[0], strict=True)]
                high[index] = [a if not b < a else b for a, b in zip(high[index], found[1], strict=True)]
        return low, high

    def _both(self, node: Node, index: Any) -> Ends:
        """Lower and upper bounds by one row for each neuron: one slope serves both signs of v."""
        return self._carry(node.inputs[0], self._units(node, index), self._area)

    def _split(self, node: Node, index: Any) -> Ends:
        """A row for each bound, with the slopes of the second pass."""
        return self._sides(node, index, self._second)

    def _ended(self, node: Node, index: Any) -> Ends:
        """A row for each bound that ends at some nodes."""
        ended = self.claim.activations[node.name].ended
        assert ended is not None
        self._end(ended.ends)
        try:
            return self._sides(node, index, lambda name, first: self._shared_or(ended.slopes, name, first))
        finally:
            self._end({})

    def _end(self, claims: Mapping[str, EndClaim]) -> None:
        """Rows to come end so, at nodes whose bounds are known: rows reach no others."""
        known = {name: claim for name, claim in claims.items() if name in self.known}
        self.endings = {name: Ended.of(claim, *self.known[name]) for name, claim in known.items()}

    def _refined(self, node: Node, index: Any) -> Ends:
        """A row for each bound, with slopes of its own."""
        refined = self.claim.activations[node.name].refined
        assert refined is not None
        place = np.searchsorted(refined.neurons, index)
        chosen = np.concatenate([place, place + len(refined.neurons)])

        def pick(name: str, first: int) -> Chosen:
            if name not in refined.slopes:
                return self._second(name, first)
            claim, own = self.claim.activations[name], refined.slopes[name]
            rows = chosen[first : first + self.maps.rows]
            negative = claim.negative if own.negative is None else claim.scaled(own.negative[rows])
            return Chosen(negative, claim.scaled(own.nonnegative[rows]))

        return self._sides(node, index, pick)

    def _sides(self, node: Node, index: Any, pick: Pick) -> Ends:
        rows = self._units(node, index)
        low, _ = self._carry(node.inputs[0], np.concatenate([rows, -rows]), pick)
        return low[: len(index)], -low[len(index) :]

    def _area(self, name: str, first: int) -> Chosen:
        area = self.claim.activations[name].area
        return Chosen(area, area, is_one=True)

    def _second(self, name: str, first: int) -> Chosen:
        claim = self.claim.activations[name]
        return Chosen(claim.negative, claim.nonnegative)

    def _shared_or(self, own: Mapping[str, OwnSlopes], name: str, first: int) -> Chosen:
        """Slopes ``[K]`` of some activations, of others those of the second pass."""
        if name not in own:
            return self._second(name, first)
        negative = own[name].negative
        shared = self.claim.activations[name].negative
        return Chosen(shared if negative is None else negative, own[name].nonnegative)

    def _units(self, node: Node, index: Any) -> Array:
        rows = zeros(len(index), self.maps.size[node.inputs[0]])
        rows[np.arange(len(index)), index] = ONE
        return rows

    def _relaxed(self, node: Node, ends: Ends) -> Relaxed:
        """What passes need of an activation whose input has the bounds ``ends``."""
        claim = self.claim.activations[node.name]
        low, high = ends
        listed = np.full(len(low), -1)
        listed[claim.neurons] = np.arange(len(claim.neurons))
        self.missed += sum(not is_within(claim, listed[j], low[j], high[j]) for j in claim.neurons)
        return relaxed(node.op, ends, listed)

    # ---- backward ---------------------------------------------------------------------------------------------------

    def row_bound(self, row: LinearConstraint, one: RowClaim) -> Any:
        """An exact lower bound of a row: the best of the passes with the slopes of the certificate."""
        graph, size, own = self.maps.graph, self.maps.size, one.slopes

        def own_slopes(name: str, first: int) -> Chosen:
            return self._shared_or(own or {}, name, first)

        best = None
        for pick in (self._area, self._second) if own is None else (own_slopes,):
            v, x = zeros(1, size[graph.output]), zeros(1, size[graph.nodes[0].name])
            for i, c in row.outputs.items():
                v[0, i] = ratio(c)
            for j, c in row.inputs.items():
                x[0, j] = ratio(c)
            self._end(one.ends)
            bound = (self._carry(graph.output, v, pick, x)[0][0] + ratio(row.constant)).lower()
            if self.maps.execution is not None:  # the output may be flushed
                bound = (bound - np.abs(v).sum() * arb(self.maps.execution.eta)).lower()
            best = bound if best is None or bound > best else best
        return best

    def _carry(self, name: str, rows: Array, pick: Pick, at_input: Array | None = None) -> Ends:
        """Exact lower and upper bounds of rows ``[R, N]`` of a node, by the slopes of ``pick``."""
        self._pick = pick
        return self.carry(name, rows, () if at_input is None else [(self.maps.graph.nodes[0].name, at_input)])

    def size(self, name: str) -> Array:
        return self.sizes[name]

    def through(self, name: str, v: Array, first: int) -> tuple[Array, Array, Array]:
        """The rows before an activation, and the offsets below and above."""
        return self.relaxed[name].image(v, self._pick(name, first))


def is_within(claim: ActivationSlopes, k: int, low: Any, high: Any) -> bool:
    """Whether what was found is as good as what is claimed, up to a relative 1e-6 of the claim."""
    size = 1e-6 * max(abs(claim.lower[k]), abs(claim.upper[k]))
    return bool(low >= claim.lower[k] - size) and bool(high <= claim.upper[k] + size)
