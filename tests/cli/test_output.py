"""Output files are opened before the work, and appear whole or not at all; the lines for people are plain and short."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli import files
from tests.cli.test_main import error, run

WIDTH = 100


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """A property that fails at every point: class 0 never wins by 10."""
    return files.save_spec(tmp_path / "unsafe.vnnlib", [0.25, 0.5], [0.25, 0.5], 2, "(<= Y_0 10)")


def left(folder: Path) -> list[str]:
    """Temporary files."""
    return [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]


# ---- before the work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--json", "--results-file"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    option: str, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.onnx"  # would be an error of its own, were it opened
    (tmp_path / "plain").write_text("")
    for path in (tmp_path / "gone" / "file", tmp_path, tmp_path / "plain" / "file", f"{tmp_path}/new/", "", "n" * 300):
        assert run("verify", absent, safe, option, path) == 2
        assert f"{path}: cannot be written: " in error(capsys)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["bounds", "absent.onnx", "--center", "absent.npy", "--eps", "1"], "--json"),
        (["audit", "absent.onnx", "--data", "absent.npy"], "--json"),
        (["audit", "absent.onnx", "--data", "absent.npy"], "--html"),
    ],
)
def test_the_outputs_of_every_command_are_opened_first(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, option, "gone/file") == 2
    assert "gone/file: cannot be written: No such file or directory" in error(capsys)


def test_nothing_is_loaded_for_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    code = (
        "import sys; from zonocuda.cli.main import main\n"
        f"code = main(['verify', 'n.onnx', 's.vnnlib', '--json', {str(tmp_path)!r}])\n"
        "sys.exit(f'{code} torch' if 'torch' in sys.modules else f'{code}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == f"zonocuda: {tmp_path}: cannot be written: Is a directory\n2\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="may write everything")
def test_a_file_that_may_not_be_written_is_not_replaced(
    safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    old.chmod(0o444)
    assert run("verify", tmp_path / "absent.onnx", safe, "--json", old) == 2
    assert f"{old}: cannot be written: it is read-only" in error(capsys)
    assert old.read_text() == "old"


def test_an_output_replaces_neither_an_input_nor_another_output(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = net.read_bytes()
    (tmp_path / "link").symlink_to(net)
    for path in (net, tmp_path / "link", safe):
        assert run("verify", net, safe, "--json", path) == 2
        assert f"--json {path}: cannot be written: the command reads " in error(capsys)
    assert net.read_bytes() == content
    assert run("verify", net, safe, "--json", tmp_path / "out", "--results-file", tmp_path / "out") == 2
    assert "cannot be written: --json is the same file" in error(capsys)
    assert run("verify", net, safe, "--results-file", "-") == 2
    assert "only --json can be written to standard output" in error(capsys)


# ---- at the end ------------------------------------------------------------------------------------------------------


def test_after_an_error_the_old_file_is_there_and_nothing_else(
    safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    assert run("verify", tmp_path / "absent.onnx", safe, "--json", old, "--results-file", tmp_path / "new") == 2
    assert "absent.onnx" in error(capsys)
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "safe.vnnlib"]


def test_files_are_replaced_through_links_and_keep_their_permissions(net: Path, safe: Path, tmp_path: Path) -> None:
    old, link = tmp_path / "old", tmp_path / "link"
    old.write_text("old" * 10_000)
    old.chmod(0o640)
    link.symlink_to(old)
    before = os.umask(0o027)
    try:
        assert run("verify", net, safe, "--json", link, "--results-file", tmp_path / "new") == 0
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert json.loads(old.read_text())["verdict"] == "verified"
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert (tmp_path / "new").read_text() == "unsat\n"
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_the_verdict_is_printed_though_the_disk_is_full(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", net, safe, "--results-file", "/dev/full", "--json", tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert out.startswith("verified\nfor every input of the box ")
    assert err == "zonocuda: /dev/full: cannot be written: No space left on device\n"
    assert json.loads((tmp_path / "out").read_text())["verdict"] == "verified", "the other file is written"


def test_the_verdict_is_printed_though_a_file_cannot_get_its_name(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "out"
    assert run("verify", net, unsafe, "--json", path) == 2
    out, err = capsys.readouterr()
    assert out.startswith("falsified\n")
    assert str(path) not in out, "the point is not there"
    assert err == f"zonocuda: {path}: cannot be written: Input/output error\n"
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_standard_output_that_cannot_be_written_is_one_line_and_the_files_are_written(
    net: Path, safe: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "zonocuda", "verify", net, safe, "--results-file", tmp_path / "out"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "zonocuda: standard output: cannot be written: No space left on device\n"
    assert (tmp_path / "out").read_text() == "unsat\n"


# ---- standard output -------------------------------------------------------------------------------------------------


def test_json_on_standard_output_is_alone_there(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.5, 0.25]], dtype=np.float32))
    center = tmp_path / "x.npy"
    for arguments, schema, line in (
        (("verify", net, safe), "verify", "verified"),
        (("verify", net, safe, "-q"), "verify", "verified"),
        (("bounds", net, "--center", center, "--eps", "0.1"), "bounds", "Y_0 in ["),
        (("audit", net, "--data", center), "audit", "net.onnx, float32"),
    ):
        assert run(*arguments, "--json", "-") == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["schema"] == f"zonocuda.{schema}/1"
        assert line in err.splitlines()[0]
    assert not Path("-").exists()


# ---- words -----------------------------------------------------------------------------------------------------------


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """What ``verify`` prints; no line is too long."""
    assert run("verify", *arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= WIDTH
    return printed


def test_quiet_prints_the_verdict_alone_and_verbose_adds_details(
    net: Path, safe: Path, unsafe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spec, verdict in ((safe, "verified"), (unsafe, "falsified")):
        assert lines(capsys, net, spec, "-q") == [verdict]
        plain = lines(capsys, net, spec)
        assert plain[0] == verdict
        full = lines(capsys, net, spec, "-v")
        assert full[: len(plain)] == plain
        keys = [line.split()[0] for line in full[len(plain) :] if not line.startswith(" ")]
        assert keys[:2] == ["reason", "meaning"]
        assert {"seconds", "ran"} < set(keys)


def test_a_proof_speaks_of_every_input(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = files.save_spec(tmp_path / "one.vnnlib", [-1, -1], [1, 1], 2, "(<= Y_0 -0.5)")
    assert lines(capsys, net, one)[1].startswith("for every input of the box the output is safe: ")
    either = "(or " + " ".join(f"(and (>= X_0 {a}) (<= X_0 {a + 1}) (<= Y_0 -0.5))" for a in (-1, 0)) + ")"
    two = files.save_spec(tmp_path / "two.vnnlib", [-1, -1], [1, 1], 2, either)
    assert lines(capsys, net, two)[1].startswith("for every input of each of the 2 boxes the output is safe: ")


def test_a_counterexample_names_the_constraint_or_the_class_and_where_the_point_is(
    net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The box is the point (1/4, 1/2), where Y_0 = 1/4 and Y_1 = -1/4."""
    printed = lines(capsys, net, unsafe)
    assert printed[1] == "an input of the box has an unsafe output: Y_0 - 10 <= 0 (Y_0 = 0.25)"
    assert "the point is X_0 = 0.25, X_1 = 0.5" in printed
    out, results = tmp_path / "o.json", tmp_path / "r"
    joined = " ".join(lines(capsys, net, unsafe, "--json", out, "--results-file", results))
    assert f"the point is in {results} and in {out}" in " ".join(joined.split())
    robust = files.save_spec(tmp_path / "robust.vnnlib", [0.25, 0.5], [0.25, 0.5], 2, "(>= Y_0 Y_1)")
    joined = " ".join(lines(capsys, net, robust))
    assert "class 0 scores at least as high as class 1, Y_0 = 0.25, Y_1 = -0.25" in " ".join(joined.split())


def test_the_point_of_many_inputs_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = files.fc_model(tmp_path / "wide.onnx", [[1] * 50, [-1] * 50], [[1, 0]])
    spec = files.save_spec(tmp_path / "wide.vnnlib", [1] * 50, [1] * 50, 1, "(>= Y_0 1)", "(<= Y_0 1000)")
    printed = lines(capsys, net, spec)
    assert "the point has 50 numbers: --results-file F or --json F writes it to a file" in printed


def test_nothing_found_is_said_so(net: Path, safe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines(capsys, net, safe, "--timeout", "1e-9")
    assert printed == ["timeout", "neither a proof nor a counterexample was found: not decided within 1e-09 s"]
