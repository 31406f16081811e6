"""The tightness benchmark: its cases, its results, and the document that is made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench_tightness, render_tightness
from benchmarks.bench_tightness import MODES, QUICK_MODES, dual, minimum_area, store
from benchmarks.networks import EXAMPLES
from benchmarks.tightness_cases import TARGETS, Case, table_case
from tests.verifier.graphs import sample_box
from zonocuda.importers import load_network

RESULTS = Path(bench_tightness.__file__).parent / "results"


def example() -> Case:
    """A network of the examples, with a wide box."""
    graph = load_network(EXAMPLES / "fc.onnx").graph.to(torch.float32)
    center = torch.rand(1, *graph.input_shape, generator=torch.Generator().manual_seed(1))
    return Case.of("example", graph, (center - 0.15, center + 0.15))


@torch.no_grad()
def test_every_mode_bounds_the_margins_from_below_and_the_dearest_is_the_tightest() -> None:
    case = example()
    x = sample_box(case.box[0][0], case.box[1][0], 1000)
    least = case.rows.values(x, case.graph(x)).amin(0)
    margins = {}
    for mode in (*MODES, *QUICK_MODES):
        for setting, point in mode.points:
            lower = bench_tightness.bounds(point, case)[0]
            assert bool((lower <= least + 1e-4).all()), (mode.name, setting)
            margins[mode.name, setting] = float(lower.min())
    assert max(margins.values()) > margins["minimum area, forward", ""] + 1e-2
    assert margins["dual, one slope", ""] == pytest.approx(margins["minimum area, forward", ""], abs=1e-4)


def test_the_rows_are_the_margins_of_the_label() -> None:
    case = example()
    y = torch.arange(float(case.rows.output.shape[1])).unsqueeze(0) ** 2
    values = case.rows.values(case.box[0], y)[0]
    assert values.tolist() == [float(y[0, case.label] - y[0, j]) for j in range(y.shape[1]) if j != case.label]


@pytest.mark.parametrize("target", TARGETS[::3], ids=lambda target: target.network)
def test_the_stated_rows_are_the_cases_that_we_measure(target: Any) -> None:
    """The predicted class, and the margin that minimum-area slopes give, which another program stated."""
    case = table_case(target.network, target.image)
    assert case.label == target.label
    point = minimum_area if target.network != "resnet_4b" else dual(None, 0, "minimum_area")
    margin = float(bench_tightness.bounds(point, case).min())
    assert margin == pytest.approx(target.same_slope.margin, abs=2e-3 * max(1, abs(margin)))


def test_sections_are_added_to_a_file_and_newer_entries_replace_older_ones(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    point = {"case": "a", "mode": "m", "setting": ""}
    store(file, {"curve": [{**point, "margin": 1.0}, {**point, "case": "b", "margin": 2.0}]})
    store(file, {"curve": [{**point, "margin": 3.0}], "ties": []})
    result = json.loads(file.read_text())
    assert [entry["margin"] for entry in result["curve"]] == [3.0, 2.0]
    assert set(result["machine_info"]) == {"processor", "system", "python"}


STATED = {"margin": 1.0, "seconds": 0.9}


def row(*points: tuple[float, float]) -> dict[str, Any]:
    """A row of the targets with points (margin, seconds)."""
    entries = [
        {"mode": "m", "setting": str(i), "margin": m, "seconds": 1.5 * s, "least_seconds": s}
        for i, (m, s) in enumerate(points)
    ]
    return {"network": "n", "image": 0, "crown": STATED, "alpha": STATED, "points": entries}


@pytest.mark.parametrize(
    ("points", "met"),
    [
        (((0.991, 0.19), (2.0, 0.8)), (1, 1, 1, 1)),
        (((0.991, 0.29), (2.0, 0.1)), (1, 1, 1, 1)),
        (((0.989, 0.1), (2.0, 0.8)), (1, 0, 0, 0)),
        (((0.989, 0.1), (2.0, 0.25)), (1, 1, 1, 0)),
        (((0.989, 0.1), (2.0, 1.0)), (0, 0, 0, 0)),
        (((0.5, 0.1),), (0, 0, 0, 0)),
    ],
)
def test_a_target_is_met_in_time_or_not_at_all(points: Any, met: Any) -> None:
    text = render_tightness.targets({"targets": [row(*points)]})
    crown, crown_median, alpha, alpha_median = met
    assert f"{crown} for CROWN's column ({crown_median} by the median of our runs)" in text
    assert f"{alpha} for alpha-CROWN's ({alpha_median} by the median)" in text


def test_a_wrong_verdict_of_the_course_would_show() -> None:
    case = {"is_verifiable": True, "has_counterexample": False, "verdict": "verified", "seconds": 2.0}
    bad = {"is_verifiable": False, "has_counterexample": True, "verdict": "verified", "seconds": 1.0}
    text = render_tightness.course({"course": [case, {**case, "verdict": "unknown", "seconds": 3.0}, bad]})
    assert text.startswith("1 of 2 cases labelled `verified` are verified, in 5.0 s together and 3.0 s at most.")
    assert "Of the 1 with an adversarial image 1 are verified and 0 are falsified." in text


def test_the_document_is_what_its_results_say() -> None:
    (file,) = RESULTS.glob("tightness-*.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    text = render_tightness.DOCUMENT.read_text(encoding="utf-8")
    assert render_tightness.render(text, result) == text
    names = re.findall(r"<!-- table: ([\w ]+) -->", text)
    assert sorted(names) == sorted(render_tightness.TABLES)
    assert render_tightness.DOCUMENT.with_name(render_tightness.FIGURE).is_file()
