"""The rule of a smooth function f, from its :class:`zonocuda.relaxations.curve.Curve`.

Lines of any slope s need d = min (f - s x) and e = max (f - s x) over [l, u]. On a part [a, b] of [l, u] where f is
convex, any t in it and g in f'(t) - s tell

    f(x) - s x >= f(t) - s t + g (x - t) >= f(t) - s t - max(g+ (t - a), (-g)+ (b - t)),

and where f is concave or a line its least value is at an end, which is l, u or a break of f. With t about where f'(t) =
s the last term is next to nothing, and it covers that t is not known exactly. e is the same for -f. All is computed in
float64 with bounds of f and f', u = 2^-53 for every rounding, and rounded outward to the dtype of the bounds at the
end.

No reference has bounds of f: these lines are the native op's, whatever backend is in use.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zonocuda.functions import FunctionName
from zonocuda.relaxations.curve import CONCAVE, CONVEX, MIXED, Curve, Parts
from zonocuda.relaxations.recorded import recorded, records
from zonocuda.relaxations.rule import Bounds, Gait, Lines, Rule, Start
from zonocuda.relaxations.starts import Aim, balanced
from zonocuda.roundoff import outward

PARTIAL: tuple[FunctionName, ...] = ("log", "log1p", "sqrt", "rsqrt", "reciprocal")

_U = 2.0**-53
_TINY = 2.0**-1060
"""More than a few products lose to underflow."""
_LARGEST = 1.7e308


class SmoothRule(Rule):
    """The rule of one function; see the module."""

    is_certified = True
    gait = Gait(0.2, 0.5, 0.9)
    """The best slope is mostly between the ends: what goes far or long in one direction goes past it."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.limits = curve.limits
        self.is_partial = curve.function in PARTIAL

    # ---- the rule ----------------------------------------------------------------------------------------------------

    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        with torch.no_grad():
            low, high = self._range(lower.detach(), upper.detach())
        if not records(lower, upper):
            return low, high
        slopes = [self.curve.slope(end.detach().double()).to(lower.dtype) for end in (lower, upper)]
        return self._differentiable_range(low, high, lower, upper, slopes)

    def settled(self, lower: Tensor, upper: Tensor) -> Tensor:
        zero, same = self.zero(lower, upper), self.curve.same_from
        return zero if same == math.inf else zero | ((lower >= same) & (upper >= same))

    def zero(self, lower: Tensor, upper: Tensor) -> Tensor:
        most = self.curve.zero_to
        return super().zero(lower, upper) if most == -math.inf else (lower <= most) & (upper <= most)

    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        with torch.no_grad():
            low, high = lower.detach().double(), upper.detach().double()
            slope = self._initial(low, high, "area" if start == "minimum_area" else "below")
            return self._admissible(low, high, slope, lower.dtype)

    def above(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        with torch.no_grad():
            low, high = lower.detach().double(), upper.detach().double()
            return self._admissible(low, high, self._initial(low, high, "above"), lower.dtype)

    def reach(self, lower: Tensor, upper: Tensor) -> Bounds:
        with torch.no_grad():
            low, high = self._reach(lower.detach().double(), upper.detach().double())
            return self.project(low.to(lower.dtype)), self.project(high.to(lower.dtype))

    def split_points(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where f bends another way, too: behind it each part bends one way."""
        breaks = [torch.full_like(lower, point) for point in self.curve.breaks]
        return torch.cat([super().split_points(lower, upper), *(point.unsqueeze(0) for point in breaks)])

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        """As the module says. On intervals that are not finite, or around a pole, the slope is 0; where f is one line
        it is that one's. A slope that :meth:`initial` finds counts as a constant of l and u."""
        given = self.initial(lower, upper) if slope is None else self.project(slope)
        with torch.no_grad():
            low, high = lower.detach().double(), upper.detach().double()
            settled = self.settled(low, high)
            loose = self._unbounded(low, high) & ~settled
        free = ~(settled | loose)
        held = torch.where(free, given, (settled & ~self.zero(low, high)).to(given.dtype))
        with torch.no_grad():
            s = held.detach().double()
            found = [self._extreme(low, high, s, bend) for bend in (CONVEX, CONCAVE)]
            ends = self._range(low, high) if bool(loose.any()) else (s, s)
        offsets = []
        for (value, at), end, up in zip(found, ends, (False, True), strict=True):
            known = value.masked_fill(settled, 0)
            known = torch.where(loose, end, known)
            offset = outward(known, lower.dtype, up)
            offsets.append(self._differentiable(offset, at, free, held, lower, upper))
        return Lines(held, *offsets)

    def _of_rows(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int) -> Lines:
        """Bounds ``[B, 1, N]`` broadcast against slopes: f is not evaluated at the ends for each row."""
        lines = self.lines(lower.unsqueeze(1), upper.unsqueeze(1), slope, terms)
        assert lines.below is not None
        shape = lines.below.shape
        return Lines(lines.slope.expand(shape), lines.below, lines.above)

    # ---- the curve on [l, u] -----------------------------------------------------------------------------------------

    def _unbounded(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where no slope but 0 leads anywhere: an infinite end, or a pole inside."""
        infinite = lower.isinf() | upper.isinf()
        pole = self.curve.pole
        return infinite if pole is None else infinite | ((lower <= pole) & (upper >= pole))

    def _range(self, lower: Tensor, upper: Tensor) -> Bounds:
        curve = self.curve
        falling = curve.turn is None and not curve.rises
        first, last = (upper, lower) if falling else (lower, upper)
        low, high = curve.value(first, "down"), curve.value(last, "up")
        if curve.turn is not None:
            low = torch.minimum(low, curve.value(last, "down"))
            high = torch.maximum(high, curve.value(first, "up"))
            inside = (lower <= curve.turn.last) & (upper >= curve.turn.first)
            least = torch.full((), curve.turn.value, dtype=torch.float64, device=lower.device)
            low = torch.where(inside, torch.minimum(low, outward(least, lower.dtype, False)), low)
        if curve.pole is not None:
            around = (lower <= curve.pole) & (upper >= curve.pole)
            low, high = low.masked_fill(around, -math.inf), high.masked_fill(around, math.inf)
        return torch.where(high.isnan(), high, low), torch.where(low.isnan(), low, high)

    def _differentiable(
        self, offset: Tensor, at: Tensor, free: Tensor, slope: Tensor, lower: Tensor, upper: Tensor
    ) -> Tensor:
        """An offset with its derivatives: -at in the slope, and f' - s in the end where it is taken."""
        if not records(slope, lower, upper):
            return offset
        with torch.no_grad():
            pull = (self.curve.slope(at) - slope.double()).nan_to_num(0.0, 0.0, 0.0)
            of_lower, of_upper, of_slope = (
                torch.where(mask & free, value, 0.0).to(offset.dtype)
                for mask, value in ((at == lower, pull), ((at == upper) & ~(at == lower), pull), (free, -at))
            )
        return recorded(offset, lower, of_lower, upper, of_upper, slope, of_slope)

    def _turned(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Where f is least, and where it is largest, between the ends."""
        nowhere, turn = torch.zeros_like(lower, dtype=torch.bool), self.curve.turn
        return nowhere if turn is None else (lower <= turn.last) & (upper >= turn.first), nowhere

    def _differentiable_range(
        self, low: Tensor, high: Tensor, lower: Tensor, upper: Tensor, slopes: list[Tensor]
    ) -> Bounds:
        """With the derivative of f at the end whose value a bound is."""
        with torch.no_grad():
            least_first = self.curve.value(lower.detach()) <= self.curve.value(upper.detach())
            turned = self._turned(lower.detach(), upper.detach())
            of_low, of_high = (
                [torch.where(mask & ~gone, slope, 0.0) for mask, slope in zip((own, ~own), slopes, strict=True)]
                for own, gone in zip((least_first, ~least_first), turned, strict=True)
            )
        return (
            recorded(low, lower, of_low[0], upper, of_low[1]),
            recorded(high, lower, of_high[0], upper, of_high[1]),
        )

    def _reach(self, lower: Tensor, upper: Tensor) -> Bounds:
        """About the least and the largest f' on [l, u]: at the ends, or at a break between them."""
        curve = self.curve
        first, last = (curve.slope(x) for x in (lower, upper))
        low, high = torch.minimum(first, last), torch.maximum(first, last)
        for point in curve.breaks if curve.pole is None else ():
            inside = (lower < point) & (upper > point)
            sides = [float(curve.derivative(torch.tensor([point], dtype=torch.float64, device="cpu"))[0])]
            sides += [1.0] if curve.same_from == point else []
            sides += [0.0] if curve.zero_to == point else []
            low = torch.where(inside, low.clamp(max=min(sides)), low)
            high = torch.where(inside, high.clamp(min=max(sides)), high)
        return low, high

    def _admissible(self, lower: Tensor, upper: Tensor, slope: Tensor, dtype: torch.dtype) -> Tensor:
        """Slopes that were found in float64, in the dtype, and those that :meth:`lines` would take in their place."""
        settled, zero = self.settled(lower, upper), self.zero(lower, upper)
        slope = torch.where(settled, (~zero).double(), slope.masked_fill(self._unbounded(lower, upper), 0))
        return self.project(slope.clamp(-_most(dtype), _most(dtype)).to(dtype))

    def parts(self, lower: Tensor, upper: Tensor, slope: Tensor, bend: int, rough: bool = False) -> Parts:
        """The parts of [l, u] where f has a bend, each with about the t where its derivative is the slope."""
        touching = self.curve.rough if rough and self.curve.rough is not None else self.curve.touching
        for number, own in enumerate(self.curve.bends):
            if own == bend:
                first, last = self.curve.piece(number)
                a = lower if first == -math.inf else lower.clamp(min=first)
                b = upper if last == math.inf else upper.clamp(max=last)
                yield a, b, torch.minimum(torch.maximum(touching(slope, number), a), b)

    def _blur(self, lower: Tensor, upper: Tensor) -> float | Tensor:
        """See :class:`Curve`."""
        return self.curve.blur

    def _extreme(self, lower: Tensor, upper: Tensor, slope: Tensor, bend: int) -> tuple[Tensor, Tensor]:
        """d (for CONVEX) or e (for CONCAVE), proven in float64, and where about it is taken.

        f(x) - s x: one rounding of |s x|, one of |f| + |s x|; the sum with what is taken off, one more. 4 (|f| + |s
        x|) units cover them, and 8 those of what is taken off.
        """
        curve, direction = self.curve, "down" if bend == CONVEX else "up"
        shape = (lower + slope).shape

        def least(x: Tensor, f: Tensor) -> Tensor:
            line = slope * x
            return (bend * f - bend * line) - ((f.abs() + line.abs()) * (4 * _U) + _TINY)

        ends = curve.value(torch.stack([lower, upper]), direction)  # type: ignore[arg-type]
        candidates = [(least(x, f).expand(shape), x.expand(shape)) for x, f in zip((lower, upper), ends, strict=True)]
        blur = self._blur(lower, upper)
        for a, b, t in self.parts(lower, upper, slope, bend):
            value, error = curve.derivative(t)
            low, high = value.clamp(max=_LARGEST) - error - slope, value.clamp(min=-_LARGEST) + error - slope
            rising, falling = (high, -low) if bend == CONVEX else (-low, high)  # g of bend f, and -g
            left = torch.where(t > a, rising.clamp(min=0) * (t - a), 0.0)
            right = torch.where(b > t, falling.clamp(min=0) * (b - t), 0.0)
            off = torch.maximum(left, right) * (1 + 8 * _U) + 4 * _U * slope.abs() * (b - a).clamp(min=0)
            if isinstance(blur, Tensor) or blur:
                off = off + blur * (1 + (b - a).clamp(min=0))
            found = least(t, curve.value(t, direction)) - off  # type: ignore[arg-type]
            found = torch.where(a > b, math.inf, found - 2 * _U * (found.abs() + off))
            candidates.append((found.expand(shape), t.expand(shape)))
        for point in curve.breaks:
            if point != curve.pole:
                x = torch.full((), point, dtype=torch.float64, device=lower.device)
                found = least(x, curve.value(x, direction))  # type: ignore[arg-type]
                inside = (lower <= point) & (upper >= point)
                candidates.append((torch.where(inside, found, math.inf).expand(shape), x.expand(shape)))
        values = torch.stack([value for value, _ in candidates])
        best, which = values.min(0)
        at = torch.stack([x for _, x in candidates]).gather(0, which.unsqueeze(0)).squeeze(0)
        return bend * best, at

    # ---- slopes to begin with ----------------------------------------------------------------------------------------

    def _initial(self, lower: Tensor, upper: Tensor, aim: Aim) -> Tensor:
        """Where f has one bend on [l, u]: the chord, or the derivative in the middle for a line on the other side of
        the bend. Elsewhere by a search (:mod:`zonocuda.relaxations.starts`)."""
        curve = self.curve
        width, middle = upper - lower, lower / 2 + upper / 2
        chord = (curve.value(upper) - curve.value(lower)) / torch.where(width > 0, width, 1.0)
        steep = [curve.slope(x) for x in (lower, upper)]
        between = torch.minimum(torch.maximum(chord, torch.minimum(*steep)), torch.maximum(*steep))
        tangent = curve.slope(middle)
        found = torch.where(width > 0, between, tangent)
        bend = self._bend(lower, upper)
        if aim != "area":
            found = torch.where(bend == (CONVEX if aim == "below" else CONCAVE), tangent, found)
        rest = (bend == MIXED) & ~(lower.isnan() | upper.isnan() | self._unbounded(lower, upper))
        return self._searched(lower, upper, aim, found, rest, chord)

    def _bend(self, lower: Tensor, upper: Tensor) -> Tensor:
        """How f bends on [l, u]."""
        bend = torch.full_like(lower, MIXED)
        for number, own in enumerate(self.curve.bends):
            first, last = self.curve.piece(number)
            bend = bend.masked_fill((lower >= first) & (upper <= last), own)
        return bend

    def _searched(self, lower: Tensor, upper: Tensor, aim: Aim, found: Tensor, rest: Tensor, chord: Tensor) -> Tensor:
        """``found``, but the slopes of a search where ``rest`` says so; ``chord``: that from l to u."""
        if not bool(rest.any()):
            return found
        index = rest.nonzero(as_tuple=True)
        return found.index_put(index, balanced(self, lower[index], upper[index], aim))


def _most(dtype: torch.dtype) -> float:
    """Slopes to begin with are no larger, so that their products stay finite."""
    return 1e30 if dtype == torch.float32 else 1e290
