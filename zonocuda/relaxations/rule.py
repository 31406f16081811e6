"""What bounds need to know of an activation, an elementwise function f of one input.

A :class:`Rule` says it: an interval for f on [l, u], and for any slope two lines around it. Sweeps, dual passes, error
counts, ascents and searches ask the rule of a node (:mod:`zonocuda.relaxations.table`) and name no activation. From
``range``, ``initial`` and ``lines`` all the rest follows; a rule overrides what it can do better.

A function of several numbers (:attr:`Rule.terms`) reads them from one feature dimension. Bounds, slopes and what is
settled are then those of what it reads, offsets and radii those of its values: :meth:`Rule.fold` leads from the
one to the other, and :meth:`Rule.unfold` back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from zonocuda.domains import Zonotope, kernels
from zonocuda.domains.hosted import kept

Bounds = tuple[Tensor, Tensor]
"""Lower and upper bounds, of one shape."""

Start = Literal["minimum_area", "adaptive"]
"""Slopes to begin with: of the zonotope of least area, or of the lower line that wastes least."""


@dataclass(frozen=True, eq=False)
class Lines:
    """slope x + below <= f(x) <= slope x + above for every x in [l, u]; None below is 0.

    They hold in real arithmetic for the numbers that are held here, whatever the rounding that led to them. (The rule
    of ReLU is the exception: its ``above`` may be too small by three roundings, which its users charge.)
    """

    slope: Tensor
    below: Tensor | None
    above: Tensor


SHARES = (0.25, 0.375, 0.5, 0.625, 0.75)
"""Of an interval, where a split of it is tried."""
SLIVER = 2.0**-20
"""Of an interval, a part in which a number counts as known."""
AT_ENDS = 1 / 16
"""How much less a line's distance from f counts at an end than in the middle."""


class Band(NamedTuple):
    """f(x) lies in slope x + middle + [-radius, radius] for every x in [l, u]: what a zonotope goes through."""

    slope: Tensor
    middle: Tensor
    radius: Tensor


class Gait(NamedTuple):
    """How an ascent moves slopes: steps are ``pace`` times its rate, and the moments of the gradient keep the shares
    ``first`` and ``second`` of what they were (Kingma and Ba 2015)."""

    pace: float
    first: float
    second: float


class DualImage(NamedTuple):
    """Rows v ``[B, R, N]`` at an activation's output, as rows at its input.

    v . f(x) >= rows . x + low, and <= rows . x + high where both signs of v have the same slope. ``size`` ``[B, R]``
    bounds the sum of the magnitudes that were added up for either; None where the terms of each have one sign.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    size: Tensor | None

    def magnitude(self, both: bool) -> Tensor:
        """At least the sum of the magnitudes of the terms of ``low``, or of ``both``, up to a sign."""
        if self.size is not None:
            return self.size
        return self.high - self.low if both else self.low


class Growth(NamedTuple):
    """What an activation does to the error of a zonotope, elementwise.

    Attributes:
        slope: at least the magnitude of the band's slope, of what it reads; the others are of its values.
        offset: at least |middle| + radius of the band, and 0 where nothing is charged.
        charged: where the step rounds or adds anything; elsewhere the error stays as it is.
        zero: where the value is 0, without error.
    """

    slope: Tensor
    offset: Tensor
    charged: Tensor
    zero: Tensor


class Counted(Protocol):
    """The arithmetic whose roundings are counted (:class:`zonocuda.bounds.rounding.arithmetic.Rounding`)."""

    @property
    def eta(self) -> float:
        """More than one operation loses to underflow."""

    def gamma(self, n: int) -> float:
        """At least n u / (1 - n u)."""

    def above(self, x: Tensor, n: int) -> Tensor:
        """At least the exact value of a nonnegative expression of lifted operands, computed with n roundings."""


class Rule(ABC):
    """The rule of one activation. It has no state but its settings, and those of its operator.

    Bounds are ``[B, *features]``, or broadcast to rows ``[B, R, N]``. A NaN among them must reach every bound that is
    found from it, and counts as not settled.
    """

    is_exact: ClassVar[bool] = False
    """Whether a machine that executes f rounds nothing. Where it does, proofs about executed values are refused."""

    is_nonnegative: ClassVar[bool] = False
    """Whether f is nonnegative everywhere, over the reals and as executed."""

    is_certified: ClassVar[bool] = False
    """Whether certificates can hold its slopes, and :mod:`zonocuda.check` derives its bounds again."""

    has_signs: ClassVar[bool] = False
    """Whether f is the identity where x >= 0 and 0 where x <= 0, so that a neuron can be split at 0
    (:mod:`zonocuda.bounds.dual.signs`)."""

    is_partial: bool = False
    """Whether f is finite on a part of the line only, so that bounds have to keep its input there."""

    terms: int = 1
    """Of how many numbers each value is a function; where it is more than one, input and output have one feature
    dimension each."""

    gait: ClassVar[Gait] = Gait(1.0, 0.9, 0.999)
    """How an ascent moves its slopes. The best ones of a ReLU are often at the ends of its limits."""

    has_best_above: ClassVar[bool] = False
    """Whether of all upper lines that of the minimum-area slope is the lowest, everywhere on [l, u]."""

    limits: tuple[float, float] = (-math.inf, math.inf)
    """Slopes that :meth:`lines` takes; others are replaced by the nearest of these."""

    # ---- what every rule says ----------------------------------------------------------------------------------------

    @abstractmethod
    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        """Bounds of f on [l, u], proven in the numbers held."""

    @abstractmethod
    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        """Slopes to begin with."""

    @abstractmethod
    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        """Lines of a slope, differentiable in it (and in l and u).

        Args:
            lower, upper: l and u.
            slope: None for the minimum-area one, which moves with l and u.
            terms: how many terms the sums had that l and u were computed as.
        """

    # ---- of several numbers ------------------------------------------------------------------------------------------

    def fold(self, x: Tensor) -> Tensor:
        """The sums, for each value of the activation, over the numbers that it is a function of; ``[..., inputs]``."""
        return x

    def unfold(self, v: Tensor) -> Tensor:
        """The adjoint of :meth:`fold`: for each number the value that it belongs to."""
        return v

    def scaled(self, value: Zonotope, slope: Tensor, in_place: bool = False) -> Zonotope:
        """The zonotope of slope x, folded."""
        blocks = tuple(kept(block.scale(slope, in_place)) for block in value.blocks)
        image = Zonotope(slope * value.center, blocks)
        return image if self.terms == 1 else image.affine(self.fold, self.fold)

    def image(self, value: Zonotope, band: Band, origin: str, in_place: bool = False) -> Zonotope:
        """The zonotope of a band around f; see :meth:`zonocuda.domains.Zonotope.within`."""
        if self.terms == 1:
            return value.within(*band, origin, in_place)
        folded = self.scaled(value, band.slope, in_place)
        return Zonotope(folded.center + band.middle, (*folded.blocks, folded.fresh(band.radius, origin)))

    # ---- what follows ------------------------------------------------------------------------------------------------

    def settled(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where f is one line on [l, u]: no symbol arises, no slope is free, and tighter bounds tell nothing."""
        return torch.zeros_like(lower, dtype=torch.bool)

    def zero(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where f is 0 on all of [l, u]."""
        return torch.zeros_like(lower, dtype=torch.bool)

    def kinds(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Where f is :meth:`zero`, and where it is :meth:`settled` otherwise."""
        zero = self.zero(lower, upper)
        return zero, self.settled(lower, upper) & ~zero

    def magnitude(self, lower: Tensor, upper: Tensor) -> Tensor:
        """At least |f| on [l, u]."""
        low, high = self.range(lower, upper)
        return torch.maximum(low.abs(), high.abs())

    def above(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Slopes of the upper line that wastes least; None where they are the minimum-area ones."""
        return None

    def reach(self, lower: Tensor, upper: Tensor) -> Bounds | None:
        """About the least and the largest slope of f on [l, u], outside which every line is worse on all of it; None:
        those of :attr:`limits`."""
        return None

    def project(self, slope: Tensor) -> Tensor:
        """The nearest admissible slopes."""
        return slope.clamp(*self.limits)

    def band(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Band:
        """The middle between the lines of :meth:`lines`, and half their distance, rounded up."""
        slope, below, above = self._both(self.lines(lower, upper, slope, terms))
        middle = (below + above) / 2
        return Band(slope, middle, _raised(torch.maximum(above - middle, middle - below)))

    def dual(
        self,
        rows: Tensor,
        lower: Tensor,
        upper: Tensor,
        negative: Tensor | None,
        nonnegative: Tensor | None,
        terms: int = 0,
        counted: bool = False,
    ) -> DualImage:
        """Rows at the output as rows at the input: the upper line where v < 0, the lower one where v >= 0.

        Args:
            rows: v, ``[B, R, N]``.
            lower, upper: l and u, ``[B, N]``.
            negative: slopes ``[B, 1 or R, N]`` where v < 0; None for minimum-area ones, or where the others are given,
                for those of :meth:`above`.
            nonnegative: where v >= 0; None for those of ``negative``.
            terms: see :meth:`lines`.
            counted: whether ``size`` is wanted.
        """
        if negative is None and nonnegative is not None:
            own = self.above(lower, upper)
            negative = None if own is None else own.unsqueeze(1)
        over, low_over, high_over = self._both(self._of_rows(lower, upper, negative, terms))
        slope, below, above = over, low_over, high_over
        if nonnegative is not None:
            slope, below, above = self._both(self._of_rows(lower, upper, nonnegative, terms))
        image = kernels().dual_lines(rows, slope, below, high_over, None if nonnegative is None else over)
        size = None
        if counted:
            with torch.no_grad():
                most = torch.maximum(below.abs(), above.abs())
                most = torch.maximum(most, torch.maximum(low_over.abs(), high_over.abs()))
                size = (rows.abs() * most).sum(2)
        return DualImage(image.rows, image.low, image.high, size)

    def growth(
        self, lower: Tensor, upper: Tensor, slope: Tensor | None, counted: Counted, band: Band | None = None
    ) -> Growth:
        """What the zonotope's error becomes behind :meth:`band`, which is ``band`` where that is known."""
        band = self.band(lower, upper, slope) if band is None else band
        offset = counted.above(band.middle.abs() + band.radius, 2)
        everywhere = torch.ones_like(offset, dtype=torch.bool)
        return Growth(band.slope.abs(), offset, everywhere, self.zero(lower, upper))

    def charged(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where a dual pass adds an offset, or rounds the image of a row."""
        return torch.ones_like(lower, dtype=torch.bool)

    def image_charge(self, lower: Tensor, upper: Tensor, counted: Counted) -> tuple[Tensor, Tensor]:
        """What a dual pass is charged for the rounding of images v' = fl(v slope): for each |v'|, and m, at least |x|
        where :meth:`charged`, else 0.

        v' is within u |v slope| + eta of v slope; as (1 - u) |v slope| <= |v'| + eta, within gamma_1 (|v'| + eta) +
        eta: gamma_2 |v'| m, and 2 eta of every m.
        """
        reach = torch.maximum(lower.abs(), upper.abs())
        return counted.gamma(2) * reach, reach

    def wants_all_symbols(self, lower: Tensor, upper: Tensor, slope: Tensor, terms: int) -> bool:
        """Whether the derivative of :meth:`band` in l and u depends on the incoming one of the slope."""
        return False

    # ---- where to split ----------------------------------------------------------------------------------------------

    def costs(self, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
        """About what the lines that waste least cost rows that weigh the value of f with ``weight``, for every number
        that is read. Only choices depend on it."""
        under = self.lines(lower, upper, self.initial(lower, upper, "adaptive"))
        over = self.lines(lower, upper, self.above(lower, upper))
        below, above = self.waste(lower, upper, under, over)
        cost = weight.clamp(min=0) * below - weight.clamp(max=0) * above
        return cost.masked_fill(self.settled(lower, upper), 0).nan_to_num(0.0, 0.0, 0.0)

    def waste(self, lower: Tensor, upper: Tensor, under: Lines, over: Lines) -> Bounds:
        """About how far a line below f and one above lie from it: in the middle of [l, u], and a little of that at the
        ends, where other lines may lie nearer."""
        slope, below, _ = self._both(under)
        gaps = torch.zeros_like(lower), torch.zeros_like(lower)
        for x, share in ((lower / 2 + upper / 2, 1.0), (lower, AT_ENDS), (upper, AT_ENDS)):
            value = self.range(x, x)[0]
            gaps[0].add_((value - (slope * x + below)).clamp(min=0), alpha=share)
            gaps[1].add_((over.slope * x + over.above - value).clamp(min=0), alpha=share)
        return gaps

    def split_points(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where a split of [l, u] may pay, ``[C, ...]``: points that are floats of their dtype; those that do not lie
        between l and u count for nothing."""
        return torch.stack([lower + share * (upper - lower) for share in SHARES])

    def split_at(self, lower: Tensor, upper: Tensor, weight: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Of the points where a number may be split that one which rows gain most by, and about how much that is in the
        mean of both parts; -inf where there is none. ``cost``: what :meth:`costs` says of [l, u]."""
        points = self.split_points(lower, upper)
        inside = (lower < points) & (points < upper)
        points = torch.where(inside, points, lower)  # whose parts are [l, l] and [l, u]
        first, last = lower.expand_as(points), upper.expand_as(points)
        width, left = (upper - lower) * SLIVER, torch.zeros_like(points)
        for low, high in ((first, points), (points, last)):  # a sliver is as good as a point
            left += self.costs(low, high, weight).masked_fill(high - low < width, 0) / 2
        gain, which = torch.where(inside, cost - left, -math.inf).max(0)
        return points.gather(0, which.unsqueeze(0)).squeeze(0), gain

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _of_rows(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int) -> Lines:
        """Lines ``[B, 1 or R, N]`` for bounds ``[B, N]``."""
        low, high = lower.unsqueeze(1), upper.unsqueeze(1)
        if slope is not None:
            low, high = (bound.expand(-1, slope.shape[1], -1) for bound in (low, high))
        return self.lines(low, high, slope, terms)

    @staticmethod
    def _both(lines: Lines) -> tuple[Tensor, Tensor, Tensor]:
        """Slope, below and above."""
        below = torch.zeros_like(lines.above) if lines.below is None else lines.below
        return lines.slope, below, lines.above


def _raised(x: Tensor) -> Tensor:
    """The next number above, with the derivative of ``x``."""
    held = x.detach()
    step = torch.nextafter(held, torch.full_like(held, math.inf)) - held
    return x + step.masked_fill(held == math.inf, 0)
