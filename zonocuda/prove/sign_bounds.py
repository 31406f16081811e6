"""Bounds of rows on parts of a box where some neurons have one sign: the bound method of neuron splitting.

Slopes and multipliers of every part climb from those of the part that it was split from, a few steps with moments as in
Adam (Kingma and Ba 2015); rows that seem proven leave. What they end with is then bounded once with rounding counted:
that bound alone counts, and the better one of the part's own and of what it was split from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zonocuda.bounds.dual.dual_pass import standard_rows
from zonocuda.bounds.dual.signs import Reached, SignProblem
from zonocuda.bounds.interval import outward
from zonocuda.branch import SignBounded, SignParts, refuted
from zonocuda.precision import summed_products
from zonocuda.prove.certificate import UNIT
from zonocuda.prove.leaf_program import LeafOracle
from zonocuda.tighten.ascent import SPARE

_FIRST, _SECOND = 0.9, 0.999  # how slowly the moments forget
WISHES = 4
"""Neurons that a part wishes to be split by."""
DEAR = 0.005
"""Of a bound, what rounding may take before proofs are made in wider floats: a pass more costs less than it gains."""


@dataclass(frozen=True)
class Pace:
    """How far to climb.

    Attributes:
        steps: of the ascent.
        slopes: how far a slope moves in the first step, about.
        multipliers: the same of multipliers, in units of the rows at their ReLU.
        decay: what both are multiplied by after each step.
    """

    steps: int
    slopes: float
    multipliers: float
    decay: float = 0.98


ROOT = Pace(20, 0.1, 0.1)
CHILD = Pace(5, 0.1, 0.3)
LEMMA, CONVOLVED_LEMMA = Pace(3, 0.1, 0.5), Pace(2, 0.15, 0.7)
"""Of parts of small trees; in networks with convolutions, whose steps are dear, two larger ones gain nearly as much."""
LAST = Pace(200, 0.05, 0.2)


class SignBounds:
    """Proven bounds in one arithmetic; what its rounding alone leaves open goes on to ``wide``, where there is one, and
    everything where its rounding is dear.

    Attributes:
        slack: what counting rounding took off the last proofs, at most.
    """

    def __init__(
        self,
        problem: SignProblem,
        pace: Pace = CHILD,
        wide: Callable[[], SignBounds] | None = None,
        wishes: int = WISHES,
        judge: SignProblem | None = None,
        written: bool = False,
        programs: bool = False,
    ) -> None:
        """``judge``: the same problem in a wider dtype, to prove all bounds in; by default ``problem``. With
        ``written`` bounds are those of slopes that are multiples of 1 / UNIT, and of multipliers in half precision;
        with ``programs`` small parts may get theirs from linear programs (:mod:`zonocuda.prove.leaf_program`)."""
        self.written = written
        self.problem, self.pace, self._wide, self._judge = problem, pace, wide, judge or problem
        self.wishes = max(1, min(wishes, problem.count))
        self.slack = 0.0
        self._units = problem.like.new_ones(problem.count)
        self._oracle = LeafOracle(problem, self._units, self.as_it_is) if programs else None

    def roots(self, rows: Tensor, groups: Tensor, pace: Pace = ROOT) -> SignParts:
        """The whole box for each of some rows, bounded."""
        count, like = len(rows), self.problem.like
        signs = torch.zeros(count, self.problem.count, dtype=torch.int8, device=like.device)
        slopes = self.problem.start().expand(count, -1)
        bound = like.new_full((count,), -torch.inf)
        wishes = rows.new_full((count, self.wishes), -1)
        parts = SignParts(
            rows,
            groups,
            signs,
            slopes,
            torch.zeros_like(slopes),
            bound,
            torch.zeros_like(bound, dtype=torch.int32),
            wishes,
        )
        if not self.slack:
            self._measure(parts)
        return self.climb(parts, pace).parts

    def costs(self, parts: SignParts, name: str) -> Tensor:
        """``[features]`` in the order of the pass: what the relaxation of each neuron of a ReLU takes off the bound of
        some part, at most; 0 for neurons that do not cross, and where the rows do not reach the ReLU."""
        problem = self.problem
        with torch.no_grad(), summed_products():
            flow = problem.flow(parts.row, False)
            found = problem.run(flow, problem.known(parts.signs), parts.slopes, parts.multipliers, scores=True)
        return problem.spread(found.scores.amax(0), name)

    # ---- what a search asks for --------------------------------------------------------------------------------------

    def bound(self, parts: SignParts, thorough: bool = False) -> SignBounded:
        """Proven bounds, after as many steps as the pace says."""
        found = self.climb(parts, LAST if thorough else self.pace)
        return found if self._oracle is None else self._oracle.improve(found, thorough)

    def as_it_is(self, parts: SignParts) -> SignBounded:
        """Proven bounds with the slopes and multipliers that parts have, as far as they can be kept."""
        return self._prove(_as_written(parts) if self.written else parts)

    def proves(self, parts: SignParts) -> Tensor:
        """``[S]``: whether the slopes and multipliers that parts have refute them."""
        return refuted(self._prove(replace(parts, bound=torch.full_like(parts.bound, -torch.inf))).parts.bound)

    def sketch(self, parts: SignParts) -> SignParts:
        """Parts after as many steps as the pace says, with wishes, and bounds that a proof will probably confirm."""
        slopes, multipliers = self._ascend(parts, self.pace)
        parts = replace(parts, slopes=slopes, multipliers=multipliers)
        found = self._unproven(parts, scores=True)
        bound = (found.lower - SPARE * self.slack)[: len(parts)]
        return replace(parts, bound=bound, wishes=self._wishes(parts, found.scores[: len(parts)]))

    def estimate(self, parts: SignParts) -> Tensor:
        """Bounds with the slopes and multipliers as they are, whose rounding is not counted."""
        return self._unproven(parts).lower[: len(parts)]

    # ---- how it is done ----------------------------------------------------------------------------------------------

    def climb(self, parts: SignParts, pace: Pace) -> SignBounded:
        """Better slopes and multipliers, and what they prove."""
        slopes, multipliers = self._ascend(parts, pace)
        return self.as_it_is(replace(parts, slopes=slopes, multipliers=multipliers))

    def _ascend(self, parts: SignParts, pace: Pace) -> tuple[Tensor, Tensor]:
        """Slopes and multipliers ``[S, U]`` after the steps."""
        best = parts.slopes.clone(), parts.multipliers.clone()
        count = len(parts)
        # Some go twice, to keep to a usual number of rows.
        going = torch.arange(self._usual(count), device=parts.row.device).clamp(max=count - 1)
        rows, known = parts.row[going], self.problem.known(parts.signs[going])
        now = [t.detach()[going] for t in best]
        first, second = ([torch.zeros_like(t) for t in now] for _ in range(2))
        rates = [pace.slopes * torch.ones_like(self._units), pace.multipliers * self._units]
        goal = SPARE * self.slack
        with torch.no_grad():
            flow = self.problem.flow(rows, False)
        for number in range(1, pace.steps + 1):
            with torch.enable_grad():
                free = [t.requires_grad_() for t in now]
                lower = self.problem.run(flow.fork(), known, free[0], free[1]).lower
                wanted = ~(lower.detach() > goal)
                gradients = torch.autograd.grad(lower.sum(), free, allow_unused=True)
            with torch.no_grad():
                now = [t.detach() for t in now]
                count = int(wanted.sum())
                rest = self._usual(count)
                if 4 * rest <= 3 * len(going):  # those that seem proven leave
                    for kept, value in zip(best, now, strict=True):
                        kept[going] = value
                    if not count:
                        return best
                    index = (~wanted).to(torch.uint8).argsort(stable=True)[:rest]
                    going, known = going[index], known.at(index)
                    now, first, second = ([t[index] for t in ts] for ts in (now, first, second))
                    gradients = tuple(None if g is None else g[index] for g in gradients)
                    flow.keep(index)
                    wanted = wanted[index]
                moves = wanted.unsqueeze(1).to(now[0])
                for value, gradient, m, s, rate in zip(now, gradients, first, second, rates, strict=True):
                    if gradient is None:
                        continue
                    g = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
                    m.lerp_(g, 1 - _FIRST)
                    s.mul_(_SECOND).addcmul_(g, g, value=1 - _SECOND)
                    # Not below the normal numbers, whose roots take a hundred times as long.
                    size = (s / (1 - _SECOND**number)).clamp_(min=torch.finfo(g.dtype).tiny).sqrt_()
                    length = rate * (pace.decay ** (number - 1) / (1 - _FIRST**number))
                    value.addcmul_((m / size).mul_(moves), length)
                now[0].clamp_(0, 1)
                now[1].clamp_(min=0)
        for kept, value in zip(best, now, strict=True):
            kept[going] = value
        return best

    def _unproven(self, parts: SignParts, scores: bool = False) -> Reached:
        """What a pass finds that does not count rounding, for parts of which some go twice."""
        count = len(parts)
        filled = torch.arange(self._usual(count), device=parts.row.device).clamp(max=count - 1)
        with torch.no_grad():
            flow = self.problem.flow(parts.row[filled], False)
            signs, slopes, multipliers = (t[filled] for t in (parts.signs, parts.slopes, parts.multipliers))
            return self.problem.run(flow, self.problem.known(signs), slopes, multipliers, scores)

    def _wishes(self, parts: SignParts, scores: Tensor) -> Tensor:
        """``[S, W]``, the neurons of the highest scores ``[S, U]``."""
        if not self.problem.count:
            return parts.wishes
        cost, order = scores.topk(self.wishes, 1)
        return torch.where(cost >= 0, order, -1)

    def _usual(self, count: int) -> int:
        """How many rows to carry for ``count``: see :func:`zonocuda.bounds.dual.dual_pass.standard_rows`."""
        return standard_rows(self.problem.graph, self.problem.like.device, count)

    def _prove(self, parts: SignParts) -> SignBounded:
        """Bounds with rounding counted, wishes, and the points where the rows are least."""
        with torch.no_grad(), summed_products():
            found = self._judged(parts)
            self.slack = _largest(found.slack)
            lower = outward(found.lower, parts.bound.dtype, False)
            bound = torch.fmax(parts.bound, torch.where(lower.isfinite(), lower, -torch.inf))
            bound = self._widened(parts, bound, found.slack.to(bound))
            wishes = self._wishes(parts, found.scores)
        return SignBounded(replace(parts, bound=bound, wishes=wishes), self._corners(parts, found.weight))

    def _corners(self, parts: SignParts, weight: Tensor | None) -> Tensor:
        """``[S, N]``, the points of the box where rows that weigh the input so are least."""
        low, high = (end.reshape(1, -1) for end in self.problem.box)
        if weight is None:
            return low.expand(len(parts), -1)
        negative = torch.lt(weight, 0, out=torch.empty_like(weight))  # with products: selections take ten times as long
        return (high * negative).addcmul_(low, 1 - negative).to(low)

    def _measure(self, parts: SignParts) -> None:
        """How much rounding takes, and how large rows are at each ReLU, which are the units of multipliers.

        Where it takes more than its share of the bounds, they are proven in wider floats from now on.
        """
        with torch.no_grad(), summed_products():
            found = self._judged(parts)
            if self._wide is not None and _largest(found.slack) > DEAR * float(found.lower.abs().median()):
                self._judge = self._wide().problem
                found = self._judged(parts)
        self.slack = _largest(found.slack)
        for part, size in zip(torch.split(self._units, self.problem.sizes), found.sizes, strict=True):
            part.fill_(size)

    def _judged(self, parts: SignParts) -> Reached:
        """Proven bounds, in the dtype that they are proven in."""
        judge = self._judge
        slopes, multipliers = (t.to(judge.like.dtype) for t in (parts.slopes, parts.multipliers))
        return judge.run(judge.flow(parts.row, True), judge.known(parts.signs), slopes, multipliers, scores=True)

    def _widened(self, parts: SignParts, bound: Tensor, slack: Tensor) -> Tensor:
        """The bounds, those that rounding alone keeps from being positive by wider floats."""
        near = ((bound <= 0) & (bound + slack > 0)).nonzero().squeeze(1)
        if self._wide is None or not len(near):
            return bound
        wide = self._wide()
        few = parts.at(near)
        held = {name: getattr(few, name).to(wide.problem.like.dtype) for name in ("slopes", "multipliers", "bound")}
        better = wide._prove(replace(few, **held)).parts.bound
        tiny = torch.finfo(bound.dtype).tiny
        proven = torch.where((better > 0) & better.isfinite(), better.to(bound.dtype).clamp(min=tiny), bound[near])
        return bound.index_copy(0, near, proven)


def _as_written(parts: SignParts) -> SignParts:
    """Parts with slopes and multipliers that a certificate holds, and without the bounds of others."""
    slopes = (parts.slopes * UNIT).round().clamp(0, UNIT) / UNIT
    bound = torch.full_like(parts.bound, -torch.inf)
    return replace(parts, slopes=slopes, bound=bound).packed().unpacked()


def _largest(slack: Tensor) -> float:
    finite = slack[slack.isfinite()]
    return float(finite.max()) if len(finite) else 0.0
