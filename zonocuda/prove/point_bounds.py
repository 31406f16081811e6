"""Bounds of rows on parts of a box where the inputs of neurons are split at points, for activations of any kind.

On every part the bounds of all activations' inputs are found again, from those of the part that it was split from, by
one dual row for each side where that is not too dear; then the row's slopes and multipliers, which begin as those of
that part, climb a few steps, with moments as in Adam (Kingma and Ba 2015). What they end with is bounded once with
rounding counted, and that bound counts, or that of the part before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import Visit
from zonocuda.bounds.dual.points import Constraints, PartRows, PointProblem, Reads
from zonocuda.bounds.dual.slopes import Slopes
from zonocuda.bounds.interval import Bounds
from zonocuda.bounds.rows import Rows
from zonocuda.branch import PointParts, SignBounded, SignParts, refuted
from zonocuda.precision import summed_products
from zonocuda.prove.stages import Arithmetic
from zonocuda.relaxations import Rule, rule_of
from zonocuda.tighten.free_slopes import FreeSlopes
from zonocuda.tighten.refine import refine_by_rule

MOST_SPLITS = 48
"""Above a part."""
WISHES = 4
"""Numbers that a part wishes to be split at, and those of each activation that are looked at for them."""
MOST_REFINED = 128
"""Numbers that activations read, behind others, up to which each part has bounds of its own of all of them: with more
of them a split hardly changes any other's."""
MOST_WRITTEN = 2048
"""The same where a proof is written down, whose reader finds them again."""
NARROW = 2.0**-12
"""Of the bounds on the whole box, below which lines have the slopes of the least area: around a jump others are so
steep that no input's bounds are narrow enough for them."""
BATCH_BYTES = 2**27
"""Of the rows of a batch's bounds, about."""
BATCH = 64
"""Parts that are bounded together, at most."""
_FIRST, _SECOND = 0.9, 0.999  # how slowly the moments of multipliers forget


@dataclass(frozen=True)
class PointPace:
    """How far to climb: steps, how far slopes move in the first one (as a share of what their functions have), and
    multipliers (in units of the rows at their neurons), and what both are multiplied by after each."""

    steps: int
    slopes: float = 0.2
    multipliers: float = 0.3
    decay: float = 0.9


ROOT = PointPace(20)
CHILD = PointPace(4)
LAST = PointPace(100, multipliers=1.0, decay=0.98)


@dataclass(frozen=True, eq=False)
class _Alike:
    """Activations that have one rule, and the places ``[n]`` of what they read."""

    rule: Rule
    columns: Tensor


class PointBounds:
    """Proven bounds in one arithmetic.

    Attributes:
        written: whether bounds are those that a certificate's reader finds again: slopes by rule, and bounds of the
            activations' inputs that do not depend on those of other parts.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        rows: Rows,
        box: Bounds,
        intermediate: Mapping[str, Bounds],
        on_node: Visit,
        written: bool = False,
        spare: float = 0.0,
    ) -> None:
        """``intermediate``: proven bounds ``[1, *features]`` on the whole box, of every activation's input; ``spare``:
        what a bound has to exceed zero by, to count."""
        self.arithmetic, self.rows, self.box, self.on_node = arithmetic, rows, box, on_node
        self.graph, self.rounding, self.written, self.spare = arithmetic.graph, arithmetic.rounding, written, spare
        self.reads = Reads(self.graph)
        self.whole = self.reads.joined(intermediate)
        first = {node.name for node in self.reads.nodes[:1]}
        behind = sum(prod(self.reads.shape[node.name]) for node in self.reads.nodes if node.name not in first)
        self.refines = behind <= (MOST_WRITTEN if written else MOST_REFINED)
        self.wishes = max(1, min(WISHES, self.reads.count))
        self.groups = _alike(self.reads, box[0].device)
        width = self.whole[1] - self.whole[0]
        self.narrow = NARROW * width

    @property
    def batch(self) -> int:
        """How many parts are bounded together."""
        widest = max(prod(node.shape) for node in self.graph.nodes)
        each = 8 * max(widest * (2 * max(map(prod, self.reads.shape.values()), default=1)), 32 * self.reads.count)
        if not self.refines:
            each = 8 * max(8 * widest, 32 * self.reads.count)
        return max(2, min(BATCH, BATCH_BYTES // each))

    def roots(self, pairs: Sequence[tuple[int, int]]) -> PointParts:
        """The whole box, for rows and the disjuncts that they belong to, bounded."""
        like, count = self.box[0], len(pairs)
        row, group = torch.tensor(pairs, device=like.device).reshape(-1, 2).T
        nothing = like.new_zeros(count, 0)
        slopes = like.new_full((count, 0 if self.written else 2 * self.reads.count), torch.nan)
        splits = like.new_zeros(count, MOST_SPLITS)
        parts = PointParts(
            row,
            group,
            nothing.to(torch.int8),
            slopes,
            splits,
            like.new_full((count,), -torch.inf),
            torch.zeros(count, dtype=torch.int32, device=like.device),
            row.new_full((count, self.wishes), -1),
            splits.long(),
            splits.to(torch.int8),
            splits,
            like.new_zeros(count, self.wishes),
            *(end.expand(count, -1) for end in self.whole),
        )
        return self._bound(parts, ROOT)[0]

    # ---- what a search asks for --------------------------------------------------------------------------------------

    def bound(self, parts: SignParts, thorough: bool = False) -> SignBounded:
        """Proven bounds, after as many steps as are made for parts."""
        assert isinstance(parts, PointParts), "parts of this kind of search"
        return SignBounded(*self._bound(parts, LAST if thorough else CHILD))

    def estimate(self, parts: SignParts) -> Tensor:
        """Bounds by rule, of the activations' bounds as they are, whose rounding is not counted."""
        assert isinstance(parts, PointParts), "parts of this kind of search"
        with torch.no_grad():
            intermediate = self.reads.parted((parts.lower, parts.upper))
            slopes = self._slopes(parts.lower, parts.upper)
            return (
                self._problem(parts, intermediate).run(lambda node: slopes[node.name], parts.multipliers, False).lower
            )

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def _bound(self, parts: PointParts, pace: PointPace) -> tuple[PointParts, Tensor]:
        """The parts with what is proven of them, and points where their rows are least."""
        with torch.no_grad(), summed_products():
            intermediate, empty = self._inputs(parts)
            problem = self._problem(parts, intermediate)
            lower, upper = self.reads.joined(intermediate)
            slopes, multipliers = self._climb(problem, parts, (lower, upper), pace)
            found = problem.run(lambda node: slopes[node.name], multipliers, True)
            finite = lower.isfinite().all(1) & upper.isfinite().all(1) & found.lower.isfinite()
            bound = torch.where(finite, found.lower - self.spare, -torch.inf)
            bound = bound if self.written else torch.fmax(parts.bound, bound)
            bound = torch.where(empty, 1.0, bound)
            kept = parts.slopes if self.written else self._held(slopes)
            told = replace(parts, bound=bound, slopes=kept, multipliers=multipliers, lower=lower, upper=upper)
            wishes, points = self._wishes(told, found)
        return replace(told, wishes=wishes, points=points), self._corners(parts, found.weight)

    def _inputs(self, parts: PointParts) -> tuple[dict[str, Bounds], Tensor]:
        """Bounds of every activation's input on the parts, and which of these no input reaches."""
        lower, upper = (parts.lower, parts.upper) if not self.written else self._cut(parts)
        intermediate = self.reads.parted((lower, upper))
        if self.refines:
            box = self._box(len(parts))
            intermediate = refine_by_rule(self.graph, box, intermediate, self.on_node, self.rounding)
            lower, upper = self.reads.joined(intermediate)
        empty = (lower > upper).any(1)
        if bool(empty.any()):
            lower, upper = (
                torch.where(empty.unsqueeze(1), whole, end)
                for whole, end in zip(self.whole, (lower, upper), strict=True)
            )
            intermediate = self.reads.parted((lower, upper))
        # A reader's bounds are others by what it rounds: that a part is empty is for its row to prove.
        return intermediate, torch.zeros_like(empty) if self.written else empty

    def _cut(self, parts: PointParts) -> Bounds:
        """The bounds of the whole box, and what is left of them by splits alone."""
        lower, upper = (end.expand(len(parts), -1) for end in self.whole)
        low = torch.where(parts.side > 0, parts.point, -torch.inf)
        high = torch.where(parts.side < 0, parts.point, torch.inf)
        return (
            lower.scatter_reduce(1, parts.neuron, low, "amax"),
            upper.scatter_reduce(1, parts.neuron, high, "amin"),
        )

    def _box(self, count: int) -> Bounds:
        lower, upper = (end.expand(count, *end.shape[1:]) for end in self.box)
        return lower, upper

    def _problem(self, parts: PointParts, intermediate: Mapping[str, Bounds]) -> PointProblem:
        own = self.rows
        rounded = None if own.rounded is None else own.rounded[parts.row].unsqueeze(1)
        rows = Rows(
            own.output[parts.row].unsqueeze(1),
            own.input[parts.row].unsqueeze(1),
            own.constant[parts.row].unsqueeze(1),
            (),
            (),
            (),
            rounded,
        )
        constraints = Constraints(parts.neuron, parts.side, parts.point)
        return PointProblem(
            self.reads, rows, self._box(len(parts)), intermediate, constraints, self.rounding, self.on_node
        )

    def _slopes(self, lower: Tensor, upper: Tensor) -> dict[str, Slopes]:
        """By rule, where v >= 0 and where v < 0, ``[S, 1, N]``, for bounds ``[S, M]``."""
        below, above = torch.empty_like(lower), torch.empty_like(lower)
        for group in self.groups:
            low, high = lower[:, group.columns], upper[:, group.columns]
            area, over = group.rule.initial(low, high), group.rule.above(low, high)
            narrow = high - low < self.narrow[:, group.columns]
            under = torch.where(narrow, area, group.rule.initial(low, high, "adaptive"))
            below[:, group.columns] = under
            above[:, group.columns] = area if over is None else torch.where(narrow, area, over)
        return {
            node.name: Slopes(*(end[:, self.reads.of(node.name)].unsqueeze(1) for end in (above, below)))
            for node in self.reads.nodes
        }

    def _inherited(self, parts: PointParts, start: Mapping[str, Slopes]) -> dict[str, Slopes]:
        """Slopes of the part before, by rule at the number that was split last."""
        last = (parts.depth.long() - 1).clamp(min=0).unsqueeze(1)
        changed = torch.zeros_like(parts.lower, dtype=torch.bool).scatter(1, parts.neuron.gather(1, last), True)
        sides = parts.slopes.chunk(2, 1)
        found: dict[str, Slopes] = {}
        for name, own in start.items():
            columns = self.reads.of(name)
            by_rule = own.negative, own.nonnegative
            kept = [
                torch.where((changed | side.isnan())[:, columns].unsqueeze(1), rule, side[:, columns].unsqueeze(1))
                for rule, side in zip(by_rule, sides, strict=True)
                if rule is not None
            ]
            found[name] = Slopes(*kept)
        return found

    def _held(self, slopes: Mapping[str, Slopes]) -> Tensor:
        """Slopes as parts keep them, ``[S, 2 M]``: where v < 0, then where v >= 0."""
        sides = [
            [getattr(slopes[node.name], side) for node in self.reads.nodes] for side in ("negative", "nonnegative")
        ]
        return torch.cat([one.squeeze(1) for side in sides for one in side], 1)

    def _climb(
        self, problem: PointProblem, parts: PointParts, bounds: Bounds, pace: PointPace
    ) -> tuple[dict[str, Slopes], Tensor]:
        """The slopes and multipliers of the best bounds, for bounds ``[S, M]`` of what activations read."""
        start = self._slopes(*bounds)
        if not self.written:
            start = self._inherited(parts, start)
        free = {} if self.written else self._free(problem, start)
        multipliers = parts.multipliers.clone()
        constrained = bool((parts.side != 0).any())
        if not free and not constrained:
            return start, multipliers
        first, second = torch.zeros_like(multipliers), torch.zeros_like(multipliers)
        best: Tensor | None = None
        kept, kept_multipliers, units = start, multipliers, multipliers
        rate = 1.0
        for number in range(1, pace.steps + 2):
            with torch.enable_grad():
                beta = multipliers.requires_grad_()
                now = {
                    name: Slopes(*(ends.full() for ends in free[name])) if name in free else slopes
                    for name, slopes in start.items()
                }
                found = problem.run(lambda node, now=now: now[node.name], beta, False)  # type: ignore[misc]
                values = [beta, *(one.value for sides in free.values() for one in sides)]
                gradients = torch.autograd.grad(found.lower.sum(), values, allow_unused=True)
            lower, multipliers = found.lower.detach(), beta.detach()
            if best is None:
                best = torch.full_like(lower, -torch.inf)
                units = self._units(problem, found)
            better = (lower > best).unsqueeze(1)
            best = torch.fmax(best, lower)
            kept = {name: _better(better, slopes, kept[name]) for name, slopes in now.items()}
            kept_multipliers = torch.where(better, multipliers, kept_multipliers)
            if number > pace.steps or bool(refuted(best - 2 * self.spare).all()):
                break
            for one, gradient in zip((one for sides in free.values() for one in sides), gradients[1:], strict=True):
                if gradient is not None:
                    one.step(gradient, number, pace.slopes * rate)
            gradient = torch.zeros_like(multipliers) if gradients[0] is None else gradients[0].nan_to_num(0.0, 0.0, 0.0)
            first.lerp_(gradient, 1 - _FIRST)
            second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
            size = (second / (1 - _SECOND**number)).clamp(min=torch.finfo(second.dtype).tiny).sqrt()
            step = units * (pace.multipliers * rate / (1 - _FIRST**number))
            multipliers = multipliers.addcmul(first / size, step).clamp(min=0)
            rate *= pace.decay
        return kept, kept_multipliers

    def _free(self, problem: PointProblem, start: Mapping[str, Slopes]) -> dict[str, tuple[FreeSlopes, FreeSlopes]]:
        """Slopes that move, where v < 0 and where v >= 0."""
        found: dict[str, tuple[FreeSlopes, FreeSlopes]] = {}
        for node in self.reads.nodes:
            rule, (lower, upper) = rule_of(node), problem.bounds[node.name]
            index = (~rule.settled(lower, upper)).any(0).nonzero().squeeze(1)
            own = start[node.name]
            if not len(index) or own.negative is None or own.nonnegative is None:
                continue
            ends = rule.reach(lower, upper)
            narrow = (upper - lower < self.narrow[:, self.reads.of(node.name)]).unsqueeze(1)
            below, above = (
                FreeSlopes(
                    rule,
                    slopes.nan_to_num(0.0),
                    index,
                    1,
                    lower.shape[1],
                    reach=None if ends is None else _within(ends, narrow, slopes),
                )
                for slopes in (own.negative, own.nonnegative)
            )
            found[node.name] = below, above
        return found

    def _units(self, problem: PointProblem, found: PartRows) -> Tensor:
        """``[S, D]``, how large rows are about the neurons of the splits."""
        sizes = found.lower.new_zeros(len(found.lower), self.reads.count)
        for node in self.reads.nodes:
            if node.name in found.crossing:
                v = rule_of(node).unfold(found.crossing[node.name]).abs()
                sizes[:, self.reads.of(node.name)] = v.mean(1, keepdim=True)
        return sizes.gather(1, problem.constraints.neuron)

    def _wishes(self, parts: PointParts, found: PartRows) -> tuple[Tensor, Tensor]:
        """``[S, W]``: numbers whose splits the row gains most by, -1 where there is none, and where to split them."""
        weight = torch.zeros_like(parts.lower)
        for node in self.reads.nodes:
            if node.name in found.crossing:
                weight[:, self.reads.of(node.name)] = rule_of(node).unfold(found.crossing[node.name])
        gains: list[Tensor] = []
        points: list[Tensor] = []
        places: list[Tensor] = []
        for group in self.groups:
            lower, upper, own = (t[:, group.columns] for t in (parts.lower, parts.upper, weight))
            cost = group.rule.costs(lower, upper, own)
            most, index = cost.topk(min(2 * self.wishes, cost.shape[1]), 1)
            low, high, some = (t.gather(1, index) for t in (lower, upper, own))
            point, gain = group.rule.split_at(low, high, some, most)
            gains, points, places = [*gains, gain], [*points, point], [*places, group.columns[index]]
        if not gains:
            return torch.full_like(parts.wishes, -1), torch.zeros_like(parts.points)
        gain, point, place = (torch.cat(some, 1) for some in (gains, points, places))
        best, order = gain.topk(self.wishes, 1)
        can = (best > 0) & (parts.depth < MOST_SPLITS).unsqueeze(1)
        return torch.where(can, place.gather(1, order), -1), point.gather(1, order)

    def _corners(self, parts: PointParts, weight: Tensor | None) -> Tensor:
        """``[S, N]``, the points of the box where rows that weigh the input so are least."""
        low, high = (end.reshape(1, -1) for end in self.box)
        if weight is None:
            return low.expand(len(parts), -1)
        return torch.where(weight >= 0, low, high)


def _within(ends: Bounds, narrow: Tensor, slopes: Tensor) -> Bounds:
    """What slopes ``[S, 1, N]`` stay within: ``ends`` ``[S, N]``, or as they are where a number is narrow."""
    low, high = (torch.where(narrow, slopes, end.unsqueeze(1)) for end in ends)
    return low, high


def _better(better: Tensor, slopes: Slopes, kept: Slopes) -> Slopes:
    """Slopes of the parts that have become better, and those that were kept of the others."""
    mask = better.unsqueeze(2)
    sides = ((slopes.negative, kept.negative), (slopes.nonnegative, kept.nonnegative))
    return Slopes(*(None if new is None or old is None else torch.where(mask, new.detach(), old) for new, old in sides))


def _alike(reads: Reads, device: torch.device) -> list[_Alike]:
    """Activations together that are one elementwise function: rules cost calls more than numbers."""
    found: dict[object, tuple[Rule, list[Tensor]]] = {}
    for node in reads.nodes:
        rule, own = rule_of(node), reads.of(node.name)
        settings = tuple(sorted(vars(node.op).items())) if rule.terms == 1 else node.name
        columns = torch.arange(own.start, own.stop, device=device)
        found.setdefault((node.op.kind, settings), (rule, []))[1].append(columns)
    return [_Alike(rule, torch.cat(columns)) for rule, columns in found.values()]
