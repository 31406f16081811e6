"""Certificates of every kind moved to properties that do not hold, or edited: none is confirmed unless it is a proof.

``python -m tests.check.tampering`` tries a thousand of each.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.check.attacks import KINDS, Proof, false_claims
from tests.check.certificates import inline
from tests.check.tampering import FILES, ConfirmedError, Counts, claim, edited, edited_files, forest_of
from tests.check.tree_edits import EDITS, trees_of, with_trees
from tests.thorough import few

SLOW = ("smooth boxes", "ulp boxes")
TREES = ("boxes", "neurons", "lemmas", "smooth boxes", "executed boxes", "executed neurons", "ulp boxes")


@cache
def proofs(kind: str, count: int) -> tuple[tuple[int, Proof], ...]:
    """The first proofs of a kind, with their seeds."""
    found: list[tuple[int, Proof]] = []
    for seed in range(20):
        if len(found) < count and (proof := KINDS[kind](seed)) is not None:
            found.append((seed, proof))
    assert len(found) == count
    return tuple(found)


@pytest.mark.parametrize("count", few(1, [1, 4]))
@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind not in SLOW), *few(0, SLOW)])
def test_no_certificate_that_is_moved_to_a_false_property_is_confirmed(kind: str, count: int) -> None:
    counts = Counts()
    for seed, proof in proofs(kind, count):
        assert proof.checked(inline(proof.certificate)).confirmed
        assert any(row.ends for row in proof.certificate.regions[0].rows) == (kind == "maxima")
        assert (forest_of(proof.certificate) is not None) == (kind in TREES)
        claim(proof, kind, seed, counts, 4)
    assert counts.total == 4 * count


LEMMAS = tuple(name for name in EDITS if "lemma" in name)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("boxes", tuple(EDITS)),
        ("lemmas", LEMMAS),
        *few(1, [("executed boxes", tuple(EDITS)), ("neurons", tuple(EDITS))]),
    ],
)
def test_edits_of_every_kind_confirm_nothing_but_proofs(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    counts = Counts()
    ((seed, proof),) = proofs(kind, 1)
    edited(proof, None, seed, counts, len(names), names)
    edited_files(proof, seed, counts, tmp_path / "c.zip")
    assert set(counts.tried) == {*names, *FILES}
    for name in ("a missing child", "slopes out of range"):
        assert not counts.confirmed[name]


@pytest.mark.parametrize("kind", ["boxes", "neurons", "lemmas"])
def test_trees_that_are_read_and_written_are_the_same(kind: str) -> None:
    ((_, proof),) = proofs(kind, 1)
    forest = forest_of(proof.certificate)
    assert forest is not None
    again = with_trees(forest, trees_of(forest))
    assert again.trees == forest.trees
    assert all(again.arrays[name].tobytes() == values.tobytes() for name, values in forest.arrays.items())


def test_a_certificate_that_is_confirmed_and_should_not_be_is_told() -> None:
    ((seed, proof),) = proofs("boxes", 1)
    trusting = _Trusting(proof.graph, proof.property_, proof.certificate)
    with pytest.raises(ConfirmedError, match="a false claim"):
        claim(trusting, "boxes", seed, Counts())
    with pytest.raises(ConfirmedError, match="a false claim"):
        edited(trusting, None, seed, Counts())


class _Trusting(Proof):
    """Confirms everything."""

    def checked(self, *arguments: object, **how: object) -> object:  # type: ignore[override]
        return type("Checked", (), {"confirmed": True})


@pytest.mark.parametrize("kind", ["boxes", "executed boxes"])
def test_false_claims_are_near(kind: str) -> None:
    """The proof's own row is moved by no more than is between it and the samples, and something: next to nothing."""
    ((seed, proof),) = proofs(kind, 1)
    (own,) = proof.property_.regions[0].disjuncts[0]
    moved = [wrong.regions[0].disjuncts[0][0] for wrong in false_claims(proof, 4, seed)]
    gaps = [float(own.constant - row.constant) for row in moved]
    assert all(gap > 0 for gap in gaps)
    assert min(gaps) < 0.2 * (1 + abs(float(own.constant)))
