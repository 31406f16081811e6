"""Rows that end at a node: where v < 0 and y <= u, v y is at least v u; where v > 0 and y >= l, at least v l."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zonocuda.checker.arithmetic import ZERO, Array, zeros
from zonocuda.checker.claims import EndClaim
from zonocuda.checker.floats import Floats


@dataclass(frozen=True, eq=False)
class Ended:
    """Where rows end at one node.

    Attributes:
        claim: which numbers, and for which sign of v.
        bound: ``[M]``, u or l of these: balls or floats.
    """

    claim: EndClaim
    bound: Any

    @staticmethod
    def of(claim: EndClaim, low: Any, high: Any) -> Ended:
        """For bounds ``[N]`` of the node's values."""
        return Ended(claim, (high if claim.negative else low)[claim.neurons])

    def balls(self, v: Array) -> tuple[Array, Array]:
        """What goes on of rows ``[R, N]``, and what is left of them is worth ``[R]``."""
        rest, worth = v.copy(), zeros(len(v))
        for r, row in enumerate(v):
            for j, bound in zip(self.claim.neurons, self.bound, strict=True):
                negative, positive = row[j].min(ZERO), row[j].max(ZERO)
                part, rest[r, j] = (negative, positive) if self.claim.negative else (positive, negative)
                if not part.is_zero():
                    worth[r] += part * bound
        return rest, worth

    def floats(self, v: Floats) -> tuple[Floats, Floats]:
        """What goes on of rows ``[R, N]``, and products ``[R, M]``, rounded, that the others are the sums of."""
        own = v[:, self.claim.neurons]
        part = np.minimum(own, 0) if self.claim.negative else np.maximum(own, 0)
        rest = v.copy()
        rest[:, self.claim.neurons] = own - part  # exact: one of them is 0
        is_zero = part == 0
        return rest, np.where(is_zero, 0.0, part * np.where(is_zero, 0.0, self.bound))


Endings = Mapping[str, Ended]
"""By node."""
