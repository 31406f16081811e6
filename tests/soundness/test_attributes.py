"""Attributes as the standard has them: a verdict depends on the last digits of a number that a file leaves out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from flint import arb, ctx
from onnx import TensorProto

from tests.importers.onnx_models import model, op, save
from tests.importers.test_onnx_attributes import normalisation
from tests.verifier.graphs import spec
from zonocuda.importers import load_network
from zonocuda.specs import LinearConstraint
from zonocuda.verifier import Verdict, verify


def normalised(variance: float, epsilon: float) -> Fraction:
    """The value at 1, to 60 digits."""
    before = ctx.prec
    ctx.prec = 300
    try:
        value = (arb(1) - arb(0.2)) / (arb(variance) + arb(float(np.float32(epsilon)))).sqrt() * arb(0.7) + arb(0.3)
        scaled = (value * arb(2) ** 200).floor().unique_fmpz()
        assert scaled is not None
        return Fraction(int(scaled), 2**200)
    finally:
        ctx.prec = before


def gemm(**attributes: float) -> onnx.ModelProto:
    weights = {"w": np.array([[0.7]]), "c": np.array([0.3])}
    return model([op("Gemm", "x w c", **attributes)], [1, 1], weights, dtype=TensorProto.DOUBLE)


def scaled(alpha: float = 1.0, beta: float = 1.0) -> Fraction:
    a, b = (Fraction(float(np.float32(value))) for value in (alpha, beta))
    return a * Fraction(0.7) + b * Fraction(0.3)


PLANTED = {
    **{
        f"epsilon by default, variance {v}, operator set {n}": (normalisation(n, v), normalised(v, 1e-5))
        for n, v in ((7, 1e-6), (9, 0.0), (14, 1e-3), (15, 0.0))
    },
    "epsilon stated": (normalisation(15, 0.0, epsilon=1e-3), normalised(0.0, 1e-3)),
    "epsilon stated as the default": (normalisation(15, 0.0, epsilon=1e-5), normalised(0.0, 1e-5)),
    "gemm by default": (gemm(), scaled()),
    "gemm": (gemm(alpha=0.1, beta=1.3), scaled(0.1, 1.3)),
}


@pytest.mark.usefixtures("prover_only")
@pytest.mark.parametrize("name", PLANTED)
def test_a_property_that_the_standard_s_number_violates_by_a_part_in_ten_billion_is_not_verified(
    name: str, tmp_path: Path
) -> None:
    """On a box of one point; and one that holds by as much is."""
    built, value = PLANTED[name]
    network = load_network(save(built, tmp_path))
    one = torch.ones(1, dtype=torch.float64)
    network.check(one, one)
    for sign in (1, -1):
        for gap, safe in ((-1, True), (1, False)):
            threshold = sign * value + gap * abs(value) / 10**10
            row = LinearConstraint({0: Fraction(sign)}, {}, -threshold)
            verdict = verify(network, spec(one, one, [[row]], 1)).verdict
            assert (verdict is Verdict.VERIFIED) == safe
