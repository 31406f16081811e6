"""The comparison with other tools: peers that are absent or end are named, and tables say what was measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import bench_complete, lirpa, render
from benchmarks.peers.commands import START_UP, Tool
from benchmarks.peers.process import PeerError, Worker
from benchmarks.peers.render import beside, page, put
from benchmarks.smooth import bench as smooth


def test_a_peer_that_is_absent_says_which_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lirpa.VARIABLE, raising=False)
    assert lirpa.VARIABLE in str(lirpa.start(1))
    monkeypatch.setenv(lirpa.VARIABLE, "/nowhere/python")
    assert "/nowhere/python" in str(lirpa.start(1))


def test_auto_lirpa_is_found_where_it_is_installed_and_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "source"
    (folder / "auto_LiRPA").mkdir(parents=True)
    (folder / "auto_LiRPA" / "__init__.py").write_text("__version__ = 'of the folder'\n")
    script = tmp_path / "worker.py"
    script.write_text(
        "import auto_LiRPA, json\nprint(json.dumps({'version': auto_LiRPA.__version__}), flush=True)\ninput()\n"
    )
    monkeypatch.setenv(lirpa.VARIABLE, str(folder))
    worker = lirpa.start(1, script)
    assert isinstance(worker, Worker), worker
    assert worker.facts == {"version": "of the folder"}
    worker.close()
    monkeypatch.delenv(lirpa.VARIABLE)
    monkeypatch.syspath_prepend(str(folder))
    script.write_text("import json\nprint(json.dumps({'version': 'installed'}), flush=True)\ninput()\n")
    worker = lirpa.start(1, script)
    assert isinstance(worker, Worker), "it is installed here, and needs no variable"
    worker.close()


def test_a_command_on_the_path_needs_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = Tool("some tool", "SOME_TOOL", lambda net, spec, seconds, result: [], False, "some-tool-of-nobody")
    monkeypatch.delenv("SOME_TOOL", raising=False)
    assert tool.command() is None
    (tmp_path / "some-tool-of-nobody").write_text("#!/bin/sh\n")
    (tmp_path / "some-tool-of-nobody").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tool.command() == [str(tmp_path / "some-tool-of-nobody")]
    monkeypatch.setenv("SOME_TOOL", "python 'a b'")
    assert tool.command() == ["python", "a b"]


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
    assert "| 3.0 MiB | 0.50 (tight: 0.000, 3.0 MiB) | 0.25 (close: -0.005, 3.0 MiB) |" in text


def test_contradicting_verdicts_come_first() -> None:
    said = {"a": "verified", "b": "falsified", "c": "timeout"}
    text = page(run(*(entry(1.0, instance="i", who=who, verdict=verdict) for who, verdict in said.items())))
    assert text.index("Contradicting verdicts:\n\n* i: a verified, b falsified") < text.index("| decided | 1 | 1 | 0 |")
    agreed = page(run(entry(1.0, instance="i", who="a", verdict="verified")))
    assert "Contradicting verdicts: none, of 1 instances." in agreed


def test_ratios_are_summed_up_for_residual_networks_and_the_others() -> None:
    found = run(
        *(
            entry(t, network=n, who="zonocuda", setting="s", margin=0.0)
            for n, t in (("a", 1.0), ("b", 3.0), ("resnet", 2.0))
        ),
        *(entry(4.0, network=n, who="auto_LiRPA", setting="CROWN", margin=0.0) for n in ("a", "b", "resnet")),
        entry(4.0, network="b", who="plain torch", setting="dense", margin=0.005),
    )
    lines = beside(found).splitlines()
    assert lines[-2:] == [
        f"| auto_LiRPA, CROWN {2 * '| 0.25 to 0.75 (2 of 2) '}{2 * '| 0.50 to 0.50 (1 of 1) '}|",
        "| plain torch, dense | 0 of 1 | 0.75 to 0.75 (1 of 1) | - | - |",
    ]
    assert lines[-2] in page(found).splitlines()


def test_layers_stand_beside_plain_torch() -> None:
    found = [
        entry(t, layer="conv", shape="3 symbols", who=who) for who, t in (("zonocuda", 0.001), ("plain torch", 0.004))
    ]
    assert "| conv | 3 symbols | 4.0 ms (4.0 to 4.0) | 1.0 ms (1.0 to 1.0) | 0.25 | 3.0 MiB | 3.0 MiB |" in page(
        run(*found)
    )
    assert "One layer" not in page(run(found[0]))


def test_what_starting_a_tool_takes_stands_apart_and_is_no_instance() -> None:
    said = [("i", "verified", 5.0), (START_UP, "verified", 2.0)]
    lines = page(run(*(entry(t, instance=name, who="a", verdict=verdict) for name, verdict, t in said))).splitlines()
    at = lines.index("| instance | a |")
    assert lines[at + 2 :] == [
        f"| {START_UP} | verified, 2.0 s, 3.0 MiB |",
        "| i | verified, 5.0 s, 3.0 MiB |",
        "| decided | 1 |",
    ]


def test_several_runs_of_a_verification_have_a_median_and_a_span() -> None:
    found = entry(9.0, instance="i", who="a", verdict="verified", seconds=[3.0, 1.0, 2.0])
    assert "| i | verified, 2.0 s (1.0 to 3.0), 3.0 MiB |" in page(run(found))
    changed = entry(9.0, instance="i", who="a", verdict="timeout/verified", seconds=[3.0])
    assert "| i | timeout/verified, 3.0 s, 3.0 MiB |\n| decided | 0 |" in page(run(changed))


def test_a_quick_verification_is_run_three_times_and_a_slow_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Benchmark:
        def __init__(self) -> None:
            self.extra_info: dict[str, Any] = {}

        def pedantic(self, call: Any, args: Any, **how: Any) -> Any:
            return call(*args)

    script = tmp_path / "tool.py"
    monkeypatch.setenv("SOME_TOOL", f"{sys.executable} {script}")

    class Changing(Tool):
        count = 0

        def run(self, *given: Any) -> tuple[str, float, int]:
            Changing.count += 1
            script.write_text(f"print('{'sat' if Changing.count == 2 else 'unsat'}')")
            return super().run(*given)

    tool = Changing("some tool", "SOME_TOOL", lambda net, spec, seconds, result: [], False)
    for limit, verdicts, runs in ((1e9, "falsified/verified", 3), (0.0, "verified", 1)):
        monkeypatch.setattr(bench_complete, "QUICK", limit)
        benchmark = Benchmark()
        bench_complete.measure(benchmark, "i", tool, tmp_path, tmp_path, tmp_path)
        assert benchmark.extra_info["verdict"] == verdicts
        assert len(benchmark.extra_info["seconds"]) == runs
    both = entry(1.0, instance="i", who="a", verdict="falsified/verified")
    assert "Contradicting verdicts:\n\n* i: a falsified/verified" in page(run(both)), "a tool may contradict itself"


def test_tables_are_put_between_their_marks_and_both_pages_have_them() -> None:
    assert put("a <!-- table -->old<!-- end --> b <!-- end -->", "table", "new") == (
        "a <!-- table -->\nnew\n<!-- end --> b <!-- end -->"
    )
    for document, marker in (("comparison", "table"), ("tightness", "beside")):
        text = (render.DOCS / f"{document}.md").read_text()
        assert "new" in put(text, marker, "new").splitlines()
    with pytest.raises(ValueError, match="no place <!-- absent -->"):
        put("<!-- table --><!-- end -->", "absent", "new")


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
