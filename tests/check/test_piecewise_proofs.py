"""Certificates of every piecewise linear operator that files have, over the reals and as executed."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from tests.check.certificates import inline
from tests.importers.onnx_models import save
from tests.importers.piecewise_models import PIECEWISE
from tests.thorough import few
from tests.verifier.graphs import random_box, spec
from zonocuda.checker import check_proof
from zonocuda.checker.proof import Sources
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import load_network
from zonocuda.specs import LinearConstraint, Spec
from zonocuda.verifier import Verdict, compute_bounds, verify
from zonocuda.verifier.arguments import Semantics

SEMANTICS: tuple[Semantics, ...] = ("real", "float32", "float64")


def kind(name: str) -> str:
    """The operator of a case: its last one."""
    return str(PIECEWISE[name].nodes[-1].op_type)


FIRST = {kind(name): name for name in reversed(PIECEWISE)}
"""A case of each operator."""
OTHERS = [(name, semantics) for name in PIECEWISE if name not in FIRST.values() for semantics in SEMANTICS]


def problem(graph: Graph) -> tuple[Spec, Spec]:
    """A sum of its outputs that is at least so much on a box, and one that is violated there."""
    lower, upper = (end.float().double() for end in random_box(graph, width=0.4, seed=3))
    outputs = math.prod(graph.output_shape)
    wide = graph.to(torch.float64)
    weights = {i: Fraction(1 + i % 3) for i in range(outputs)}
    bounds = compute_bounds(wide, Zonotope.from_box(lower, upper)).lower.flatten().tolist()
    least = sum((w * Fraction(bounds[i]) for i, w in weights.items()), Fraction(0))
    values = zip(weights.values(), wide(lower).flatten().tolist(), strict=True)
    value = sum((w * Fraction(v) for w, v in values), Fraction(0))
    size = sum(weights.values()) * (1 + Fraction(max(map(abs, bounds))))
    holds, fails = (
        spec(lower[0], upper[0], [[LinearConstraint(weights, {}, -t)]], outputs)
        for t in (least - size / 1000, value + size / 1000)
    )
    return holds, fails


@pytest.mark.parametrize(
    ("name", "semantics"),
    [*((name, semantics) for name in FIRST.values() for semantics in SEMANTICS[:2]), *few(6, OTHERS)],
)
def test_a_proof_of_an_operator_is_confirmed_and_proves_nothing_false(
    name: str, semantics: Semantics, tmp_path: Path
) -> None:
    """In floats and in balls."""
    network = load_network(save(PIECEWISE[name].model(), tmp_path))
    graph, (holds, fails) = network.graph, problem(network.graph)
    result = verify(network, holds, semantics=semantics, split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert not result.certificate.reason
    certificate = inline(result.certificate)
    for sources in (Sources(), Sources(exact=True)):
        assert check_proof(certificate, graph, holds, sources=sources, semantics=semantics).confirmed
        assert not check_proof(certificate, graph, fails, sources=sources, semantics=semantics).confirmed
