"""Proofs by splitting: confirmed by two checkers, and by none once something of them is not true."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.check import rational
from tests.check.certificates import least_sample
from tests.check.neuron_trees import changed, neuron_proof, with_forest
from tests.verifier.graphs import constraint, fc, random_box, residual, spec
from zonocuda.checker import CertificateError, check_proof
from zonocuda.checker.certificate import read_document
from zonocuda.checker.parallel import Work
from zonocuda.checker.proof import Sources
from zonocuda.checker.verdict import Checked
from zonocuda.graph import Graph
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.forest import ForestRecord, ForestWriter, LeafRow
from zonocuda.specs import LinearConstraint, Spec
from zonocuda.verifier import Verdict, verify

Case = tuple[Graph, Spec, Certificate]
SEED = 20271


def above(graph: Graph, width: float, seed: int, gap: float) -> Spec:
    """Y_0 > t on a random box, with t below the least of many samples by ``gap`` of the output's size."""
    lower, upper = random_box(graph, width=width, seed=seed)
    least = least_sample(graph, lower, upper)
    row = constraint({0: 1.0}, gap * (1 + abs(least)) - least)
    return spec(lower[0], upper[0], [[row]], int(np.prod(graph.output_shape)))


@cache
def case(kind: str) -> Case:
    """A proof by splitting inputs, neurons, or neurons with lemmas."""
    if kind in ("neurons", "lemmas"):
        graph = fc(2, (3, 6, 6, 2))
        property_ = above(graph, 1.0, 2, 0.01)
        certificate, least = neuron_proof(graph, property_.regions[0], lemmas=3 if kind == "lemmas" else 0)
        assert least > 0
        return graph, property_, certificate
    graph, property_ = {
        "box": lambda: (fc(5, (2, 6, 6, 2)), above(fc(5, (2, 6, 6, 2)), 1.5, 5, 0.05)),
        "residual": lambda: (residual(3), above(residual(3), 0.6, 3, 0.1)),
        "several": lambda: several(fc(5, (2, 6, 6, 2))),
    }[kind]()
    result = verify(graph, property_, certificate=True, split="input", timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.splits
    assert result.certificate is not None
    return graph, property_, result.certificate


def several(graph: Graph) -> tuple[Graph, Spec]:
    """Two disjuncts, of two rows and of one, the last one strict and of an input, too."""
    one = above(graph, 1.5, 5, 0.05)
    (region,) = one.regions
    ((first,),) = region.disjuncts
    other = LinearConstraint({0: Fraction(1), 1: Fraction(1, 1000)}, {}, first.constant + Fraction(1, 10))
    last = LinearConstraint(first.outputs, {1: Fraction(1, 2**20)}, first.constant + Fraction(1, 10), True)
    return graph, spec(region.box.lower, region.box.upper, [[first, other], [last]], 2)


KINDS = ("box", "residual", "several", "neurons", "lemmas")


def checked(graph: Graph, property_: Spec, certificate: Certificate, path: Path, jobs: int = 1, **how: Any) -> Checked:
    """What the checker says of a certificate that was written and read."""
    certificate.save(path)
    document = read_document(path)
    try:
        fields, sources = document.fields, Sources(document.archive, **how, work=Work(jobs))
        return check_proof(fields["certificate"], graph, property_, None, sources, fields["ran"]["semantics"])
    except CertificateError as error:
        return Checked(False, str(error), ())
    finally:
        document.close()


def forest_of(certificate: Certificate) -> ForestRecord:
    """Its only forest."""
    (region,) = certificate.regions
    assert region.forest is not None
    return region.forest


@pytest.mark.parametrize("kind", KINDS)
def test_a_proof_is_confirmed_in_floats_in_balls_and_in_rational_numbers(kind: str, tmp_path: Path) -> None:
    graph, property_, certificate = case(kind)
    forest = forest_of(certificate)
    assert forest.leaves > 2
    table, used = forest.arrays["nonnegative"], np.concatenate([forest.arrays[n] for n in ("slopes", "row_slopes")])
    both = np.concatenate([table, forest.arrays["negative"]], 1) if "negative" in forest.arrays else table
    assert len(np.unique(both, axis=0)) == len(table)  # what leaves share is there once
    assert set(used.tolist()) - {-1} == set(range(len(table)))
    assert (forest.lemmas > 0) == (kind == "lemmas")
    assert (forest.arrays["multipliers"] > 0).any() == (kind in ("neurons", "lemmas"))
    for exact in (False, True):
        result = checked(graph, property_, certificate, tmp_path / "c.zip", exact=exact)
        assert result.confirmed, result
        assert f"{forest.leaves} leaves, {forest.lemmas} lemmas" in result.details[-1]
    assert rational.confirmed(tmp_path / "c.zip", graph, property_)


def test_a_tree_that_takes_too_much_memory_is_not_written_down_and_changes_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, property_, _ = case("box")
    monkeypatch.setattr("zonocuda.verifier.splitting.RECORD_MEMORY", 0)
    result = verify(graph, property_, certificate=True, split="input", timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert result.certificate.reason.startswith("the leaves of a proof by splitting the box take more than")


def false_one(graph: Graph, property_: Spec) -> Spec:
    """A property that some sample violates by little: the same rows, moved."""
    (region,) = property_.regions
    shape = (1, *graph.input_shape)
    lower, upper = region.box.lower.reshape(shape), region.box.upper.reshape(shape)
    generator = torch.Generator().manual_seed(3)
    x = lower + (upper - lower) * torch.rand(500, *graph.input_shape, generator=generator, dtype=torch.float64)
    y = graph(x).reshape(500, -1)
    rows, points = region.disjuncts[0], zip(x.flatten(1).tolist(), y.tolist(), strict=True)
    worst = min(max(float(row.value(*point)) for row in rows) for point in points)
    less = Fraction(worst + 1e-9 * (1 + abs(worst)))
    moved = [[replace(row, constant=row.constant - less) for row in one] for one in region.disjuncts]
    return spec(region.box.lower, region.box.upper, moved, property_.outputs)


def tampered(forest: ForestRecord, rng: random.Random) -> ForestRecord:
    """One to three random edits of arrays: numbers, elements, order."""
    result = forest
    for _ in range(rng.randint(1, 3)):
        name = rng.choice([name for name, values in result.arrays.items() if values.size])
        values = np.array(result.arrays[name])
        flat = values.reshape(-1)
        place = rng.randrange(len(flat))
        match rng.randrange(6):
            case 0:
                flat[place] = rng.choice(
                    [0, 1, 2, 3, 127, 129, 255] if values.dtype == np.uint8 else [-2, -1, 0, 1, 2, 9]
                )
            case 1 if values.dtype == np.float64:
                flat[place] = rng.choice([-flat[place], flat[place] * 2, np.nan, np.inf, -1e-300, 1e300])
            case 2:
                values = np.delete(values, rng.randrange(len(values)), axis=0)
            case 3:
                values = np.insert(values, rng.randrange(len(values)), values[0], axis=0)
            case 4:
                other = rng.randrange(len(flat))
                flat[place], flat[other] = flat[other], flat[place]
            case _:
                values = np.roll(values, 1, axis=0)
        result = changed(result, **{name: values})
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_no_tampering_confirms_a_false_property_and_what_is_confirmed_is_a_proof(kind: str, tmp_path: Path) -> None:
    graph, property_, certificate = case(kind)
    wrong = false_one(graph, property_)
    assert not checked(graph, wrong, certificate, tmp_path / "c.zip").confirmed
    rng, still = random.Random(SEED), 0
    for trial in range(40):
        edited = with_forest(certificate, tampered(forest_of(certificate), rng))
        assert not checked(graph, wrong, edited, tmp_path / "c.zip").confirmed, f"seed {SEED}, trial {trial}"
        if checked(graph, property_, edited, tmp_path / "c.zip").confirmed:
            still += 1
            exact = checked(graph, property_, edited, tmp_path / "c.zip", exact=True)
            assert exact.confirmed, f"seed {SEED}, trial {trial}: {exact.reason}"
    assert 0 < still < 40


Edit = Callable[[ForestRecord], ForestRecord]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda f: changed(f, kind=f.arrays["kind"][:-1]), "a child is missing"),
        (lambda f: changed(f, kind=np.append(f.arrays["kind"], np.uint8(0))), "there is more than its trees take"),
        (lambda f: changed(f, kind=np.full(len(f.arrays["kind"]), 7, np.uint8)), "other numbers than 0, 1 and 2"),
        (lambda f: changed(f, kind=f.arrays["kind"].astype(np.int32)), "kind must be a uint8 array"),
        (lambda f: changed(f, scope=f.arrays["scope"] + 100), "scope is no number of splits"),
        (lambda f: changed(f, scope=f.arrays["scope"] * 0 - 1), "where the region has no bounds"),
        (lambda f: changed(f, nonnegative=f.arrays["nonnegative"] + np.uint8(129)), "lies outside [0, 1]"),
        (lambda f: changed(f, weights=-f.arrays["weights"]), "weights holds a number outside its range"),
        (lambda f: changed(f, at=f.arrays["at"] * np.nan), "at holds a number outside its range"),
        (lambda f: changed(f, rows=f.arrays["rows"] + 9), "has no row 9"),
        (lambda f: changed(f, counts=f.arrays["counts"] * 0), "there is more than its trees take"),
        (lambda f: changed(f, multiplied=f.arrays["multiplied"] + 1), "holds too little for its trees"),
        (lambda f: changed(f, inputs=f.arrays["inputs"] + 5), "inputs holds a number outside its range"),
        (lambda f: changed(f, slopes=None), "slopes must be a int32 array"),
        (lambda f: ForestRecord((), f.arrays, 0), "trees must name every disjunct"),
        (lambda f: ForestRecord(((0, 5),), f.arrays, 0), "trees must be lists of disjuncts"),
    ],
)
def test_each_of_the_edits_one_thinks_of_first_is_seen(edit: Edit, reason: str, tmp_path: Path) -> None:
    graph, property_, certificate = case("box")
    result = checked(graph, property_, with_forest(certificate, edit(forest_of(certificate))), tmp_path / "c.zip")
    assert not result.confirmed
    assert reason in result.reason


def test_swapped_children_a_shifted_split_and_a_multiplier_of_the_wrong_sign_prove_nothing(tmp_path: Path) -> None:
    graph, property_, certificate = case("neurons")
    forest = forest_of(certificate)
    swapped = changed(forest, row_slopes=forest.arrays["row_slopes"][::-1].copy())
    assert not checked(graph, property_, with_forest(certificate, swapped), tmp_path / "c.zip").confirmed
    shifted = changed(forest, points=forest.arrays["points"] + 1e3)
    assert not checked(graph, property_, with_forest(certificate, shifted), tmp_path / "c.zip").confirmed
    negative = changed(forest, multipliers=-forest.arrays["multipliers"])
    assert (
        "outside its range" in checked(graph, property_, with_forest(certificate, negative), tmp_path / "c.zip").reason
    )


def test_a_leaf_that_no_input_reaches_needs_a_positive_multiple(tmp_path: Path) -> None:
    """z_0 = x_0 + 3 >= 1 on the box [-1, 1]^2: the part with z_0 <= 0 is empty, that with z_0 >= 0 is not."""
    graph = fc(0, (2, 2, 2))
    weight, bias = graph.nodes[1].op.weight, graph.nodes[1].op.bias  # type: ignore[attr-defined]
    weight.copy_(torch.eye(2))
    bias.copy_(torch.tensor([3.0, 0.0]))
    property_ = spec(-torch.ones(2).double(), torch.ones(2).double(), [[constraint({0: 1.0}, 1e6)]], 2)
    base = neuron_proof(graph, property_.regions[0])[0]

    def proof(point: float, first: LeafRow, second: LeafRow) -> Checked:
        writer = ForestWriter()
        writer.tree([0])
        writer.neuron_split(0, 0, point)
        writer.leaf([first])
        writer.leaf([second])
        return checked(graph, property_, with_forest(base, writer.finish()), tmp_path / "c.zip")

    none = LeafRow((), multipliers=((0, 1.0),))
    assert proof(0.0, none, LeafRow()).confirmed
    assert proof(0.0, LeafRow(()), LeafRow()).confirmed  # the bounds of the box say so, too
    assert not proof(0.0, LeafRow(), none).confirmed
    assert not proof(3.0, none, LeafRow()).confirmed
    assert not proof(3.0, LeafRow(), none).confirmed


def test_lemmas_come_in_order_and_need_bounds_of_the_region(tmp_path: Path) -> None:
    graph, property_, certificate = case("lemmas")
    forest = forest_of(certificate)
    early = changed(forest, lemma_relus=np.array([*forest.arrays["lemma_relus"][:-1], 0], np.int32))
    reason = checked(graph, property_, with_forest(certificate, early), tmp_path / "c.zip").reason
    assert "lemmas must be in the order of their ReLUs" in reason
    (record,) = certificate.regions
    bare = Certificate("", (type(record)(0, False, (), (), forest=forest),))
    assert "lemmas need the region's own bounds" in checked(graph, property_, bare, tmp_path / "c.zip").reason


def test_a_certificate_of_another_network_or_of_a_larger_box_proves_nothing(tmp_path: Path) -> None:
    graph, property_, certificate = case("box")
    (region,) = property_.regions
    wide = spec(region.box.lower - 5, region.box.upper + 5, region.disjuncts, property_.outputs)
    assert not checked(graph, wide, certificate, tmp_path / "c.zip").confirmed
    other = fc(6, (2, 6, 6, 2))
    assert not checked(other, false_one(other, above(other, 1.5, 5, 0.0)), certificate, tmp_path / "c.zip").confirmed


def test_lemmas_of_another_network_and_leaves_of_another_tree_prove_nothing(tmp_path: Path) -> None:
    graph, property_, certificate = case("lemmas")
    other = fc(3, (3, 6, 6, 2))
    wrong = false_one(other, above(other, 1.0, 3, 0.01))
    assert not checked(other, wrong, certificate, tmp_path / "c.zip").confirmed
    forest = forest_of(certificate)
    _, _, plain = case("neurons")
    mixed = {name: forest_of(plain).arrays[name] for name in ("row_slopes", "multiplied", "splits", "multipliers")}
    result = checked(graph, property_, with_forest(certificate, changed(forest, **mixed)), tmp_path / "c.zip")
    assert not result.confirmed
    assert "forest: " in result.reason
    count = len(forest.arrays["row_slopes"])
    for leaf in range(0, count, max(1, count // 3)):  # all leaves with what one of them has
        same = np.full(count, forest.arrays["row_slopes"][leaf])
        edited = with_forest(certificate, changed(forest, row_slopes=same))
        if checked(graph, property_, edited, tmp_path / "c.zip").confirmed:
            assert checked(graph, property_, edited, tmp_path / "c.zip", exact=True).confirmed
        assert not checked(graph, false_one(graph, property_), edited, tmp_path / "c.zip").confirmed


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    _, _, certificate = case("lemmas")
    path = tmp_path / "c.zip"
    certificate.save(path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CertificateError):
            read_document(path)


def test_a_leaf_that_the_bounds_of_a_larger_box_leave_open_is_tried_with_those_of_its_own(tmp_path: Path) -> None:
    graph, property_, certificate = case("box")
    forest = forest_of(certificate)
    assert forest.arrays["scope"].any()
    far = with_forest(certificate, changed(forest, scope=forest.arrays["scope"] * 0))
    assert checked(graph, property_, far, tmp_path / "c.zip").confirmed
    assert not rational.confirmed(tmp_path / "c.zip", graph, property_)  # which does as the certificate says
    assert not checked(graph, false_one(graph, property_), far, tmp_path / "c.zip").confirmed
