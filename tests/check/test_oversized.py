"""Certificates that are larger than they say, or say that they are, or lead deep: refused, in little memory."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.check.neuron_trees import changed, with_forest
from tests.check.test_forests import case, checked, forest_of
from tests.peak import peak_growth
from zonocuda import archive
from zonocuda.checker import CertificateError, check_proof
from zonocuda.checker.certificate import read_document
from zonocuda.checker.forest import read_forest
from zonocuda.checker.proof import Sources
from zonocuda.checker.walk import MAX_DEPTH, walk
from zonocuda.prove.forest import ForestRecord

MOST = 2**28
"""Bytes that a refusal may take; documents may have 2^26, and are text."""


def refusal(path: Path, kind: str) -> str:
    """Why a file is refused, or does not prove what it should."""
    graph, property_, _ = case(kind)

    def check() -> str:
        try:
            document = read_document(path)
        except CertificateError as error:
            return str(error)
        try:
            sources = Sources(document.archive)
            found = check_proof(document.fields["certificate"], graph, property_, None, sources)
        except CertificateError as error:
            return str(error)
        finally:
            document.close()
        assert not found.confirmed
        return found.reason

    reason, grown = peak_growth(check)
    assert grown < MOST
    assert "\n" not in reason
    return reason


def npy(shape: str, data: bytes = bytes(64), dtype: str = "|u1") -> bytes:
    """An array whose head says what it will."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def with_arrays(whole: bytes, new: Callable[[str, bytes], bytes]) -> bytes:
    """An archive with other arrays."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name in old.namelist():
            content = old.read(name)
            archive_.writestr(name, new(name, content) if name.startswith("arrays/") else content)
    return out.getvalue()


HUGE = ["(2**40,)", f"({2**40},)", f"({2**62}, 8)", f"({2**63},)", f"(0, {2**62}, 9)", f"(0, {2**64})", "(1,) * 10**9"]
STRANGE = [
    "(-1,)",
    "(64, -1)",
    "(64.0,)",
    "64",
    "(True,)",
    "()",
    "(" * 50 + ")" * 50,
    f"({'1, ' * 200})",
    "(65,)",
    "(63,)",
]


@pytest.mark.parametrize("shape", HUGE + STRANGE)
def test_heads_that_claim_other_shapes_are_refused(shape: str, tmp_path: Path) -> None:
    _, _, certificate = case("box")
    path = tmp_path / "c.zip"
    certificate.save(path)
    whole = path.read_bytes()
    arrays = [name for name in zipfile.ZipFile(path).namelist() if name.startswith("arrays/")]
    for name in arrays[:: len(arrays) // 4]:
        path.write_bytes(with_arrays(whole, lambda other, content, name=name: npy(shape) if other == name else content))
        assert refusal(path, "box")


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, certificate = case("box")
    path = tmp_path / "c.zip"
    certificate.save(path)
    whole = path.read_bytes()
    big = 3 * 10**6
    bomb = with_arrays(whole, lambda name, content: npy(f"({big},)", bytes(big)))
    assert len(bomb) < 10**5
    path.write_bytes(bomb)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_ARRAY_BYTES", 10**6)
        assert "has more than 1000000 bytes" in refusal(path, "box")
    # a head of the archive that says less than there is: what is more is not read, and the sum is another
    at = bomb.rindex(b"PK\x01\x02")
    path.write_bytes(bomb[: at + 24] + struct.pack("<I", 100) + bomb[at + 28 :])
    assert refusal(path, "box")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("certificate.json", b" " * (archive.MAX_DOCUMENT_BYTES + 1))
    assert path.stat().st_size < 10**6
    assert "has more than 67108864 bytes" in refusal(path, "box")
    path.write_bytes(bytes(2**20))
    with path.open("r+b") as file:  # a file with a hole
        file.truncate(archive.MAX_FILE_BYTES + 1)
        file.write(whole[:100])
    assert "has more than" in refusal(path, "box")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("certificate.json", "{}")
        for number in range(200):
            file.writestr(str(number), b"")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 200)
    assert "has more than 200 members" in refusal(path, "box")


def chain(forest: ForestRecord, kind: int, depth: int) -> ForestRecord:
    """A tree of so many splits one below the other, the last tree of the forest as it was told."""
    f, lemmas = forest.arrays, forest.lemmas
    ends, due = [], 0
    for place, one in enumerate(f["kind"].tolist()):
        due += 1 if one else -1
        if due < -len(ends):
            ends.append(place + 1)
    first = ends[lemmas - 1] if lemmas else 0  # nodes of lemmas stay
    leaves, splits = int((f["kind"][:first] == 0).sum()), int((f["kind"][:first] == 2).sum())
    edits = {"kind": np.append(f["kind"][:first], np.array([kind] * depth + [0] * (depth + 1), np.uint8))}
    for name in ("scope", "slopes", "counts", "row_slopes", "multiplied"):
        edits[name] = np.append(f[name][:leaves], np.repeat(f[name][-1:] * (name == "counts"), depth + 1))
    if kind == 1:
        edits["inputs"], edits["at"] = np.zeros(depth, np.int32), np.linspace(0, 1, depth)
        edits["relus"], edits["neurons"], edits["points"] = (f[n][:splits] for n in ("relus", "neurons", "points"))
    else:
        edits["relus"] = np.append(f["relus"][:splits], np.zeros(depth, np.int32))
        edits["neurons"] = np.append(f["neurons"][:splits], np.arange(depth, dtype=np.int32) % 6)
        edits["points"] = np.append(f["points"][:splits], np.zeros(depth))
    counts = int(edits["counts"].sum())
    edits["rows"], edits["weights"] = np.zeros(counts, np.int32), np.ones(counts)
    many = int(edits["multiplied"].sum())
    edits["splits"], edits["multipliers"] = f["splits"][:many], f["multipliers"][:many]
    return changed(forest, **edits)


@pytest.mark.parametrize(("kind", "split"), [("box", 1), ("neurons", 2), ("lemmas", 2)])
def test_trees_that_lead_deep_are_refused(kind: str, split: int, tmp_path: Path) -> None:
    graph, property_, certificate = case(kind)
    forest = forest_of(certificate)
    deep = with_forest(certificate, chain(forest, split, MAX_DEPTH + 9))
    (found, grown) = peak_growth(lambda: checked(graph, property_, deep, tmp_path / "c.zip"))
    assert not found.confirmed
    assert f"deeper than {MAX_DEPTH}" in found.reason
    assert grown < 2 * MOST
    shallow = checked(graph, property_, with_forest(certificate, chain(forest, split, 3)), tmp_path / "c.zip")
    assert "is not refuted" in shallow.reason or shallow.confirmed  # a tree like others
    claims = changed(forest, lemma_relus=np.zeros(10**5, np.int32), lemma_neurons=np.zeros(10**5, np.int32))
    claims = changed(claims, lemma_upper=np.zeros(10**5, np.uint8))
    reason = checked(graph, property_, with_forest(certificate, claims), tmp_path / "c.zip").reason
    assert "a child is missing" in reason
    counts = changed(forest, counts=np.full(len(forest.arrays["counts"]), 2**25 - 1, np.int32))
    reason = checked(graph, property_, with_forest(certificate, counts), tmp_path / "c.zip").reason
    assert "holds too little for its trees" in reason


def test_leaves_are_read_as_they_are_needed() -> None:
    """A complete tree of 2^15 leaves, in the memory of a few."""
    kind = np.zeros(1, np.uint8)
    for _ in range(15):
        kind = np.concatenate([np.full(1, 2, np.uint8), kind, kind])
    splits, leaves = int((kind == 2).sum()), int((kind == 0).sum())
    none, zeros = np.full(leaves, -1, np.int32), np.zeros(splits, np.int32)
    arrays = {
        "kind": kind,
        "relus": zeros,
        "neurons": zeros,
        "points": np.linspace(-1, 1, splits),
        **{name: none for name in ("scope", "slopes", "row_slopes")},
        "counts": none * -1,
        "rows": none + 1,
        "weights": np.ones(leaves),
        "multiplied": none + 1,
        **{name: zeros[:0] for name in ("inputs", "lemma_relus", "lemma_neurons", "splits")},
        **{name: np.zeros(0) for name in ("at", "multipliers")},
        "lemma_upper": np.zeros(0, np.uint8),
        "columns": zeros[:0],
        "nonnegative": np.zeros((0, 0), np.uint8),
    }
    forest = read_forest({**arrays, "trees": [[0]]}, [1], 2, 1)

    def count() -> int:
        return sum(1 for tree in walk(forest, np.zeros(2), np.ones(2)) for leaf in tree if len(leaf.cuts) == 15)

    found, grown = peak_growth(count)
    assert found == leaves == 2**15
    assert grown < 4 * 2**20  # a leaf with its splits takes a thousand bytes and more
