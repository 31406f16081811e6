"""``zonocuda run`` with its workers: verdicts, files, exit codes, and its end by a signal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import zonocuda
from tests.cli import files
from tests.fleet.conftest import EXPECTED
from tests.thorough import few
from zonocuda.cli.live import LiveTable
from zonocuda.cli.main import main
from zonocuda.executors.protocol import Notice
from zonocuda.fleet.record import Record
from zonocuda.fleet.runner import make_plan
from zonocuda.fleet.settings import Settings
from zonocuda.fleet.store import read_records

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> int:
    """The exit code; argparse leaves by SystemExit."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_every_instance_has_the_verdict_that_it_has_alone(
    ran: tuple[Path, subprocess.CompletedProcess[str]], small: Path
) -> None:
    out, ended = ran
    assert ended.stderr == ""
    records = read_records(out)
    found = {r.net if r.net == "broken.onnx" else r.spec: r for r in records}
    assert {name: record.verdict for name, record in found.items()} == EXPECTED
    alone = zonocuda.verify(small / "net.onnx", small / "safe.vnnlib", timeout=60, split="input")
    assert found["safe.vnnlib"].margin == alone.margin
    assert found["safe.vnnlib"].reason == alone.reason
    assert found["open.vnnlib"].reason.startswith("not decided within 0.5 s")
    assert "the specification has 1 inputs" in found["wide.vnnlib"].reason
    assert "is not an ONNX model" in found["broken.onnx"].reason
    assert ended.returncode == 1, "some failed to run"


def test_lines_and_a_summary_are_printed(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, ended = ran
    lines = ended.stdout.splitlines()
    assert re.fullmatch(r"5 instances: 1 verified, 1 falsified, 1 timeout, 2 error, in \d+\.\d s", lines[5])
    assert sorted(line.split()[0] for line in lines[:5]) == ["error", "error", "falsified", "timeout", "verified"]
    assert [line.split()[0] for line in lines[6:]] == ["slowest"] * 3 + ["undecided"] + ["failed"] * 2 + ["results"]
    seconds = [float(line.split(": ")[1].split(" s,")[0]) for line in lines[6:9]]
    assert seconds == sorted(seconds, reverse=True)
    assert lines[9].startswith("undecided net.onnx open.vnnlib: not decided within 0.5 s")
    assert str(out) in lines[-1]


def test_certificates_are_confirmed_and_counterexamples_are_vnncomps(
    ran: tuple[Path, subprocess.CompletedProcess[str]], small: Path
) -> None:
    out, _ = ran
    found = {r.spec: r for r in read_records(out) if r.net == "net.onnx"}
    for name in ("safe.vnnlib", "unsafe.vnnlib"):
        certificate = out / found[name].files["certificate"]
        assert zonocuda.check(certificate, small / "net.onnx", small / name).confirmed
    text = (out / found["unsafe.vnnlib"].files["counterexample"]).read_text()
    assert re.fullmatch(r"sat\n\((\([XY]_\d+ [-+.e\d]+\)\n?)+\)\n", text)


def test_what_failed_alone_is_run_again(
    ran: tuple[Path, subprocess.CompletedProcess[str]], small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = ran
    before = len(read_records(out))
    code = run("run", small, "--jobs", 2, "--out", out, "--certificates", "--split", "input", "--resume", "-q")
    printed, err = capsys.readouterr()
    assert (code, err) == (1, "")
    assert printed.startswith("3 of 5 are done already\n5 instances: 1 verified")
    assert len(read_records(out)) == before + 2


def test_python_gets_an_iterator_of_records(small: Path) -> None:
    pairs = [(small / "net.onnx", small / name) for name in ("safe.vnnlib", "unsafe.vnnlib")]
    records = zonocuda.run(pairs, jobs=1, timeout=60, effort="fast", dtype="float64")
    verdicts = {Path(record.spec).name: record.verdict for record in records}
    assert verdicts == {"safe.vnnlib": "verified", "unsafe.vnnlib": "falsified"}


def test_python_says_at_once_what_it_cannot_take(small: Path) -> None:
    pairs = [(small / "net.onnx", small / "safe.vnnlib")]
    for wrong, error, message in (
        ({"effort": "much"}, ValueError, "effort must be one of"),
        ({"semantics": "float16"}, ValueError, "no bound holds for sums"),
        ({"depth": 3}, TypeError, "there is no argument 'depth'"),
        ({"seed": "1"}, TypeError, "seed must be a int"),
        ({"device": "tpu"}, ValueError, "must be auto, cpu or cuda"),
        ({"jobs": 0}, ValueError, "jobs must be a positive integer"),
        ({"timeout": -1}, ValueError, "a time limit is a positive number"),
        ({"executor": "moon"}, ValueError, "executor must be one of local, ray, or an Executor"),
        ({"resume": True}, ValueError, "needs the folder of results"),
    ):
        with pytest.raises(error, match=message):
            zonocuda.run(pairs, **wrong)  # type: ignore[arg-type]


def test_a_worker_that_runs_out_of_memory_says_so_and_lives(tmp_path: Path) -> None:
    import numpy as np

    wide = files.fc_model(tmp_path / "wide.onnx", np.ones((3000, 2000)).tolist(), np.ones((1, 3000)).tolist())
    small_net = files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    spec = files.save_spec(tmp_path / "wide.vnnlib", [0] * 2000, [1] * 2000, 1, "(<= Y_0 -0.5)")
    safe = files.save_spec(tmp_path / "safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    records = list(zonocuda.run([(wide, spec), (small_net, safe)], jobs=1, worker_memory=64 << 20))
    first, second = records
    assert first.verdict in ("unknown", "error")
    assert "out of memory" in first.reason
    assert second.verdict == "verified"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.csv"], "No such file or directory: 'absent.csv'"),
        (["DIR", "--resume"], "to resume, a run needs the folder of results"),
        (["DIR", "--certificates"], "--certificates: needs --out"),
        (["DIR", "--jobs", "0"], "argument --jobs: must be an integer of 1 or more, got 0"),
        (["DIR", "--timeout", "-1"], "argument --timeout: must be a positive number"),
        (["DIR", "--semantics", "float16"], "no bound holds for sums"),
        (["DIR", "--out", "/dev/null"], "File exists: '/dev/null'"),
        ([], "the following arguments are required: INSTANCES"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arguments: list[str], message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", *(str(small) if a == "DIR" else a for a in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("zonocuda")
    assert message in err
    assert err.count("\n") == 1


def test_the_command_itself_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from zonocuda.cli.main import main; code = main(['run', 'absent']); "
        "print(code, 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "2 False\n"


def descendants(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(path.parent.name)


@pytest.mark.parametrize(
    ("number", "code", "word"), few(1, [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
)
def test_a_signal_ends_the_workers_with_one_line_and_resume_goes_on(
    number: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    files.save_spec(tmp_path / "safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    files.save_spec(tmp_path / "open.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")
    (tmp_path / "instances.csv").write_text("net.onnx,safe.vnnlib,60\nnet.onnx,open.vnnlib,300\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "zonocuda", "run", str(tmp_path), "--jobs", "1", "--out", str(out), "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    end = time.monotonic() + 120
    while not (out / "results.jsonl").exists() or not (out / "results.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = list(descendants(process.pid))
    assert len(workers) == 1
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", f"zonocuda: {word}\n")
    assert process.returncode == code
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in workers):
        assert time.monotonic() < end, "a worker lives on"
        time.sleep(0.05)
    assert [r.spec for r in read_records(out)] == ["safe.vnnlib"]


def test_the_table_on_a_terminal_says_what_is_done_and_what_each_worker_is_at(small: Path) -> None:
    plan = make_plan(small, Settings(), None, None, False)
    jobs = dict(enumerate(plan.jobs, 1))
    table = LiveTable(plan, jobs)
    screen = Console(width=120, file=io.StringIO())

    def shown() -> list[str]:
        with screen.capture() as captured:
            screen.print(table.drawing())
        return [line.rstrip() for line in captured.get().splitlines()]

    assert shown()[0] == "0 of 5 done"
    for task in (1, 2):
        table.notice(Notice("started", task, task))
    assert [line.split()[0] for line in shown()[2:]] == ["1", "2"]
    assert shown()[2].endswith("net.onnx safe.vnnlib")
    job = jobs[1]
    table.record(Record(job.key, job.name, *job.names, "", "", None, {}, "verified", ""))
    table.notice(Notice("lost", 2, 2, "the worker was killed"))
    first, *rest = shown()
    assert first.startswith("1 of 5 done  1 verified  ")
    assert "/s, about 0:00:0" in first
    assert len(rest) == 1, "no worker is at anything"


@pytest.mark.slow
def test_on_a_terminal_the_table_is_shown_and_the_summary_stays(tmp_path: Path) -> None:
    files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    files.save_spec(tmp_path / "safe.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    files.save_spec(tmp_path / "open.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")
    (tmp_path / "instances.csv").write_text("net.onnx,safe.vnnlib,60\nnet.onnx,open.vnnlib,2\n")
    command = [sys.executable, "-m", "zonocuda", "run", str(tmp_path), "--jobs", "1"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # EIO is its end
        while piece := terminal.read(4096):
            text += piece
    assert process.wait(timeout=60) == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert "0 of 2 done" in plain
    assert re.search(r"1 of 2 done  1 verified  [\d.]+/s, about 0:00:\d\d left", plain)
    assert re.search(r"\b1 +\d+\.\d +net\.onnx open\.vnnlib", plain), "what the worker is at"
    assert not re.search(r"verified +\d+\.\d\d s +net", plain), "no line for each"
    assert re.search(r"2 instances: 1 verified, 1 timeout, in \d+\.\d s\r?\n", plain)
    assert "undecided net.onnx open.vnnlib: not decided within 2 s" in plain


def test_without_ray_the_remedy_is_named(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("run", small, "--executor", "ray") == 2
    assert capsys.readouterr().err == "zonocuda: the executor ray needs Ray: pip install 'zonocuda[ray]'\n"
