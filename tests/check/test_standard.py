"""The check's own reading of a file: right networks agree with it, and what the importer read wrongly does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.importers.constant_programs import random_program
from tests.importers.onnx_models import floats, ints, model, one, op, save
from tests.importers.test_constants import OTHERS, other
from tests.importers.test_onnx_attributes import WIDE, built, normalisation, wrong_default
from tests.importers.test_onnx_ops import CASES
from zonocuda.checker.arithmetic import precisely
from zonocuda.checker.maps import Maps
from zonocuda.checker.standard import difference
from zonocuda.cli.main import main
from zonocuda.importers import lowering
from zonocuda.importers.onnx import arithmetic, smooth, windows
from zonocuda.importers.onnx.file import parse_onnx
from zonocuda.importers.onnx.load import convert
from zonocuda.importers.onnx.node import Attributes, OnnxNode
from zonocuda.importers.onnx.ops import CONVERTERS


def compared(built: onnx.ModelProto) -> str:
    """What the check finds different."""
    file = parse_onnx(built.SerializeToString(), "net")
    graph = convert(file)
    with precisely():
        return difference(file, Maps(graph))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", CASES)
def test_a_network_read_correctly_agrees(name: str, dtype: int) -> None:
    assert compared(built(name, dtype)) == ""


@pytest.mark.parametrize("seed", range(30))
def test_constants_that_a_file_computes_agree(seed: int) -> None:
    program, scale, shift = random_program(seed)
    assert compared(program.model(scale, shift)) == ""


def test_exponents_may_be_integers_and_constants_counted() -> None:
    nodes = [op("Pow", "v e", "p"), op("Range", "a b c", "r"), op("Mul", "p r", "k"), op("Mul", "x k")]
    numbers = {"a": np.float32(0.1), "b": np.float32(1), "c": np.float32(0.4)}
    weights = {"v": np.float32([1.1, -2.3, 0.7]), "e": ints(3, 2, 1)}
    assert compared(model(nodes, [1, 3], {**weights, **{k: np.array(v) for k, v in numbers.items()}})) == ""


def test_sums_of_tensors_without_dimensions_agree() -> None:
    nodes = [op("ReduceMin", "x", "m", axes=[0], keepdims=0), op("Add", "m c")]
    assert compared(model(nodes, [4], {"c": floats()}, opset=11, rank=0)) == ""


@pytest.mark.parametrize("name", OTHERS)
def test_other_operators_on_constants_agree(name: str) -> None:
    assert compared(other(name)) == ""


WRONG: dict[str, tuple[onnx.ModelProto, str, Callable[[OnnxNode], object]]] = {
    "an identity for a negation": (one("Neg", [1, 3], (3,)).model(), "Neg", arithmetic.identity),
    "an identity for a ReLU": (one("Relu", [1, 3], (3,)).model(), "Relu", arithmetic.identity),
    "a sum for a mean": (
        one("ReduceMean", [1, 3, 2], (3, 1), axes=[2]).model(),
        "ReduceMean",
        arithmetic.reduce_sum,
    ),
    "an alpha that is not read": (
        one("Gemm", [1, 3], (2,), floats(3, 2), alpha=1.0000001).model(),
        "Gemm",
        lambda node: _without(node, "alpha", arithmetic.gemm),
    ),
    "padding that counts": (
        one("AveragePool", [1, 1, 4], (1, 4), kernel_shape=[3], pads=[1, 1]).model(),
        "AveragePool",
        lambda node: _with(node, "count_include_pad", 1, windows.average_pool),
    ),
    "another stride": (
        one("Conv", [1, 1, 5], (1, 3), floats(1, 1, 1), strides=[2]).model(),
        "Conv",
        lambda node: _strided(node),
    ),
    "an ELU of one neuron, of another alpha": (
        one("Elu", [1, 1], (1,), alpha=0.5).model(),
        "Elu",
        lambda node: _with(node, "alpha", 0.25, smooth.elu),
    ),
    "a limit of one neuron that is not read": (
        one("Clip", [1, 1], (1,), np.array(-6, np.float32), np.array(6, np.float32)).model(),
        "Clip",
        arithmetic.identity,
    ),
    "a cast for the identity": (
        model(
            [op("Cast", "x", to=TensorProto.FLOAT)], [1, 3], dtype=TensorProto.DOUBLE, output_dtype=TensorProto.FLOAT
        ),
        "Cast",
        lambda node: _without(node, "to", arithmetic.identity),
    ),
}


def _without(node: OnnxNode, attribute: str, converter: Callable[[OnnxNode], object]) -> object:
    node.ignore(attribute)
    del node._attributes.stated[attribute]
    return converter(node)


def _with(node: OnnxNode, attribute: str, value: object, converter: Callable[[OnnxNode], object]) -> object:
    node._attributes.stated[attribute] = value
    return converter(node)


def _strided(node: OnnxNode) -> object:
    """Every position in turn, of which it takes the first three."""
    node._attributes.stated["strides"] = [1]
    whole = windows.conv(node)
    return lowering.select(node.builder, node.name, whole, 1, [0, 1, 2])


@pytest.mark.parametrize("name", WRONG)
def test_a_network_read_wrongly_differs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built, kind, converter = WRONG[name]
    assert compared(built) == ""
    monkeypatch.setitem(CONVERTERS, kind, converter)
    assert compared(built) != ""


def test_a_network_that_takes_another_tensor_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    built = model([op("Split", "x s", "a b", axis=1), op("Sub", "a b")], [1, 4], {"s": ints(2, 2)})
    assert compared(built) == ""
    original = CONVERTERS["Sub"]

    def swapped(node: OnnxNode) -> object:
        node._inputs = node._inputs[::-1]
        return original(node)

    monkeypatch.setitem(CONVERTERS, "Sub", swapped)
    assert "the file computes other values at 'y' than the graph" in compared(built)


@pytest.mark.parametrize("epsilon", [1e-5, float(np.nextafter(np.float32(1e-5), np.float32(1)))])
def test_a_certificate_of_a_network_with_a_wrong_default_is_not_confirmed(
    epsilon: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Be it another float32 number, or the double that the decimals in the standard's text give."""
    net = save(normalisation(15, 1.0), tmp_path)
    prop, out = tmp_path / "p.vnnlib", tmp_path / "cert.json"
    prop.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= Y_0 5))"
    )
    files = str(net), str(prop)
    assert main(["verify", *files, "--certificate", str(out)]) == 0
    assert capsys.readouterr().out.startswith("verified")
    assert main(["check", str(out), *files]) == 0
    assert capsys.readouterr().out.startswith("confirmed")
    wrong_default(monkeypatch, epsilon)
    assert Attributes(op("BatchNormalization", "x"), 15)["epsilon"] == epsilon
    assert main(["check", str(out), *files]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("not confirmed")
    assert "the file computes other values at 'y' than the graph" in printed
