"""A checkpoint's file: a zip of one JSON document and arrays, whose comment is the SHA-256 of all that comes before it.

The digest tells damage, not malice: who can write to the file can write another digest. What is read is therefore held
to bounds, made without pickles, and refused in one line where it is not what was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zonocuda.archive import MAX_ARRAY_BYTES, MAX_DOCUMENT_BYTES, Archive
from zonocuda.checkpoint.codec import decode, encode

T = TypeVar("T")

FORMAT = "zonocuda.checkpoint/1"
DOCUMENT = "checkpoint.json"
MAX_FILE_BYTES = 2**32
DTYPES = ("|b1", "|i1", "|u1", "<i4", "<i8", "<f2", "<f4", "<f8")
_DIGEST = 64
"""Characters of the comment."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; the message is one line."""


def write(path: Path, identity: Mapping[str, str], state: object) -> None:
    """Replaces the file: what is there at any moment is whole.

    Args:
        path: of the file.
        identity: what the state is of, word by word.
        state: a dataclass (:mod:`zonocuda.checkpoint.codec`).

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}-{os.urandom(8).hex()}.tmp")
    try:
        with temporary.open("x+b") as file:
            _write(file, identity, state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(file: Any, identity: Mapping[str, str], state: object) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        count, left = 0, [MAX_ARRAY_BYTES]

        def put(values: NDArray[np.generic]) -> object:
            nonlocal count
            name, content = f"{count}.npy", io.BytesIO()
            count += 1
            held = np.asarray(values, order="C")
            held = held.astype(held.dtype.newbyteorder("<"), copy=False)
            left[0] -= held.nbytes + 2**10
            _fits(left[0])
            np.lib.format.write_array(content, held, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(name), content.getvalue(), zipfile.ZIP_DEFLATED, 1)
            return name

        document = {"format": FORMAT, "identity": dict(identity), "state": encode(state, put)}
        text = json.dumps(document, allow_nan=False).encode()
        _fits(MAX_DOCUMENT_BYTES - len(text))
        archive.writestr(zipfile.ZipInfo(DOCUMENT), text, zipfile.ZIP_DEFLATED, 1)
        archive.comment = b"0" * _DIGEST
    file.seek(0)
    found = _digest_of(file)
    file.seek(-_DIGEST, os.SEEK_END)
    file.write(found)


def _fits(left: int) -> None:
    if left < 0:
        raise OSError(errno.EFBIG, "the state is larger than a checkpoint may be")


def _digest_of(file: Any) -> bytes:
    """Of all but the last bytes, from the place where the file is read."""
    left = os.fstat(file.fileno()).st_size - _DIGEST - file.tell()
    digest = hashlib.sha256()
    while left > 0:
        block = file.read(min(left, 2**20))
        if not block:
            break
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()


def read(path: Path, identity: Mapping[str, str], kind: type[T]) -> T:
    """The state that was written.

    Args:
        path: of the file.
        identity: what the state must be of, word by word.
        kind: of the state.

    Raises:
        CheckpointError: a file that is damaged, or none of this format; a state of something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not _DIGEST < size <= MAX_FILE_BYTES:
            raise CheckpointError(f"{path}: is damaged: no checkpoint has {size} bytes")
        digest = _digest_of(file)
        if file.read() != digest:
            raise CheckpointError(f"{path}: is damaged: its digest is another")
    try:
        archive = Archive(path, DTYPES, MAX_FILE_BYTES)
        try:
            document = json.loads(archive.read(DOCUMENT, MAX_DOCUMENT_BYTES))
            _check(document, identity)

            def get(name: object) -> NDArray[Any]:
                if not isinstance(name, str) or not name.endswith(".npy"):
                    raise ValueError("no array")
                return archive.array(name)

            return decode(kind, document["state"], get)
        finally:
            archive.close()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is damaged: {' '.join(str(error).split())[:200]}") from error


def _check(document: Any, identity: Mapping[str, str]) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"is no checkpoint of format {FORMAT}")
    found = document.get("identity")
    if not isinstance(found, dict) or "state" not in document:
        raise CheckpointError("is damaged: it does not say of what it is")
    for name, value in identity.items():
        if found.get(name) != value:
            told = str(found.get(name))[:80]
            values = "" if len(value) == _DIGEST else f": {told}, not {value}"
            raise CheckpointError(f"is of another {name}{values}; it cannot be gone on from")
