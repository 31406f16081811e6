"""A final Softmax, left out where a property compares outputs, and refused where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.importers.onnx_models import floats, model, op, save
from zonocuda import Spec, verify
from zonocuda.cli.main import main
from zonocuda.importers import UnsupportedNetworkError, load_network
from zonocuda.specs import LinearConstraint, Region
from zonocuda.verifier import Verdict

X = torch.tensor([0.1, 0.2, 0.3])


def network(kind: str, opset: int = 13, shape: Any = (1, 3), **attributes: Any) -> onnx.ModelProto:
    nodes = [op("Gemm", "x w b", "h"), op("Relu", "h", "r"), op("MatMul", "r v", "z"), op(kind, "z", **attributes)]
    weights = {"w": floats(3, 5), "b": floats(5, seed=1), "v": floats(5, 3, seed=2)}
    return model(nodes, shape, weights, opset=opset)


def without(built: onnx.ModelProto) -> onnx.ModelProto:
    """The network that ends in z."""
    cut = onnx.ModelProto()
    cut.CopyFrom(built)
    del cut.graph.node[-1]
    cut.graph.output[0].name = "z"
    return cut


def label(built: onnx.ModelProto) -> int:
    return int(load_network(without(built)).runtime(X[None]).argmax())


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("eps", [0.01, 1.0])
def test_verdicts_are_those_without_the_function(kind: str, eps: float) -> None:
    built = network(kind)
    spec = Spec.robust(X, eps, label(built), outputs=3, clip=None)
    result, bare = verify(built, spec), verify(without(built), spec)
    assert result.verdict is bare.verdict is (Verdict.VERIFIED if eps < 0.1 else Verdict.FALSIFIED)
    assert (result.left_out, bare.left_out) == (kind, "")
    assert (f"final {kind}" in result.meaning) == (result.verdict is Verdict.VERIFIED)
    if result.counterexample is not None:  # of the whole network, in its own outputs
        x, y = result.counterexample.x, result.counterexample.y
        z = load_network(without(built)).runtime(x[None])
        functions = {"Softmax": lambda t: t.softmax(1), "LogSoftmax": lambda t: t.log_softmax(1)}
        expected = functions.get(kind, {"Sigmoid": torch.sigmoid, "Tanh": torch.tanh}.get(kind))
        assert expected is not None
        assert torch.allclose(y, expected(z)[0], atol=1e-6)
        assert spec.regions[0].is_unsafe(x.tolist(), y.tolist())


def row(outputs: dict[int, Any], constant: Any = 0, inputs: dict[int, Any] | None = None) -> Spec:
    region = Spec.robust(X, 0.01, 0, outputs=3).regions[0]
    return Spec(3, 3, (Region(region.box, ((LinearConstraint(outputs, inputs or {}, constant),),)),))


@pytest.mark.parametrize(
    "spec",
    [
        row({0: 1}, -1),
        row({0: 1, 1: -1}, 1),
        row({0: 2, 1: -1}),
        row({0: 1, 1: 1}),
        row({0: 1, 1: 1, 2: -2}),
        row({0: 1, 1: -1}, 0, {0: 1}),
    ],
)
def test_for_a_property_that_the_function_does_not_keep_it_is_a_layer(spec: Spec) -> None:
    result = verify(network("Softmax"), spec, split="none", timeout=20)
    assert result.left_out == ""
    if result.verdict is Verdict.VERIFIED:
        x = X + 0.01 * (2 * torch.rand(200, 3) - 1)
        y = load_network(network("Softmax")).runtime(x)
        assert not any(spec.regions[0].is_unsafe(a.tolist(), b.tolist()) for a, b in zip(x, y, strict=True))


def test_classes_of_other_sums_are_no_comparison() -> None:
    nodes = [op("Gemm", "x w", "h"), op("Reshape", "h s", "z"), op("Softmax", "z", axis=2)]
    built = model(nodes, [1, 3], {"w": floats(3, 4), "s": np.array([1, 2, 2])}, rank=3)

    def compared(a: int, b: int) -> Spec:
        box = Spec.robust(X, 0.01, 0, outputs=4).regions[0].box
        return Spec(3, 4, (Region(box, ((LinearConstraint({a: 1, b: -1}, {}, 0),),)),))

    assert verify(built, compared(2, 3)).left_out == "Softmax"
    assert verify(built, compared(1, 2), split="none").left_out == ""
    nodes[-1] = op("Softmax", "z", axis=1)  # of all behind the axis, up to operator set 12
    older = model(nodes, [1, 3], {"w": floats(3, 4), "s": np.array([1, 2, 2])}, rank=3, opset=11)
    assert verify(older, compared(1, 2)).left_out == "Softmax"


def test_a_softmax_over_a_batch_of_one_is_no_comparison() -> None:
    """Every output is 1 then."""
    result = verify(network("Softmax", axis=0), Spec.robust(X, 0.01, 0, outputs=3), timeout=10)
    assert result.verdict is not Verdict.VERIFIED
    assert result.left_out == ""


def test_what_a_softmax_rounds_to_one_number_is_proven_over_the_reals_and_said_to_be_so() -> None:
    """Its operands differ by 2^-26, its results in float32 do not."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([2.0**-26, 0.0]))
    tied = nn.Sequential(layer, nn.Softmax(dim=1))
    y = tied(torch.zeros(1, 1))[0]
    assert bool(y[0] == y[1])
    spec = Spec.robust(torch.zeros(1), 1.0, 0, outputs=2, clip=None)
    result = verify(tied, spec)
    assert result.verdict is Verdict.VERIFIED
    assert "executed, it may round two of them to one number" in result.meaning


def test_a_module_that_ends_in_softmax_is_verified_without_it() -> None:
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    whole = nn.Sequential(logits, nn.Sequential(nn.Identity(), nn.Softmax(dim=-1)))
    for eps in (0.001, 3.0):
        spec = Spec.robust(X, eps, int(logits(X).argmax()), outputs=3, clip=None)
        result = verify(whole, spec)
        assert result.verdict is verify(logits, spec).verdict
        assert result.left_out == "Softmax"
        if result.counterexample is not None:
            assert torch.equal(result.counterexample.y, whole(result.counterexample.x[None])[0].detach())


@pytest.mark.parametrize("place", ["the last layer", "the sequence", "every module"])
def test_a_final_layer_that_computes_something_else_is_not_left_out(place: str, request: pytest.FixtureRequest) -> None:
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    whole = nn.Sequential(*logits, nn.Softmax(dim=-1)).eval()

    def turned(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return -args[0] if isinstance(module, nn.Softmax) else output

    if place == "the last layer":
        whole[-1].forward = lambda x: -x
    elif place == "the sequence":
        whole.forward = lambda x: -logits(x)
    else:
        request.addfinalizer(nn.modules.module.register_module_forward_hook(turned).remove)
    spec = Spec.robust(X, 0.001, int(logits(X).argmin()), outputs=3, clip=None)
    assert torch.equal(whole(X), -logits(X))
    try:
        result = verify(whole, spec)
    except UnsupportedNetworkError:
        assert place == "every module"  # torch traces no such hook
    else:
        assert (result.verdict, result.left_out) == (Verdict.VERIFIED, "")
    other = Spec.robust(X, 0.001, int(logits(X).argmax()), outputs=3, clip=None)
    try:
        assert verify(whole, other).verdict is Verdict.FALSIFIED
    except UnsupportedNetworkError:
        assert place == "every module"


def test_a_module_whose_softmax_is_code_is_verified_with_it() -> None:
    class Classifier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(1)

    result = verify(Classifier(), Spec.robust(X, 0.01, 2, outputs=3))
    assert result.verdict is Verdict.VERIFIED
    assert result.left_out == ""
    with pytest.raises(UnsupportedNetworkError, match=r"over the batch|batch dimension"):
        verify(nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=0)), Spec.robust(X, 0.01, 0, outputs=3))


def test_executed_semantics_refuse_the_function() -> None:
    with pytest.raises(ValueError, match="whose rounding no bound accounts for; use 'real'"):
        verify(network("Softmax"), Spec.robust(X, 0.01, 0, outputs=3), semantics="float32")


def test_the_command_line_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = network("Softmax")
    best = label(built)
    declared = "".join(f"(declare-const {v}_{i} Real)\n" for v in "XY" for i in range(3))
    box = "".join(
        f"(assert (>= X_{i} {v - 0.001}))\n(assert (<= X_{i} {v + 0.001}))\n" for i, v in enumerate(X.tolist())
    )
    others = " ".join(f"(and (>= Y_{i} Y_{best}))" for i in range(3) if i != best)
    spec = tmp_path / "spec.vnnlib"
    spec.write_text(f"{declared}{box}(assert (or {others}))\n", encoding="utf-8")
    assert main(["verify", str(save(built, tmp_path)), str(spec), "-v"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("verified")
    assert "final Softmax" in said
