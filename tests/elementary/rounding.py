"""Arithmetic that keeps a bound of its own rounding error: the derivation of every theorem, done by Arb.

A :class:`Computed` stands for all float64 numbers that a formula may give for the arguments of one piece: ``exact``
encloses what the formula is over the reals, ``error`` bounds the distance from it. An operation passes on the errors of
its operands and adds half a unit in the last place of the largest result, at least 2^-1075 (round to nearest, with
gradual underflow; no fused multiply-add). A subnormal sum is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb

SMALLEST = -1075
"""log2 of the largest rounding error of a subnormal result."""


def power(k: int) -> arb:
    """2^k."""
    return arb(2) ** k


def exponent(x: arb) -> int:
    """An e with |x| <= 2^e, the least one up to the rounding of balls; -1100 for 0."""
    mantissa, e = arb(x.abs_upper()).mid().man_exp()
    return int(e) + int(mantissa).bit_length() - (int(mantissa) & (int(mantissa) - 1) == 0) if mantissa else -1100


def half_ulp(x: arb) -> arb:
    """The largest error of rounding a number of magnitude at most |x| to float64."""
    return power(max(exponent(x) - 54, SMALLEST))


@dataclass(frozen=True)
class Computed:
    """All values of a formula on one piece."""

    exact: arb
    error: arb

    @staticmethod
    def of(exact: arb, error: arb | int = 0) -> Computed:
        """An argument; ``error`` 0: it is a float64 number."""
        return Computed(exact, arb(arb(error).upper()))

    def _rounded(self, exact: arb, error: arb) -> Computed:
        error = arb(error.upper())
        return Computed(exact, arb((error + half_ulp(abs(exact) + error)).upper()))

    def _summed(self, exact: arb, error: arb) -> Computed:
        largest = abs(exact) + error
        return Computed.of(exact, error) if exponent(largest) < -1021 else self._rounded(exact, error)

    def __add__(self, other: Computed | float) -> Computed:
        o = _lifted(other)
        return self._summed(self.exact + o.exact, self.error + o.error)

    def __sub__(self, other: Computed | float) -> Computed:
        o = _lifted(other)
        return self._summed(self.exact - o.exact, self.error + o.error)

    def __mul__(self, other: Computed | float) -> Computed:
        o = _lifted(other)
        error = abs(self.exact) * o.error + abs(o.exact) * self.error + self.error * o.error
        return self._rounded(self.exact * o.exact, error)

    def __truediv__(self, other: Computed | float) -> Computed:
        o = _lifted(other)
        quotient = self.exact / o.exact
        return self._rounded(quotient, (self.error + abs(quotient) * o.error) / (abs(o.exact) - o.error))

    def __radd__(self, other: float) -> Computed:
        return _lifted(other) + self

    def __rsub__(self, other: float) -> Computed:
        return _lifted(other) - self

    def __rmul__(self, other: float) -> Computed:
        return _lifted(other) * self

    def __rtruediv__(self, other: float) -> Computed:
        return _lifted(other) / self

    def standing_for(self, exact: arb, distance: arb) -> Computed:
        """The same numbers as values of another formula, which lies within ``distance`` of this one."""
        return Computed.of(exact, self.error + distance)

    def relative(self, true: arb, absolute: arb | int = 0) -> arb:
        """How far the numbers are from ``true``, beyond ``absolute``, in units of 2^-53 of it; ``exact`` must be it."""
        rest = arb(self.error.upper()) - absolute
        return arb((rest / abs(true).lower() * power(53)).upper()) if rest > 0 else arb(0)


def _lifted(x: Computed | float) -> Computed:
    return x if isinstance(x, Computed) else Computed.of(arb(x))


def exactly(x: Computed) -> Computed:
    """Says that the operation before was exact: nothing is added to the errors of its operands."""
    return x


def span(lower: arb, upper: arb) -> arb:
    """The ball that contains both."""
    return lower.union(upper)
