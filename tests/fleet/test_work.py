"""What a worker keeps between instances."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path

import pytest

from tests.cli import files
from zonocuda.fleet import work
from zonocuda.fleet.settings import Settings

SETTINGS = Settings(device="cpu", dtype="float64")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The networks that a new worker reads, in their order."""
    read: list[Path] = []
    load = work.load_for_comparisons

    def noted(path: Path) -> work._Loaded:
        read.append(path)
        return load(path)

    monkeypatch.setattr(work, "_networks", OrderedDict())
    monkeypatch.setattr(work, "load_for_comparisons", noted)
    return read


def test_a_network_is_read_once_for_its_content_and_again_when_that_changes(
    small: Path, tmp_path: Path, loaded: list[Path]
) -> None:
    copy = Path(shutil.copy(small / "net.onnx", tmp_path / "copy.onnx"))
    for net in (small / "net.onnx", small / "net.onnx", copy):
        assert work.decide(str(net), str(small / "safe.vnnlib"), 60.0, SETTINGS).verdict == "verified"
    assert loaded == [small / "net.onnx"]
    files.fc_model(copy, [[-1, 1], [1, -1]], [[-1, -1], [-1, 1]])  # Y_0 = -|X_0 - X_1|
    assert work.decide(str(copy), str(small / "safe.vnnlib"), 60.0, SETTINGS).verdict == "falsified"
    assert loaded == [small / "net.onnx", copy]


def test_networks_beyond_what_a_worker_keeps_are_forgotten(
    small: Path, tmp_path: Path, loaded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_KEPT", 0)
    other = files.fc_model(tmp_path / "other.onnx", [[2, -2], [-2, 2]], [[1, 1], [1, -1]])
    for net in (small / "net.onnx", other, small / "net.onnx"):
        assert work.decide(str(net), str(small / "safe.vnnlib"), 60.0, SETTINGS).verdict == "verified"
        assert len(work._networks) == 1
    assert loaded == [small / "net.onnx", other, small / "net.onnx"]
