"""Which derivative a program gets at each kind of kink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zonocuda.nonsmooth.functional import Share, share_of_first
from zonocuda.ties import TieRule, Weights, tie_weights

Kind = Literal["relu", "leaky_relu", "abs", "maximum", "max", "max_all", "max_pool"]
LINES: tuple[Kind, ...] = ("relu", "leaky_relu", "abs")  # one kink at 0
MAXIMA: tuple[Kind, ...] = ("max", "max_all", "max_pool")  # ties of many


@dataclass(frozen=True)
class Convention:
    """A choice for every kind of kink; the defaults are torch's.

    Attributes:
        relu: ReLU'(0).
        leaky_relu: the derivative of leaky ReLU at 0; None: its slope on the left.
        abs: the derivative of the absolute value at 0.
        maximum: the share of the first argument of ``maximum`` on a tie.
        max: ``max(x, dim)``.
        max_all: ``max(x)`` of all elements.
        max_pool: max pooling.
        beta: mixes "even" and "first" in max pooling; leave ``max_pool`` at "first".

    Examples:
        >>> Convention(relu=1.0).relu, Convention().max_pool
        (1.0, 'first')
    """

    relu: float = 0.0
    leaky_relu: float | None = None
    abs: float = 0.0
    maximum: Share | float = "even"
    max: TieRule = "first"
    max_all: TieRule = "even"
    max_pool: TieRule = "first"
    beta: float | None = None

    def __post_init__(self) -> None:
        share_of_first(self.maximum)
        tie_weights(self.max)
        tie_weights(self.max_all)
        tie_weights(self.max_pool, self.beta)

    def at_zero(self, kind: Kind, left: float) -> float:
        """The derivative at 0 of a line whose slope on the left is ``left``."""
        if kind == "leaky_relu":
            return left if self.leaky_relu is None else self.leaky_relu
        return self.relu if kind == "relu" else self.abs

    def weights(self, kind: Kind) -> Weights:
        """The weights of a tie among many."""
        if kind == "max_pool":
            return tie_weights(self.max_pool, self.beta)
        return tie_weights(self.max if kind == "max" else self.max_all)

    def share(self) -> float:
        """The share of the first argument of ``maximum``."""
        return share_of_first(self.maximum)


TORCH = Convention()
OTHER = Convention(relu=1.0, leaky_relu=1.0, abs=1.0, maximum="first", max="even", max_all="first", max_pool="even")
