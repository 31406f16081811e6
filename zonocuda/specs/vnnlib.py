"""VNN-LIB files, versions 1.0 and 2.0."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from zonocuda.specs.errors import VnnlibError
from zonocuda.specs.spec import Spec
from zonocuda.specs.tokens import Commands, read_commands
from zonocuda.specs.vnnlib1 import read_vnnlib1, spec_in_bulk
from zonocuda.specs.vnnlib2 import read_vnnlib2

__all__ = ["VnnlibError", "load_vnnlib"]

MAX_BYTES = 1 << 28
"""Size of a file, decompressed."""

_COMMENT = re.compile(r""";[^\n]*|("[^"]*"|\|[^|]*\|)""")  # the group: what a semicolon is part of
_VERSION_2 = re.compile(r"\s*\(\s*(?:vnnlib-version|declare-network)(?![^\s()<])", re.ASCII)
_AMBIGUOUS = re.compile(r"\x00|\r(?![\r\n]|\Z)")
_COMMENT_BYTES, _VERSION_2_BYTES, _AMBIGUOUS_BYTES = (
    re.compile(pattern.pattern.encode()) for pattern in (_COMMENT, _VERSION_2, _AMBIGUOUS)
)


def load_vnnlib(path: str | Path) -> Spec:
    """The property of a ``.vnnlib`` or ``.vnnlib.gz`` file: a point that satisfies the file is a counterexample.

    A file whose first command is ``(vnnlib-version ...)`` or ``(declare-network ...)`` is read as version 2.0, every
    other one as version 1.0. Decimals are exact: they are never rounded before they reach the Box, whose float64
    bounds enclose them, or a LinearConstraint, which keeps them as rationals.

    Args:
        path: the file; a name that ends in ``.gz`` is decompressed.

    Raises:
        VnnlibError: the file cannot be read, is malformed, or says something that is not supported. The message is
            one line that names the file, the fault and, where there is one, the line.
        TypeError: no path.

    Examples:
        >>> spec = load_vnnlib('examples/specs/fc_10_0.04.vnnlib')
        >>> spec.inputs, spec.outputs, len(spec.regions)
        (64, 10, 1)
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"load_vnnlib: needs a path, got {type(path).__name__}")
    source = str(path) if str(path).isprintable() else repr(str(path))
    commands = _usual_commands(path, source)
    spec = None if commands is None else spec_in_bulk(commands)
    if spec is not None:
        return spec
    try:
        text = _read(path, source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VnnlibError(
            f"{source}: not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x})"
        ) from None
    ambiguous = _AMBIGUOUS.search(text)
    if ambiguous is not None:
        # A null byte would end the text for some parsers, and a bare carriage return a comment.
        line = text.count("\n", 0, ambiguous.start()) + 1
        raise VnnlibError(f"{source}, line {line}: a null byte or a carriage return without a line feed")
    if ";" in text:
        text = _COMMENT.sub(r"\1", text)
    if not text.strip():
        raise VnnlibError(f"{source}: the file is empty")
    return (read_vnnlib2 if _VERSION_2.match(text) else read_vnnlib1)(text, source)


def _usual_commands(path: str | Path, source: str) -> Commands | None:
    """The commands of a file of version 1.0, without its text, which is as large as they are; None for one that takes
    another reader, or is at fault."""
    data = _read(path, source)
    if (b"\0" in data or b"\r" in data) and _AMBIGUOUS_BYTES.search(data):
        return None
    if b";" in data:
        data = _COMMENT_BYTES.sub(rb"\1", data)
    if not data or data.isspace() or _VERSION_2_BYTES.match(data):
        return None
    return read_commands(data) if data.isascii() else None


def _read(path: str | Path, source: str) -> bytes:
    """The file's bytes, decompressed."""
    try:
        return _content(Path(path))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        # OSError includes a missing file, a directory and a bad gzip header; ValueError a path with a null byte.
        reason = getattr(error, "strerror", None) or str(error)
        raise VnnlibError(f"{source}: cannot be read: {reason}") from error


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("not a regular file")  # a pipe might never end
    if path.suffix != ".gz":
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        return path.read_bytes()
    parts, left = [], MAX_BYTES
    with gzip.open(path) as file:
        while part := file.read(1 << 20):  # to be asked for all that may come, it would take that much memory first
            left -= len(part)
            if left < 0:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            parts.append(part)
    return b"".join(parts)
