"""What of a check is done, kept in a file, so that one that was interrupted goes on.

A line for each batch of work: its name, what was found, and a checksum. All are bound to the files that are checked, to
how, and to the version: anything else in the file is refused, but for a last line that was cut short. What it holds is
believed as the process's own memory is: go on with files of your own alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

from zonocuda.checker.certificate import CertificateError, open_regular
from zonocuda.version import __version__

Arrays = Sequence[NDArray[Any]]
"""Of one dimension, of the types below."""

SCHEMA = "zonocuda.check/1"
MAX_BYTES = 2**30
"""Of a file."""
_DTYPES = ("|u1", "<i8", "<f8")


def digests(paths: Iterable[object]) -> list[str]:
    """The sha256 of files.

    Raises:
        TypeError: something that is no path: what is in memory may be another thing the next time.
        OSError: a file cannot be read.
    """
    found = []
    for path in paths:
        if not isinstance(path, str | Path):
            raise TypeError(f"check: resume needs files to check, got {type(path).__name__}")
        with open_regular(path) as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


class Journal:
    """A file of what is done.

    Attributes:
        resumed: how many batches it held.
        fault: why it could not be written any more, if so; the check goes on without.
    """

    def __init__(self, path: str | Path, paths: Mapping[str, object], how: Mapping[str, object]) -> None:
        """Opens it, or begins it where there is none.

        Args:
            path: of the file.
            paths: what is checked, by kind.
            how: what else the work depends on.

        Raises:
            CertificateError: it is damaged, or about something else.
            OSError: it cannot be read or written.
        """
        self.path, self.paths, self.fault = Path(path), paths, ""
        versions = {"zonocuda": __version__, "numpy": np.__version__, "python-flint": flint.__version__}
        self.about = {**dict(zip(paths, digests(paths.values()), strict=True)), **how, **versions}
        self._known: dict[str, str] = {}
        head = json.dumps({"schema": SCHEMA, **self.about}) + "\n"
        self._seal = hashlib.sha256(head.encode())
        length = self._read(head) if self.path.exists() else 0
        self.resumed = len(self._known)
        self._file = self.path.open("r+b" if length else "wb")
        self._file.seek(length)
        self._file.truncate()
        if not length:
            self._write(head)

    def _read(self, head: str) -> int:
        """Takes over what it holds; returns how many bytes of it are whole lines."""
        with open_regular(self.path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise CertificateError(f"{self.path}: has more than {MAX_BYTES} bytes")
        length = content.rfind(b"\n") + 1
        first, *lines = content[:length].split(b"\n")[:-1] or [b""]
        if not length and head.encode().startswith(content):
            return 0  # cut short in its first line
        if first + b"\n" != head.encode():
            self._refuse(first)
        for line in lines:
            name, _, rest = line.partition(b" ")
            payload, _, sum_ = rest.partition(b" ")
            if sum_.decode("ascii", "replace") != self._sum(name + b" " + payload):
                raise self._damaged()
            self._known[name.decode()] = payload.decode()
        return length

    def _refuse(self, first: bytes) -> None:
        try:
            fields = json.loads(first)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise CertificateError(f"{self.path}: is no file of 'zonocuda check --resume'")
        other = next((key for key, value in self.about.items() if fields.get(key) != value), "schema")
        raise CertificateError(f"{self.path}: is about another check: {other} differs; remove it, or name another file")

    def _damaged(self) -> CertificateError:
        return CertificateError(f"{self.path}: is damaged: remove it to check from the beginning")

    def _sum(self, text: bytes) -> str:
        seal = self._seal.copy()
        seal.update(text)
        return seal.hexdigest()[:32]

    def known(self, name: str) -> Arrays | None:
        """What was found of a batch, if it is there.

        Raises:
            CertificateError: what is there are no arrays.
        """
        held = self._known.get(name)
        if held is None:
            return None
        try:
            entries = [part.split(":") for part in held.split(",")] if held != "-" else []
            return [np.frombuffer(base64.b64decode(data), _DTYPES[int(kind)]) for kind, data in entries]
        except (ValueError, IndexError) as error:
            raise self._damaged() from error

    def note(self, name: str, found: Arrays) -> None:
        """Adds what was found of a batch."""
        parts = []
        for values in found:
            kind = _DTYPES.index(values.dtype.newbyteorder("<").str)
            parts.append(f"{kind}:{base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}")
        text = f"{name} {','.join(parts) or '-'}"
        self._write(f"{text} {self._sum(text.encode())}\n")

    def _write(self, line: str) -> None:
        if self.fault:
            return
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            self.fault = f"{self.path} is not written any more: {error.strerror}"
            with suppress(OSError):  # the same one: of what is left to be written
                self._file.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def compare(self) -> None:
        """Is called once the files were read, before anything is noted of them, and when everything is done.

        Raises:
            CertificateError: the files are others by now than those that this journal is about.
        """
        now = dict(zip(self.paths, digests(self.paths.values()), strict=True))
        for kind, digest in now.items():
            if self.about[kind] != digest:
                raise CertificateError(f"{self.paths[kind]}: was changed while it was checked")

    def confirm(self) -> None:
        """Removes the file, once everything is done.

        Raises:
            CertificateError: the files that were checked are others by now.
        """
        self.compare()
        self.path.unlink(missing_ok=True)

    @property
    def words(self) -> tuple[str, ...]:
        """What is to be said of it."""
        went_on = (f"resumed     {self.resumed} batches were done before",) if self.resumed else ()
        return went_on + ((f"resume      {self.fault}",) if self.fault else ())
