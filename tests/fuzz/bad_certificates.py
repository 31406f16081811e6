"""Certificates with faults, of proofs and of counterexamples."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import random
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from tests.check.certificates import inline_file
from tests.fuzz.bad_networks import BYTES
from tests.fuzz.bad_specs import BOX, DECLARED, OPTIONS, network
from tests.fuzz.case import Case
from zonocuda.cli.main import main

SAFE, UNSAFE = "(assert (<= Y_0 -0.5))\n", "(assert (>= Y_0 0.5))\n"
VALUES = (None, True, False, 0, 1, -1, 7, 10**400, 1e300, "nan", "", "\ud800", "\n" * 9, [], {}, [[]], {"x": 1})


def certificate_case(rng: random.Random) -> Case:
    """``zonocuda check`` with a document that was edited, or whose bytes were; or with other files."""
    rows = rng.choice((SAFE, UNSAFE))
    spec, (archive, document) = (DECLARED + BOX + rows).encode(), archive_of(rows)
    content = document.encode()
    match rng.randrange(6):
        case 0:
            change = rng.choice(BYTES)
            content, title = change(rng, content), change.__name__
        case 4:
            change = rng.choice(BYTES)
            content, title = change(rng, archive), f"archive {change.__name__}"
        case 5:
            content, title = repacked(rng, archive), "another member"
        case 1:
            depth, place = rng.choice((5, 900, 960, 990, 10**5)), rng.choice(places(json.loads(document)))
            text = json.dumps(edited(json.loads(document), place, "here"))
            content, title = text.replace('"here"', "[" * depth + "]" * depth).encode(), f"nested {place}"
        case 2:
            spec, title = (DECLARED + BOX + rng.choice((SAFE, UNSAFE))).encode() + b"\n", "another property"
        case _:
            edits = json.loads(document)
            title = "edited"
            for _ in range(rng.randint(1, 4)):
                place = rng.choice(places(edits))
                edits = edited(edits, place, value(rng, edits, place))
                title += f" {place}"
            content = json.dumps(edits).encode()
    files: dict[str, bytes | None] = {"net.onnx": network(), "p.vnnlib": spec, "c.json": content}
    return Case(title, files, ("check", "@c.json", "@net.onnx", "@p.vnnlib"), (0, 1, 2))


@cache
def archive_of(rows: str) -> tuple[bytes, str]:
    """What ``verify --certificate`` writes of the network and a property; and with its arrays in the document."""
    with tempfile.TemporaryDirectory() as folder:
        net, spec, out = (Path(folder) / name for name in ("net.onnx", "p.vnnlib", "c.zip"))
        net.write_bytes(network())
        spec.write_text(DECLARED + BOX + rows)
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["verify", str(net), str(spec), *OPTIONS, "--certificate", str(out)]) == 0
        return out.read_bytes(), json.dumps(inline_file(out))


def repacked(rng: random.Random, archive: bytes) -> bytes:
    """An archive in which a member was dropped, doubled, or holds something else."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == chosen:
                match rng.randrange(4):
                    case 0:
                        continue
                    case 1:
                        content = old.read(rng.choice(names))
                    case 2:
                        content = rng.choice(BYTES)(rng, content)
                    case _:
                        content = bytes(rng.choice((0, 10, 10**7)))
            new.writestr(name, content)
    return out.getvalue()


def places(held: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every field and element below."""
    entries = list(held.items()) if isinstance(held, dict) else list(enumerate(held)) if isinstance(held, list) else []
    return [(*path, k) for k, _ in entries] + [p for k, v in entries for p in places(v, (*path, k))] or [path]


def edited(document: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The document with something else at a place."""
    if not place:
        return new
    result = copy.copy(document)
    result[place[0]] = edited(result[place[0]], place[1:], new)
    return result


def value(rng: random.Random, document: Any, place: tuple[Any, ...]) -> Any:
    """Of any type, from anywhere in the document, or an array of noise."""
    old = document
    for key in place:
        old = old[key]
    if isinstance(old, dict) and old.keys() == {"dtype", "shape", "data"} and rng.random() < 0.7:
        packed = zlib.compress(rng.choice((rng.randbytes(16), bytes(10**6), b"\x00" * 6 + b"\xf0\x7f")))
        return {**old, "data": base64.b64encode(packed).decode()}
    if rng.random() < 0.3:
        other = document
        for key in rng.choice(places(document)):
            other = other[key]
        return other
    return rng.choice(VALUES)
