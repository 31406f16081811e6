"""Values come back from files as they were; files that are damaged, hostile or of something else are refused."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.checkpoint import CheckpointError, alike, digest, read, write
from zonocuda.checkpoint import file as files

IDENTITY = {"network": "a" * 64, "semantics": "real"}


@dataclass(frozen=True, eq=False)
class Inner:
    values: Tensor
    counts: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Outer:
    name: str
    number: float
    whole: int
    is_so: bool
    ratio: Fraction
    dtype: torch.dtype
    pair: tuple[int, float]
    many: tuple[Inner, ...]
    by_place: Mapping[int, Inner]
    nothing: Inner | None
    something: Inner | None


def inner(seed: int = 0) -> Inner:
    generator = torch.Generator().manual_seed(seed)
    return Inner(torch.randn(3, 2, generator=generator).half(), np.arange(4, dtype=np.int32).reshape(2, 2))


def outer() -> Outer:
    parts = inner(0), inner(1), inner(2)
    ratio = Fraction(-(10**30), 7)
    return Outer(
        "a", float("-inf"), 2**60, True, ratio, torch.float16, (1, 0.1), parts[:2], {5: parts[2]}, None, parts[0]
    )


def same(a: Any, b: Any) -> bool:
    """Bit by bit; sequences come back as tuples, mappings as dicts."""
    return digest(a) == digest(b)


def test_what_is_written_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path, value = tmp_path / "state.zip", outer()
    write(path, IDENTITY, value)
    found = read(path, IDENTITY, Outer)
    assert same(found, value)
    assert (found.name, found.number, found.whole, found.ratio, found.pair) == (
        "a",
        -np.inf,
        2**60,
        value.ratio,
        (1, 0.1),
    )
    assert found.many[1].values.dtype is torch.float16
    assert torch.equal(found.many[1].values, value.many[1].values)
    assert found.by_place[5].counts.tolist() == [[0, 1], [2, 3]]
    assert found.nothing is None
    assert [file.name for file in tmp_path.iterdir()] == ["state.zip"]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0)])
def test_tensors_without_numbers_and_without_dimensions_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, replace(inner(), values=torch.ones(shape)))
    assert read(path, IDENTITY, Inner).values.shape == shape


@pytest.mark.parametrize(
    "change",
    [
        lambda v: replace(v, name="b"),
        lambda v: replace(v, number=-1e308),
        lambda v: replace(v, many=v.many[::-1]),
        lambda v: replace(v, something=replace(inner(), values=inner().values.float())),
        lambda v: replace(v, something=replace(inner(), values=inner().values.reshape(2, 3))),
        lambda v: replace(
            v, something=replace(inner(), values=torch.nextafter(inner().values.float(), torch.ones(())))
        ),
    ],
)
def test_a_digest_tells_values_apart(change: Callable[[Outer], Outer]) -> None:
    assert digest(outer()) == digest(outer())
    assert digest(change(outer())) != digest(outer())


def test_rows_of_one_table_are_alike() -> None:
    @dataclass(frozen=True)
    class Rows:
        a: Tensor
        b: Tensor

    rows = Rows(torch.ones(3, 2), torch.ones(3, dtype=torch.int64))
    assert alike(rows, Rows(torch.ones(0, 2), torch.ones(0, dtype=torch.int64)))
    for wrong in (
        Rows(torch.ones(3, 1), rows.b),
        Rows(rows.a.double(), rows.b),
        Rows(torch.ones(2, 2), rows.b),
        Rows(rows.a, torch.ones((), dtype=torch.int64)),
    ):
        assert not alike(wrong, rows)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"network": "b" * 64, "semantics": "real"}, "is of another network; it cannot"),
        ({"network": "a" * 64, "semantics": "float32"}, "is of another semantics: real, not float32; it cannot"),
        ({"network": "a" * 64, "semantics": "real", "split": "input"}, "is of another split: None, not input"),
    ],
)
def test_a_state_of_something_else_is_refused(identity: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, inner())
    with pytest.raises(CheckpointError, match=message):
        read(path, identity, Inner)


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, inner())
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="is damaged"):
            read(path, IDENTITY, Inner)
    for length in (0, 10, 64, 65, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is damaged"):
            read(path, IDENTITY, Inner)


def forged(path: Path, state: object, members: Mapping[str, bytes]) -> None:
    """A file with the right digest, and what it likes inside."""
    with zipfile.ZipFile(path, "w") as archive:
        document = {"format": files.FORMAT, "identity": IDENTITY, "state": state}
        archive.writestr(files.DOCUMENT, json.dumps(document) if not isinstance(state, bytes) else state)
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = b"0" * 64
    with path.open("r+b") as file:
        found = files._digest_of(file)
        file.seek(-64, os.SEEK_END)
        file.write(found)


def pickled() -> bytes:
    """An array whose loading would run code."""
    import io

    content = io.BytesIO()
    np.save(content, np.array([print], dtype=object), allow_pickle=True)
    return content.getvalue()


GOOD = {"is": "Inner", "values": "0.npy", "counts": "0.npy"}


@pytest.mark.parametrize(
    ("state", "members"),
    [
        (GOOD, {}),
        (GOOD, {"0.npy": pickled()}),
        (GOOD, {"0.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8',"}),
        ({**GOOD, "is": "Outer"}, {}),
        ({**GOOD, "more": 1}, {}),
        ({"is": "Inner"}, {}),
        ({**GOOD, "values": "checkpoint.json"}, {}),
        ({**GOOD, "values": ["0.npy"]}, {}),
        ([], {}),
        (None, {}),
        (b"[" * 100_000, {}),
        (b'{"format"', {}),
        (b"[]", {}),
        (b"\xff\xfe", {}),
        (b'{"format": ' + b"9" * 10_000 + b"}", {}),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(state: object, members: Mapping[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "state.zip"
    forged(path, state, members)
    with pytest.raises(CheckpointError) as caught:
        read(path, IDENTITY, Inner)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("number", "one"),
        ("number", True),
        ("whole", 1.0),
        ("is_so", 1),
        ("ratio", "1/0"),
        ("ratio", "1/-2"),
        ("ratio", "1e9"),
        ("ratio", "9" * 20_000),
        ("dtype", "int8"),
        ("pair", [1]),
        ("many", {}),
        ("by_place", [[1]]),
        ("by_place", [["x", None]]),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, replace(outer(), many=(), by_place={}, something=None))
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read(files.DOCUMENT))
    forged(path, {**document["state"], field: value}, {})
    with pytest.raises(CheckpointError, match=f"Outer.{field}"):
        read(path, IDENTITY, Outer)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, inner())
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, IDENTITY, inner(1))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.zip"]


@pytest.mark.parametrize("limit", ["MAX_ARRAY_BYTES", "MAX_DOCUMENT_BYTES"])
def test_what_could_not_be_read_again_is_not_written(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.zip"
    write(path, IDENTITY, inner())
    before = path.read_bytes()
    monkeypatch.setattr(files, limit, 100)
    with pytest.raises(OSError, match="larger than a checkpoint may be"):
        write(path, IDENTITY, inner(1))
    assert path.read_bytes() == before
