"""Lists of instances: networks, each with a property and perhaps a time limit."""

from __future__ import annotations

import csv
import gzip
import importlib
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NETWORKS = (".onnx", ".onnx.gz")
PROPERTIES = (".vnnlib", ".vnnlib.gz")
_LONGEST = 1 << 24
"""Bytes of a list."""


@dataclass(frozen=True)
class Instance:
    """A network and a property of it.

    Attributes:
        net, spec: the files.
        timeout: seconds; None where the list has none.
        names: how the list calls the two files; the files' own names by default.

    Examples:
        >>> from pathlib import Path
        >>> str(Instance(Path("a.onnx"), Path("p.vnnlib"), 60.0))
        'a.onnx p.vnnlib'
    """

    net: Path
    spec: Path
    timeout: float | None = None
    names: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        if not any(self.names):
            object.__setattr__(self, "names", (str(self.net), str(self.spec)))

    def __str__(self) -> str:
        return " ".join(self.names)


Given = str | Path | Iterable[Instance | Sequence[object]]
"""A list's file, a folder of pairs, ``module:function`` in Python, or instances, also as tuples (net, spec) or
(net, spec, seconds)."""
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def read_instances(given: Given) -> list[Instance]:
    """The instances of a list, each once.

    A file is a list as VNN-COMP writes them: lines ``network,property,seconds``, the paths relative to the list. A
    first line of column names and more columns are allowed, seconds may be left out, and a file that is there only
    with, or only without, ``.gz`` is found. A folder with an ``instances.csv`` is that list. In another folder, and
    those below it, each property belongs to the network whose name its own begins with (the longest such name; of
    networks of one name that in the same folder), or to the only network that there is.

    Text such as ``module:function`` that names no file is a function without arguments, of a module that can be
    imported from the current folder; what it returns is read in its place.

    Raises:
        ValueError: what is no such list, with the line or the file.
        OSError: it cannot be read.

    Examples:
        >>> [one.net.name for one in read_instances("examples/instances.csv")]
        ['fc.onnx', 'conv.onnx', 'conv.onnx', 'residual.onnx']
    """
    if isinstance(given, str) and _FUNCTION.fullmatch(given) and not Path(given).exists():
        given = _called(given)
    if not isinstance(given, str | Path):
        found = [_of(entry) for entry in given]
    else:
        path = Path(given)
        if path.is_dir():
            lists = [path / name for name in ("instances.csv", "instances.csv.gz") if (path / name).is_file()]
            found = list(_rows(lists[0]) if lists else _pairs(path))
        elif path.exists() and not path.is_file():
            raise ValueError(f"{path}: is not a regular file")
        else:
            found = list(_rows(path))
    if not found:
        raise ValueError(
            "there are no instances" if not isinstance(given, str | Path) else f"{given}: has no instances"
        )
    return list(dict.fromkeys(found))


def check_seconds(value: object, place: str) -> float:
    """A time limit; infinity is none.

    Raises:
        ValueError: no positive number.
    """
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"{place}: a time limit is a positive number of seconds, got {str(value)[:40]!r}")
    return seconds


def _called(given: str) -> Given:
    """What the function ``module:function`` returns; the module may lie in the current folder.

    Raises:
        ValueError: there is no such module or function, or it returns nothing that can be a list.
    """
    module, _, name = given.partition(":")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"{given}: cannot be imported: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ValueError(f"{given}: {module} has no function {name}")
    found: Given = function()
    if not isinstance(found, Iterable | Path):
        raise ValueError(f"{given}: must return a list's path or instances, got {str(found)[:80]!r}")
    return found


def _of(entry: object) -> Instance:
    if isinstance(entry, Instance):
        net, spec, names = _existing(Path(entry.net)), _existing(Path(entry.spec)), entry.names
        seconds: object = entry.timeout
    elif isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) in (2, 3):
        net, spec = (_existing(Path(str(part))) for part in entry[:2])
        names, seconds = (str(entry[0]), str(entry[1])), entry[2] if len(entry) == 3 else None
    else:
        raise ValueError(f"an instance is (net, spec) or (net, spec, seconds), got {str(entry)[:80]}")
    return Instance(net, spec, None if seconds is None else check_seconds(seconds, str(spec)), names)


def _existing(path: Path) -> Path:
    """The file, or the one that has ``.gz`` more or less."""
    other = path.with_name(path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"{path.name}.gz")
    for candidate in (path, other):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{path}: there is no such file, also {'without' if path.name.endswith('.gz') else 'with'} .gz")


# ---- lists -----------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[Instance]:
    columns = [0, 1, 2]
    try:
        lines = _text(path).splitlines()
        for number, row in enumerate(csv.reader(lines, skipinitialspace=True), 1):
            cells = [cell.strip() for cell in row]
            place = f"{path}: line {number}"
            if not any(cells):
                continue
            if number == 1 and not cells[0].endswith(NETWORKS):
                columns = _columns(cells, place)
                continue
            if len(cells) < 2:
                raise ValueError(f"{place}: needs a network and a property, got {row[0][:80]!r}")
            net, spec, seconds = (cells[i] if 0 <= i < len(cells) else "" for i in columns)
            if not net.endswith(NETWORKS) or not spec.endswith(PROPERTIES):
                raise ValueError(
                    f"{place}: must begin with a network (.onnx) and a property (.vnnlib), got {net[:80]!r} and "
                    f"{spec[:80]!r}"
                )
            try:
                files = _existing(path.parent / net), _existing(path.parent / spec)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from error
            yield Instance(*files, check_seconds(seconds, place) if seconds else None, (net, spec))
    except csv.Error as error:
        raise ValueError(f"{path}: is not a list of instances: {error}") from error


def _columns(cells: Sequence[str], place: str) -> list[int]:
    names = [cell.lower() for cell in cells]
    if "onnx" not in names or "vnnlib" not in names:
        raise ValueError(
            f"{place}: must be network,property,seconds, or name the columns onnx and vnnlib; got {cells[0][:80]!r}"
        )
    seconds = next((i for i, name in enumerate(names) if name.startswith("timeout")), -1)
    return [names.index("onnx"), names.index("vnnlib"), seconds]


def _text(path: Path) -> str:
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            content: bytes = file.read(_LONGEST + 1)
        if len(content) > _LONGEST:
            raise ValueError(f"holds more than {_LONGEST} bytes")
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("holds a zero byte")
        return text
    except (EOFError, zlib.error, ValueError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: is not a list of instances: {error}") from error


# ---- folders ---------------------------------------------------------------------------------------------------------


def _stem(path: Path, endings: Sequence[str]) -> str:
    ending = max((ending for ending in endings if path.name.endswith(ending)), key=len)
    return path.name.removesuffix(ending)


def _pairs(folder: Path) -> Iterator[Instance]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    networks = [path for path in files if path.name.endswith(NETWORKS)]
    properties = [path for path in files if path.name.endswith(PROPERTIES)]
    if not networks or not properties:
        raise ValueError(
            f"{folder}: holds {len(networks)} networks (.onnx) and {len(properties)} properties (.vnnlib), and no "
            "instances.csv"
        )
    for spec in properties:
        net = _network_of(spec, networks, folder)
        yield Instance(net, spec, None, (str(net.relative_to(folder)), str(spec.relative_to(folder))))


def _network_of(spec: Path, networks: Sequence[Path], folder: Path) -> Path:
    stem = _stem(spec, PROPERTIES)
    named = [net for net in networks if stem.startswith(_stem(net, NETWORKS))]
    longest = max((len(_stem(net, NETWORKS)) for net in named), default=0)
    named = [net for net in named if len(_stem(net, NETWORKS)) == longest] or list(networks)
    if len(named) > 1:
        named = [net for net in named if net.parent == spec.parent] or named
    if len(named) > 1:
        which = f"it could belong to {named[0].relative_to(folder)} and {named[1].relative_to(folder)}"
        raise ValueError(f"{spec}: which network is it about? {which}; name it after one, or write an instances.csv")
    return named[0]
