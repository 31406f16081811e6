"""The comparison with other tools: peers that are absent or end are named, and tables say what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import lirpa
from benchmarks.peers.commands import Tool
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.render import page
from benchmarks.smooth import bench as smooth


def test_a_peer_that_is_absent_says_which_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lirpa.VARIABLE, raising=False)
    assert lirpa.VARIABLE in str(lirpa.start(1))
    monkeypatch.setenv(lirpa.VARIABLE, "/nowhere/python")
    assert "/nowhere/python" in str(lirpa.start(1))


def test_a_worker_answers_line_by_line_and_says_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\nprint(json.dumps({'ready': True}), flush=True)\n"
        "for line in sys.stdin:\n    asked = json.loads(line)\n"
        "    if asked['do'] == 'end':\n        sys.exit('out of ideas')\n    print(json.dumps(asked), flush=True)\n"
    )
    worker = Worker(sys.executable, script, 1)
    assert worker.facts == {"ready": True}
    assert worker.ask(do="echo", number=3) == {"do": "echo", "number": 3}
    with pytest.raises(PeerError, match="out of ideas"):
        worker.ask(do="end")
    worker.close()


@pytest.mark.parametrize(
    ("said", "verdict"), [("noise\nunsat\n", "verified"), ("sat", "falsified"), ("?", "no verdict")]
)
def test_the_verdict_of_a_command_is_what_it_prints(
    said: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tool.py"
    script.write_text(f"print({said!r})")
    monkeypatch.setenv("SOME_TOOL", f"{sys.executable} {script}")
    tool = Tool("some tool", "SOME_TOOL", lambda net, spec, seconds, result: [], False)
    found, seconds, memory = tool.run(tmp_path, tmp_path, 5, tmp_path / "result", 1)
    assert found == verdict
    assert seconds > 0
    assert memory > 2**20


def test_the_memory_of_a_command_is_its_own_and_not_that_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tool.py"
    tool = Tool("some tool", "SOME_TOOL", lambda net, spec, seconds, result: [], False)
    monkeypatch.setenv("SOME_TOOL", f"{sys.executable} {script}")
    most = []
    for size in (200, 0):
        script.write_text(f"held = b'1' * ({size} * 2**20)\nprint('sat')")
        most.append(tool.run(tmp_path, tmp_path, 5, tmp_path / "result", 1)[2])
    assert most[0] - most[1] > 150 * 2**20


def entry(stats: float, **facts: Any) -> dict[str, Any]:
    return {
        "extra_info": {"threads": 1, "memory": 3 * 2**20, **facts},
        "stats": {"median": stats, "q1": stats, "q3": stats},
    }


def run(*benchmarks: dict[str, Any]) -> dict[str, Any]:
    return {"machine_info": {"processor": "some processor"}, "datetime": "2026-01-02T", "benchmarks": list(benchmarks)}


def test_the_quickest_of_our_settings_that_is_as_tight_stands_beside_a_peer() -> None:
    ours = [("loose", 1.0, -0.5), ("close", 2.0, -0.005), ("tight", 4.0, 0.0)]
    text = page(
        run(
            *(entry(t, network="n", who="zonocuda", setting=name, margin=m) for name, t, m in ours),
            entry(8.0, network="n", who="auto_LiRPA", setting="CROWN", margin=0.0),
        )
    )
    assert "| 3 MiB | 0.50 (tight: 0.000, 3 MiB) | 0.25 (close: -0.005, 3 MiB) |" in text


def test_contradicting_verdicts_come_first() -> None:
    said = {"a": "verified", "b": "falsified", "c": "timeout"}
    text = page(run(*(entry(1.0, instance="i", who=who, verdict=verdict) for who, verdict in said.items())))
    assert text.index("Contradicting verdicts:\n\n* i: a verified, b falsified") < text.index("| decided | 1 | 1 | 0 |")
    agreed = page(run(entry(1.0, instance="i", who="a", verdict="verified")))
    assert "Contradicting verdicts: none, of 1 instances." in agreed


def test_of_smooth_networks_the_tightest_of_our_settings_in_a_peers_time_stands_beside_it() -> None:
    def found(who: str, setting: str, width: float, seconds: float) -> dict[str, Any]:
        return {"network": "n", "radius": 0.1, "who": who, "setting": setting, "width": width, "seconds": seconds}

    ours = [found("zonocuda", "quick", 2.0, 0.01), found("zonocuda", "dear", 1.0, 1.0)]
    peers = [found("auto_LiRPA", "CROWN", 2.5, 0.02), found("auto_LiRPA", "alpha-CROWN", 1.5, 0.5)]
    document = {"torch": "2", "peer": None, "datetime": "2026-01-02", "machine_info": {"processor": "p"}}
    text = smooth.render({**document, "entries": [*ours, *peers]})
    assert "| 2.5 in 20 ms | 2 in 10 ms, quick | 1.5 in 500 ms | 1 in 1000 ms, dear: slower |" in text
    assert "\nCROWN: of 1 cases 1 are no wider by one of our settings, 1 of them in its time." in text
    assert "alpha-CROWN: of 1 cases 1 are no wider by one of our settings, 0 of them in its time." in text
    wide = smooth.render({**document, "entries": [*ours, found("auto_LiRPA", "CROWN", 0.5, 9.0)]})
    assert "1 in 1000 ms, dear: wider | absent |" in wide
    failed = {**found("auto_LiRPA", "CROWN", float("nan"), 0.0), "failed": "no erf"}
    assert "| no erf | 1 in 1000 ms |" in smooth.render({**document, "entries": [*ours, failed]})
