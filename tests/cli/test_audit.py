"""``zonocuda audit``: files in, a table out, errors in one line."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
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


def test_labels_make_the_loss_a_cross_entropy(
    net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "y.npy", np.array([0, 1, 1]))
    arguments = ("audit", net, "--data", data, "--labels", tmp_path / "y.npy", "--no-certificates")
    assert run(*arguments, "--batch-size", 2) == 0
    out = capsys.readouterr().out
    assert "relu" in out
    assert "subgradient" not in out
    np.save(tmp_path / "y.npy", np.array([0, 1, 2]))
    assert run(*arguments) == 2
    assert "y.npy" in error(capsys)


class Payload:
    """What a pickle runs when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_an_exported_program_is_refused_for_opening_it_runs_what_it_holds(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the program's weights is a pickle; torch.export.load runs it, the command does not."""
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "good.pt2")
    trap, ran = tmp_path / "trap.pt2", tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(trap, "w") as bad:
        for entry in good.namelist():
            content = good.read(entry)
            if entry.endswith("weight_0"):
                content = saved(Payload(ran))
            elif entry.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            bad.writestr(entry, content)
    with contextlib.suppress(Exception):
        torch.export.load(trap)
    assert ran.exists(), "the trap does not work"
    ran.unlink()
    assert run("audit", trap, "--data", data) == 2
    assert "can run code when it is opened" in error(capsys)
    assert not ran.exists()


def saved(value: object) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{net}", "--data", "{data}", "--dtypes", "float8"], "--dtypes: 'float8' is not one of"),
        (["{net}", "--data", "{net}"], "not a .npy file"),
        (["{net}", "--data", "{ints}"], r"the network wants [n, 2]"),
        (["{net}", "--data", "{data}", "--labels", "{data}"], "it holds no integers"),
        (["{data}", "--data", "{data}"], "a model is a .onnx or .onnx.gz file"),
        (["{net}", "--data", "{data}", "--html", "gone/a.html"], "cannot be written"),
        (["{net}", "--data", "{data}", "--batch-size", "0"], "must be an integer of 1 or more"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, net: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((2, 3), dtype=np.int64))
    names = {"net": net, "data": data, "ints": tmp_path / "ints.npy"}
    assert run("audit", *(a.format(**names) for a in arguments)) == 2
    assert message in error(capsys)
