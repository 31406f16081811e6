"""Products of two values of a network that both depend on its input."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from zonocuda.graph.ops import Op


@dataclass(frozen=True, eq=False)
class Bilinear(Op):
    """z_i = sum_t x_it y_it, for x and y ``[N, terms]`` each, which are the two halves of one feature dimension of
    2 N terms numbers; z has one feature dimension of N.

    With one term it is the product of x and y, elementwise. Whoever has them apart concatenates them, expanded so that
    each pair of factors is there (:mod:`zonocuda.importers.lowering_products`).

    Attributes:
        terms: see above.
        limit: |z| <= limit in the network, over the reals, as its factors depend on each other: those of a norm
            (:func:`zonocuda.importers.lowering_normal.standardise`); None: nothing is known.
    """

    terms: int = 1
    limit: float | None = None

    @property
    def most(self) -> float:
        """The limit, or infinity."""
        return math.inf if self.limit is None else self.limit

    def apply(self, *inputs: Tensor) -> Tensor:
        x, y = inputs[0].chunk(2, 1)
        product = x * y
        return product if self.terms == 1 else product.reshape(len(x), x.shape[1] // self.terms, self.terms).sum(2)
