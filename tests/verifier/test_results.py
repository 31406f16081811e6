"""What one asks a result: whether it is verified, its document, and to be checked again."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("flint", reason="python-flint is not installed")

import zonocuda
from tests.cli import files
from zonocuda.checker import CertificateError
from zonocuda.cli.main import main
from zonocuda.fleet import work
from zonocuda.verifier import Verdict, VerifyResult

ROOT = Path(__file__).parents[2]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """|X_0 - X_1| and X_0 - X_1."""
    return files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """|X_0 - X_1| stays below 3 on [-1, 1]^2."""
    return files.save_spec(tmp_path / "safe.vnnlib", [-1, -1], [1, 1], 2, "(>= Y_0 3.0)")


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """|X_0 - X_1| does not stay below 1."""
    return files.save_spec(tmp_path / "unsafe.vnnlib", [-1, -1], [1, 1], 2, "(>= Y_0 1.0)")


def test_a_result_says_whether_it_is_verified(net: Path, safe: Path, unsafe: Path) -> None:
    assert zonocuda.verify(net, safe).verified is True
    found = zonocuda.verify(net, unsafe)
    assert found.verified is False
    assert found.verdict is Verdict.FALSIFIED


def test_a_document_names_the_files_that_were_verified_not_those_that_are_there_later(
    net: Path, safe: Path, tmp_path: Path
) -> None:
    before = {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in (("net", net), ("spec", safe))}
    result = zonocuda.verify(net, safe)
    other = files.fc_model(tmp_path / "other.onnx", *files.DISTANCE).read_bytes() + b"\x00"
    net.write_bytes(other)
    safe.unlink()
    for document in (result.to_json(), result.to_json(net, safe)):
        told: Any = document["files"]
        assert {kind: told[kind]["sha256"] for kind in told} == before
    elsewhere: Any = result.to_json(tmp_path / "other.onnx")["files"]
    assert elsewhere["net"]["sha256"] == hashlib.sha256((tmp_path / "other.onnx").read_bytes()).hexdigest()


def test_the_command_names_the_files_that_it_read(
    net: Path, safe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashlib.sha256(net.read_bytes()).hexdigest()

    def meanwhile(*arguments: Any, **options: Any) -> VerifyResult:
        result = zonocuda.verify(*arguments, **options)
        net.write_bytes(b"another network")
        return result

    monkeypatch.setattr(work, "verify", meanwhile)
    assert main(["verify", str(net), str(safe), "--quiet", "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["files"]["net"]["sha256"] == before


def test_a_verdict_taken_for_a_truth_value_is_an_error_with_the_remedy(net: Path, unsafe: Path) -> None:
    result = zonocuda.verify(net, unsafe)
    with pytest.raises(TypeError, match=r"a result is neither true nor false: ask result\.verified"):
        bool(result)
    for verdict in Verdict:
        with pytest.raises(TypeError, match=r"neither true nor false: ask result\.verified, or verdict is Verdict"):
            bool(verdict)
    assert [str(v) for v in Verdict] == ["verified", "falsified", "unknown", "timeout"]
    assert Verdict("falsified") is result.verdict
    assert pickle.loads(pickle.dumps(result.verdict)) is result.verdict
    assert result.verdict in (Verdict.FALSIFIED,)


def test_a_document_from_python_is_that_of_the_command_line(net: Path, safe: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    assert main(["verify", str(net), str(safe), "--json", str(told), "-q"]) == 0
    expected = json.loads(told.read_text())
    result = zonocuda.verify(net, safe)
    result.save(tmp_path / "result.json")
    document = json.loads((tmp_path / "result.json").read_text())
    assert document == json.loads(json.dumps(result.to_json(), allow_nan=False))
    for each in (expected, document):
        del each["seconds"]
        for step in each["history"]:
            del step["seconds"]
    assert document == expected


def test_a_document_names_the_files_that_there_are(net: Path, safe: Path) -> None:
    read = zonocuda.load_network(net), zonocuda.load_vnnlib(safe)
    assert zonocuda.verify(*read).to_json()["files"] == {"net": None, "spec": None}
    both: Any = zonocuda.verify(*read).to_json(net, safe)["files"]
    assert both == zonocuda.verify(net, safe).to_json()["files"]
    assert (both["net"]["name"], both["spec"]["name"]) == ("net.onnx", "safe.vnnlib")


def test_results_are_short_tables_and_survive_a_copy(net: Path, safe: Path, unsafe: Path) -> None:
    for spec in (safe, unsafe):
        result = zonocuda.verify(net, spec)
        assert repr(result).startswith(f"VerifyResult({result.verdict}")
        assert len(repr(result)) < 300
        page = result._repr_html_()
        assert f"<b>{result.verdict}</b>" in page
        assert page.count("<table>") == page.count("</table>") >= 1
        for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
            assert other.to_json() == result.to_json()


def test_a_table_escapes_what_files_say(net: Path, safe: Path) -> None:
    result = zonocuda.verify(net, safe)
    odd = VerifyResult(**{**vars(result), "reason": "<script>alert(1)</script>"})
    assert "<script>" not in odd._repr_html_()
    assert "&lt;script&gt;" in odd._repr_html_()


# ---- checked again -------------------------------------------------------------------------------------------------


def test_a_result_is_checked_again_from_python(net: Path, safe: Path, unsafe: Path, tmp_path: Path) -> None:
    for spec in (safe, unsafe):
        result = zonocuda.verify(net, spec, certificate=True)
        saved = tmp_path / "saved.json"
        result.save(saved)
        for claim in (result, result.to_json(), saved, str(saved)):
            found = zonocuda.check(claim, net, spec)
            assert found.confirmed, found.reason
        network, property_ = zonocuda.load_network(net), zonocuda.load_vnnlib(spec)
        assert zonocuda.check(result, network, property_).confirmed
        assert zonocuda.check(result, network.graph, property_).confirmed


def test_a_claim_about_a_module_is_checked_on_its_graph() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.tensor([0.4, 0.6])
    spec = zonocuda.Spec.robust(x, "0.01", int(module(x).argmax()), outputs=2)
    result = zonocuda.verify(module, spec, certificate=True)
    assert result.verified
    graph = zonocuda.from_module(module, (2,))
    assert zonocuda.check(result, graph, spec).confirmed
    with torch.no_grad():
        module[2].bias += torch.tensor([-9.0, 9.0]) * (1 if int(module(x).argmax()) == 0 else -1)
    assert not zonocuda.check(result, zonocuda.from_module(module, (2,)), spec).confirmed


def test_a_claim_about_another_property_is_not_confirmed(net: Path, safe: Path, unsafe: Path) -> None:
    claim = zonocuda.verify(zonocuda.load_network(net), zonocuda.load_vnnlib(safe), certificate=True)
    assert not zonocuda.check(claim, net, unsafe).confirmed
    with pytest.raises(CertificateError, match="is not the file that the result is about"):
        zonocuda.check(zonocuda.verify(net, safe, certificate=True), net, unsafe)


def test_what_cannot_be_checked_is_one_line(net: Path, safe: Path) -> None:
    result = zonocuda.verify(net, safe)
    with pytest.raises(CertificateError, match=r"holds no certificate of format .* certificate=True"):
        zonocuda.check(result, net, safe)
    result = zonocuda.verify(net, safe, certificate=True)
    for call, expected in (
        (lambda: zonocuda.check(3, net, safe), "the certificate must be a result"),  # type: ignore[arg-type]
        (lambda: zonocuda.check(result, 3, safe), "the network must be"),  # type: ignore[arg-type]
        (lambda: zonocuda.check(result, nn.Linear(2, 2), safe), "of a module: zonocuda.from_module"),  # type: ignore[arg-type]
        (lambda: zonocuda.check(result, net, 3), "the property must be"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=expected):
            call()
    with pytest.raises(CertificateError, match="not a document"):
        zonocuda.check({}, net, safe)
    with pytest.raises(TypeError, match="neither true nor false: ask"):
        bool(zonocuda.check(result, net, safe))


# ---- names ---------------------------------------------------------------------------------------------------------


def test_modules_and_names_need_no_second_import() -> None:
    program = (
        "import sys, zonocuda; assert 'torch' not in sys.modules; "
        "assert zonocuda.ops.concretize and zonocuda.reference.concretize and zonocuda.nonsmooth.audit; "
        "assert zonocuda.specs.Spec is zonocuda.Spec; assert zonocuda.check is zonocuda.checker.check; "
        "assert {'ops', 'nonsmooth', 'check', 'verify'} <= set(dir(zonocuda)); "
        "assert all(hasattr(zonocuda, name) for name in dir(zonocuda))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        zonocuda.nothing  # noqa: B018
