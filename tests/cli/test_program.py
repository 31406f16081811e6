"""SIGINT and SIGTERM end the program with one line, its own exit code, and no file half written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli import files

ROOT = Path(__file__).parents[2]
ENDS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
SECONDS = 60.0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for something that the process does; fails where it ends before."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def start(command: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("delay", "number", "code", "word"),
    [(delay, *ENDS[i % 2]) for i, delay in enumerate((0.0, 0.3, 1.0, 6.0))],
)
def test_a_signal_ends_a_run_with_one_line_whatever_it_is_at(
    delay: float, number: signal.Signals, code: int, word: str, net: Path, tmp_path: Path
) -> None:
    """From the moment when its output is opened, before torch is loaded, into the search."""
    spec = files.save_spec(tmp_path / "open.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")  # open for a minute
    out = tmp_path / "out.json"
    out.write_text("old")
    process = start(["-m", "zonocuda", "verify", net, spec, "--json", out])
    wait_until(lambda: any(tmp_path.glob(".zonocuda-*.tmp")), process)
    time.sleep(delay)
    process.send_signal(number)
    assert process.communicate(timeout=SECONDS) == ("", f"zonocuda: {word}\n")
    assert process.returncode == code
    assert out.read_text() == "old"
    assert not any(tmp_path.glob(".zonocuda-*"))


@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_a_signal_is_one_line_though_the_library_that_is_loaded_catches_everything(
    number: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    """A module in torch's place, which swallows exceptions as it is loaded."""
    (tmp_path / "torch.py").write_text(
        "import sys, time\n"
        f"open({str(tmp_path / 'loading')!r}, 'w').close()\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)\n"
    )
    code_ = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['info']\n"
    code_ += "from zonocuda.cli.program import program; sys.exit(program())"
    process = start(["-c", code_])
    wait_until((tmp_path / "loading").exists, process)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", f"zonocuda: {word}\n")
    assert process.returncode == code


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    """As after nohup, or in the background of a script."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv[1:] = ['--version']\n"
        "from zonocuda.cli.program import program\n"
        "try:\n    program()\nexcept SystemExit:\n    os.kill(os.getpid(), signal.SIGINT); print('alive')"
    )
    out, err = start(["-c", code]).communicate(timeout=SECONDS)
    assert err == ""
    assert out.endswith("\nalive\n")


def test_the_installed_command_is_the_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"zonocuda": "zonocuda.cli.program:program"}
    code = (
        "import sys, zonocuda.cli.program; print(sorted({'argparse', 'torch', 'zonocuda.cli.main'} & {*sys.modules}))"
    )
    out, err = start(["-c", code]).communicate(timeout=SECONDS)
    assert (out, err) == ("[]\n", ""), "signals are taken care of before anything else is loaded"
