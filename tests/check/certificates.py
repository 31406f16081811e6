"""Properties of small networks with certificates of every kind, and the certificate as its JSON object."""

from __future__ import annotations

import base64
import io
import json
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.verifier.exact import Vector, evaluate, exactly
from tests.verifier.graphs import NETWORKS, constraint, random_box, sample_box, spec
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.prove.certificate import Certificate
from zonocuda.prove.certificate_file import DOCUMENT, certificate_document
from zonocuda.prove.prover import Effort
from zonocuda.specs import Spec
from zonocuda.verifier import Verdict, verify
from zonocuda.verifier.bounds import compute_bounds

KINDS = {("fc", 2): 15, ("conv", 0): 7, ("residual", 2): 13, ("concat", 2): 10, ("pooling", 1): 7, ("everything", 0): 7}
"""Networks and seeds, and how many twentieths above the forward bound a property lies that needs refined bounds."""


def threshold(name: str, seed: int, twentieths: int) -> tuple[Graph, Spec]:
    """``Y_0 > t`` on a random box, with t between the forward bound and the least of many samples."""
    graph = NETWORKS[name](seed)
    lower, upper = random_box(graph, width=1.0, seed=seed)
    bound = float(compute_bounds(graph, Zonotope.from_box(lower, upper)).lower.flatten()[0])
    least = least_sample(graph, lower, upper)
    t = bound + (least - bound) * twentieths / 20
    return graph, spec(lower[0], upper[0], [[constraint({0: 1.0}, -t)]], 3)


def least_sample(graph: Graph, lower: Tensor, upper: Tensor) -> float:
    """The least first output of many points."""
    return float(graph(sample_box(lower[0], upper[0], 4000, seed=1)).reshape(4000, -1)[:, 0].min())


def certified(graph: Graph, property_: Spec, effort: Effort = "max") -> dict[str, Any]:
    """The certificate of a property that is verified."""
    result = verify(graph, property_, effort=effort, split="none", certificate=True)
    assert result.verdict is Verdict.VERIFIED
    assert result.certificate is not None
    return inline(result.certificate)


def array(values: Tensor | NDArray[Any]) -> dict[str, object]:
    """An array in a document: little-endian bytes, compressed by zlib, in base64."""
    held = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    held = np.ascontiguousarray(held).astype(held.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(held.tobytes())).decode("ascii")
    return {"dtype": held.dtype.name, "shape": list(held.shape), "data": data}


def inline(certificate: Certificate) -> dict[str, Any]:
    """The object ``certificate``, with its arrays in it."""
    loaded: dict[str, Any] = json.loads(json.dumps(certificate_document(certificate, array), allow_nan=False))
    return loaded


def inline_file(path: Path) -> dict[str, Any]:
    """What a file holds, as a document with its arrays in it."""

    def unpacked(value: Any) -> Any:
        if isinstance(value, list):
            return [unpacked(one) for one in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"file"}:
            return array(np.load(io.BytesIO(archive.read(value["file"])), allow_pickle=False))
        return {key: unpacked(one) for key, one in value.items()}

    with zipfile.ZipFile(path) as archive:
        document: dict[str, Any] = unpacked(json.loads(archive.read(DOCUMENT)))
    return {**document, "schema": "zonocuda.verify/1"}


def exact_rows(graph: Graph, property_: Spec, points: Tensor) -> list[list[Fraction]]:
    """The rows of the first region, exactly, at points ``[n, *input features]``."""
    rows = list({row: None for disjunct in property_.regions[0].disjuncts for row in disjunct})
    result = []
    for x in points:
        y: Vector = evaluate(graph, exactly(x))
        point = exactly(x)
        values = []
        for row in rows:
            total = sum((c * y[i] for i, c in row.outputs.items()), row.constant)
            values.append(sum((c * point[j] for j, c in row.inputs.items()), total))
        result.append(values)
    return result


def random_slopes(certificate: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same certificate with every slope replaced by a random one."""
    generator = torch.Generator().manual_seed(seed)

    def replaced(value: Any, key: str = "") -> Any:
        if isinstance(value, list):
            return [replaced(v) for v in value]
        if not isinstance(value, dict):
            return value
        if value.keys() == {"dtype", "shape", "data"}:
            if key not in ("area", "negative", "nonnegative", "slopes"):
                return value
            if value["dtype"] == "uint8":
                return array(torch.randint(0, 129, value["shape"], generator=generator, dtype=torch.uint8))
            return array(torch.rand(value["shape"], generator=generator, dtype=torch.float64))
        return {k: replaced(v, k) for k, v in value.items()}

    result: dict[str, Any] = replaced(certificate)
    return result
