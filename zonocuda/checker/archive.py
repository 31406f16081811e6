"""A certificate in a file of its own: a zip of one JSON document and arrays, read within bounds and without pickles."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOCUMENT = "certificate.json"
"""The member that holds the document; it names the others."""
MAX_FILE_BYTES = 2**30
MAX_DOCUMENT_BYTES = 2**26
MAX_ARRAY_BYTES = 2**31
"""Of all arrays together, unpacked."""
MAX_MEMBERS = 2**16
DTYPES = ("|u1", "<i4", "<f8")

_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OverflowError)


class ArchiveError(ValueError):
    """An archive that is malformed or too large; the message is one line."""


class Archive:
    """The members of an archive, each read when it is asked for."""

    def __init__(self, path: str | Path) -> None:
        """Opens it.

        Raises:
            ArchiveError: no archive, one that is too large, or members that are there twice.
        """
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise ArchiveError(f"has more than {MAX_FILE_BYTES} bytes")
        try:
            self._zip = zipfile.ZipFile(path)
        except _FAULTS as error:
            raise ArchiveError(f"no zip archive ({error})") from error
        members = self._zip.infolist()
        self._members = {member.filename: member for member in members}
        if len(members) > MAX_MEMBERS or len(self._members) != len(members):
            self._zip.close()
            raise ArchiveError(f"has more than {MAX_MEMBERS} members, or one of them twice")
        self.left = MAX_ARRAY_BYTES

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
            with self._zip.open(member) as file:
                content = file.read(most + 1)
        except _FAULTS as error:
            raise ArchiveError(f"{name}: damaged ({error})") from error
        if len(content) > most:
            raise ArchiveError(f"{name}: has more than {most} bytes")
        return content

    def array(self, name: str) -> NDArray[Any]:
        """A member that is an array: npy format 1.0, C order, uint8, int32 or float64, little-endian.

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
        except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, MemoryError, OverflowError) as error:
            raise ArchiveError(f"{name}: no array in npy format ({str(error)[:100]})") from error
        held = content[file.tell() :]
        if dtype.str not in DTYPES or (fortran and len(shape) > 1) or not all(n >= 0 for n in shape):
            raise ArchiveError(f"{name}: must be an array of uint8, int32 or float64 in C order")
        if math.prod(shape) * dtype.itemsize != len(held):
            raise ArchiveError(f"{name}: holds other than {math.prod(shape)} numbers")
        return np.frombuffer(held, dtype).reshape(shape)
