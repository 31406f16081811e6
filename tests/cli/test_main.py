"""The command line: exit codes, one-line errors, result files, and what it prints."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from tests.cli import files
from tests.devices import missing_device
from zonocuda.cli.main import main
from zonocuda.version import __version__


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    """A property with counterexamples in a corner of the box."""
    return files.save_spec(tmp_path / "unsafe.vnnlib", [-0.1, -0.7], [0.3, 0.2], 2, "(>= Y_0 0.9)", "(>= Y_1 0)")


def run(*arguments: object) -> int:
    """The exit code; argparse leaves by SystemExit."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("zonocuda")
    return err


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_every_verdict_has_exit_code_zero(
    net: Path, safe: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = files.save_spec(tmp_path / "u.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")  # no float is
    for spec, verdict, word in (
        (safe, "verified", "unsat"),
        (unsafe, "falsified", "sat"),
        (unknown, "unknown", "unknown"),
    ):
        results = tmp_path / verdict
        assert run("verify", net, spec, "--results-file", results, "-v") == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[0] == verdict
        assert "\nreason   " in out
        assert "replay in onnxruntime" in out
        assert err == ""
        assert results.read_text().splitlines()[0] == word


def test_a_tiny_timeout_gives_timeout(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", net, safe, "--timeout", "1e-9", "--results-file", tmp_path / "r") == 0
    assert capsys.readouterr().out.startswith(
        "timeout\nneither a proof nor a counterexample was found: not decided within 1e-09 s\n"
    )
    assert (tmp_path / "r").read_text() == "timeout\n"


def test_compressed_files_are_read(net: Path, unsafe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (net, unsafe):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert run("verify", tmp_path / "net.onnx.gz", tmp_path / "unsafe.vnnlib.gz") == 0
    assert capsys.readouterr().out.startswith("falsified\n")


def test_the_results_file_holds_a_counterexample_that_replays_in_onnx_runtime(
    net: Path, unsafe: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    assert run("verify", net, unsafe, "--results-file", results) == 0
    text = results.read_text()
    assert re.fullmatch(r"sat\n\((\([XY]_\d+ [-+.e\d]+\)\n?)+\)\n", text)
    values = {name: float(number) for name, number in re.findall(r"\(([XY]_\d+) ([^)]+)\)", text)}
    assert sorted(values) == ["X_0", "X_1", "Y_0", "Y_1"]
    x = np.array([[values["X_0"], values["X_1"]]])
    assert (x.astype(np.float32) == x).all(), "the input is printed exactly"
    assert (x.astype(np.float32) >= np.float32([-0.1, -0.7])).all()
    assert (x.astype(np.float32) <= np.float32([0.3, 0.2])).all()
    session = onnxruntime.InferenceSession(net.read_bytes(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.astype(np.float32)})
    assert y[0].tolist() == [values["Y_0"], values["Y_1"]]
    assert values["Y_0"] >= 0.9
    assert values["Y_1"] >= 0


def test_both_backends_give_the_same_margins(net: Path, safe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    margins = []
    for backend in ("native", "reference"):
        assert run("verify", net, safe, "-v", "--backend", backend) == 0
        out = capsys.readouterr().out
        assert f", {backend} ops, " in out
        margins.append(re.search(r"margin   (\S+)", out))
    assert margins[0] is not None
    assert margins[1] is not None
    assert margins[0][1] == margins[1][1] == "0.5"


def test_float32_is_said(net: Path, safe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", net, safe, "-v", "--dtype", "float32", "--device", "cpu", "--seed", "3") == 0
    assert "ran      float32, cpu, native ops" in capsys.readouterr().out


@pytest.mark.parametrize("effort", ["fast", "standard", "max"])
def test_the_effort_is_said(effort: str, net: Path, safe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", net, safe, "-v", "--effort", effort) == 0
    assert f", effort {effort}, " in capsys.readouterr().out


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments in (
        ("absent.onnx", (tmp_path / "absent.onnx", safe)),
        ("absent.vnnlib", (net, tmp_path / "absent.vnnlib")),
    ):
        assert run("verify", *arguments) == 2
        line = error(capsys)
        assert name in line
        assert "No such file" in line


def test_a_corrupt_or_truncated_file_is_named(
    net: Path, safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {
        "noise.onnx": b"hello" * 20,
        "empty.onnx": b"",
        "half.onnx": net.read_bytes()[: len(net.read_bytes()) // 2],
        "half.onnx.gz": gzip.compress(net.read_bytes())[:-20],
        "plain.onnx.gz": net.read_bytes(),
        "half.vnnlib.gz": gzip.compress(safe.read_bytes())[:-20],
        "noise.vnnlib": b"(assert (<= X_0",
        "empty.vnnlib": b"",
    }
    for name, content in broken.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert run("verify", *((path, safe) if ".onnx" in name else (net, path))) == 2, name
        assert name in error(capsys)


def test_a_property_of_another_size_names_both_files(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = files.save_spec(tmp_path / "three.vnnlib", [0] * 3, [1] * 3, 2, "(<= Y_0 -1)")
    assert run("verify", net, spec) == 2
    line = error(capsys)
    assert "three.vnnlib" in line
    assert "net.onnx" in line
    assert "3 inputs and 2 outputs, the network 2 and 2" in line


def test_an_operator_that_is_not_supported_is_named_and_has_its_own_code(
    safe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("Sinh", ["x"], ["y"], "wave")
    path = files.save_model(tmp_path / "hyperbolic.onnx", [node], {}, [1, 2], [1, 2])
    assert run("verify", path, safe) == 3
    line = error(capsys)
    assert "hyperbolic.onnx" in line
    assert "node 'wave' (op Sinh) is not supported" in line
    assert "supported ops: Abs, Add, " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "n", "s", "-v", "-q"], "not allowed with argument"),
        (["prove"], "invalid choice: 'prove'"),
        (["verify", "net.onnx"], "required: SPEC"),
        (["verify", "n", "s", "--timeout", "0"], "must be a positive number, got 0"),
        (["verify", "n", "s", "--timeout", "nan"], "must be a positive number, got nan"),
        (["verify", "n", "s", "--timeout", "soon"], "must be a positive number, got soon"),
        (["verify", "n", "s", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["verify", "n", "s", "--backend", "cuda"], "invalid choice: 'cuda'"),
        (["verify", "n", "s", "--seed", "1e3"], "must be an integer in [0, 2^62), got 1e3"),
        (["verify", "n", "s", "--seed", "-1"], "must be an integer in [0, 2^62)"),
        (["verify", "n", "s", "--memory-budget", "1G"], "must be a positive finite number of GiB, got 1G"),
        (["verify", "n", "s", "--memory-budget", "-1"], "must be a positive finite number of GiB, got -1"),
        (["check", "c", "n", "s", "--jobs", "two"], "must be an integer of 1 or more, got two"),
        (["bounds", "n", "--center", "c"], "required: --eps"),
        (["bounds", "n", "--center", "c", "--eps", "-1"], "must be a finite number that is not negative"),
        (["bounds", "n", "--center", "c", "--eps", "inf"], "must be a finite number that is not negative"),
        (["bounds", "n", "--center", "c", "--eps", "1/0"], "must be a finite number that is not negative"),
        (["bounds", "n", "--center", "c", "--eps", "x/2"], "must be a finite number that is not negative"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert message in error(capsys)


@pytest.mark.parametrize(("net", "spec"), [("p.vnnlib", "net.onnx"), ("p.vnnlib.gz", "x"), ("x", "net.onnx.gz")])
@pytest.mark.parametrize("command", [["verify"], ["check", "proof.json"]])
def test_files_in_the_wrong_order_are_noticed_by_their_names(
    command: list[str], net: str, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, net, spec) == 2
    assert "did you swap NET and SPEC?" in error(capsys)


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: zonocuda")
    for command in ("verify", "check", "bounds", "audit", "info"):
        assert f"\n    {command} " in err


@pytest.mark.skipif(missing_device("cuda") is None, reason="CUDA is there")
def test_a_device_that_is_absent_is_an_error(net: Path, safe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", net, safe, "--device", "cuda") == 2
    assert "device cuda" in error(capsys)


# ---- bounds ----------------------------------------------------------------------------------------------------------


def center(tmp_path: Path, values: object, name: str = "center.npy") -> Path:
    """A .npy file."""
    np.save(tmp_path / name, np.array(values))
    return tmp_path / name


def test_bounds_enclose_the_outputs_of_the_ball(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = center(tmp_path, [[0.5, 0.25]])
    for options, expected in (
        ([], (0.05, 0.45)),  # X_0 - X_1 in [0.05, 0.45]: one neuron is active, the other dead
        (["--clip", "0", "0.5"], (0.05, 0.35)),
        (["--backend", "reference", "--dtype", "float32"], (0.05, 0.45)),
    ):
        assert run("bounds", net, "--center", x, "--eps", "0.1", *options) == 0
        out = capsys.readouterr().out
        for i in (0, 1):
            match = re.search(rf"Y_{i} in \[(\S+), (\S+)\]", out)
            assert match is not None
            assert (float(match[1]), float(match[2])) == pytest.approx(expected, abs=1e-6)
        assert "layer    relu0: 0 of 2 unstable" in out


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0, 2.0, 3.0], [], "holds 3 numbers, the network's input [2] needs 2"),
        ([1.0, float("nan")], [], "holds a NaN or an infinity"),
        ([1.0, float("inf")], [], "holds a NaN or an infinity"),
        ([1j, 2j], [], "holds no real numbers"),
        (["1", "2"], [], "holds no real numbers"),
        ([0.5, 0.5], ["--clip", "1", "0"], "clip must be a range"),
        ([0.5, 0.5], ["--clip", "nan", "1"], "clip must be a range"),
        ([0.5, 0.5], ["--clip", "2", "3"], "a ball lies outside the range"),
    ],
)
def test_a_center_that_makes_no_ball_is_an_error(
    values: list[object],
    options: list[str],
    message: str,
    net: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("bounds", net, "--center", center(tmp_path, values), "--eps", "0.1", *options) == 2
    line = error(capsys)
    assert "center.npy" in line
    assert message in line


def test_a_center_that_is_no_array_is_an_error(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise, archive = tmp_path / "noise.npy", tmp_path / "archive.npz"
    noise.write_bytes(b"1 2 3")
    np.savez(archive, a=np.zeros(2))
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}, {}]), allow_pickle=True)
    for path in (noise, archive, pickled, tmp_path / "absent.npy", tmp_path):
        assert run("bounds", net, "--center", path, "--eps", "0.1") == 2
        assert path.name in error(capsys)


# ---- the program -----------------------------------------------------------------------------------------------------


def test_info_tells_about_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    out = capsys.readouterr().out
    for word in (f"zonocuda     {__version__}", "torch", "compiler", "CUDA kernels", "GPUs"):
        assert word in out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"zonocuda {__version__}\n"


def test_the_module_runs_as_a_program_and_is_silent_on_stderr(net: Path, safe: Path) -> None:
    command = [sys.executable, "-m", "zonocuda", "verify", str(net), str(safe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified\n")


def test_progress_shows_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from zonocuda.cli import commands

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    eager = {"delay": 0.0, "mininterval": 0.0}
    real = commands.tqdm
    monkeypatch.setattr(commands, "tqdm", lambda **options: real(**(options | eager)))
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with commands._ProgressBar() as bar:
            for i in range(5):
                bar.update("forward", i, 5)
        assert ("forward" in stream.getvalue()) is shown
    assert stream.getvalue() == ""
