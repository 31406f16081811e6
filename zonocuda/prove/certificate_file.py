"""A certificate as a file: a zip of one JSON document and arrays (docs/certificate.md)."""

from __future__ import annotations

import base64
import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zonocuda.prove.certificate import (
    ActivationRecord,
    Certificate,
    EndedRows,
    Ends,
    OwnSlopes,
    RegionRecord,
    RowRecord,
    SidedSlopes,
)
from zonocuda.prove.combine import Combination
from zonocuda.prove.forest import ForestRecord

FORMAT = "zonocuda.certificate/3"
DOCUMENT = "certificate.json"
Put = Callable[[NDArray[np.generic]], dict[str, object]]
"""Writes an array down, and returns what stands for it in the document."""


def write(file: IO[bytes], fields: Mapping[str, object], certificate: Certificate | None) -> None:
    """Writes an archive: the document with ``fields`` and the certificate, and its arrays."""
    # a fixed date: the same certificate gives the same bytes
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        count = 0

        def member(name: str, content: bytes) -> None:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)

        def put(values: NDArray[np.generic]) -> dict[str, object]:
            nonlocal count
            name, content = f"arrays/{count}.npy", io.BytesIO()
            count += 1
            held = np.ascontiguousarray(values)
            np.lib.format.write_array(
                content, held.astype(held.dtype.newbyteorder("<")), version=(1, 0), allow_pickle=False
            )
            member(name, content.getvalue())
            return {"file": name}

        held = None if certificate is None else certificate_document(certificate, put)
        document = {"schema": FORMAT, **fields, "certificate": held}
        member(DOCUMENT, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def inline(values: NDArray[np.generic]) -> dict[str, object]:
    """An array in the document itself: ``dtype``, ``shape`` and ``data``, little-endian bytes packed by zlib, in
    base64."""
    held = np.ascontiguousarray(values)
    data = base64.b64encode(zlib.compress(held.astype(held.dtype.newbyteorder("<")).tobytes())).decode("ascii")
    return {"dtype": held.dtype.name, "shape": list(held.shape), "data": data}


def certificate_document(certificate: Certificate, put: Put) -> dict[str, object]:
    """The object; without data, and with the reason, where there are none or they would be too large."""
    reason = certificate.reason
    regions = [] if reason else [_Writer(put).region(region) for region in certificate.regions]
    return {"format": FORMAT, "available": not reason, "reason": reason, "regions": regions}


class _Writer:
    def __init__(self, put: Put) -> None:
        self._put = put

    def region(self, region: RegionRecord) -> dict[str, object]:
        """One element of ``regions``."""
        return {
            "region": region.region,
            "second_pass": region.second_pass,
            "activations": [self._activation(one) for one in region.activations],
            "rows": [self._row(row) for row in region.rows],
            "combinations": [_combination(one) for one in region.combinations],
            "trees": [] if region.forest is None else [list(tree) for tree in region.forest.trees],
            "forest": None if region.forest is None else self._forest(region.forest),
        }

    def _forest(self, forest: ForestRecord) -> dict[str, object]:
        return {name: self._put(values) for name, values in forest.arrays.items()}

    def _array(self, values: Tensor) -> dict[str, object]:
        return self._put(values.detach().cpu().numpy())

    def _maybe(self, values: Tensor | None) -> dict[str, object] | None:
        return None if values is None else self._array(values)

    def _activation(self, one: ActivationRecord) -> dict[str, object]:
        arrays = ("neurons", "lower", "upper", "area", "negative", "nonnegative", "least", "largest")
        return {
            "name": one.name,
            "op": one.op,
            **{name: self._maybe(getattr(one, name)) for name in arrays},
            "ended": None if one.ended is None else self._ended(one.ended),
            "refined": None if one.refined is None else self._refined(one.refined),
        }

    def _ended(self, ended: EndedRows) -> dict[str, object]:
        return {"ends": self._ends(ended.ends), "slopes": self._slopes(ended.slopes)}

    def _refined(self, refined: OwnSlopes) -> dict[str, object]:
        return {"neurons": self._array(refined.neurons), "slopes": self._slopes(refined.slopes)}

    def _row(self, row: RowRecord) -> dict[str, object]:
        return {
            "row": row.row,
            "constraint": row.constraint,
            "lower": _number(row.lower),
            "slack": _number(row.slack),
            "slopes": None if row.slopes is None else self._slopes(row.slopes),
            "ends": self._ends(row.ends),
        }

    def _ends(self, ends: Mapping[str, Ends]) -> list[dict[str, object]]:
        return [
            {"name": name, "side": "negative" if one.negative else "positive", "neurons": self._array(one.neurons)}
            for name, one in ends.items()
        ]

    def _slopes(self, slopes: Mapping[str, SidedSlopes]) -> list[dict[str, object]]:
        return [
            {"name": name, "slopes": self._array(own.nonnegative), "negative": self._maybe(own.negative)}
            for name, own in slopes.items()
        ]


def _combination(one: Combination) -> dict[str, object]:
    return {
        "disjunct": one.disjunct,
        "refutes": one.refutes,
        "rows": [{"row": k, "weight": str(weight)} for k, weight in one.weights.items()],
        "outputs": [{"output": i, "weight": str(weight)} for i, weight in one.outputs.items()],
    }


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
