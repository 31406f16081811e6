"""A run keeps what is done, whatever ends it, and does again what has changed."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fleet.inline import InlineExecutor, verdict_in_the_property
from zonocuda.executors.protocol import Done
from zonocuda.fleet import record as lines
from zonocuda.fleet.record import Record
from zonocuda.fleet.runner import default_threads, execute, make_plan
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.store import Store, latest, read_records

ROOT = Path(__file__).parents[2]
VERDICTS = ("verified", "falsified", "unknown", "timeout", "error no such operator")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of five instances of one network, one for each verdict."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(b"a network")
    lines = []
    for i, verdict in enumerate(VERDICTS):
        (folder / f"p{i}.vnnlib").write_text(verdict)
        lines.append(f"net.onnx,p{i}.vnnlib,{i + 1}\n")
    (folder / "instances.csv").write_text("".join(lines))
    return folder / "instances.csv"


def done(
    given: Path,
    out: Path | None,
    *,
    resume: bool = False,
    settings: Settings | None = None,
    timeout: float | None = None,
) -> list[str]:
    """Which properties a run verifies."""
    plan = make_plan(given, settings or Settings(), timeout, out, resume)
    try:
        return [record.spec for record in execute(plan, InlineExecutor(verdict_in_the_property))]
    finally:
        if plan.store is not None:
            plan.store.close()


ALL = [f"p{i}.vnnlib" for i in range(5)]


def test_a_folder_of_results_holds_every_verdict_and_its_files(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert done(listed, out, settings=Settings(certificates=True)) == ALL
    records = read_records(out)
    assert [r.verdict for r in records] == ["verified", "falsified", "unknown", "timeout", "error"]
    assert [r.timeout for r in records] == [1, 2, 3, 4, 5]
    assert records[4].reason == "no such operator"
    assert not records[4].files
    assert records[0].margin == 0.5
    assert (out / records[0].files["certificate"]).read_bytes() == b"proof"
    assert (out / records[1].files["counterexample"]).read_text().startswith("sat\n((X_0")
    assert {json.loads((out / r.files["result"]).read_text()) == {} for r in records[:4]} == {True}
    rows = list(csv.reader((out / "results.csv").open()))
    assert rows[0] == ["set", "net.onnx", "p0.vnnlib", "0.125000", "unsat", "0.500000"]
    assert [row[4] for row in rows] == ["unsat", "sat", "unknown", "timeout", "error"]


def test_a_line_says_again_what_it_was_made_from(listed: Path, tmp_path: Path) -> None:
    done(listed, tmp_path / "out")
    record = replace(read_records(tmp_path / "out")[0], lost=["a", "b"], splits=[{"boxes": 3}], margin=float("-inf"))
    assert Record.of_line(record.line()) == record


def test_resume_does_what_is_not_done_and_what_failed(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done(listed, out)
    assert done(listed, out, resume=True) == ["p4.vnnlib"]
    (listed.parent / "p5.vnnlib").write_text("verified")
    (listed.parent / "p4.vnnlib").write_text("verified")
    listed.write_text(listed.read_text() + "net.onnx,p5.vnnlib,6\n")
    assert done(listed, out, resume=True) == ["p4.vnnlib", "p5.vnnlib"]
    assert done(listed, out, resume=True) == []
    assert len(list(csv.reader((out / "results.csv").open()))) == 6


def test_a_changed_file_option_time_or_version_is_done_again_and_replaces_the_old(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (listed.parent / "p4.vnnlib").write_text("verified")
    done(listed, out)
    (listed.parent / "p1.vnnlib").write_text("verified")
    assert done(listed, out, resume=True) == ["p1.vnnlib"]
    assert latest(read_records(out))["net.onnx", "p1.vnnlib"].verdict == "verified"
    assert done(listed, out, resume=True, settings=Settings(seed=1)) == ALL
    assert done(listed, out, resume=True, timeout=3.0) == ["p0.vnnlib", "p1.vnnlib", "p3.vnnlib", "p4.vnnlib"]
    (listed.parent / "net.onnx").write_bytes(b"another network")
    assert done(listed, out, resume=True) == ALL
    monkeypatch.setattr(lines, "__version__", "9.9")
    assert done(listed, out, resume=True) == ALL
    assert done(listed, out, resume=True) == []


def test_weights_in_another_file_are_part_of_the_network(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from zonocuda.fleet.digest import file_sha256, network_sha256

    weights = numpy_helper.from_array(np.ones((300, 300), np.float32), "w")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 300])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 300])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [value], [out], [weights])
    path = tmp_path / "net.onnx"
    onnx.save_model(helper.make_model(graph), str(path), save_as_external_data=True, location="weights.bin")
    before = network_sha256(path)
    assert before != file_sha256(path)
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert network_sha256(path) != before
    (tmp_path / "weights.bin").unlink()
    assert network_sha256(path) != before


def test_a_torn_last_line_is_as_if_it_were_not_there(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (listed.parent / "p4.vnnlib").write_text("verified")
    done(listed, out)
    journal = out / "results.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for end in (len(whole) - 1, len(whole) - len(lines[-1]) + 1, len(whole) - len(lines[-1])):
        journal.write_bytes(whole[:end])
        assert done(listed, out, resume=True) == ["p4.vnnlib"]
        assert [r.spec for r in read_records(out)] == ALL
        assert journal.read_bytes().startswith(b"".join(lines[:-1]))


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "proven"},
        {"verdict": ["verified"]},
        {"reason": 3},
        {"files": {"result": 3}},
        {"files": []},
        {"phases": {"forward": "long"}},
        {"seconds": None},
        {"margin": "large"},
        {"splits": [3]},
        {"timeout": "1"},
        {"schema": "zonocuda.run/2"},
    ],
)
def test_a_line_that_no_run_wrote_is_refused_by_its_number(
    change: dict[str, object], listed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done(listed, out)
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    lines[2] = json.dumps({**json.loads(lines[2]), **change}) + "\n"
    (out / "results.jsonl").write_text("".join(lines))
    with pytest.raises(ValueError, match=r"results.jsonl: line 3 is no result: "):
        read_records(out)
    for text in ("[]", "3", '"a"', "nothing", '{"seconds": NaN}', "[" * 100_000):
        lines[2] = text + "\n"
        (out / "results.jsonl").write_text("".join(lines))
        with pytest.raises(ValueError, match="line 3 is no result"):
            Store(out, resume=True)


def test_results_of_another_run_are_not_written_over(listed: Path, tmp_path: Path) -> None:
    done(listed, tmp_path / "out")
    with pytest.raises(ValueError, match="holds the results of another run; --resume goes on with it"):
        done(listed, tmp_path / "out")
    with pytest.raises(ValueError, match="to resume, a run needs the folder"):
        done(listed, None, resume=True)


def test_two_runs_do_not_write_to_one_folder(listed: Path, tmp_path: Path) -> None:
    first = Store(tmp_path / "out", resume=False)
    with pytest.raises(ValueError, match="another run is writing to it"):
        done(listed, tmp_path / "out", resume=True)
    first.close()
    assert len(done(listed, tmp_path / "out", resume=True)) == 5


def test_lost_and_late_tasks_are_recorded_as_what_they_are(listed: Path) -> None:
    plan = make_plan(listed, Settings(), None, None, False)
    executor = InlineExecutor(verdict_in_the_property)
    executor.ended = {
        1: Done(1, error="the worker was killed, also alone", lost=("the worker was killed",)),
        2: Done(2, error="it was stopped after 9 s", is_late=True),
    }
    lost, late, *_ = execute(plan, executor)
    assert (lost.verdict, lost.reason, lost.lost) == (
        "error",
        "the worker was killed, also alone",
        ("the worker was killed",),
    )
    assert late.verdict == "timeout"
    assert late.reason == "not decided within 2 s, and it did not end by itself: it was stopped after 9 s"


def test_a_file_that_changes_between_its_digest_and_its_verdict_has_none(listed: Path) -> None:
    plan = make_plan(listed, Settings(), None, None, False)
    (listed.parent / "p0.vnnlib").write_text("falsified")
    first, second, *_ = execute(plan, InlineExecutor(verdict_in_the_property))
    assert first.verdict == "error"
    assert "changed while the run was under way" in first.reason
    assert second.verdict == "falsified"


def test_one_pair_with_two_time_limits_is_refused(listed: Path) -> None:
    listed.write_text("net.onnx,p0.vnnlib,1\nnet.onnx,p0.vnnlib,2\n")
    with pytest.raises(ValueError, match=r"net\.onnx p0\.vnnlib: is listed twice"):
        make_plan(listed, Settings(), None, None, False)


PROGRAM = """
import os, random, signal, sys, threading, time
from pathlib import Path
from tests.fleet.inline import InlineExecutor, verdict_in_the_property
from zonocuda.fleet.runner import default_threads, execute, make_plan
from zonocuda.fleet.settings import Settings

given, out, after = sys.argv[1:]
def kill():
    time.sleep(float(after))
    os.kill(os.getpid(), signal.SIGKILL)
plan = make_plan(given, Settings(), None, out, True)
threading.Thread(target=kill, daemon=True).start()
for record in execute(plan, InlineExecutor(verdict_in_the_property)):
    pass
"""


def test_kill_minus_nine_at_random_moments_loses_and_repeats_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    (tmp_path / "net.onnx").write_bytes(b"a network")
    expected = {}
    for i in range(400):
        verdict = VERDICTS[i % 4]
        (tmp_path / f"p{i}.vnnlib").write_text(verdict)
        expected["net.onnx", f"p{i}.vnnlib"] = verdict
    (tmp_path / "instances.csv").write_text("".join(f"net.onnx,{spec},9\n" for _, spec in expected))
    out = tmp_path / "out"
    killed = 0
    for attempt in range(60):
        after = chance.uniform(0.0, 0.05) if attempt < 20 else 60.0
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(out), str(after)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        killed += 1
    assert killed >= 3
    records = read_records(out)
    assert max(Counter(r.key for r in records).values()) == 1, "nothing twice"
    assert {(r.net, r.spec): r.verdict for r in records} == expected, "nothing lost, no verdict another's"
    assert len(list(csv.reader((out / "results.csv").open()))) == 400
    assert not list(out.rglob("*.tmp"))
    for record in records:
        assert all((out / path).is_file() for path in record.files.values())
        assert ("counterexample" in record.files) == (record.verdict == "falsified")


@pytest.mark.parametrize(("asked", "threads"), [(None, [8, 4, 1]), ("", [8, 4, 1]), ("2,1", [2, 2, 1])])
def test_workers_share_the_cores_and_take_no_more_threads_than_are_asked_for(
    asked: str | None, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert [default_threads(workers) for workers in (1, 2, 20)] == threads


def test_a_folder_that_cannot_be_written_is_an_error(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        done(listed, tmp_path / "file" / "out")
    assert os.listdir(tmp_path / "set")


def test_a_run_that_nobody_began_lets_go_of_its_folder(listed: Path, tmp_path: Path) -> None:
    plan = make_plan(listed, Settings(), None, tmp_path / "out", False)
    records = execute(plan, InlineExecutor(verdict_in_the_property))
    del plan, records
    assert done(listed, tmp_path / "out") == ALL
