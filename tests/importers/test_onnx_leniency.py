"""Files that ONNX Runtime takes, though the standard's checker, or a careful reader, might not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.importers.onnx_models import floats, ints, model, op, save
from zonocuda import Spec, verify
from zonocuda.importers import Network, NetworkFileError, load_network
from zonocuda.verifier import Verdict

LAYER = [op("Gemm", "x w", "h"), op("Relu", "h", "r"), op("Gemm", "r v")]
WEIGHTS: dict[str, Any] = {"w": floats(3, 4), "v": floats(4, 2, seed=1)}


def loaded(built: onnx.ModelProto, folder: Path) -> Network:
    """The network, compared with ONNX Runtime on a box."""
    network = load_network(save(built, folder))
    network.check(-torch.ones(3), torch.ones(3))
    return network


def agrees(network: Network) -> bool:
    """Whether the network is what LAYER says."""
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).double()
    w, v = (torch.from_numpy(WEIGHTS[name]).double() for name in "wv")
    return bool(torch.allclose(network.graph.to(torch.float64)(x), torch.relu(x @ w) @ v, atol=1e-12))


def test_of_several_imports_of_the_operators_the_highest_counts(tmp_path: Path) -> None:
    """The axes of a sum are an input from operator set 13 on, an attribute before."""
    built = model([op("ReduceSum", "x a")], [1, 3], {"a": ints(1)}, opset=13)
    built.opset_import.insert(0, helper.make_opsetid("", 11))
    built.opset_import.append(helper.make_opsetid("ai.onnx", 12))
    network = loaded(built, tmp_path)
    assert network.graph.output_shape == (1,)
    assert [entry.version for entry in onnx.load_model_from_string(network.onnx_bytes).opset_import] == [13]


def test_nodes_in_any_order_are_sorted(tmp_path: Path) -> None:
    for order in ([2, 1, 0], [1, 0, 2], [0, 2, 1]):
        assert agrees(loaded(model([LAYER[i] for i in order], [1, 3], WEIGHTS), tmp_path))


def test_nodes_that_read_each_other_are_refused(tmp_path: Path) -> None:
    nodes = [op("Add", "x b", "a"), op("Relu", "a", "b"), op("Relu", "b")]
    with pytest.raises(NetworkFileError, match="reads what depends on its own output"):
        load_network(save(model(nodes, [1, 3]), tmp_path))


def test_weights_that_the_output_does_not_need_may_be_anything(tmp_path: Path) -> None:
    odd = {"nan": np.float32([np.nan]), "inf": np.float32([np.inf])}
    unused = [op("Add", "x nan", "unused")]
    assert agrees(loaded(model([*LAYER, *unused], [1, 3], WEIGHTS | odd), tmp_path))
    read = model([*LAYER[:-1], op("Gemm", "r v", "g"), op("Add", "g nan")], [1, 3], WEIGHTS | odd)
    with pytest.raises(NetworkFileError, match="'nan' holds NaN or infinity"):
        load_network(save(read, tmp_path))


def test_an_infinity_may_limit_constants(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"low": np.array(-np.inf, np.float32), "high": np.array(np.inf, np.float32)}
    limits["c"] = floats(3)
    nodes = [op("Clip", "c low high", "k"), op("Max", "k low", "m"), op("Add", "x m")]
    network = loaded(model(nodes, [1, 3], limits), tmp_path)
    assert torch.equal(network.graph(torch.zeros(1, 3))[0], torch.from_numpy(limits["c"]))
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_network(save(model([op("Add", "x low")], [1, 3], limits), tmp_path))


@pytest.mark.parametrize("typed", [True, False])
def test_an_output_needs_no_shape_and_no_type(typed: bool, tmp_path: Path) -> None:
    built = model(LAYER, [1, 3], WEIGHTS)
    output = onnx.ValueInfoProto(name="y")
    if typed:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    built.graph.output[0].CopyFrom(output)
    assert agrees(loaded(built, tmp_path))


@pytest.mark.parametrize("form", ["folded", "initializer", "vector", "computed"])
def test_a_constant_output_is_a_constant(form: str, tmp_path: Path) -> None:
    weights: dict[str, Any] = {"w": floats(1, 3), "v": floats(3)}
    nodes = {
        "folded": [op("Relu", "w")],
        "initializer": [],
        "vector": [op("Neg", "v")],
        "computed": [op("Mul", "w v")],
    }[form]
    built = model(nodes, [1, 3], weights, rank=1 if form == "vector" else 2)
    if form == "initializer":
        built.graph.output[0].name = "w"
    network = loaded(built, tmp_path)
    runtime = network.runtime(torch.zeros(1, *network.graph.input_shape)).flatten()
    found = network.graph.to(torch.float64)(torch.rand(1, *network.graph.input_shape).double()).flatten()
    assert torch.allclose(found, runtime.double(), atol=1e-6)
    top = float(runtime[0])
    for bound, verdict in ((top + 0.01, Verdict.VERIFIED), (top - 0.01, Verdict.FALSIFIED)):
        assert verify(network, Spec.linear([0.0] * 3, [1.0] * 3, [1.0, 0, 0], bound)).verdict is verdict


def test_constants_of_a_shape_that_is_computed_are_folded(tmp_path: Path) -> None:
    nodes = [op("Shape", "x", "s"), op("ConstantOfShape", "s", "c"), op("Add", "x c", "a"), op("Concat", "a c", axis=1)]
    assert loaded(model(nodes, ["n", 3]), tmp_path).graph.output_shape == (6,)
