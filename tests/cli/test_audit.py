"""``zonocuda audit``: files in, a table out, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli import files
from tests.cli.test_json import check, described
from tests.cli.test_main import error, run


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """Y_0 = |X_0 - X_1|, Y_1 = X_0 - X_1: for equal inputs two ReLUs get exactly 0."""
    return files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1.0, 1.0], [2.0, 1.0], [0.5, 0.5]], dtype=np.float32))
    return path


def test_an_onnx_network_is_audited(net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, document = tmp_path / "a.html", tmp_path / "a.json"
    assert run("audit", net, "--data", data, "--dtypes", "float32,float16", "--json", document, "--html", page) == 0
    out = capsys.readouterr().out
    assert "net.onnx, float32" in out
    assert "bifurcation" in out
    found = json.loads(document.read_text())
    assert found["schema"] == "zonocuda.audit/1"
    assert [d["total"]["ties"] for d in found["dtypes"]] == [4, 4]
    assert found["files"]["data"]["name"] == "x.npy"
    seen: set[str] = set()
    check(found, "", described("zonocuda.audit/1"), seen)
    assert "dtypes[].certificates[].theorem" in seen
    assert page.read_text().startswith("<!doctype html>")


def test_an_exported_program_with_labels_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, 1, 6, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    np.save(tmp_path / "x.npy", np.ones((5, 1, 6, 6)))
    np.save(tmp_path / "y.npy", np.array([0, 1, 2, 0, 1]))
    arguments = ("audit", tmp_path / "m.pt2", "--data", tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    assert run(*arguments, "--no-certificates", "--batch-size", 2) == 0
    out = capsys.readouterr().out
    assert "max_pool" in out
    assert "subgradient" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{net}", "--data", "{data}", "--dtypes", "float8"], "--dtypes: 'float8' is not one of"),
        (["{net}", "--data", "{net}"], "not a .npy file"),
        (["{net}", "--data", "{ints}"], r"the network wants [n, 2]"),
        (["{net}", "--data", "{data}", "--labels", "{data}"], "holds no array of integers"),
        (["{data}", "--data", "{data}"], "a model is a .onnx, .onnx.gz or .pt2 file"),
        (["{pt2}", "--data", "{data}"], "not an exported program"),
        (["gone.pt2", "--data", "{data}"], "no such file"),
        (["{net}", "--data", "{data}", "--html", "gone/a.html"], "cannot be written"),
        (["{net}", "--data", "{data}", "--batch-size", "0"], "must be at least 1"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((2, 3), dtype=np.int64))
    (tmp_path / "bad.pt2").write_bytes(b"no")
    names = {"net": net, "data": data, "ints": tmp_path / "ints.npy", "pt2": tmp_path / "bad.pt2"}
    assert run("audit", *(a.format(**names) for a in arguments)) == 2
    assert message in error(capsys)
