"""ReLU: lam x <= max(x, 0) <= lam x + 2 mu on [l, u], for any lam in [0, 1] and mu = max(-l lam, u (1 - lam)) / 2.

The slopes, their clamp, the rule on the kink of mu and what counts as on it live here; the arithmetic is that of the
fused ops (:func:`zonocuda.ops.relu_relaxation`, :func:`zonocuda.ops.dual_relu`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from zonocuda.domains import kernels
from zonocuda.kink import KinkRule, check_kink, kink_tolerance
from zonocuda.relaxations.rule import Band, Bounds, Counted, DualImage, Growth, Lines, Rule, Start

_KINK: ContextVar[KinkRule] = ContextVar("kink", default="envelope")

MOST_TERMS = 2**16
"""Of a sum, as far as the kink's tolerance goes: with more of them it would soon take every float32 slope for one."""


@contextmanager
def use_kink(kink: KinkRule | None) -> Iterator[None]:
    """Inside, derivatives where a slope sits on its kink follow a rule (:mod:`zonocuda.kink`); None: the one in use.

    Raises:
        ValueError: an unknown rule.
    """
    if kink is None:
        yield
        return
    check_kink(kink)
    token = _KINK.set(kink)
    try:
        yield
    finally:
        _KINK.reset(token)


class ReluRule(Rule):
    """The rule of ReLU, with the rule on the kink of :func:`use_kink`.

    Its ``above`` is 2 mu as computed: too small by up to three roundings, and by more where -l or u is below 4 eta.
    ``growth`` has them in twice the offset, the offsets of a dual pass have three roundings to spare, and
    ``image_charge`` is infinite where an offset may have underflowed.
    """

    is_exact = True
    is_nonnegative = True
    is_certified = True
    has_signs = True
    has_best_above = True
    limits = (0.0, 1.0)

    def range(self, lower: Tensor, upper: Tensor) -> Bounds:
        return lower.clamp(min=0), upper.clamp(min=0)

    def settled(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0)

    def zero(self, lower: Tensor, upper: Tensor) -> Tensor:
        return upper <= 0

    def kinds(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        dead = upper <= 0
        return dead, (lower >= 0) & ~dead

    def magnitude(self, lower: Tensor, upper: Tensor) -> Tensor:
        return upper.clamp(min=0)

    def initial(self, lower: Tensor, upper: Tensor, start: Start = "minimum_area") -> Tensor:
        """0 on dead neurons, 1 on active ones, and on crossing ones

        * ``minimum_area``: u / (u - l), which minimises the area between the lines;
        * ``adaptive``: 1 where u >= -l, else 0, which minimises the area between the *lower* line and ReLU (CROWN,
          Zhang et al. 2018).
        """
        slope: Tensor = kernels().relu_relaxation(lower, upper)[0]
        if start == "adaptive":
            crossing = (lower < 0) & (upper > 0)
            slope = torch.where(crossing, (upper >= -lower).to(slope.dtype), slope)
        return slope

    def band(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Band:
        given = None if slope is None else _broadcast(slope, lower)
        tolerance = _tolerance(lower, terms)
        multiplier, offset = kernels().relu_relaxation(lower, upper, given, kink=_KINK.get(), tolerance=tolerance)
        return Band(multiplier, offset, offset)

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor | None, terms: int = 0) -> Lines:
        multiplier, offset, _ = self.band(lower, upper, slope, terms)
        return Lines(multiplier, None, 2 * offset)

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
        kink, tolerance = _KINK.get(), _tolerance(lower, terms)
        image, low, high = kernels().dual_relu(
            rows, lower, upper, negative, nonnegative, kink=kink, tolerance=tolerance
        )
        return DualImage(image, low, high, None)

    def growth(
        self, lower: Tensor, upper: Tensor, slope: Tensor | None, counted: Counted, band: Band | None = None
    ) -> Growth:
        crossing = self.charged(lower, upper)
        lam = torch.ones_like(lower)
        if slope is None:
            lam = counted.above(torch.where(crossing, upper / (upper - lower), lam), 2).clamp(max=1)
        else:
            lam = torch.where(crossing, self.project(slope.expand(lower.shape)), lam)
        twice = torch.maximum(-lower * lam, upper).masked_fill(~crossing, 0)  # at least 2 mu
        return Growth(lam, twice, crossing, self.zero(lower, upper))

    def charged(self, lower: Tensor, upper: Tensor) -> Tensor:
        """A stable neuron has the slope 0 or 1 and no offset, and rounds nothing."""
        return ~self.settled(lower, upper)

    def image_charge(self, lower: Tensor, upper: Tensor, counted: Counted) -> tuple[Tensor, Tensor]:
        stable = self.settled(lower, upper)
        reach = torch.maximum(-lower, upper).masked_fill(stable, 0)
        lost = ~stable & (torch.minimum(-lower, upper) < 4 * counted.eta)  # 2 mu may underflow: no claim
        return counted.gamma(2) * reach.masked_fill(lost, torch.inf), reach

    def split_points(self, lower: Tensor, upper: Tensor) -> Tensor:
        """0 alone: both parts are lines then."""
        return torch.zeros_like(lower).unsqueeze(0)

    def wants_all_symbols(self, lower: Tensor, upper: Tensor, slope: Tensor, terms: int) -> bool:
        """With the rule ``min_norm``, where a crossing neuron's slope is on its kink."""
        if _KINK.get() != "min_norm":
            return False
        crossing = (lower < 0) & (upper > 0)
        width = torch.where(crossing, upper - lower, torch.ones_like(lower))
        return bool((crossing & ((slope - upper / width).abs() <= _tolerance(lower, terms))).any())


def _tolerance(bound: Tensor, terms: int) -> float:
    """How far a slope may be from u / (u - l) and still count as on the kink."""
    return kink_tolerance(bound.dtype, min(terms, MOST_TERMS))


def _broadcast(slope: Tensor, like: Tensor) -> Tensor:
    try:
        return slope.expand(like.shape)
    except RuntimeError as error:
        shapes = f"{list(slope.shape)} do not broadcast to {list(like.shape)}"
        raise ValueError(f"relu: slopes of shape {shapes}") from error
