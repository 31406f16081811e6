"""A certificate as JSON: the object ``certificate`` that docs/json.md describes."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping

from torch import Tensor

from zonocuda.prove.certificate import Certificate, OwnSlopes, RegionRecord, ReluRecord, RowRecord
from zonocuda.prove.combine import Combination

FORMAT = "zonocuda.certificate/1"


def certificate_document(certificate: Certificate) -> dict[str, object]:
    """The object; without data, and with the reason, where there are none or they would be too large."""
    regions = [_region(region) for region in certificate.regions]
    reason = certificate.reason
    return {"format": FORMAT, "available": not reason, "reason": reason, "regions": [] if reason else regions}


def _region(region: RegionRecord) -> dict[str, object]:
    return {
        "region": region.region,
        "second_pass": region.second_pass,
        "relus": [_relu(relu) for relu in region.relus],
        "rows": [_row(row) for row in region.rows],
        "combinations": [_combination(one) for one in region.combinations],
    }


def _combination(one: Combination) -> dict[str, object]:
    return {
        "disjunct": one.disjunct,
        "refutes": one.refutes,
        "rows": [{"row": k, "weight": str(weight)} for k, weight in one.weights.items()],
        "outputs": [{"output": i, "weight": str(weight)} for i, weight in one.outputs.items()],
    }


def _relu(relu: ReluRecord) -> dict[str, object]:
    arrays = ("neurons", "lower", "upper", "area", "negative", "nonnegative")
    return {
        "name": relu.name,
        **{name: array(getattr(relu, name)) for name in arrays},
        "refined": None if relu.refined is None else _refined(relu.refined),
    }


def _refined(refined: OwnSlopes) -> dict[str, object]:
    return {"neurons": array(refined.neurons), "slopes": _slopes(refined.slopes)}


def _row(row: RowRecord) -> dict[str, object]:
    return {
        "row": row.row,
        "constraint": row.constraint,
        "lower": _number(row.lower),
        "slack": _number(row.slack),
        "slopes": None if row.slopes is None else _slopes(row.slopes),
    }


def _slopes(slopes: Mapping[str, Tensor]) -> list[dict[str, object]]:
    return [{"name": name, "slopes": array(values)} for name, values in slopes.items()]


def array(values: Tensor) -> dict[str, object]:
    """A tensor as ``dtype``, ``shape`` and ``data``: little-endian bytes, compressed by zlib, in base64."""
    held = values.detach().cpu().contiguous().numpy()
    held = held.astype(held.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(held.tobytes())).decode("ascii")
    return {"dtype": held.dtype.name, "shape": list(held.shape), "data": data}


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
