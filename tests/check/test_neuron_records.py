"""Proofs that ``verify`` finds by splitting neurons are written down, and confirmed."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.check import rational
from tests.check.test_forests import above, checked, false_one, forest_of
from tests.data import data_root
from tests.thorough import few
from tests.verifier.graphs import concat, fc, residual, spec
from zonocuda.branch import SignParts
from zonocuda.checker.forest import read_forest
from zonocuda.checker.walk import walk
from zonocuda.cli.main import main
from zonocuda.graph import Graph
from zonocuda.prove import leaf_program
from zonocuda.prove.leaf_program import LeafOracle
from zonocuda.prove.sign_bounds import Pace
from zonocuda.prove.sign_record import SignLeaves, TreeWriter
from zonocuda.specs import LinearConstraint, Spec
from zonocuda.verifier import Verdict, verify


def deep() -> tuple[Graph, Spec]:
    graph = fc(3, (4, 12, 12, 12, 2))
    return graph, above(graph, 1.0, 3, 0.02)


def many() -> tuple[Graph, Spec]:
    """Disjuncts of two rows and of one that is large."""
    graph, property_ = deep()
    (region,) = property_.regions
    ((row,),) = region.disjuncts
    other = LinearConstraint({0: Fraction(1), 1: Fraction(1, 1000)}, {}, row.constant + Fraction(1, 10))
    large = LinearConstraint({0: Fraction(2) ** 50}, {}, row.constant * 2**50)
    return graph, spec(region.box.lower, region.box.upper, [[other, row], [large]], 2)


CASES: dict[str, Callable[[], tuple[Graph, Spec]]] = {
    "deep": deep,
    "lemmas": deep,
    "many": many,
    "relu of a relu": lambda: (concat(3), above(concat(3), 0.5, 3, 0.05)),
    "residual": lambda: (residual(3), above(residual(3), 0.6, 3, 0.03)),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, torch.float32 if name in ("deep", "lemmas") else torch.float64) for name in CASES]
)
def test_what_splitting_neurons_proves_is_confirmed(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "lemmas":  # soon, and where one search would do
        monkeypatch.setattr("zonocuda.verifier.neuron_search.FIRST", 2)
        monkeypatch.setattr("zonocuda.verifier.neuron_search.LATER", 2)
    graph, property_ = CASES[name]()
    result = verify(graph, property_, certificate=True, split="neuron", dtype=dtype, timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.splits
    assert result.certificate is not None
    assert not result.certificate.reason
    forest = forest_of(result.certificate)
    assert forest.leaves > 2
    assert (forest.lemmas > 0) == (name == "lemmas")
    for exact in (False, True):
        found = checked(graph, property_, result.certificate, tmp_path / "c.zip", exact=exact)
        assert found.confirmed, found
    if name in ("deep", "lemmas"):
        assert rational.confirmed(tmp_path / "c.zip", graph, property_)
    wrong = false_one(graph, property_)
    assert not checked(graph, wrong, result.certificate, tmp_path / "c.zip").confirmed


def test_what_linear_programs_proved_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[bool] = []

    program = LeafOracle.program

    def counted(oracle: LeafOracle, part: SignParts) -> Any:
        found = program(oracle, part)
        solved.append(found is not None and found.value > 0)
        return found

    monkeypatch.setattr(LeafOracle, "program", counted)
    monkeypatch.setattr(leaf_program, "FEW", 1000)
    monkeypatch.setattr("zonocuda.verifier.neuron_search.CHILD", Pace(0, 0.0, 0.0))  # leaves all to the programs
    graph, property_ = deep()
    result = verify(graph, property_, certificate=True, split="neuron", timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert not result.certificate.reason
    assert sum(solved) > 2
    assert checked(graph, property_, result.certificate, tmp_path / "c.zip").confirmed
    assert not checked(graph, false_one(graph, property_), result.certificate, tmp_path / "c.zip").confirmed


def test_what_cannot_be_written_down_is_said_and_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, property_ = deep()
    monkeypatch.setattr("zonocuda.verifier.neuron_record.MAX_BYTES", 0)
    result = verify(graph, property_, certificate=True, split="neuron", timeout=100.0)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    assert result.certificate.reason == "the leaves of a proof by splitting neurons take more than 0 MiB"


def test_nothing_is_searched_twice_where_no_certificate_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, property_ = deep()
    asked = verify(graph, property_, certificate=True, split="neuron", timeout=100.0)
    monkeypatch.delattr("zonocuda.verifier.splits.record_neurons")
    plain = verify(graph, property_, split="neuron", timeout=100.0)
    assert (plain.verdict, plain.reason) == (asked.verdict, asked.reason)
    assert plain.certificate is None


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_is_told_by_the_signs_of_its_leaves(seed: int) -> None:
    graph = fc(0, (2, 5, 4, 1))
    random = np.random.default_rng(seed)
    columns = random.permutation(9)[:7]
    rows: list[np.ndarray[tuple[int, ...], np.dtype[np.int8]]] = []

    def grow(signs: np.ndarray[tuple[int, ...], np.dtype[np.int8]], depth: int) -> None:
        free = np.flatnonzero(signs == 0)
        if not depth or not len(free) or random.random() < 0.15:
            rows.append(signs)
            return
        u = random.choice(free)
        for sign in (-1, 1):
            part = signs.copy()
            part[u] = sign
            grow(part, depth - 1)

    grow(np.zeros(7, np.int8), 5)
    signs = np.stack(rows)[random.permutation(len(rows))]
    slopes = random.integers(0, 129, signs.shape).astype(np.uint8)
    multipliers = (random.random(signs.shape) * (signs != 0)).astype(np.float16)
    zero = np.zeros(len(signs), np.int64)
    writer = TreeWriter(graph, np.sort(columns))
    writer.tree(0, SignLeaves(columns, zero, zero, signs, slopes, multipliers), {0: (0, 2.0)})
    record = writer.writer.finish()
    forest = read_forest({**record.arrays, "trees": [[0]]}, [5, 4], 2, 1)
    (leaves,) = [list(tree) for tree in walk(forest, np.zeros(2), np.ones(2))]
    assert len(leaves) == len(signs)
    known = {}
    for s, u, m in zip(signs, slopes, multipliers, strict=True):
        told = frozenset((int(c), int(v)) for c, v in zip(columns, s, strict=True) if v)
        known[told] = dict(zip(columns.tolist(), u.tolist(), strict=True)), dict(zip(columns.tolist(), m, strict=True))
    for leaf in leaves:
        at = [cut.neuron + 5 * cut.relu for cut in leaf.cuts]
        own, betas = known.pop(frozenset((c, 1 if cut.above else -1) for c, cut in zip(at, leaf.cuts, strict=True)))
        (pair,) = leaf.pairs
        assert dict(pair.multipliers) == {k: 2.0 * float(betas[c]) for k, c in enumerate(at) if betas[c] > 0}
        assert forest.nonnegative[pair.slopes].tolist() == [own[c] for c in forest.columns.tolist()]
    assert not known


@pytest.mark.data
@pytest.mark.parametrize(("net", "prop", "lemmas"), few(1, [("256x2", 6, False), ("256x4", 8, True)]))
def test_a_proof_that_splits_neurons_of_a_real_network_is_confirmed(
    net: str, prop: int, lemmas: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_root() / "vnncomp" / "mnist_fc"
    files = str(root / "onnx" / f"mnist-net_{net}.onnx.gz"), str(root / "vnnlib" / f"prop_{prop}_0.03.vnnlib.gz")
    out = tmp_path / "cert.zip"
    assert main(["verify", *files, "--certificate", str(out), "--timeout", "100"]) == 0
    capsys.readouterr()
    assert main(["check", str(out), *files]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "confirmed"
    assert (words[words.index("lemmas;") - 1] != "0") == lemmas
    assert out.stat().st_size < 100_000
