"""How far numbers are from the truth, in roundings to float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import Tensor

from tests.importers.constant_programs import Exact, exact

U = Fraction(1, 2**53)


def ratio(held: Tensor, true: Exact, doubt: Tensor | None = None) -> float:
    """The largest (|true - held| - doubt) / (u |held|); roots are known to 2^-350."""
    worst = Fraction(0)
    doubts = np.zeros(held.shape) if doubt is None else doubt.numpy()
    triples = zip(
        *(a.flat for a in (exact(held.detach().numpy()), np.broadcast_to(true, held.shape), exact(doubts))), strict=True
    )
    for h, t, e in triples:
        off = abs(t - h) - e
        if off > Fraction(1, 2**350):
            worst = max(worst, off / (U * abs(h)) if h else Fraction(10**300))
    return float(worst)
