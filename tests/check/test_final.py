"""Proofs that leave out a final function: the checker finds by itself that the property is the same without it."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch

from tests.verifier.test_final import X, label, network, row, without
from zonocuda import Spec, check, verify
from zonocuda.checker.certificate import CertificateError
from zonocuda.specs import Region


def robust(built: onnx.ModelProto, add: int = 0) -> Spec:
    return Spec.robust(X, 0.01, (label(built) + add) % 3, outputs=3, clip=None)


def document(built: onnx.ModelProto, spec: Spec) -> dict[str, Any]:
    return verify(built, spec, certificate=True, split="none").to_json()


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
def test_a_proof_that_leaves_out_the_last_function_is_confirmed(kind: str) -> None:
    built = network(kind)
    result = verify(built, robust(built), certificate=True)
    assert (result.verified, result.left_out) == (True, kind)
    assert check(result, built, robust(built)).confirmed
    assert not check(result, built, robust(built, 1)).confirmed, "another class has the highest score"


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid"])
def test_a_property_that_the_function_does_not_keep_is_not_confirmed(kind: str) -> None:
    built = network(kind)
    claim = document(built, robust(built))
    for spec in (row({0: 1}, -2), row({0: 2, 1: -1}), row({0: 1, 1: -1}, 1), row({0: 1, 1: -1}, 0, {0: 1})):
        found = check(claim, built, spec)
        assert not found.confirmed
        assert "asks for more than comparisons" in found.reason


@pytest.mark.parametrize(
    ("axis", "opset", "same_column", "same_row"), [(0, 13, True, False), (1, 13, False, True), (0, 11, True, True)]
)
def test_outputs_of_different_sums_are_not_compared(axis: int, opset: int, same_column: bool, same_row: bool) -> None:
    """Of outputs [2, 3] in operator set 13 the sum is over one axis, before over all from it on."""
    built = network("Softmax", opset, (2, 3), axis=axis)
    box = Spec.robust(torch.arange(6) / 6, 0.001, 0, outputs=6, clip=None).regions[0].box
    for other, expected in ((3, same_column), (1, same_row)):
        specs = [Spec(6, 6, (Region(box, row({0: c, other: -c}).regions[0].disjuncts),)) for c in (1, -1)]
        claims = [document(without(built), spec) for spec in specs]  # of what Softmax reads: one of them is true
        ((spec, claim),) = [pair for pair in zip(specs, claims, strict=True) if pair[1]["verdict"] == "verified"]
        assert check({**claim, "left_out": "Softmax"}, built, spec).confirmed == expected


def test_another_last_operator_is_not_left_out() -> None:
    built = network("Softmax")
    with pytest.raises(CertificateError, match="that is no Softmax, LogSoftmax, Sigmoid or Tanh"):
        check(document(built, robust(built)), network("Exp"), robust(built))
