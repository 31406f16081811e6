"""Better bounds of the inputs of activations, by small searches of their own: lemmas of a proof.

Layer by layer, so that each uses those before it: both bounds of every unstable neuron are rows whose slopes climb;
then those of which a better bound would gain the open rows of a property most are searched: each splits its worst
leaf, as often as the effort says, and its bound is the least over its leaves. Each of them is proven with rounding
counted, and is a bound of the whole box like any other.

What the relaxation of a neuron takes off a row's bound is |v| u (-l) / (u - l) where v < 0; its derivatives are
|v| u^2 / (u - l)^2 in l and |v| l^2 / (u - l)^2 in u. A search improves a bound by some part of the width, so that it
gains cost u / (-l) by a better l, and cost (-l) / u by a better u, up to a factor, and no more than the cost: mostly
one of both is worth a search, and the other is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zonocuda.bounds.dual.compact import Compact, compact
from zonocuda.bounds.dual.dual_pass import (
    DualPass,
    Visit,
    flatten_positions,
    flatten_rows,
    unflatten_rows,
)
from zonocuda.bounds.dual.neurons import send_unit_rows
from zonocuda.bounds.dual.signs import SignProblem
from zonocuda.bounds.dual.slopes import free_neurons
from zonocuda.bounds.interval import Bounds, outward
from zonocuda.bounds.rounding.arithmetic import convolves
from zonocuda.bounds.rounding.ledger import Ledger
from zonocuda.branch import SearchStopped, SignParts, deepen
from zonocuda.graph import Node
from zonocuda.prove.lemma_pieces import Helpers, LemmaPiece, LemmaTrees
from zonocuda.prove.sign_bounds import CONVOLVED_LEMMA, LEMMA, Pace, SignBounds
from zonocuda.prove.sign_record import Ints, LemmaProof, SignLeaves, places
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import activations
from zonocuda.tighten.refine import depends_on_activation

ROWS = 256
"""That climb together."""
CLIMB, MORE = Pace(8, 0.2, 0.1), Pace(12, 0.05, 0.1)
"""Of all rows, and of those that are searched, before they are."""
BYTES = 2**28
"""Of the leaves that are kept at a time."""
MOST = 4.0
"""How many times the gain by a bound may exceed its neuron's cost, in units of what a search gains."""


@dataclass(frozen=True)
class LemmaEffort:
    """How much to spend.

    Attributes:
        bounds: of each layer's neurons, lower or upper ones, that are searched, at most.
        rounds: splits of each of them.
    """

    bounds: int
    rounds: int

    @property
    def work(self) -> int:
        """Splits of a layer."""
        return self.bounds * self.rounds


@dataclass(frozen=True, eq=False)
class Lemmas:
    """What was found.

    Attributes:
        intermediate: bounds ``[1, *features]`` of the input of every activation, no looser than they were.
        improved: bounds of neurons that a search improved.
        bounded: parts that were bounded.
        finished: whether every layer had its turn.
        searching: the share of the seconds that searches took; the rest went to the rows that climb.
    """

    intermediate: dict[str, Bounds]
    improved: int
    bounded: int
    finished: bool
    searching: float = 0.0


LEAST_ROWS = 8
"""Of a piece."""

Costs = Callable[[Mapping[str, Bounds], str], Tensor | None]
"""For bounds of the activations' inputs and the name of one, ``[features]`` in the order of the pass: what the
relaxation of each neuron costs; None where no row is open any more."""


def find_lemmas(
    arithmetics: Sequence[Arithmetic],
    boxes: Sequence[Bounds],
    intermediate: Mapping[str, Bounds],
    effort: LemmaEffort,
    costs: Costs,
    on_node: Visit,
    proceed: Callable[[float], bool],
    record: Callable[[LemmaProof], None] | None = None,
    note: Callable[[Lemmas, str], None] = lambda found, layer: None,
    after: str = "",
    written: bool = False,
    helpers: Helpers | None = None,
) -> Lemmas:
    """Bounds of the unstable neurons, layer by layer.

    Args:
        arithmetics: the first to climb in, the last to prove in, a wider one perhaps: what is given up for rounding in
            every layer widens all the layers behind.
        boxes: in each of them, ``[1, *input features]``.
        intermediate: bounds ``[1, *features]`` of the input of every activation, in the first.
        effort: how much to spend.
        costs: which neurons matter.
        on_node: called before each node of each pass; may raise to stop.
        proceed: asked before every batch, with the share of all time that the searches of this layer and those before
            it may take (rows pass through all layers before theirs, so that the last ones take most); False ends the
            search of this layer.
        record: is given the proofs of all bounds that are better than those given, as they can be written down.
        note: is given what was found so far after each layer, and the name of its activation.
        after: the activation of the layer to go on behind; empty to begin with the first one.
        written: whether bounds are those of what is written down.
        helpers: who share the work of each layer; what they lose is done here.
    """
    known, improved, bounded = dict(intermediate), 0, 0
    nodes = activations(arithmetics[0].graph)
    begin, searching = time.monotonic(), 0.0

    def found(finished: bool) -> Lemmas:
        spent = time.monotonic() - begin
        return Lemmas(known, improved, bounded, finished, searching / spent if spent > 0 else 0.0)

    first = next((number for number, node in enumerate(nodes, 1) if node.name == after), 0)
    for number, node in enumerate(nodes[first:], first):
        share = (number + 1) * (number + 2) / (len(nodes) * (len(nodes) + 1))
        left = compact(arithmetics[0].graph, known)
        index = free_neurons(node, left.intermediate[node.name])
        if not len(index) or not depends_on_activation(left.graph, left.graph[node.name]):
            continue
        go_on = partial(proceed, share)
        layer = LemmaLayer(arithmetics, boxes, left, left.graph[node.name], on_node, go_on)
        layer.recorded, layer.written = record is not None, written
        layer.helpers, layer.share = helpers, share
        try:
            layer.climb(index)
            known = left.widen(layer.intermediate)
            if not proceed(1.0):
                return found(False)
            cost = costs(known, node.name)
            if cost is None:
                return found(True)
            since = time.monotonic()
            improved += layer.search(layer.promising(_narrow(cost, left, node), effort.bounds), effort.rounds)
            searching += time.monotonic() - since
        except SearchStopped:
            known, bounded = left.widen(layer.intermediate), bounded + layer.bounded
            return found(False)
        finally:
            if record is not None:
                for proof in layer.proofs():
                    record(proof)
        bounded += layer.bounded
        known = left.widen(layer.intermediate)
        note(found(False), node.name)
    return found(True)


def bound_piece(
    arithmetics: Sequence[Arithmetic],
    boxes: Sequence[Bounds],
    piece: LemmaPiece,
    on_node: Visit,
    proceed: Callable[[], bool],
) -> LemmaTrees:
    """What comes of a piece, elsewhere than its layer is; see :func:`find_lemmas`."""
    left = compact(arithmetics[0].graph, piece.intermediate)
    layer = LemmaLayer(arithmetics, boxes, left, left.graph[piece.name], on_node, proceed)
    layer.written = piece.written
    layer.begin(piece.index)
    return layer.bounds_of(piece)


def in_dtype(intermediate: Mapping[str, Bounds], dtype: torch.dtype) -> dict[str, Bounds]:
    """Bounds in another dtype, rounded outward."""
    return {
        name: (outward(low, dtype, False), outward(high, dtype, True)) for name, (low, high) in intermediate.items()
    }


def _narrow(costs: Tensor, left: Compact, node: Node) -> Tensor:
    kept = left.kept.get(node.name)
    return costs if kept is None else costs[kept]


class LemmaLayer:
    """The input of one activation.

    Attributes:
        recorded: whether the leaves of the best bounds are kept.
        written: whether bounds are those of slopes and multipliers as they are written down.
    """

    recorded = written = False

    def __init__(
        self,
        arithmetics: Sequence[Arithmetic],
        boxes: Sequence[Bounds],
        left: Compact,
        node: Node,
        on_node: Visit,
        proceed: Callable[[], bool],
    ) -> None:
        self.arithmetics, self.boxes = arithmetics, boxes
        self.left, self.node, self.on_node, self.proceed = left, node, on_node, proceed
        self.intermediate = dict(left.intermediate)
        self.source = left.graph[node.inputs[0]]
        self.bounded = 0
        self.helpers: Helpers | None = None
        self.share = 1.0
        self.best: dict[int, tuple[float, SignParts]] = {}  # by row: its bound, and the leaves that prove it

    def climb(self, index: Tensor) -> None:
        """Bounds of the neurons ``index`` ``[K]`` by one row for each side, with slopes of its own."""
        self.begin(index)
        every = torch.arange(2 * len(index), device=index.device)
        parts = self.pieces(every, ROWS)
        found = dict(self.shared_out([self.piece(part, None, 0) for part in parts]))
        self.roots = SignParts.cat([found[number].parts for number in range(len(parts))])
        self.note(every, self.roots.bound)
        if self.recorded:
            self.keep(every, self.roots.packed(), self.roots.bound.unsqueeze(1))

    def begin(self, index: Tensor) -> None:
        """The bound method of the neurons ``index`` ``[K]``: a row for each one's lower, then for its upper bound."""
        self.index = index
        judge = self.problem(-1, index) if len(self.arithmetics) > 1 else None
        pace = CONVOLVED_LEMMA if convolves(self.left.graph.nodes) else LEMMA
        self.bounder = SignBounds(self.problem(0, index), pace, judge=judge, wishes=1, written=self.written)

    # ---- pieces ------------------------------------------------------------------------------------------------------

    def pieces(self, rows: Tensor, most: int) -> Sequence[Tensor]:
        """Rows in pieces of at most ``most``, and enough of them for all helpers."""
        if not len(rows):
            return ()
        if self.helpers is not None:
            most = min(most, max(LEAST_ROWS, -(-len(rows) // (2 * self.helpers.count))))
        return torch.split(rows, most)

    def piece(self, rows: Tensor, roots: SignParts | None, rounds: int) -> LemmaPiece:
        """Some rows."""
        return LemmaPiece(self.left.whole, self.node.name, self.index, rows, roots, rounds, self.written)

    def shared_out(self, pieces: Sequence[LemmaPiece]) -> Iterator[tuple[int, LemmaTrees]]:
        """What comes of pieces, as they end."""
        if self.helpers is None or len(pieces) < 2:
            yield from ((number, self.bounds_of(piece)) for number, piece in enumerate(pieces))
            return
        for number, found in self.helpers(pieces, self.share):
            yield number, self.bounds_of(pieces[number]) if found is None else found

    def bounds_of(self, piece: LemmaPiece) -> LemmaTrees:
        """What comes of one piece, here."""
        runs = torch.split(torch.arange(len(piece.rows), device=piece.rows.device), ROWS)
        if piece.roots is None:
            roots = SignParts.cat([self.bounder.roots(piece.rows[p], piece.rows[p], CLIMB) for p in runs])
            return LemmaTrees(roots, roots.bound.unsqueeze(1), 0)
        roots = SignParts.cat([self.bounder.climb(piece.roots.at(p), MORE).parts for p in runs])
        found = deepen(roots, self.bounder, piece.rounds, ROWS, self.proceed)
        return LemmaTrees(found.leaves, found.leaf_bounds, found.bounded)

    def problem(self, number: int, index: Tensor) -> SignProblem:
        """The rows, in one of the arithmetics."""
        arithmetic, box = self.arithmetics[number], self.boxes[number]
        intermediate = in_dtype(self.left.whole, arithmetic.dtype)
        left = compact(arithmetic.graph, intermediate)
        source = left.graph[self.source.name]
        position = flatten_positions(source.shape).to(index.device)[index].repeat(2)
        signs = torch.ones(2 * len(index), dtype=arithmetic.dtype, device=index.device)
        signs[len(index) :] = -1

        def rows(ledger: Ledger | None) -> DualPass:
            flow = DualPass(left.graph, 1, len(position), box[0], ledger)
            send_unit_rows(flow, source, position, signs)
            return flow

        ledger = Ledger(arithmetic.rounding.on(left.graph), box, left.intermediate)
        return SignProblem(left.graph, rows, box, left.intermediate, ledger, self.on_node)

    def note(self, rows: Tensor, bound: Tensor) -> int:
        """Takes better bounds of some rows; returns how many are better."""
        lower, upper = (flatten_rows(b).clone() for b in self.intermediate[self.node.name])
        count, better = len(self.index), 0
        for side, end, pick in ((rows < count, lower, torch.fmax), (rows >= count, upper, torch.fmin)):
            place = self.index[rows[side] % count]
            value = torch.where(bound[side].isfinite(), bound[side], -torch.inf)
            value = value if end is lower else -value
            new = pick(end[0, place], value)
            better += int((new != end[0, place]).sum())
            end[0, place] = new
        self.intermediate[self.node.name] = (
            unflatten_rows(lower, self.source.shape),
            unflatten_rows(upper, self.source.shape),
        )
        return better

    def promising(self, costs: Tensor, most: int) -> Tensor:
        """The rows of those bounds from which most is to be gained, of neurons that are unstable and cost something."""
        lower, upper = (flatten_rows(b)[0, self.index] for b in self.intermediate[self.node.name])
        cost = torch.where((lower < 0) & (upper > 0), costs[self.index], 0.0)
        gain = torch.cat([cost * (upper / -lower).clamp(max=MOST), cost * (-lower / upper).clamp(max=MOST)])
        order = gain.nan_to_num(0.0).argsort(descending=True, stable=True)[:most]
        return order[gain[order] > 0]

    def search(self, rows: Tensor, rounds: int) -> int:
        """Small trees for some rows; returns how many bounds they improved."""
        step = max(1, BYTES // (self.roots.part_bytes * (rounds + 1)))
        improved = 0
        parts = self.pieces(rows, step)
        for number, found in self.shared_out([self.piece(part, self.roots.at(part), rounds) for part in parts]):
            self.bounded += found.bounded
            improved += self.note(parts[number], found.bounds.amin(1))
            if self.recorded:
                self.keep(parts[number], found.parts, found.bounds)
        return improved

    # ---- what is written down ----------------------------------------------------------------------------------------

    def keep(self, rows: Tensor, leaves: SignParts, bounds: Tensor) -> None:
        """Keeps the leaves ``[R W]`` of some rows, where their bounds ``[R, W]`` are the best so far."""
        width = bounds.shape[1]
        for number, (row, least) in enumerate(zip(rows.tolist(), bounds.amin(1).tolist(), strict=True)):
            if least > self.best.get(row, (-math.inf,))[0] and least < math.inf:
                taken = (bounds[number] < math.inf).nonzero().squeeze(1) + number * width
                self.best[row] = least, leaves.at(taken)

    def proofs(self) -> Iterator[LemmaProof]:
        """Those of all bounds that are better than those of the layer at first."""
        if not self.best:
            return
        count, columns = len(self.index), self.columns
        lower, upper = (flatten_rows(b)[0, self.index].tolist() for b in self.left.intermediate[self.node.name])
        whole = self.neurons(self.index).tolist()
        for row, (bound, leaves) in sorted(self.best.items()):
            k, is_upper = row % count, row >= count
            if bound > (-upper[k] if is_upper else lower[k]):
                yield LemmaProof(self.node.name, whole[k], is_upper, SignLeaves.of(leaves, columns))

    @property
    def columns(self) -> Ints:
        """Places of the neurons that have signs, slopes and multipliers among those of all activations."""
        return places(self.arithmetics[0].graph, self.left, self.bounder.problem)

    def neurons(self, index: Tensor) -> Tensor:
        """Of positions ``[K]`` of the pass the places in the features of the whole network."""
        neurons = flatten_positions(self.source.shape).to(index.device)[index]
        kept = self.left.kept.get(self.node.name)
        return neurons if kept is None else kept[neurons]
