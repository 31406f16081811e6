"""What a command writes: lines for people, and files that are opened before the work and appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

from zonocuda.cli.program import unfinished

STANDARD_OUTPUT = "-"

LONGEST_LINE = 1500
"""Characters of a line that quotes what a file says."""


def printable(text: str) -> str:
    """``text`` on one line of at most LONGEST_LINE characters, without control characters: a file may name its nodes
    anything."""
    shown = (c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
    line = "".join(shown)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."


class OutputFile:
    """A file that is opened at once, and replaced by what is written at the end.

    Until then the text is in a temporary file beside it. What is no regular file (a pipe, ``/dev/null``) is written to
    directly.

    Raises:
        OSError: it cannot be written; the message names it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._temporary: str | None = None
        self._file: TextIO | None = None
        try:
            self._target, mode = _target(path)
            if mode is not None and (not stat.S_ISREG(mode) or path.startswith("/dev/")):
                self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (open until the end)
                return
            if mode is not None and not os.access(self._target, os.W_OK):
                raise PermissionError(None, "it is read-only")
            temporary = os.path.join(os.path.dirname(self._target), f".zonocuda-{os.urandom(8).hex()}.tmp")
            unfinished.add(temporary)
            self._temporary = temporary
            self._file = open(temporary, "x", encoding="utf-8")  # noqa: SIM115
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
        except OSError as error:
            self.discard()
            raise _unwritable(path, error) from error

    def write(self, content: str | bytes) -> None:
        """Writes the whole content; an OSError names the file, and leaves the old one as it was."""
        assert self._file is not None
        try:
            with self._file:
                self._file.buffer.write(content if isinstance(content, bytes) else content.encode())
            if self._temporary is not None:
                os.replace(self._temporary, self._target)
                unfinished.discard(self._temporary)
                self._temporary = None
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def discard(self) -> None:
        """Closes the file, and leaves no temporary one behind."""
        if self._file is not None:
            self._file.close()
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)
            unfinished.discard(self._temporary)


def _target(path: str) -> tuple[str, int | None]:
    """The file behind links, and its mode; None where there is none yet."""
    if not path or path.endswith(os.sep):
        raise IsADirectoryError(None, "it names no file")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return os.path.realpath(path), None
    return os.path.realpath(path), mode


def _unwritable(path: str, error: OSError) -> OSError:
    return OSError(f"{path}: cannot be written: {error.strerror or error}")


class Outputs:
    """The lines and files of one command.

    A document that is asked for at ``-`` goes to standard output; the lines for people then go to standard error.

    Args:
        paths: path by option; None where the option was not given.
        inputs: files that the command reads, which no output may replace.

    Raises:
        OSError: a file that cannot be written, before any work.
        ValueError: two options that name one file.
    """

    def __init__(self, paths: Mapping[str, str | None], inputs: Iterable[str] = ()) -> None:
        asked = {option: path for option, path in paths.items() if path is not None}
        _refuse_collisions(asked, inputs)
        self.places: dict[str, str] = {}
        """Where each option's content was written, so far."""
        self._faults: list[str] = []
        self._files: dict[str, OutputFile | None] = {}
        try:
            for option, path in asked.items():
                self._files[option] = None if path == STANDARD_OUTPUT else OutputFile(path)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files.values():
            if file is not None:
                file.discard()

    def __contains__(self, option: str) -> bool:
        return option in self._files

    def say(self, *lines: str) -> None:
        """Prints lines for people."""
        self._print(sys.stderr if None in self._files.values() else sys.stdout, "".join(f"{line}\n" for line in lines))

    def write(self, option: str, content: Callable[[], str | bytes]) -> None:
        """Writes the content of an option, if it was given. What fails is kept for :meth:`raise_faults`."""
        if option not in self._files:
            return
        file = self._files[option]
        try:
            held = content()
            if file is not None:
                file.write(held)
                self.places[option] = file.path
            else:
                assert isinstance(held, str), "only documents go to standard output"
                self._print(sys.stdout, held)
        except OSError as error:
            self._faults.append(str(error))

    def raise_faults(self) -> None:
        """Raises an OSError that names everything that could not be written."""
        if self._faults:
            raise OSError("; ".join(self._faults))

    def _print(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            name = "standard output" if stream is sys.stdout else "standard error"
            self._faults.append(str(_unwritable(name, error)))
            _close(stream)


def _close(stream: TextIO) -> None:
    """Lets what the stream still holds go nowhere: Python would fail at it once more on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _refuse_collisions(paths: Mapping[str, str], inputs: Iterable[str]) -> None:
    taken = {os.path.realpath(path): f"the command reads {path}" for path in inputs}
    for option, path in paths.items():
        if path == STANDARD_OUTPUT and option != "--json":
            raise ValueError(f"{option} -: only --json can be written to standard output")
        place = os.path.realpath(path)
        if place in taken and (not os.path.exists(path) or os.path.isfile(path)):
            raise ValueError(f"{option} {path}: cannot be written: {taken[place]}")
        taken[place] = f"{option} is the same file"
