"""What a result's files hold for a report: counterexamples that are images, and the trees of proofs.

The files are read as if somebody else had written them: what is not as it should be is left out.
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zonocuda.fleet.charts import MOST_NODES
from zonocuda.fleet.record import Record

_LARGEST = 1 << 26
"""Bytes of a document that is read."""
_SMALLEST = 8
"""Pixels on a side of an image."""


def document_of(folder: Path, record: Record) -> Mapping[str, Any]:
    """The whole result of a record; empty where it cannot be read."""
    path = _inside(folder, record.files.get("result", ""))
    if path is None or path.stat().st_size > _LARGEST:
        return {}
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _inside(folder: Path, name: str) -> Path | None:
    """A file in the folder, whatever its name says."""
    try:
        path = (folder / name).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


# ---- images ----------------------------------------------------------------------------------------------------------


def image_layout(shape: Sequence[int]) -> tuple[int, int, int, bool] | None:
    """Height, width, channels, and whether channels come first, of features that look like an image; else None."""
    extents = [n for n in shape if n != 1]
    if len(extents) == 1:
        for channels in (1, 3):
            side = math.isqrt(extents[0] // channels)
            if side * side * channels == extents[0] and side >= 2 * _SMALLEST:
                return side, side, channels, True
        return None
    if len(extents) == 2:
        return (*extents, 1, True) if min(extents) >= _SMALLEST else None  # type: ignore[return-value]
    if len(extents) != 3 or 3 not in (extents[0], extents[2]):
        return None
    first = extents[0] == 3
    height, width = extents[1:] if first else extents[:2]
    return (height, width, 3, first) if min(height, width) >= _SMALLEST else None


def counterexample_images(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Captions and images (data URIs): the middle of the box, the counterexample, and how they differ."""
    try:
        shape = [int(n) for n in document["input"]["shape"]]
        x, low, high = (
            [float(v) for v in values]
            for values in (document["counterexample"]["x"], document["input"]["lower"], document["input"]["upper"])
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return []
    layout = image_layout(shape)
    if layout is None or not len(x) == len(low) == len(high) == math.prod(layout[:3]):
        return []
    if not all(map(math.isfinite, (*x, *low, *high))):
        return []
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    least, most = min(*x, *middle), max(*x, *middle)
    if least >= 0 and most <= 1:
        least, most = 0.0, 1.0
    difference = [b - a for a, b in zip(middle, x, strict=True)]
    widest = max(map(abs, difference))
    return [
        ("middle of the box", _png(middle, least, most, layout)),
        ("counterexample", _png(x, least, most, layout)),
        (f"difference, at most {widest:.3g}", _png(difference, -(widest or 1.0), widest or 1.0, layout)),
    ]


def _png(values: Sequence[float], least: float, most: float, layout: tuple[int, int, int, bool]) -> str:
    """The values as a PNG of 8 bits a channel, from ``least`` (black) to ``most``, as a data URI."""
    height, width, channels, first = layout
    scale = 255.0 / (most - least) if most > least else 0.0
    pixels = [min(255, max(0, round((value - least) * scale))) for value in values]
    rows = []
    for i in range(height):
        row = bytearray([0])  # no filter
        for j in range(width):
            for c in range(channels):
                row.append(pixels[(c * height + i) * width + j if first else (i * width + j) * channels + c])
        rows.append(bytes(row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


# ---- trees -----------------------------------------------------------------------------------------------------------


def trees_of(folder: Path, record: Record) -> list[tuple[int, list[int], int]]:
    """Of a certificate, each region's number, the kinds of its trees' nodes in preorder, and how many trees these are.

    Trees of more than MOST_NODES nodes are left out.
    """
    path = _inside(folder, record.files.get("certificate", ""))
    if path is None:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(_member(archive, "certificate.json"))
            found = []
            for region in document["certificate"]["regions"]:
                forest = region["forest"]
                if forest is not None:
                    kinds, lemmas = (_array(archive, forest[name]["file"]) for name in ("kind", "lemma_relus"))
                    if len(kinds) <= MOST_NODES:
                        found.append((int(region["region"]), kinds, len(lemmas) + len(region["trees"])))
            return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, zlib.error, EOFError):
        return []


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        content = file.read(_LARGEST)
    return content


def _array(archive: zipfile.ZipFile, name: str) -> list[int]:
    import numpy as np

    values = np.lib.format.read_array(io.BytesIO(_member(archive, name)), allow_pickle=False)
    return [int(v) for v in values.ravel()[: MOST_NODES + 1]]
