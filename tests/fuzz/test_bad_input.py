"""No file makes the command line print a traceback, a verdict that is wrong, or nothing: a bounded run of the fuzzer.

``make fuzz`` runs it for longer; what failed says how to replay it.
"""

from __future__ import annotations

import gzip
import os
import random
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.bad_arrays import array_case
from tests.fuzz.bad_certificates import certificate_case
from tests.fuzz.bad_networks import network_case
from tests.fuzz.bad_specs import DECLARED, EMPTY, FAULTS_1, OPTIONS, bomb, network, spec_case
from tests.fuzz.bounded import fuzz
from tests.fuzz.case import Case, execute, limit_memory, report
from tests.importers.onnx_models import ints, model, op

ROOT = Path(__file__).parents[2]


def run(case: Case, folder: Path) -> None:
    """Fails with the case where the command did something wrong."""
    done = execute(case, folder)
    assert not done.faults, report(case, done)


def test_random_faults_are_refused_in_one_line_within_bounds_of_time_and_memory() -> None:
    assert "exit code 2" in fuzz("networks", "specs", "arrays", "certificates")


@pytest.mark.parametrize("make", [network_case, spec_case, array_case, certificate_case])
def test_random_faults_reach_every_end(make: Callable[[random.Random], Case], tmp_path: Path) -> None:
    """Refusals of both kinds, and files that are good after all."""
    codes = Counter[int | None]()
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = make(random.Random(seed))
        done = execute(case, folder)
        assert not done.faults, report(case, done)
        codes[done.code] += 1
    expected = {network_case: {0, 2, 3}, certificate_case: {0, 1, 2}}.get(make, {0, 2})
    assert set(codes) == expected, codes


@pytest.mark.parametrize(("text", "title"), FAULTS_1, ids=[title for _, title in FAULTS_1])
def test_a_property_with_a_fault_is_refused(text: str, title: str, tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {"net.onnx": network(), "p.vnnlib": text.encode()}
    run(Case(title, files, ("verify", "@net.onnx", "@p.vnnlib", *OPTIONS), (2,)), tmp_path)


@pytest.mark.parametrize(("text", "reason"), EMPTY)
def test_a_property_that_nothing_satisfies_is_verified_with_the_reason(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes | None] = {"net.onnx": network(), "p.vnnlib": text.encode()}
    case = Case("empty", files, ("verify", "@net.onnx", "@p.vnnlib", *OPTIONS), (0,), reason)
    done = execute(case, tmp_path)
    assert not done.faults, report(case, done)
    assert done.out.startswith("verified\n")


@pytest.mark.parametrize("name", ["net.onnx.gz", "p.vnnlib.gz"])
def test_a_bomb_is_refused(name: str, tmp_path: Path) -> None:
    """A file of a megabyte that would fill a quarter of a gigabyte."""
    files: dict[str, bytes | None] = {"net.onnx": network(), "p.vnnlib": DECLARED.encode(), name: bomb(b"(")}
    chosen = (f"@{name}", "@p.vnnlib") if "net" in name else ("@net.onnx", f"@{name}")
    run(Case("a bomb", files, ("verify", *chosen, *OPTIONS), (2,)), tmp_path)


@pytest.mark.parametrize("bad", ["a bomb", "an enormous constant", "half a network"])
def test_a_fresh_process_of_little_memory_refuses_in_one_line(bad: str, tmp_path: Path) -> None:
    """The program itself, in eight GiB of addresses, most of which torch maps."""
    enormous = [op("ConstantOfShape", "extents", "big"), op("Add", "x big")]
    nets = {
        "a bomb": bomb(b"("),
        "an enormous constant": gzip.compress(model(enormous, [1, 2], {"extents": ints(2**40)}).SerializeToString()),
        "half a network": gzip.compress(network())[:-30],
    }
    (tmp_path / "net.onnx.gz").write_bytes(nets[bad])
    (tmp_path / "p.vnnlib").write_text(DECLARED)
    done = subprocess.run(
        [sys.executable, "-m", "zonocuda", "verify", tmp_path / "net.onnx.gz", tmp_path / "p.vnnlib"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=lambda: limit_memory(8 << 30),
    )
    assert done.returncode in (2, 3)
    assert done.stdout == ""
    assert done.stderr.startswith("zonocuda: importers.onnx: ")
    assert done.stderr.count("\n") == 1


def test_a_pipe_and_a_folder_and_a_file_that_may_not_be_read_are_refused(tmp_path: Path) -> None:
    """Without waiting for what a pipe may bring."""
    for name in ("net.onnx", "net.onnx.gz", "p.vnnlib", "p.vnnlib.gz"):
        chosen = (f"@{name}", "@good.vnnlib") if "net" in name else ("@good.onnx", f"@{name}")
        files: dict[str, bytes | None] = {"good.onnx": network(), "good.vnnlib": DECLARED.encode()}
        case = Case(f"{name} is a pipe", files, ("verify", *chosen, *OPTIONS), (2,), "not a regular file")
        folder = tmp_path / f"pipe-{name}"
        folder.mkdir()
        os.mkfifo(folder / name)
        run(case, folder)
        folder = tmp_path / f"folder-{name}"
        folder.mkdir()
        run(Case(f"{name} is a folder", {**files, name: None}, case.arguments, (2,)), folder)
        if os.geteuid() != 0:  # who reads everything
            folder = tmp_path / f"secret-{name}"
            folder.mkdir()
            (folder / name).write_bytes(b"")
            (folder / name).chmod(stat.S_IWUSR)
            run(Case(f"{name} may not be read", files, case.arguments, (2,)), folder)


@pytest.mark.parametrize("make", [network_case, array_case])
def test_a_case_is_what_its_seed_says(make: Callable[[random.Random], Case]) -> None:
    """So that a failure can be replayed."""
    one, other = (make(random.Random(7)) for _ in range(2))
    assert one == other
