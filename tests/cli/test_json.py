"""The JSON documents have exactly the fields that docs/json.md describes, of the types that it names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

import zonocuda
from tests.cli import files
from zonocuda.cli.main import main

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
REFINED = (
    [[2, 1], [0, -2], [-1, -3], [-3, -3], [-2, 2], [1, 3]],
    [
        [0, 1, 3, 2, 1, 0],
        [0, 3, -2, 2, 1, -3],
        [-1, 3, 0, -3, 2, 2],
        [2, -2, -3, 3, -3, 0],
        [-3, -1, 0, -1, -1, -3],
        [-3, -3, -3, 1, 0, 1],
    ],
    [[-2, 1, 2, -1, 0, 3]],
)
"""A network with Y_0 > -50 on the box [-1, 1]^2, which needs slopes of single neurons."""
SPECIAL = ("nan", "inf", "-inf")


def described(schema: str) -> dict[str, str]:
    """Field names and types in the section of docs/json.md about a schema."""
    section = DOCS.read_text().split(f"## `{schema}`\n")[1].split("\n## ")[0]
    fields = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section, re.MULTILINE))
    assert len(fields) > 10
    return fields


def fits(value: object, kind: str) -> bool:
    """Whether a value is of a type in the words of docs/json.md."""
    if " or " in kind:
        return any(fits(value, part) for part in kind.split(" or "))
    if " of " in kind:
        container, element = kind.split(" of ")
        if container == "list":
            return isinstance(value, list) and all(fits(v, element) for v in value)
        return container == "map" and isinstance(value, dict) and all(fits(v, element) for v in value.values())
    simple: dict[str, bool] = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, dict) and value.keys() == {"dtype", "shape", "data"},
        "integer": type(value) is int,
        "real": type(value) in (int, float) or value in SPECIAL,
        "null": value is None,
        "object": isinstance(value, dict),
        "list": isinstance(value, list),
    }
    return simple[kind]


def check(value: Any, path: str, fields: dict[str, str], seen: set[str]) -> None:
    """Every field of a value is described, has its type, and no described one is missing."""
    if isinstance(value, list):
        for element in value:
            if isinstance(element, dict):
                check(element, f"{path}[]", fields, seen)
        return
    if not isinstance(value, dict) or fields.get(path, "").startswith(("map", "array")):
        return
    prefix = f"{path}." if path else ""
    expected = {name for name in fields if re.fullmatch(re.escape(prefix) + r"[a-z0-9_]+", name)}
    assert {prefix + key for key in value} == expected
    for key, entry in value.items():
        name = prefix + key
        assert fits(entry, fields[name]), f"{name}: {entry!r} is no {fields[name]}"
        seen.add(name)
        check(entry, name, fields, seen)


def behind_maxima(folder: Path) -> tuple[Path, Path]:
    """The layers of REFINED behind two maxima, and a property that takes slopes of single neurons there."""
    layers = {f"w{i}": matrix for i, matrix in enumerate(REFINED)}
    nodes = [
        helper.make_node("Gemm", ["x", "left"], ["a"], transB=1),
        helper.make_node("Gemm", ["x", "right"], ["b"], transB=1),
        helper.make_node("Max", ["a", "b"], ["r"]),
        helper.make_node("Gemm", ["r", "w0"], ["h0"], transB=1),
        helper.make_node("Relu", ["h0"], ["r0"]),
        helper.make_node("Gemm", ["r0", "w1"], ["h1"], transB=1),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2"], ["y"], transB=1),
    ]
    weights: dict[str, object] = {**layers, "left": [[1.0, 0.0], [0.0, 1.0]], "right": [[0.5, 0.5], [-0.5, 0.5]]}
    net = files.save_model(folder / "maxima.onnx", nodes, weights, [1, 2], [1, 1])
    graph = zonocuda.load_onnx(net).to(torch.float64)
    box, row = zonocuda.Zonotope.from_ball(torch.zeros(1, 2, dtype=torch.float64), 1.0), torch.eye(1).double()
    weak, best = (zonocuda.optimize_bounds(graph, box, row, intermediate=steps).lower.item() for steps in (None, 40))
    assert best > weak
    wanted = weak + 0.6 * (best - weak)
    return net, files.save_spec(folder / "maxima.vnnlib", [-1, -1], [1, 1], 1, f"(<= Y_0 {wanted:.6f})")


def document(path: Path) -> dict[str, Any]:
    """A document; NaN and Infinity, which are no JSON, are refused."""

    def refuse(text: str) -> object:
        raise AssertionError(f"{text} is not JSON")

    loaded: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return loaded


def test_verify_writes_the_fields_that_are_described(tmp_path: Path) -> None:
    net = files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    fields = described("zonocuda.verify/1")
    verdicts, seen = set(), set[str]()
    for i, (text, options) in enumerate(
        [
            ("(<= Y_0 -0.5)", []),
            ("(>= Y_0 0.5)", []),
            ("(and (<= Y_1 -1.5) (<= Y_0 1.0))", []),
            ("(>= Y_0 0.5)", ["--timeout", "1e-9"]),
            ("(<= (+ Y_0 (* 1e308 Y_1)) -1e308)", ["--dtype", "float32"]),
        ]
    ):
        spec = files.save_spec(tmp_path / f"{i}.vnnlib", [-1, -1], [1, 1], 2, text)
        out, cert = tmp_path / f"{i}.json", ["--certificate", str(tmp_path / f"{i}.zip")] if i < 2 else []
        assert main(["verify", str(net), str(spec), "--json", str(out), *options, *cert]) == 0
        result = document(out)
        check(result, "", fields, seen)
        verdicts.add(result["verdict"])
        assert result["schema"] == "zonocuda.verify/1"
        assert (result["counterexample"] is not None) == (result["verdict"] == "falsified")
        for kind, path in (("net", net), ("spec", spec)):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert result["files"][kind] == {"name": path.name, "sha256": digest}
        assert result["timeout"] == (1e-9 if options[:1] == ["--timeout"] else "inf")
        assert (result["certificate"] is not None) == (bool(cert) and result["verdict"] == "verified")
    assert verdicts == {"verified", "falsified", "unknown", "timeout"}
    refined = files.fc_model(tmp_path / "refined.onnx", *REFINED)
    spec = files.save_spec(tmp_path / "refined.vnnlib", [-1, -1], [1, 1], 1, "(<= Y_0 -50)")
    out = tmp_path / "refined.json"
    both = ["--json", str(out), "--certificate", str(tmp_path / "out.zip")]
    for split in (["--split", "none", "--effort", "max"], ["--split", "input"]):
        assert main(["verify", str(refined), str(spec), *split, "--timeout", "100", *both]) == 0
        check(document(out), "", fields, seen)
    assert document(out)["certificate"]["regions"][0]["forest"]
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], transB=1), helper.make_node("Relu", ["h"], ["y"])]
    behind = files.save_model(tmp_path / "behind.onnx", nodes, {"w": [[1.0, -1.0]]}, [1, 2], [1, 1])
    spec = files.save_spec(tmp_path / "behind.vnnlib", [-1, -1], [1, 1], 1, "(< Y_0 0)")
    assert main(["verify", str(behind), str(spec), *both]) == 0
    check(document(out), "", fields, seen)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
        helper.make_node("ReduceMax", ["h"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Neg", ["m"], ["y"]),
    ]
    corners = [[1, 0], [0, 1], [-1, 0], [0, -1]]
    maximum = files.save_model(tmp_path / "maximum.onnx", nodes, {"w": corners}, [1, 2], [1, 1])
    spec = files.save_spec(tmp_path / "maximum.vnnlib", [-1, -1], [1, 1], 1, "(<= Y_0 -1.01)")
    assert main(["verify", str(maximum), str(spec), "--split", "none", *both]) == 0
    check(document(out), "", fields, seen)
    net, spec = behind_maxima(tmp_path)
    assert main(["verify", str(net), str(spec), "--split", "none", "--effort", "max", *both]) == 0
    check(document(out), "", fields, seen)
    assert seen == set(fields), "described, but never written"


def test_bounds_writes_the_fields_that_are_described(tmp_path: Path) -> None:
    net = files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    center, out = tmp_path / "center.npy", tmp_path / "out.json"
    np.save(center, np.zeros(2))
    fields, seen = described("zonocuda.bounds/1"), set[str]()
    for clip in ([], ["--clip", "-0.5", "0.25"]):
        assert main(["bounds", str(net), "--center", str(center), "--eps", "2/4", "--json", str(out), *clip]) == 0
        result = document(out)
        check(result, "", fields, seen)
        assert result["schema"] == "zonocuda.bounds/1"
        assert result["clip"] == ([-0.5, 0.25] if clip else None)
        assert result["eps"] == 0.5
        # Y_1 = X_0 - X_1 is exact: both of its ReLUs have the slope 1/2 on a box around zero, or one like it
        assert result["lower"][1] == pytest.approx(-result["upper"][1])
    assert seen == set(fields), "described, but never written"


def test_numbers_without_json_are_strings() -> None:
    from zonocuda.verifier.documents import number

    assert [number(v) for v in (float("nan"), float("inf"), -float("inf"), None, 0.1)] == [*SPECIAL, None, 0.1]
