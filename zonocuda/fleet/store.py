"""A folder of results, which a crash at any moment leaves whole.

``results.jsonl`` holds a line for each instance that has ended; it is appended to, and forced to the disk, before the
next result is looked at, and it alone says what is done. A last line without its end is of a process that was killed:
it is cut off. Everything else is written before its line: documents, counterexamples and certificates by a rename. What
can be made again from the lines, ``results.csv``, is.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from zonocuda.fleet.record import Record
from zonocuda.fleet.vnncomp import WORDS

JOURNAL, TABLE, LOGS = "results.jsonl", "results.csv", "logs"
_LOCK = ".lock"


class Store:
    """A folder that one run writes to.

    Args:
        folder: made where it is not there.
        resume: whether it may hold results.

    Raises:
        ValueError: it holds results and ``resume`` is false, or another run writes to it, or a line is no result.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ValueError(f"{folder}: another run is writing to it") from error
        try:
            path = folder / JOURNAL
            if path.exists() and path.stat().st_size and not resume:
                raise ValueError(f"{path}: holds the results of another run; --resume goes on with it")
            self.records = read_records(folder) if path.exists() else []
            self._journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._journal, _whole_lines(path))
            for kind in ("documents", "counterexamples", "certificates", LOGS):
                (folder / kind).mkdir(exist_ok=True)
                for left in (folder / kind).glob("*.tmp"):
                    left.unlink()
            _sync(folder)
        except BaseException:
            os.close(self._lock)
            raise

    def add(self, record: Record) -> None:
        """Appends a line; it is on the disk when this returns."""
        content = memoryview(record.line().encode())
        while content:
            content = content[os.write(self._journal, content) :]
        os.fsync(self._journal)

    def save(self, kind: str, name: str, content: bytes) -> str:
        """Writes a file whole; its path in the folder."""
        place = self.folder / kind / name
        temporary = place.with_name(f"{name}.tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        _sync(place.parent)
        return f"{kind}/{name}"

    def write_table(self, category: str, records: Iterable[Record]) -> None:
        """Writes ``results.csv``: lines of category, network, property, seconds to load, verdict in VNN-COMP's words,
        and seconds."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for record in records:
            seconds = (f"{value:.6f}" for value in (record.loading, record.seconds))
            writer.writerow([category, record.net, record.spec, next(seconds), WORDS[record.verdict], next(seconds)])
        self.save(".", TABLE, text.getvalue().encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._journal)
        os.close(self._lock)


def read_records(folder: Path) -> list[Record]:
    """All lines of a folder's journal but a torn last one, in order.

    Raises:
        ValueError: a line is no record.
        OSError: it cannot be read.
    """
    path = folder / JOURNAL
    lines = path.read_bytes()[: _whole_lines(path)].split(b"\n")[:-1]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Record.of_line(line.decode()))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is no result: {error}") from error
    return records


def latest(records: Iterable[Record]) -> Mapping[tuple[str, str], Record]:
    """Of each pair of a network and a property, the last record."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        found.pop((record.net, record.spec), None)
        found[record.net, record.spec] = record
    return found


def _whole_lines(path: Path) -> int:
    """Bytes up to the last end of a line."""
    return path.read_bytes().rfind(b"\n") + 1


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
