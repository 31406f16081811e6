"""Zip archives of one JSON document and arrays, as certificates and checkpoints are: read within bounds, no pickles."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 2**30
MAX_DOCUMENT_BYTES = 2**26
MAX_ARRAY_BYTES = 2**31
"""Of all arrays together, unpacked."""
MAX_MEMBERS = 2**16
DTYPES = ("|u1", "<i4", "<f8")

_HEADERS = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    RecursionError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)
"""What numpy raises at the head of a file that is none of its own."""
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OverflowError)


class ArchiveError(ValueError):
    """An archive that is malformed or too large; the message is one line."""


class Archive:
    """The members of an archive, each read when it is asked for."""

    def __init__(self, path: str | Path, dtypes: Sequence[str] = DTYPES, longest: int = MAX_FILE_BYTES) -> None:
        """Opens it.

        Args:
            path: of the file.
            dtypes: that arrays may have, as numpy writes them, little-endian.
            longest: a file, in bytes.

        Raises:
            ArchiveError: no archive, one that is too large, or members that are there twice.
        """
        if Path(path).stat().st_size > longest:
            raise ArchiveError(f"has more than {longest} bytes")
        try:
            self._zip, self._path, self._process = zipfile.ZipFile(path), path, os.getpid()
        except _FAULTS as error:
            raise ArchiveError(f"no zip archive ({error})") from error
        members = self._zip.infolist()
        self._members = {member.filename: member for member in members}
        if len(members) > MAX_MEMBERS or len(self._members) != len(members):
            self._zip.close()
            raise ArchiveError(f"has more than {MAX_MEMBERS} members, or one of them twice")
        self.left, self.dtypes = MAX_ARRAY_BYTES, tuple(dtypes)

    @property
    def comment(self) -> bytes:
        """What the archive ends with."""
        return self._zip.comment

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def read(self, name: str, most: int) -> bytes:
        """A member's bytes, of which there are at most so many.

        Raises:
            ArchiveError: it is not there, encrypted, packed otherwise than by deflate, damaged, or too large.
        """
        member = self._members.get(name)
        if member is None:
            raise ArchiveError(f"has no member {name[:40]!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise ArchiveError(f"{name}: must be stored or deflated, and not encrypted")
        try:
            if self._process != os.getpid():  # a copy of a process shares its place in the file
                self._zip, self._process = zipfile.ZipFile(self._path), os.getpid()
            with self._zip.open(member) as file:
                content = file.read(most + 1)
        except _FAULTS as error:
            raise ArchiveError(f"{name}: damaged ({error})") from error
        if len(content) > most:
            raise ArchiveError(f"{name}: has more than {most} bytes")
        return content

    def array(self, name: str) -> NDArray[Any]:
        """A member that is an array: npy format 1.0, C order, of one of the types.

        Raises:
            ArchiveError: it is none, or the arrays take more than MAX_ARRAY_BYTES.
        """
        content = self.read(name, self.left)
        self.left -= len(content)
        file = io.BytesIO(content)
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ArchiveError(f"{name}: must be of npy format 1.0")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=1000)
        except _HEADERS as error:
            raise ArchiveError(f"{name}: no array in npy format ({str(error)[:100]})") from error
        held = content[file.tell() :]
        if dtype.str not in self.dtypes or (fortran and len(shape) > 1) or not all(n >= 0 for n in shape):
            raise ArchiveError(f"{name}: must be an array of {_names(self.dtypes)} in C order")
        if math.prod(shape) * dtype.itemsize != len(held):
            raise ArchiveError(f"{name}: holds other than {math.prod(shape)} numbers")
        return np.frombuffer(held, dtype).reshape(shape)


def _names(dtypes: Sequence[str]) -> str:
    *most, last = (np.dtype(one).name for one in dtypes)
    return f"{', '.join(most)} or {last}" if most else last
