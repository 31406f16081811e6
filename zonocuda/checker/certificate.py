"""Reads certificates that ``zonocuda verify`` wrote (docs/certificate.md)."""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zonocuda.archive import MAX_DOCUMENT_BYTES, Archive, ArchiveError
from zonocuda.checker.claims import (
    SLOPE_UNIT,
    ActivationSlopes,
    EndClaim,
    EndedRows,
    OwnSlopes,
    Refined,
    RegionClaim,
    RowClaim,
)

OLDEST = "zonocuda.certificate/1"
"""Which named no operators: all were ReLUs."""

FORMATS = (OLDEST, "zonocuda.certificate/2", "zonocuda.certificate/3")
"""The last one has forests, and may have its arrays in an archive."""

DOCUMENT = "certificate.json"
"""The member of an archive that holds the document; it names the others."""
MAX_BYTES = 2**28
"""Of a file."""
MAX_ARRAY_BYTES = 2**27
"""Of the arrays of one region that are in the document, unpacked."""
_DTYPES = ("uint8", "int32", "float64")


class CertificateError(ValueError):
    """A certificate that is malformed; the message is one line."""


@dataclass(frozen=True)
class Layer:
    """An activation of the network: the kind of its operator, how many numbers it reads, and whether its slopes lie in
    [0, 1]."""

    kind: str
    size: int
    is_limited: bool


def open_regular(path: str | Path) -> BufferedReader:
    """A file to read.

    Raises:
        CertificateError: a pipe or a device, which might never end.
        OSError: it cannot be read.
    """
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise CertificateError(f"{path}: is not a regular file")
    return Path(path).open("rb")


@dataclass(frozen=True, eq=False)
class Document:
    """A certificate's document, and the archive that holds its arrays, if they are not in it themselves."""

    fields: dict[str, Any]
    archive: Archive | None = None

    def close(self) -> None:
        """Closes the archive."""
        if self.archive is not None:
            self.archive.close()


def read_document(path: str | Path) -> Document:
    """The document that ``zonocuda verify`` wrote for ``--certificate``, or, in earlier versions, for ``--json``.

    Raises:
        CertificateError: no such document.
    """
    archive = None
    with open_regular(path) as file:
        content = file.read(4)
        if content[:2] != b"PK":
            content += file.read(MAX_BYTES + 1 - len(content))
    if content[:2] == b"PK":
        try:
            archive = Archive(path)
            content = archive.read(DOCUMENT, MAX_DOCUMENT_BYTES)
        except ArchiveError as error:
            raise CertificateError(f"{path}: {error}") from error
    if len(content) > MAX_BYTES:
        raise CertificateError(f"{path}: has more than {MAX_BYTES} bytes")
    try:
        document = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{path}: not a JSON document ({error})") from error
    return check_document(document, str(path), archive)


def check_document(document: object, name: str, archive: Archive | None = None) -> Document:
    """A document of a verdict.

    Raises:
        CertificateError: anything else.
    """
    schema = "zonocuda.verify/1" if archive is None else "zonocuda.certificate/3"
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise CertificateError(f"{name}: not a document of 'zonocuda verify' (schema {schema})")
    return Document(document, archive)


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def upgraded(entry: dict[str, Any]) -> dict[str, Any]:
    """An element of ``certificate.regions`` of the format OLDEST in the present one."""
    listed = entry.get("relus")
    if isinstance(listed, list):
        listed = [{**one, "op": "Relu"} if isinstance(one, dict) else one for one in listed]
    return {**{key: value for key, value in entry.items() if key != "relus"}, "activations": listed}


def region_claim(
    entry: object, layers: Mapping[str, Layer], sizes: Mapping[str, int], archive: Archive | None = None
) -> RegionClaim:
    """One element of ``certificate.regions``.

    Args:
        entry: the element.
        layers: the activations of the network, by name.
        sizes: how many numbers every node has, by name.
        archive: what holds the arrays.

    Raises:
        CertificateError: a field that is missing or has another type or size, or a slope outside its range.
    """
    return _Reader(archive).region(entry, layers, sizes)


class _Reader:
    """Reads one region, and no more than MAX_ARRAY_BYTES of arrays."""

    def __init__(self, archive: Archive | None) -> None:
        self.left, self.archive = MAX_ARRAY_BYTES, archive

    def region(self, entry: object, layers: Mapping[str, Layer], sizes: Mapping[str, int]) -> RegionClaim:
        """See :func:`region_claim`."""
        fields = _object(entry, "regions[]")
        second = _field(fields, "second_pass", bool)
        found: dict[str, ActivationSlopes] = {}
        for one in _field(fields, "activations", list):
            given = _object(one, "activations[]")
            name, op = _field(given, "name", str), _field(given, "op", str)
            kinds = sorted({layer.kind for layer in layers.values()})
            if op not in kinds:
                raise CertificateError(f"activations[]: op {op[:40]!r} is not supported; supported: {', '.join(kinds)}")
            if name not in layers or layers[name].kind != op or name in found:
                raise CertificateError(f"activations[]: {name[:40]!r} is no {op} of the network, or there twice")
            found[name] = self._activation(given, layers[name], found, layers, sizes)
        if found.keys() != layers.keys():
            raise CertificateError("activations[]: not every one of the network is there")
        rows: dict[int, RowClaim] = {}
        for one in _field(fields, "rows", list):
            row = _object(one, "rows[]")
            number = _field(row, "row", int)
            if number in rows:
                raise CertificateError(f"rows[]: row {number} is there twice")
            own = None if row.get("slopes") is None else self._own_slopes(row["slopes"], found, (), layers)
            lower = row.get("lower")
            ends = self._ends(row.get("ends", []), sizes)
            rows[number] = RowClaim(lower if isinstance(lower, float) else math.nan, own, ends)
        return RegionClaim(second, found, rows)

    def _activation(
        self,
        fields: Mapping[str, Any],
        layer: Layer,
        before: Mapping[str, ActivationSlopes],
        layers: Mapping[str, Layer],
        sizes: Mapping[str, int],
    ) -> ActivationSlopes:
        neurons = self._places(fields.get("neurons"), layer.size)
        shape = (len(neurons),)
        lower, upper = (self._array(fields.get(key), "float64", shape) for key in ("lower", "upper"))
        area, negative, nonnegative = (
            self._slopes(fields.get(key), shape, "float64", layer.is_limited)
            for key in ("area", "negative", "nonnegative")
        )
        refined = None
        if fields.get("refined") is not None:
            entry = _object(fields["refined"], "refined")
            chosen = self._places(entry.get("neurons"), layer.size)
            refined = Refined(chosen, self._own_slopes(entry.get("slopes"), before, (2 * len(chosen),), layers))
        ended = None
        if fields.get("ended") is not None:
            entry = _object(fields["ended"], "ended")
            ended = EndedRows(
                self._ends(entry.get("ends"), sizes), self._own_slopes(entry.get("slopes"), before, (), layers)
            )
        ends: list[NDArray[Any] | None] = [None, None]
        if not layer.is_limited:
            ends = [self._slopes(fields.get(key), shape, "float64", False) for key in ("least", "largest")]
        return ActivationSlopes(neurons, lower, upper, area, negative, nonnegative, refined, ended, *ends)

    def _own_slopes(
        self,
        entry: object,
        known: Mapping[str, ActivationSlopes],
        rows: tuple[int, ...],
        layers: Mapping[str, Layer],
    ) -> dict[str, OwnSlopes]:
        """By activation, ``[*rows, K]``."""
        if not isinstance(entry, list):
            raise CertificateError("slopes: must be a list")
        result: dict[str, OwnSlopes] = {}
        for one in entry:
            fields = _object(one, "slopes[]")
            name = _field(fields, "name", str)
            if name not in known or name in result:
                raise CertificateError(f"slopes[]: {name[:40]!r} is no activation before, or there twice")
            shape, dtype = (*rows, len(known[name].neurons)), "uint8" if rows else "float64"
            sides = [
                None
                if key == "negative" and fields.get(key) is None
                else self._slopes(fields.get(key), shape, dtype, layers[name].is_limited)
                for key in ("slopes", "negative")
            ]
            assert sides[0] is not None, "it is read or refused"
            result[name] = OwnSlopes(sides[0], sides[1])
        return result

    def _ends(self, entry: object, sizes: Mapping[str, int]) -> dict[str, EndClaim]:
        """By node."""
        if not isinstance(entry, list):
            raise CertificateError("ends: must be a list")
        result: dict[str, EndClaim] = {}
        for one in entry:
            fields = _object(one, "ends[]")
            name, side = _field(fields, "name", str), _field(fields, "side", str)
            if name not in sizes or name in result:
                raise CertificateError(f"ends[]: {name[:40]!r} is no node of the network, or there twice")
            if side not in ("negative", "positive"):
                raise CertificateError(f"ends[]: side must be negative or positive, got {side[:40]!r}")
            result[name] = EndClaim(side == "negative", self._places(fields.get("neurons"), sizes[name]))
        return result

    def _slopes(self, entry: object, shape: tuple[int, ...], dtype: str, is_limited: bool) -> NDArray[Any]:
        values = self._array(entry, dtype, shape)
        if dtype == "uint8" or is_limited:
            if not bool(((values >= 0) & (values <= (1 / SLOPE_UNIT if dtype == "uint8" else 1))).all()):
                raise CertificateError("a slope lies outside [0, 1]")
        elif not bool(np.isfinite(values).all()):
            raise CertificateError("a slope is no finite number")
        return values

    def _places(self, entry: object, size: int) -> NDArray[np.int64]:
        places = self._array(entry, "int32", None, size).astype(np.int64)
        if len(places) and not (places[0] >= 0 and places[-1] < size and bool((np.diff(places) > 0).all())):
            raise CertificateError("neurons: must be ascending places of the features that are read")
        return places

    def _array(self, entry: object, dtype: str, shape: tuple[int, ...] | None, at_most: int = 0) -> NDArray[Any]:
        """An array of a known shape or, in one dimension, with at most so many elements."""
        values = self.stored(entry)
        fits = values.shape == shape if shape is not None else values.ndim == 1 and len(values) <= at_most
        if values.dtype != np.dtype(dtype) or not fits:
            raise CertificateError(
                f"array: {values.dtype} of shape {values.shape} does not fit the network or the other arrays"
            )
        return values

    def stored(self, entry: object) -> NDArray[Any]:
        """An array ``{dtype, shape, data}`` or ``{file}``."""
        fields = _object(entry, "array")
        if self.archive is not None:
            try:
                return self.archive.array(_field(fields, "file", str))
            except ArchiveError as error:
                raise CertificateError(f"array: {error}") from error
        given, dtype = _field(fields, "shape", list), fields.get("dtype")
        if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in given):
            raise CertificateError("array: must have a shape and one of the dtypes uint8, int32 and float64")
        size = math.prod(given) * np.dtype(dtype).itemsize
        self.left -= size
        if self.left < 0:
            raise CertificateError(f"the arrays of a region have more than {MAX_ARRAY_BYTES} bytes")
        try:
            packed = base64.b64decode(_field(fields, "data", str), validate=True)
            data = zlib.decompressobj().decompress(packed, size + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise CertificateError(f"array: no zlib data in base64 ({error})") from error
        if len(data) != size:
            raise CertificateError(f"array: holds other than {size} bytes")
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(given)


def forest_arrays(entry: object, archive: Archive | None) -> dict[str, NDArray[Any]]:
    """The arrays of the object ``forest`` of a region, by name.

    Raises:
        CertificateError: no object, or what is no array.
    """
    reader = _Reader(archive)
    return {name: reader.stored(held) for name, held in _object(entry, "forest").items()}


def _object(entry: object, what: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CertificateError(f"{what}: must be an object")
    return entry


def _field(fields: Mapping[str, Any], key: str, kind: type) -> Any:
    if type(fields.get(key)) is not kind:
        raise CertificateError(f"{key}: must be there, of type {kind.__name__}")
    return fields[key]
