"""The tables of docs/splitting.md, and what counts as a wrong verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import bench_verdicts, render_splitting
from benchmarks.bench_verdicts import Found

RESULTS = Path(render_splitting.__file__).parent / "results"


def found(known: str, verdict: str) -> Found:
    """Of robot_3."""
    names = "reach_prob_density", "onnx/robot.onnx.gz", "vnnlib/robot_3.vnnlib.gz"
    return Found(*names, known, verdict, "because", 7, 0, None, 1.5, 1.6)


def test_the_tables_are_those_of_the_files() -> None:
    document = render_splitting.DOCUMENT.read_text()
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("splitting-*.json"))]
    assert results
    assert render_splitting.rendered(document, results) == document


@pytest.mark.parametrize("known", ["sat", "unsat", "sat?", "unsat1", "open"])
def test_a_verdict_is_wrong_where_it_contradicts_what_is_known(known: str) -> None:
    wrong = {verdict for verdict in ("sat", "unsat", "timeout", "unknown") if found(known, verdict).is_wrong}
    assert wrong == {"sat": {"unsat"}, "unsat": {"sat"}}.get(known.rstrip("1?"), set())


def test_an_instance_is_shown_beside_the_figures_stated_for_it() -> None:
    one = found("unsat", "unsat")
    assert bench_verdicts.line(one).endswith("| 7 | 1.50 | 1.60 | 204,023 | 7.8 |")
    assert math.isclose(bench_verdicts.peer_of(one).seconds or 0, 7.8)  # type: ignore[union-attr]
