"""Certificates of proofs that split neurons at points: confirmed where they are right, and never where not."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.check.certificates import inline
from tests.check.test_forests import checked, forest_of
from tests.check.test_tampering import confirmed, mutated
from tests.relaxations.ways import property_of
from tests.verifier.graphs import sample_box
from tests.verifier.test_point_splitting import NETWORKS, box_of, course, difference, least_of
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.derive import Cuts, Derivation
from zonocuda.checker.maps import Maps
from zonocuda.checker.sets import FloatNet
from zonocuda.graph import Graph, Node, interpret
from zonocuda.graph.elementwise import StepName
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.stages import Arithmetic
from zonocuda.specs import Spec
from zonocuda.verifier.point_record import record_points

CPU = torch.device("cpu")


@cache
def case(name: str) -> tuple[Graph, Spec, Certificate]:
    """A network, what splitting a few neurons proves of it, and the proof."""
    graph = NETWORKS[name]()
    box, arithmetic = box_of(graph), Arithmetic.of(graph, torch.float64, CPU)
    least = least_of(graph, box)
    root = course(graph, property_of(graph, box, least).regions[0], written=True).bounder.roots([(0, 0)])
    question = property_of(graph, box, least + 0.8 * float(root.bound))
    search = course(graph, question.regions[0], 100.0)
    return graph, question, Certificate("", (record_points(search, arithmetic, search.end),))


@pytest.mark.parametrize("name", ["tanh", "mixed with ReLUs"])
def test_a_proof_is_confirmed_in_floats_and_in_balls(name: str, tmp_path: Path) -> None:
    graph, question, certificate = case(name)
    forest = forest_of(certificate)
    assert forest.leaves >= 2
    assert (forest.arrays["kind"] == 2).sum() == forest.leaves - 1
    for exact in (False, True):
        result = checked(graph, question, certificate, tmp_path / "c.zip", exact=exact)
        assert result.confirmed, result


@pytest.mark.parametrize("name", ["floor", "round"])
def test_proofs_that_split_at_jumps_are_confirmed_and_say_nothing_else(name: StepName, tmp_path: Path) -> None:
    graph, box = difference(name)
    question, arithmetic = property_of(graph, box, -0.125), Arithmetic.of(graph, torch.float64, CPU)
    search = course(graph, question.regions[0], 100.0)
    certificate = Certificate("", (record_points(search, arithmetic, search.end),))
    assert forest_of(certificate).leaves >= 3
    result = checked(graph, question, certificate, tmp_path / "c.zip")
    assert result.confirmed, result
    document = inline(certificate)
    assert not confirmed(document, graph, property_of(graph, box, 2.0**-40))


def test_with_other_points_or_activations_a_proof_is_not_confirmed(tmp_path: Path) -> None:
    graph, question, certificate = case("mixed with ReLUs")
    forest = forest_of(certificate)
    assert (forest.arrays["multipliers"] > 0).any()
    (region,) = certificate.regions

    def with_arrays(**changed: object) -> Certificate:
        arrays = {**forest.arrays, **changed}
        return replace(certificate, regions=(replace(region, forest=replace(forest, arrays=arrays)),))

    points = with_arrays(points=forest.arrays["points"] + 100.0)  # all below: nothing is narrowed there
    assert not checked(graph, question, points, tmp_path / "c.zip").confirmed
    beyond = with_arrays(relus=forest.arrays["relus"] + 100)
    assert "outside its range" in checked(graph, question, beyond, tmp_path / "c.zip").reason


@pytest.mark.parametrize("name", ["tanh", "mixed with ReLUs"])
def test_no_edit_confirms_what_does_not_hold(name: str) -> None:
    graph, _, certificate = case(name)
    box = box_of(graph)
    false = property_of(graph, box, least_of(graph, box) + 1e-6)
    generator, document = random.Random(1), inline(certificate)
    assert not confirmed(document, graph, false)
    for _ in range(40):
        assert not confirmed(mutated(copy.deepcopy(document), generator), graph, false)


@pytest.mark.parametrize("name", ["tanh", "sin", "mixed with ReLUs"])
def test_what_a_leaf_derives_holds_at_its_points(name: str) -> None:
    graph, generator = NETWORKS[name](), random.Random(3)
    low, high = box_of(graph)
    seen: dict[str, torch.Tensor] = {}

    def step(node: Node, values: tuple[torch.Tensor, ...]) -> torch.Tensor:
        seen[node.name] = node.op.apply(*values)
        return seen[node.name]

    x = sample_box(low, high, 400)[:, 0]
    interpret(graph, x, step)
    with precisely():
        net, held = FloatNet(Maps(graph)), 0
        for _ in range(12):
            relu = generator.randrange(len(net.split))
            z = seen[net.split[relu].inputs[0]]
            neuron, point = generator.randrange(z.shape[1]), float(generator.choice(z.flatten().tolist()))
            above = generator.random() < 0.5
            cuts = Cuts(*(np.array([value]) for value in (0, relu, neuron, above, point)))
            derivation = Derivation(net, low.numpy(), high.numpy(), cuts)
            with np.errstate(all="ignore"):
                derivation.run()
            inside = z[:, neuron] >= point if above else z[:, neuron] <= point
            held += int(inside.sum())
            for node in net.split:
                least, most = (torch.from_numpy(end[0]) for end in derivation.ends[node.inputs[0]])
                own = seen[node.inputs[0]][inside]
                assert bool(((own >= least - 1e-12) & (own <= most + 1e-12)).all())
    assert held >= 400
