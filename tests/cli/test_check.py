"""zonocuda check: what it prints, its exit codes, and one line for every bad input."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.check.certificates import inline_file
from tests.cli import files
from tests.cli.test_main import error, run
from tests.importers.onnx_models import model, op

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """A property with counterexamples."""
    return files.save_spec(tmp_path / "unsafe.vnnlib", [-1, -1], [1, 1], 2, "(>= Y_0 0.5)")


def certificate(net: Path, spec: Path, out: Path, edit: Edit = lambda document: None, *options: str) -> Path:
    """What verify writes down, as a document with its arrays in it, edited."""
    assert run("verify", net, spec, "--certificate", out, "--split", "none", *options) == 0
    document = inline_file(out)
    edit(document)
    out.write_text(json.dumps(document))
    return out


def test_a_proof_is_confirmed(net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cert = certificate(net, safe, tmp_path / "cert.json")
    capsys.readouterr()
    assert run("check", cert, net, safe) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["confirmed", "reason      every disjunct of 1 region(s) is refuted"]
    assert out[2].startswith("arithmetic  balls of 128 bits (Arb in python-flint")
    assert out[3].startswith("region 0    worst bound ")
    assert out[-1].startswith("seconds     ")
    assert max(map(len, out)) <= 100


def test_a_proof_without_its_rows_is_not_confirmed(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_rows(document: dict[str, Any]) -> None:
        document["certificate"]["regions"][0]["rows"] = []

    cert = certificate(net, safe, tmp_path / "cert.json", without_rows)
    capsys.readouterr()
    assert run("check", cert, net, safe) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "not confirmed"
    assert "disjunct 0 is not refuted" in out[1]


def test_a_counterexample_is_executed_again_and_exactly(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert = certificate(net, unsafe, tmp_path / "cert.json")
    capsys.readouterr()
    assert run("check", cert, net, unsafe) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "confirmed"
    assert "outputs     the same as the certificate's" in out
    assert "exactly     exact arithmetic violates the property, too, at a point inside the exact box" in out


def test_a_large_network_is_executed_again_but_not_made_into_balls(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zonocuda.checker import verdict

    cert = certificate(net, unsafe, tmp_path / "cert.json")
    monkeypatch.setattr(verdict, "MAX_NUMBERS", 3)
    capsys.readouterr()
    assert run("check", cert, net, unsafe) == 0
    assert "not computed: the network has more than 3 constants or neurons" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": [0.25, 0.25]}, "ONNX Runtime's output is not unsafe"),
        ({"x": [2.0, 0.0]}, "x lies outside the box"),
        ({"x": [1e-300, 1.0]}, "x is no float32 point"),
        ({"x": ["nan", 1.0]}, "x must be 2 numbers"),
        ({"x": [1.0]}, "x must be 2 numbers"),
        ({"x": [10**400, 1.0]}, "x must be 2 numbers"),
        ({"region": 1}, "region is no region"),
        ({"region": -1}, "region is no region"),
        ({"region": True}, "region is no region"),
    ],
)
def test_what_is_no_counterexample_is_not_confirmed(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    cert = certificate(net, unsafe, tmp_path / "cert.json", lambda document: document["counterexample"].update(change))
    capsys.readouterr()
    assert run("check", cert, net, unsafe) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "not confirmed"
    assert reason in out[1]


def test_exact_arithmetic_may_disagree_with_the_execution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """fl(fl(2^27 + x) - 2^27) is 0 at x = 1, and 1 exactly."""
    big = 2.0**27
    rows = [[big, 1], [big, 0]]
    net = files.fc_model(tmp_path / "net.onnx", rows, [[1, -1]])
    spec = files.save_spec(tmp_path / "spec.vnnlib", [1, 1], [1, 1], 1, "(<= Y_0 0.5)")
    cert = certificate(net, spec, tmp_path / "cert.json")
    assert json.loads(cert.read_text())["verdict"] == "falsified"
    capsys.readouterr()
    assert run("check", cert, net, spec) == 0
    assert "exactly     exact arithmetic does not violate the property" in capsys.readouterr().out


def test_no_proof_leaves_nothing_to_check(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert = certificate(net, unsafe, tmp_path / "cert.json", lambda document: None, "--timeout", "1e-9")
    capsys.readouterr()
    assert run("check", cert, net, unsafe) == 2
    assert "nothing to check: the verdict is 'timeout'" in error(capsys)


def set_semantics(document: dict[str, Any]) -> None:
    document["ran"]["semantics"] = "float16"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_semantics, "semantics 'float16' cannot be checked"),
        (lambda document: document.pop("ran"), "semantics 'a NoneType'"),
        (lambda document: document.update(verdict="sure"), "the verdict is 'sure'"),
        (lambda document: document.update(schema="zonocuda.bounds/1"), "not a document of 'zonocuda verify' (schema"),
        (lambda document: document.update(certificate=None), "holds no certificate of format"),
        (
            lambda document: document["certificate"].update(available=False, reason="too\nlarge"),
            "nothing to check: too large",
        ),
        (lambda document: document["files"]["net"].update(sha256="0"), "net.onnx: is not the file"),
        (lambda document: document["files"].pop("spec"), "safe.vnnlib: is not the file"),
        (lambda document: document.pop("files"), "net.onnx: is not the file"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Edit, message: str
) -> None:
    cert = certificate(net, safe, tmp_path / "cert.json", edit)
    capsys.readouterr()
    assert run("check", cert, net, safe) == 2
    assert message in error(capsys)


def test_a_certificate_of_another_property_is_refused(
    net: Path, safe: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert = certificate(net, safe, tmp_path / "cert.json")
    capsys.readouterr()
    assert run("check", cert, net, unsafe) == 2
    assert "unsafe.vnnlib: is not the file that" in error(capsys)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"9" * 5000, b'{"schema": []}']
)
def test_what_is_no_document_is_refused_in_one_line(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    cert = tmp_path / "cert.json"
    cert.write_bytes(content)
    assert run("check", cert, net, safe) == 2
    assert "cert.json: not a" in error(capsys)


@pytest.mark.parametrize("field", ["verdict", "semantics", "reason"])
def test_a_value_that_is_nested_deeply_is_refused_in_one_line(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    def nest(document: dict[str, Any]) -> None:
        places = {"verdict": document, "semantics": document["ran"], "reason": document["certificate"]}
        places[field][field] = "here"
        document["certificate"]["available"] = field != "reason"

    cert = certificate(net, safe, tmp_path / "cert.json", nest)
    text = cert.read_text()
    capsys.readouterr()
    for depth in (1, 100, *range(900, 1000, 5), 100_000):
        cert.write_text(text.replace('"here"', "[" * depth + "]" * depth))
        assert run("check", cert, net, safe) == 2
        assert "a list" in error(capsys) or depth > 800


def test_a_pipe_is_refused_without_waiting_for_it(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert = certificate(net, safe, tmp_path / "cert.json")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    capsys.readouterr()
    for files_ in ((pipe, net, safe), (cert, pipe, safe), (cert, net, pipe)):
        assert run("check", *files_) == 2
        assert "pipe: is not a regular file" in error(capsys)


def test_an_infinite_float32_is_no_counterexample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Y_0 = relu(20 X_1 - 1e-38 X_0) is at least 10 for X_0 <= 1e39; that is infinite in float32, where Y_0 is 0."""
    net = files.fc_model(tmp_path / "net.onnx", [[-1e-38, 20]], [[1]])
    spec = files.save_spec(tmp_path / "spec.vnnlib", [0, 1], [1e39, 1], 1, "(<= Y_0 5)")
    small = files.save_spec(tmp_path / "small.vnnlib", [0, 1], [1, 1], 1, "(<= Y_0 50)")
    cert = certificate(net, small, tmp_path / "cert.json")
    document = json.loads(cert.read_text())
    assert document["verdict"] == "falsified"
    document["files"]["spec"]["sha256"] = hashlib.sha256(spec.read_bytes()).hexdigest()
    document["counterexample"]["x"] = ["here", 1.0]
    cert.write_text(json.dumps(document).replace('"here"', "1e999"))
    capsys.readouterr()
    assert run("check", cert, net, spec) == 1
    assert "x is no float32 point" in capsys.readouterr().out


def test_an_empty_box_is_confirmed_where_other_inputs_have_no_bounds(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = files.save_spec(tmp_path / "spec.vnnlib", [1, 0], [0, 1], 2, "(<= Y_0 5)")
    spec.write_text("\n".join(line for line in spec.read_text().splitlines() if "= X_1" not in line))
    cert = certificate(net, spec, tmp_path / "cert.json")
    capsys.readouterr()
    assert run("check", cert, net, spec) == 0
    assert "the box is empty" in capsys.readouterr().out


def test_a_zero_about_which_nothing_is_known_is_not_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Y = X * 0^y with y = ((a b) c) d - (a b) (c d): 0 over the reals, so that 0^y = 1, and above 0 in float64."""
    powers = next(p for p in np.random.default_rng(0).random((1000, 4)).astype(np.float32) if _residue(p) > 0)
    weights = {name: np.array([v], np.float32) for name, v in zip("abcdz", [*powers, 0], strict=True)}
    nodes = [op("Mul", "a b", "ab"), op("Mul", "ab c", "abc"), op("Mul", "abc d", "abcd"), op("Mul", "c d", "cd")]
    nodes += [op("Mul", "ab cd", "other"), op("Sub", "abcd other", "zero"), op("Pow", "z zero", "one")]
    net = tmp_path / "net.onnx"
    net.write_bytes(model([*nodes, op("Mul", "x one")], [1, 1], weights).SerializeToString())
    spec = files.save_spec(tmp_path / "spec.vnnlib", [1], [2], 1, "(>= Y_0 0.5)")
    safe = files.save_spec(tmp_path / "safe.vnnlib", [1], [2], 1, "(>= X_0 3)")
    cert = certificate(net, safe, tmp_path / "cert.json")
    document = json.loads(cert.read_text())
    document["verdict"] = "verified"
    entry = {"region": 0, "second_pass": False, "activations": [], "rows": [{"row": 0, "lower": 0.5, "slopes": None}]}
    document["certificate"] = {"format": "zonocuda.certificate/2", "available": True, "reason": "", "regions": [entry]}
    document["files"]["spec"]["sha256"] = hashlib.sha256(spec.read_bytes()).hexdigest()
    cert.write_text(json.dumps(document))
    capsys.readouterr()
    assert run("check", cert, net, spec) == 1
    assert capsys.readouterr().out.startswith("not confirmed\n")


def _residue(p: NDArray[np.float32]) -> float:
    a, b, c, d = p.astype(np.float64)
    return float(a * b * c * d - (a * b) * (c * d))


def test_a_missing_file_is_one_line(net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", tmp_path / "none.json", net, safe) == 2
    assert "none.json" in error(capsys)


def test_a_missing_library_is_named_with_its_remedy(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import sys

    for name in [name for name in sys.modules if name == "zonocuda.checker" or name.startswith("zonocuda.checker.")]:
        monkeypatch.delitem(sys.modules, name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "flint" else find(name, *rest))
    assert run("check", tmp_path / "cert.json", net, safe) == 2
    assert "zonocuda check needs python-flint, which is not installed: pip install 'zonocuda[check]'" in error(capsys)
