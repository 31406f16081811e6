"""Certificates of every kind moved to properties that do not hold: none is confirmed.

What a property asks of the outputs is violated at a point of its box, exactly, by what is next to nothing; the networks
are random, and the proofs those of :func:`zonocuda.verify` for a property nearby that holds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.check.certificates import least_sample
from tests.check.test_forests import checked, forest_of, tampered, with_forest
from tests.thorough import few
from tests.verifier.exact import evaluate, exactly
from tests.verifier.graphs import constraint, fc, random_box, residual, sample_box, spec
from zonocuda.graph import Graph
from zonocuda.prove.certificate import Certificate
from zonocuda.specs import Spec
from zonocuda.verifier import verify

WAYS: tuple[dict[str, Any], ...] = (
    {"effort": "fast"},
    {"effort": "max", "split": "none"},
    {"split": "input"},
    {"split": "neuron"},
)


def proven(seed: int) -> tuple[Graph, Spec, Certificate] | None:
    """A random network, a property that is verified in one of the WAYS, and its certificate."""
    graph = residual(seed) if seed % 5 == 4 else fc(seed, (2 + seed % 3, 6, 6, 2))
    lower, upper = random_box(graph, width=0.5 + seed % 4 / 2, seed=seed)
    least = least_sample(graph, lower, upper)
    gap = (3.0, 0.3, 0.05, 0.05)[seed % 4]
    row = constraint({0: 1.0}, gap * (1 + abs(least)) - least)
    property_ = spec(lower[0], upper[0], [[row]], graph.output_shape[0])
    result = verify(graph, property_, certificate=True, timeout=20.0, **WAYS[seed % 4])
    held = result.certificate
    return None if held is None or held.reason else (graph, property_, held)


def false_claims(graph: Graph, property_: Spec, count: int, seed: int) -> Iterator[Spec]:
    """The same row, moved so that a point of the box violates it by a part in 10^12 or more, exactly."""
    (region,) = property_.regions
    ((row,),) = region.disjuncts
    shape, rng = graph.input_shape, random.Random(seed)
    points = sample_box(region.box.lower.reshape(shape), region.box.upper.reshape(shape), 1000, seed=seed)
    least = graph(points).reshape(len(points), -1)[:, 0].argsort()[:count]  # where a proof comes closest
    for x in points[least]:
        exact = exactly(x)
        value = row.value(exact, evaluate(graph, exact))
        less = value + abs(value) * Fraction(1, 10 ** rng.choice([3, 6, 9, 12]))
        yield spec(
            region.box.lower, region.box.upper, [[replace(row, constant=row.constant - less)]], property_.outputs
        )


@pytest.mark.parametrize("seeds", few(1, [range(12), range(12, 72)]))
def test_no_certificate_that_is_moved_to_a_false_property_is_confirmed(seeds: range, tmp_path: Path) -> None:
    claims = proofs = 0
    for seed in seeds:
        made = proven(seed)
        if made is None:
            continue
        graph, property_, certificate = made
        assert checked(graph, property_, certificate, tmp_path / "c.zip").confirmed, seed
        proofs += 1
        forested = any(region.forest is not None for region in certificate.regions)
        rng = random.Random(seed)
        for number, wrong in enumerate(false_claims(graph, property_, 16, seed)):
            held = certificate
            if forested and number % 2:
                held = with_forest(certificate, tampered(forest_of(certificate), rng))
            semantics = "real" if number % 4 else "float64"
            claims += 1
            moved = replace(held, semantics=semantics)
            assert not checked(graph, wrong, moved, tmp_path / "c.zip").confirmed, (seed, number)
    assert proofs >= 0.6 * len(seeds)
    print(f"{claims} false claims with {proofs} certificates")
