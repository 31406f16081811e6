"""Products of two values: z_i = sum_t x_it y_it for x in [xl, xu] and y in [yl, yu] (:class:`zonocuda.graph.Bilinear`).

**Planes.** For any a and b the bilinear x y - a x - b y = (x - b) (y - a) - a b is least and largest at corners of the
box, so that with the four numbers p = (x - b) (y - a) there

    a x + b y + min p - a b  <=  x y  <=  a x + b y + max p - a b.

Those of McCormick (1976) have one free r in [0, 1]: a = yl + r (yu - yl) for both, with

    b = xl + r (xu - xl) below,   b = xu - r (xu - xl) above;

every plane below (above) x y on the box lies below (above) one of them there. At r = 1/2 both have the slopes of the
middle, and the band around x y has half the width (xu - xl) (yu - yl) / 4, the least of all parallel planes.

**Rounding.** a and b are what is held, whatever their computation rounded: no error. A factor x - b rounds once, so
that p meets three roundings and underflows by eta, a b one and eta, and their difference one: all within
5 u (max |p| + |a b|) + 2 eta. 8 u of the magnitudes as computed and 4 eta cover that, and their own rounding. A sum
over t adds gamma_T of the sum of magnitudes; gamma_2T of that as computed covers its rounding and the last difference.

**Limit.** Where |z| <= L is known of the network (:attr:`zonocuda.graph.Bilinear.limit`), images end there, and planes
of slope 0 at -L and L take the place of those that are farther apart.
"""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor

from zonocuda.relaxations.rule import Band, Bounds, Counted, DualImage, Growth, Lines, Rule, Start
from zonocuda.roundoff import gamma, outward, unit_roundoff


class BilinearRule(Rule):
    """The rule of sums of ``count`` products, of which ``limit`` bounds the magnitude.

    Slopes are those r: one number for either factor, of which the mean counts. Lines that one slope gives for below and
    above are parallel, with b = xl + r (xu - xl); a dual pass takes McCormick's planes where each sign has its own.
    """

    is_certified = True
    limits = (0.0, 1.0)

    def __init__(self, count: int = 1, limit: float = math.inf) -> None:
        self.count, self.limit = count, limit
        self.terms = 2 * count

    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        """Of the products of ends, each rounded outward; not beyond 0 where the factors' signs are known. Factors are
        numbers, so that beside an infinite end a product with 0 is 0."""
        (xl, yl), (xu, yu) = lower.chunk(2, -1), upper.chunk(2, -1)
        ends = [torch.where(p.isnan(), 0.0, p) for p in (x * y for x in (xl, xu) for y in (yl, yu))]
        u, eta = unit_roundoff(lower.dtype), torch.finfo(lower.dtype).tiny
        low = reduce(torch.fmin, (p - (2 * u * p.abs() + eta) for p in ends))
        high = reduce(torch.fmax, (p + (2 * u * p.abs() + eta) for p in ends))
        positive = ((xl >= 0) & (yl >= 0)) | ((xu <= 0) & (yu <= 0))
        negative = ((xl >= 0) & (yu <= 0)) | ((xu <= 0) & (yl >= 0))
        low = torch.where(positive, low.clamp(min=0), low)
        high = torch.where(negative, high.clamp(max=0), high)
        low, high = self._sum(low, -1), self._sum(high, 1)
        low = torch.where(self._all(positive), low.clamp(min=0), low)
        high = torch.where(self._all(negative), high.clamp(max=0), high)
        if self.limit < math.inf:
            most = self._most(lower)
            low, high = low.clamp(min=-most), high.clamp(max=most)
        unknown = self._unknown(lower, upper)
        return low.masked_fill(unknown, math.nan), high.masked_fill(unknown, math.nan)

    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        """1/2: all of McCormick's planes waste the same volume."""
        return torch.full_like(lower, 0.5)

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        return self._planes(lower, upper, slope, 1)

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
        over = under = self._of_rows(lower, upper, negative, terms)
        if nonnegative is not None:
            under = self._of_rows(lower, upper, nonnegative, terms)
            low, high = (bound.unsqueeze(1) for bound in (lower, upper))
            over = self._planes(low, high, negative, -1)
        assert under.below is not None
        above, below = rows.clamp(min=0), rows.clamp(max=0)
        image = self.unfold(above) * under.slope + self.unfold(below) * over.slope  # one of them is 0
        low = (above * under.below + below * over.above).sum(2)
        high = (above * over.above + below * under.below).sum(2)
        size = None
        if counted:
            with torch.no_grad():
                size = (rows.abs() * torch.maximum(under.below.abs(), over.above.abs())).sum(2)
        return DualImage(image, low, high, size)

    def growth(
        self, lower: Tensor, upper: Tensor, slope: Tensor | None, counted: Counted, band: Band | None = None
    ) -> Growth:
        band = self.band(lower, upper, slope) if band is None else band
        offset = counted.above(band.middle.abs() + band.radius, 2)
        everywhere = torch.ones_like(offset, dtype=torch.bool)
        return Growth(counted.above(band.slope.abs(), 0), offset, everywhere, ~everywhere)

    def wants_all_symbols(self, lower: Tensor, upper: Tensor, slope: Tensor, terms: int) -> bool:
        """The slopes a and b move with l and u."""
        return True

    def costs(self, lower: Tensor, upper: Tensor, weight: Tensor) -> Tensor:
        """Planes lie (xu - xl) (yu - yl) / 4 from x y in the middle; halving either factor halves that, and the wider
        one is taken."""
        width, other = upper - lower, torch.cat((upper - lower).chunk(2, -1)[::-1], -1)
        cost = weight.abs() * width * other / 4
        return torch.where(width >= other, cost, 0.75 * cost).nan_to_num(0.0, 0.0, 0.0)

    def split_at(self, lower: Tensor, upper: Tensor, weight: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """The middle of a factor."""
        middle = lower / 2 + upper / 2
        return middle, torch.where((lower < middle) & (middle < upper), cost / 2, -torch.inf)

    def fold(self, x: Tensor) -> Tensor:
        """``[..., 2 N T]`` to ``[..., N]``: over the two factors and over t."""
        return x.reshape(*x.shape[:-1], 2, x.shape[-1] // self.terms, self.count).sum((-3, -1))

    def unfold(self, v: Tensor) -> Tensor:
        factor = v if self.count == 1 else v.repeat_interleave(self.count, -1)
        return torch.cat([factor, factor], -1)

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _planes(self, lower: Tensor, upper: Tensor, slope: Tensor | None, sign: int) -> Lines:
        """Planes with b = xl + r (xu - xl) for ``sign`` 1, and xu - r (xu - xl) for -1; ``slope`` None: r = 1/2."""
        (xl, yl), (xu, yu) = lower.chunk(2, -1), upper.chunk(2, -1)
        r = 0.5 if slope is None else sum(part / 2 for part in self.project(slope).chunk(2, -1))
        a = yl + r * (yu - yl)
        b = xl + r * (xu - xl) if sign == 1 else xu - r * (xu - xl)
        corners = [(x - b) * (y - a) for x in (xl, xu) for y in (yl, yu)]
        least, most, base = reduce(torch.minimum, corners), reduce(torch.maximum, corners), a * b
        with torch.no_grad():
            size = torch.maximum(least.abs(), most.abs()) + base.abs()
            slack = 8 * unit_roundoff(lower.dtype) * size + 4 * torch.finfo(lower.dtype).tiny
        below, above = self._sum((least - base) - slack, -1), self._sum((most - base) + slack, 1)
        slopes = torch.cat([a.expand_as(base), b.expand_as(base)], -1)
        if self.limit == math.inf:
            return Lines(slopes, below, above)
        most = self._most(lower)
        near = ((above.detach() - below.detach()) <= 2 * most) | self._unknown(lower, upper)
        below, above = torch.where(near, below, -most), torch.where(near, above, most)
        return Lines(torch.where(self.unfold(near), slopes, 0.0), below, above)

    def _unknown(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Values that have a factor whose bounds are NaN."""
        return self.fold((lower.isnan() | upper.isnan()).to(torch.uint8)) > 0

    def _most(self, like: Tensor) -> Tensor:
        """The limit, rounded up."""
        return outward(torch.tensor(self.limit, dtype=torch.float64, device=like.device), like.dtype, True)

    def _sum(self, ends: Tensor, sign: int) -> Tensor:
        """Sums over t of bounds ``[..., N T]``, rounded up (``sign`` 1) or down."""
        if self.count == 1:
            return ends
        parts = self._grouped(ends)
        margin = gamma(2 * self.count, unit_roundoff(ends.dtype)) * parts.detach().abs().sum(-1)
        return parts.sum(-1) + sign * margin

    def _all(self, mask: Tensor) -> Tensor:
        return mask if self.count == 1 else self._grouped(mask).all(-1)

    def _grouped(self, x: Tensor) -> Tensor:
        """``[..., N T]`` as ``[..., N, T]``."""
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.count, self.count)
