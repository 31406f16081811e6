"""The comparison of two folders of documents sees every difference, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.margins import compare

DOCUMENT = {
    "verdict": "verified",
    "rows": [{"lower": 0.1, "dual": None}],
    "plan": [],
    "seconds": {"total": 1.0},
    "ran": {"dtype": "float32", "versions": {"torch": "2"}},
}


def folder(at: Path, **documents: object) -> Path:
    at.mkdir()
    for name, document in documents.items():
        (at / f"{name}.json").write_text(json.dumps(document))
    return at


def test_equal_documents_have_no_difference_whatever_their_times_and_versions(tmp_path: Path) -> None:
    later = {**DOCUMENT, "seconds": {"total": 2.0}, "ran": {"dtype": "float32", "versions": {"torch": "3"}}}
    assert not list(compare(folder(tmp_path / "a", one=DOCUMENT), folder(tmp_path / "b", one=later)))


def test_the_last_digit_of_a_margin_is_a_difference(tmp_path: Path) -> None:
    moved = {**DOCUMENT, "rows": [{"lower": 0.1 + 2**-56, "dual": None}]}
    before, after = folder(tmp_path / "a", one=DOCUMENT), folder(tmp_path / "b", one=moved)
    assert list(compare(before, after)) == ["one.json: rows[0].lower: 0.1 before, 0.10000000000000002 after"]


def test_what_is_missing_is_a_difference(tmp_path: Path) -> None:
    shorter = {key: value for key, value in DOCUMENT.items() if key != "plan"}
    before, after = folder(tmp_path / "a", one=DOCUMENT, two=DOCUMENT), folder(tmp_path / "b", one=shorter)
    assert list(compare(before, after)) == [f"two.json: only in {before}", "one.json: plan: only before"]
