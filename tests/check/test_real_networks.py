"""Proofs of real networks, of every kind, are confirmed from the files, with the bounds that they claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.certificates import inline_file
from tests.data import data_root
from zonocuda.cli.main import main

CASES = [
    # forward or plain passes, a convolution, refined with shared slopes, and with slopes of single neurons
    ("mnist_fc", "mnist-net_256x2.onnx.gz", "prop_3_0.03.vnnlib.gz", False),
    (
        "collins_rul_cnn",
        "NN_rul_small_window_20.onnx.gz",
        "robustness_4perturbations_delta10_epsilon10_w20.vnnlib.gz",
        False,
    ),
    ("acasxu", "ACASXU_run2a_2_7_batch_2000.onnx.gz", "prop_3.vnnlib.gz", False),
    ("acasxu", "ACASXU_run2a_1_4_batch_2000.onnx.gz", "prop_3.vnnlib.gz", True),
]


@pytest.mark.data
@pytest.mark.parametrize(("folder", "net", "spec", "refined"), CASES)
def test_a_proof_of_a_real_network_is_confirmed(
    folder: str, net: str, spec: str, refined: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_root() / "vnncomp" / folder
    files = str(root / "onnx" / net), str(root / "vnnlib" / spec)
    out = tmp_path / "cert.zip"
    assert main(["verify", *files, "--split", "none", "--certificate", str(out)]) == 0
    document = inline_file(out)
    assert document["verdict"] == "verified"
    (region,) = document["certificate"]["regions"]
    assert any(relu["refined"] for relu in region["activations"]) == refined
    capsys.readouterr()
    assert main(["check", str(out), *files]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "confirmed"
    assert " of them also in balls, 0 claimed bounds of neurons not reached" in " ".join(words)


@pytest.mark.data
@pytest.mark.parametrize(
    ("net", "prop", "semantics"),
    [
        ("1_2", 4, "real"),
        ("3_4", 1, "real"),
        ("2_1", 3, "real"),
        ("4_5", 10, "real"),  # where what is known of boxes refutes parts that a leaf by itself does not
        ("2_5", 1, "float32"),
        ("2_1", 4, "float64"),
    ],
)
def test_a_proof_that_splits_the_box_of_a_real_network_is_confirmed(
    net: str, prop: int, semantics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = data_root() / "vnncomp" / "acasxu"
    files = (
        str(root / "onnx" / f"ACASXU_run2a_{net}_batch_2000.onnx.gz"),
        str(root / "vnnlib" / f"prop_{prop}.vnnlib.gz"),
    )
    out = tmp_path / "cert.zip"
    assert main(["verify", *files, "--certificate", str(out), "--timeout", "60", "--semantics", semantics]) == 0
    capsys.readouterr()
    assert main(["check", str(out), *files]) == 0
    said = capsys.readouterr().out
    assert said.split()[0] == "confirmed"
    assert "leaves," in said
    assert ("in real arithmetic" if semantics == "real" else f"as executed in {semantics}") in said
    assert out.stat().st_size < 100_000
