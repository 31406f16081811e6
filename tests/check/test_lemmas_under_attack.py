"""Lemmas of a certificate say nothing that is not so, whatever the certificate says; exact values are the judge."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.check import rational
from tests.check.neuron_trees import changed, with_forest
from tests.check.test_forests import case, checked, false_one, forest_of, tampered
from tests.verifier.exact import Vector, affine_map, exactly, multiply
from zonocuda.checker.forest import Lemma
from zonocuda.checker.trees import ForestCheck
from zonocuda.graph import Graph, Linear
from zonocuda.prove.forest import ForestRecord

SEED = 20272
Edit = Callable[[ForestRecord], ForestRecord]


def inputs_of_relus(graph: Graph, x: Vector) -> list[Vector]:
    """z of every ReLU of a chain of layers at a point, exactly."""
    found = []
    for node in graph.nodes:
        if isinstance(node.op, Linear):
            matrix, offset = affine_map(node.op, (len(x),))
            x = [a + b for a, b in zip(multiply(matrix, x), offset, strict=True)]
            found.append(x)
            x = [max(v, v * 0) for v in x]
    return found[:-1]


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """The bounds of a ReLU's input that a check goes on with after its lemmas, each time."""
    found = []
    prove = ForestCheck.prove_lemmas

    def proven(check: ForestCheck, lemmas: Sequence[Lemma], trees: Any) -> None:
        prove(check, lemmas, trees)
        assert check.root is not None
        known = check.root.relus[check.names[lemmas[0].relu]]
        found.append((lemmas[0].relu, known.low[0].copy(), known.high[0].copy()))

    monkeypatch.setattr(ForestCheck, "prove_lemmas", proven)
    return found


def lemma_edits(forest: ForestRecord) -> dict[str, Edit]:
    """Edits of what lemmas claim, and of what they are said to follow from."""
    arrays = forest.arrays
    count, neurons = forest.lemmas, arrays["lemma_neurons"]
    first = np.arange(count) == 0
    owners, due = [0], 0  # of every node, the tree
    for kind in arrays["kind"].tolist():
        due += 1 if kind else -1
        owners.append(-due if due < 0 and -due > owners[-1] else owners[-1])
    owner = np.array(owners[:-1])
    leaf, split = owner[arrays["kind"] == 0], owner[arrays["kind"] == 2]
    lemma_leaf, lemma_split = leaf < count, split < count

    def put(name: str, values: Any) -> Edit:
        return lambda f: changed(f, **{name: np.asarray(values, f.arrays[name].dtype)})

    return {
        "the other side": put("lemma_upper", 1 - arrays["lemma_upper"]),
        "the other side of one": put("lemma_upper", arrays["lemma_upper"] ^ first),
        "swapped": put("lemma_neurons", neurons[::-1]),
        "one moved on": put("lemma_neurons", np.roll(neurons, 1)),
        "all about one neuron": put("lemma_neurons", np.full(count, neurons[0])),
        "about another ReLU": put("lemma_relus", np.zeros(count)),
        "slopes of 1": put("nonnegative", np.full_like(arrays["nonnegative"], 128)),
        "slopes of 0": put("nonnegative", np.zeros_like(arrays["nonnegative"])),
        "splits elsewhere": put("points", np.where(lemma_split, 7.0, arrays["points"])),
        "splits of itself": lambda f: changed(
            f,
            relus=np.where(lemma_split, 1, arrays["relus"]).astype(np.int32),
            neurons=np.where(lemma_split, neurons[np.minimum(split, count - 1)], arrays["neurons"]).astype(np.int32),
        ),
        "multipliers of another size": put("multipliers", arrays["multipliers"] * 64),
        "no input reaches the leaves": lambda f: changed(
            f,
            counts=np.where(lemma_leaf, 0, arrays["counts"]).astype(np.int32),
            rows=arrays["rows"][~lemma_leaf],
            weights=arrays["weights"][~lemma_leaf],
        ),
    }


EDITS = sorted(lemma_edits(forest_of(case("lemmas")[2])))


@pytest.mark.parametrize("name", [*EDITS, *(f"random {k}" for k in range(12))])
def test_what_a_lemma_is_believed_to_say_is_so(
    name: str, believed: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]], tmp_path: Path
) -> None:
    graph, property_, certificate = case("lemmas")
    forest = forest_of(certificate)
    if name.startswith("random"):
        edited = tampered(forest, random.Random(f"{SEED} {name}"))
    else:
        edited = lemma_edits(forest)[name](forest)
        assert any(not np.array_equal(edited.arrays[key], values) for key, values in forest.arrays.items())
    (region,) = property_.regions
    low, high = region.box.lower, region.box.upper
    corners = torch.rand(12, len(low), generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    corners[:8] = corners[:8].round()
    exact = [inputs_of_relus(graph, exactly(torch.where(c == 1, high, low + c * (high - low)))) for c in corners]
    own = with_forest(certificate, edited)
    for about in (property_, false_one(graph, property_)):
        found = checked(graph, about, own, tmp_path / "c.zip")
        assert about is property_ or not found.confirmed
        for relu, below, above in believed:
            for values in exact:
                ends = zip(below.tolist(), values[relu], above.tolist(), strict=True)
                assert all(a <= value <= b for a, value, b in ends), name
        if found.confirmed:
            assert checked(graph, about, own, tmp_path / "c.zip", exact=True).confirmed
            assert rational.confirmed(tmp_path / "c.zip", graph, about)


def test_lemmas_make_bounds_better_and_each_counts_for_those_behind_it_alone(
    believed: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]], tmp_path: Path
) -> None:
    graph, property_, certificate = case("lemmas")
    forest = forest_of(certificate)
    assert checked(graph, property_, certificate, tmp_path / "c.zip").confirmed
    ((relu, low, high),) = believed
    believed.clear()
    wide = changed(forest, nonnegative=np.full_like(forest.arrays["nonnegative"], 0))
    checked(graph, property_, with_forest(certificate, wide), tmp_path / "c.zip")
    assert ((believed[0][1] < low) | (believed[0][2] > high)).any()  # what it says is what its leaves prove
    own = {(int(n), bool(u)) for n, u in zip(forest.arrays["lemma_neurons"], forest.arrays["lemma_upper"], strict=True)}
    assert len(own) == forest.lemmas
    assert set(forest.arrays["lemma_relus"].tolist()) == {relu}
