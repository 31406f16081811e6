"""Two networks that are read at a glance, and a call of ``verify`` with its checks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from tests.verifier.graphs import Builder, constraint, spec
from zonocuda.graph import Graph, Linear, Op, Relu
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import Verdict, VerifyResult, verify

ZERO, ONE = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)


def chain(*ops: Op, size: int = 2) -> Graph:
    """The input, then one operator after the other."""
    b = Builder(size)
    for op in ops:
        b(op)
    return b.graph()


def matrix(*rows: Sequence[float]) -> Linear:
    """A linear layer without bias."""
    return Linear(torch.tensor(rows, dtype=torch.float64))


IDENTITY = chain(matrix([1, 0], [0, 1]))
"""Y = X, on two features."""

DISTANCE = chain(matrix([1, -1], [-1, 1]), Relu(), matrix([1, 1], [1, -1]))
"""Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1."""

NEVER = constraint({0: 1}, 1)  # Y_0 <= -1, on [0, 1]
ALWAYS = constraint({0: 1}, -2)  # Y_0 <= 2
SOMETIMES = constraint({0: 1}, -0.5)
TENTH = [LinearConstraint({0: Fraction(sign)}, {}, Fraction(-sign, 10)) for sign in (1, -1)]
"""Y_0 = 1/10, which no float is: neither refuted nor found."""


def run(
    model: Graph, *disjuncts: Sequence[LinearConstraint], box: tuple[Tensor, Tensor] = (ZERO, ONE), **options: object
) -> VerifyResult:
    """``verify`` of one region over two outputs."""
    return verify(model, spec(*box, disjuncts, 2), **options)  # type: ignore[arg-type]


def check(result: VerifyResult, verdict: Verdict) -> None:
    """The verdict, and what every result of that verdict has."""
    assert result.verdict is verdict, result.reason
    assert result.reason
    assert "\n" not in result.reason
    assert (result.counterexample is not None) == (verdict is Verdict.FALSIFIED)
    assert result.seconds["total"] >= 0
