"""Results as the JSON documents that docs/json.md describes."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zonocuda.bounds.forward.seen import LayerStats
from zonocuda.bounds.plan.planner import Step
from zonocuda.prove.certificate_file import certificate_document, inline, write

if TYPE_CHECKING:
    from zonocuda.verifier.result import VerifyResult


def json_text(document: Mapping[str, object]) -> str:
    """A document as it is written."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def verify_document(result: VerifyResult, net: str | Path | None, spec: str | Path | None) -> dict[str, object]:
    """The document ``zonocuda.verify/1`` of a verdict about two files, where it is about files."""
    return {
        "schema": "zonocuda.verify/1",
        "verdict": str(result.verdict),
        "reason": result.reason,
        "meaning": result.meaning,
        "margin": number(result.margin),
        "rows": [
            {
                "region": row.region,
                "constraint": row.constraint,
                "lower": number(row.lower),
                "forward": number(row.forward),
                "dual": number(row.dual),
                "slack": number(row.slack),
                "dtype": row.dtype,
            }
            for row in result.margins
        ],
        "left_out": result.left_out,
        "counterexample": _counterexample(result),
        "splits": [
            {
                "region": split.region,
                "split": split.split,
                "boxes": split.boxes,
                "lemmas": split.lemmas,
                "depth": split.depth,
                "open": split.open,
                "worst": number(split.worst),
                "seconds": split.seconds,
                "packets": split.packets,
                "work_seconds": split.work_seconds,
            }
            for split in result.splits
        ],
        "history": [
            {
                "seconds": moment.seconds,
                "region": moment.region,
                "phase": moment.phase,
                "open": moment.open,
                "margin": number(moment.margin),
            }
            for moment in result.history
        ],
        "forest": _forest(result),
        "certificate": None if result.certificate is None else certificate_document(result.certificate, inline),
        "layers": [layer_entry(layer) for layer in result.layers],
        "plan": [step_entry(step) for step in result.plan],
        "seconds": dict(result.seconds),
        "timeout": number(result.timeout),
        "checkpoint": {"resumed": result.resumed, "fault": result.checkpoint_fault},
        "ran": {
            "dtype": result.ran.dtype,
            "device": result.ran.device,
            "backend": result.ran.backend,
            "replay": result.ran.replay,
            "effort": result.ran.effort,
            "semantics": result.ran.semantics,
            "ulp": dict(result.ran.ulp),
            "replay_dtype": result.ran.replay_dtype,
            "settled": dict(result.ran.settled),
            "versions": dict(result.ran.versions),
        },
        "files": _files(result, net, spec),
    }


def certificate_archive(result: VerifyResult, net: str | Path | None, spec: str | Path | None) -> bytes:
    """The file that ``verify --certificate`` writes (docs/certificate.md)."""
    fields: dict[str, object] = {
        "verdict": str(result.verdict),
        "reason": result.reason,
        "counterexample": _counterexample(result),
        "ran": {"semantics": result.ran.semantics, "ulp": dict(result.ran.ulp), "versions": dict(result.ran.versions)},
        "files": _files(result, net, spec),
    }
    content = io.BytesIO()
    write(content, fields, result.certificate)
    return content.getvalue()


def _counterexample(result: VerifyResult) -> dict[str, object] | None:
    found = result.counterexample
    if found is None:
        return None
    x, y = (numbers(values.flatten().tolist()) for values in (found.x, found.y))
    return {"region": found.region, "x": x, "y": y}


def _files(result: VerifyResult, net: str | Path | None, spec: str | Path | None) -> dict[str, object]:
    """The files that a result is about, those that were verified as they were then."""
    found: dict[str, object] = {}
    for kind, path in (("net", net), ("spec", spec)):
        if path is not None and kind in result.digests and str(path) == result.files.get(kind):
            found[kind] = {"name": Path(path).name, "sha256": result.digests[kind]}
        else:
            found[kind] = None if path is None else file_entry(path)
    return found


def _forest(result: VerifyResult) -> dict[str, int] | None:
    size = None if result.certificate is None else result.certificate.forest
    return None if size is None else asdict(size)


def layer_entry(layer: LayerStats) -> dict[str, object]:
    """What a sweep saw at an activation."""
    return {
        "name": layer.name,
        "neurons": layer.neurons,
        "dead": layer.dead,
        "active": layer.active,
        "unstable": layer.unstable,
        "symbols": dict(layer.symbols),
        "mean_width": number(layer.mean_width),
        "direction": layer.direction,
        "dual_rows": layer.dual_rows,
    }


def step_entry(step: Step) -> dict[str, object]:
    """A decision of the planner."""
    return {
        "name": step.name,
        "direction": step.direction,
        "bytes": step.bytes,
        "host_bytes": step.host_bytes,
        "operations": step.operations,
        "actions": list(step.actions),
    }


def file_entry(path: str | Path) -> dict[str, str]:
    """How a document names a file.

    Raises:
        OSError: it cannot be read.
    """
    return {"name": Path(path).name, "sha256": _digest(Path(path))}


def digests_of(files: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each of some files as it is now, in hexadecimal; without those that are no regular files, or that
    cannot be read, which is for their readers to say."""
    found = {}
    for kind, path in files.items():
        with suppress(OSError):
            if Path(path).is_file():
                found[kind] = _digest(Path(path))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def number(value: float | None) -> float | str | None:
    """A JSON number; NaN and infinities as the strings "nan", "inf" and "-inf", which JSON has no numbers for."""
    return value if value is None or math.isfinite(value) else str(value)


def numbers(values: list[float]) -> list[float | str | None]:
    """Such numbers."""
    return [number(v) for v in values]
