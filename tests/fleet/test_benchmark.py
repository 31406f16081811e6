"""The benchmark of fleets measures three ways to the same verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fleet, shared_search
from tests.cli import files


@pytest.mark.slow
def test_three_ways_are_timed_and_their_verdicts_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    files.save_spec(tmp_path / "net_safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    files.save_spec(tmp_path / "net_unsafe.vnnlib", [-0.1, -0.7], [0.3, 0.2], 2, "(>= Y_0 0.9)", "(>= Y_1 0)")
    output = tmp_path / "result.json"
    assert fleet.main([str(tmp_path), "--count", "2", "--jobs", "1", "--tasks", "20", "--output", str(output)]) == 0
    assert capsys.readouterr().out.count("1 verified, 1 falsified") == 3
    document = json.loads(output.read_text())
    assert document["verdicts_agree"] is True
    assert document["instances"] == 2
    assert 0 < document["seconds_per_task"] < 0.1


@pytest.mark.slow
def test_a_search_that_is_shared_out_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, spec, output = tmp_path / "net.onnx", tmp_path / "open.vnnlib", tmp_path / "result.json"
    files.fc_model(net, *files.DISTANCE)
    files.save_spec(spec, [-1, -1], [1, 1], 2, "(= Y_0 0.1)")  # no float is, and no proof says so
    options = ["--workers", "0", "1", "--timeout", "6", "--output", str(output)]
    assert shared_search.main([str(net), str(spec), *options]) == 0
    alone, shared = json.loads(output.read_text())["runs"]
    assert alone["verdict"] == shared["verdict"]
    assert shared["packets"] > 0
    assert 0 <= shared["idle"] <= 1
    assert shared["work_seconds"] <= shared["seconds"]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_instances_are_taken_evenly() -> None:
    assert fleet.chosen(list(range(10)), 4) == [0, 2, 5, 7]  # type: ignore[arg-type]
    assert fleet.chosen([1, 2], 4) == [1, 2]  # type: ignore[list-item]
