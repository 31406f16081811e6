"""``zonocuda verify --workers`` and ``--executor``: what shares a search out, and a proof that several found."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from tests.cli import files
from tests.verifier.checkpoint_cases import few_inputs, small_batches
from tests.verifier.unreliable import Unreliable
from zonocuda.cli import commands
from zonocuda.cli.main import main
from zonocuda.graph import Graph, Linear, Relu
from zonocuda.verifier import box_packets


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ([], []),
        (["--workers", "3"], [("local", 3, "cpu")]),
        (["--executor", "local"], [("local", None, "cpu")]),
        (["--executor", "ray", "--workers", "2"], [("ray", 2, "cpu")]),
    ],
)
def test_options_say_what_shares_a_search_out(
    options: list[str], made: list[object], net: Path, safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, asked, given = Unreliable(), [], []
    verify_with = commands.verify_with

    def search_executor(*how: Any) -> AbstractContextManager[Unreliable]:
        asked.append(how[:3])
        return nullcontext(executor)

    def verify(*arguments: Any, **options: Any) -> Any:
        given.append(options["executor"])
        return verify_with(*arguments, **options)

    monkeypatch.setattr(commands, "search_executor", search_executor)
    monkeypatch.setattr(commands, "verify_with", verify)
    assert main(["verify", str(net), str(safe), "--device", "cpu", *options]) == 0
    assert asked == made
    assert given == [executor if made else None]


def onnx_file(path: Path, graph: Graph) -> Path:
    """A chain of linear layers and ReLUs, in float32."""
    nodes, weights, name = [], {}, "x"
    for i, node in enumerate(graph.nodes[1:]):
        inputs, out = [name], "y" if node.name == graph.output else f"h{i}"
        if isinstance(node.op, Relu):
            nodes.append(helper.make_node("Relu", inputs, [out]))
        else:
            assert isinstance(node.op, Linear)
            for kind, held in (("w", node.op.weight), ("b", node.op.bias)):
                if held is not None:
                    weights[f"{kind}{i}"] = held.detach().numpy()
                    inputs.append(f"{kind}{i}")
            nodes.append(helper.make_node("Gemm", inputs, [out], transB=1))
        name = out
    return files.save_model(path, nodes, weights, [1, *graph.input_shape], [1, *graph.output_shape])


@pytest.mark.slow
def test_two_workers_share_a_search_whose_proof_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flint", reason="python-flint is not installed")
    monkeypatch.setattr(box_packets, "HEAD", 0.0)
    graph, problem = few_inputs()
    ((box, ((row,),)),) = ((region.box, region.disjuncts) for region in problem.regions)
    net = onnx_file(tmp_path / "net.onnx", graph)
    least = f"(<= Y_0 {-float(row.constant)!r})"
    spec = files.save_spec(tmp_path / "p.vnnlib", box.float32_lower.tolist(), box.float32_upper.tolist(), 1, least)
    proof = tmp_path / "proof.zip"
    options = ["--split", "input", "--workers", "2", "--timeout", "120", "--device", "cpu", "-v"]
    with small_batches("input"):
        assert main(["verify", str(net), str(spec), "--certificate", str(proof), *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("verified\n"), out
    assert re.search(r"region 0: \d+ boxes in [1-9]\d* packets of \d+\.\d s together", out)
    assert main(["check", str(proof), str(net), str(spec)]) == 0
