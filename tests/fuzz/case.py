"""One run of the command line on hostile files, and what is wrong with what it did."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from zonocuda.checker.certificate import read_document
from zonocuda.cli.main import main
from zonocuda.importers import load_network
from zonocuda.specs import Spec, load_vnnlib

SECONDS = 40.0
"""Of one run, on a machine that others use too; ``--timeout`` of a verification is a fraction of it."""
MEMORY = 1 << 31
"""Bytes by which the peak of the process may grow in one run."""
LONGEST_LINE = 2000
"""Characters of an error message."""
DECIDED = ("verified", "falsified", "unknown", "timeout")


@dataclass(frozen=True)
class Case:
    """Files and a command.

    Attributes:
        name: what was done to the files.
        files: contents by name; None makes a folder.
        arguments: of the command; ``@name`` stands for the path of a file.
        codes: exit codes that are right; 0 is among them where the files may be good ones.
        says: what the error, or the reason of the verdict, must contain.
    """

    name: str
    files: dict[str, bytes | None]
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0, 2, 3)
    says: str = ""


@dataclass
class Run:
    """What a run of the command did."""

    code: int | None
    out: str
    err: str
    seconds: float
    growth: int
    trace: str = ""
    faults: list[str] = field(default_factory=list)


class TooLong(BaseException):
    """Raised in the middle of whatever takes too long; nothing catches it."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises TooLong after ``seconds``, as soon as Python code runs."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Sends what Python and the libraries below it write to stderr to a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    with path.open("w") as file:
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(file):
                yield
        finally:
            file.flush()
            os.dup2(kept, 2)
            os.close(kept)


def write(case: Case, folder: Path) -> list[str]:
    """Writes the files; the command's arguments."""
    for name, content in case.files.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    return [str(folder / a[1:]) if a.startswith("@") else a for a in case.arguments]


def execute(case: Case, folder: Path) -> Run:
    """Runs the command in this process, and judges."""
    arguments = write(case, folder)
    out, trace = io.StringIO(), ""
    peak, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    code: int | None = None
    try:
        with contextlib.redirect_stdout(out), stderr_to(folder / "stderr"), alarm(SECONDS):
            code = main(arguments)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except TooLong:
        trace = f"more than {SECONDS:g} s: " + traceback.format_exc()
    except BaseException:
        trace = traceback.format_exc()
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    err = (folder / "stderr").read_text(errors="replace")
    run = Run(code, out.getvalue(), err, time.monotonic() - begin, growth, trace)
    run.faults += faults(case, run)
    if code == 0 and not run.faults and arguments[0] == "verify":
        run.faults += contradictions(arguments[1], arguments[2], run.out.split("\n", 1)[0])
    if code == 0 and not run.faults and arguments[0] == "check":
        run.faults += contradictions(*arguments[2:], read_document(arguments[1]).fields["verdict"])
    return run


def faults(case: Case, run: Run) -> list[str]:
    """What is wrong with a run, but for a wrong verdict."""
    found = []
    if run.trace:
        found.append(run.trace)
    elif run.code not in case.codes:
        found.append(f"exit code {run.code}, expected one of {case.codes}")
    if run.growth > MEMORY:
        found.append(f"took {run.growth >> 20} MiB")
    if run.code in (0, 1):
        if run.err:
            found.append("writes to stderr beside a verdict")
        if case.arguments[0] == "verify" and run.out.split("\n", 1)[0] not in DECIDED:
            found.append("no verdict on the first line")
        said = "confirmed" if run.code == 0 else "not confirmed"
        if case.arguments[0] == "check" and run.out.split("\n", 1)[0] != said:
            found.append(f"does not say {said!r} first")
    elif not run.trace:
        if run.out:
            found.append("writes to stdout beside an error")
        if run.err.count("\n") != 1 or not run.err.startswith("zonocuda") or len(run.err) > LONGEST_LINE:
            found.append("the error is not one line")
    if case.says and case.says not in run.out + run.err:
        found.append(f"does not say {case.says!r}")
    return found


def contradictions(net: str, spec: str, verdict: str, points: int = 64) -> list[str]:
    """What ONNX Runtime says against ``verified``, at points of the float32 boxes."""
    if verdict != "verified":
        return []
    network, problem = load_network(net), load_vnnlib(spec)
    generator = np.random.default_rng(0)
    for region in problem.regions:
        low, high = (b.numpy() for b in (region.box.float32_lower, region.box.float32_upper))
        if not (low <= high).all():
            continue
        t = generator.random((points, len(low)))
        t[: points // 2] = t[: points // 2] > 0.5
        x = (low + t * (high.astype(np.float64) - low)).astype(np.float32).clip(low, high)
        y = network.runtime(x.reshape(points, *network.graph.input_shape)).reshape(points, -1)
        for point, output in zip(x.tolist(), y.tolist(), strict=True):
            if violates(problem, point, output):
                return [f"verified, but ONNX Runtime gives {output} at {point}"]
    return []


def violates(problem: Spec, x: list[float], y: list[float]) -> bool:
    """Whether a point violates the property by more than what float32 explains."""
    return any(
        all(
            float(row.value(x, y)) < -1e-3 * (1 + sum(abs(float(c) * y[i]) for i, c in row.outputs.items()))
            for row in rows
        )
        for region in problem.regions
        for rows in region.disjuncts
    )


def report(case: Case, run: Run) -> str:
    """A failure, for people."""
    lines = [f"{case.name}: zonocuda {' '.join(case.arguments)}", *run.faults]
    lines += [f"exit code {run.code}, {run.seconds:.1f} s", "stdout: " + run.out[:500], "stderr: " + run.err[:1000]]
    return "\n".join(lines)


def limit_memory(size: int) -> None:
    """Caps the address space of this process, where the system can."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
