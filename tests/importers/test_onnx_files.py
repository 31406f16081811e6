"""Files: formats, damage, external weights, names, and what of a model is read at all."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.importers.onnx_models import floats, ints, model, op, save
from zonocuda.graph import Linear, Relu
from zonocuda.importers import NetworkFileError, OnnxRuntimeModel, load_network, load_onnx


def small() -> onnx.ModelProto:
    """relu(x W + b), as TensorFlow and MATLAB export it: a product, then a sum."""
    nodes = [op("MatMul", "x w", "p"), op("Add", "p b", "s"), op("Relu", "s")]
    return model(nodes, ["n", 4], {"w": floats(4, 3), "b": floats(3)})


def expect_file_error(path: Path, text: str) -> None:
    with pytest.raises(NetworkFileError) as caught:
        load_onnx(path)
    message = str(caught.value)
    assert message.startswith(f"importers.onnx: {path}: ")
    assert text in message
    assert "\n" not in message


def test_a_file_and_its_compressed_form_are_the_same_network(tmp_path: Path) -> None:
    content = small().SerializeToString()
    save(small(), tmp_path)
    (tmp_path / "net.onnx.gz").write_bytes(gzip.compress(content))
    x = torch.randn(3, 4)
    plain, packed = load_network(tmp_path / "net.onnx"), load_network(str(tmp_path / "net.onnx.gz"))
    assert plain.sha256 == packed.sha256 == hashlib.sha256(content).hexdigest()
    assert torch.equal(plain.graph(x), packed.graph(x))
    assert plain.path == tmp_path / "net.onnx"
    assert plain.onnx_bytes == content


ONE_SAMPLE = {
    "rows": ([op("Gemm", "x w b", "h", transB=1), op("Relu", "h", "r"), op("Gemm", "r v")], (12, 2), 2),
    "columns": ([op("MatMul", "c x", "h"), op("Relu", "h")], (3, 8), 2),
    "all numbers": ([op("Flatten", "x", "h", axis=0), op("Gemm", "h all")], (1, 3), 2),
    "some rows": ([op("Gather", "x i", "h", axis=0), op("MatMul", "h v2")], (2, 3), 2),
    "transposed": ([op("Transpose", "x", "h", perm=[1, 0]), op("MatMul", "h v3")], (8, 3), 2),
    "summed": ([op("ReduceSum", "x zero", "h", keepdims=0), op("MatMul", "h v2")], (3,), 1),
}
MATRICES = {"w": (5, 8), "b": (5,), "v": (5, 2), "c": (3, 12), "all": (96, 3), "v2": (8, 3), "v3": (12, 3)}


@pytest.mark.parametrize("name", ONE_SAMPLE)
def test_a_first_extent_that_is_fixed_to_more_than_1_belongs_to_one_sample(name: str, tmp_path: Path) -> None:
    nodes, out, rank = ONE_SAMPLE[name]
    weights = {key: floats(*shape) for key, shape in MATRICES.items()} | {"i": ints(3, 5), "zero": ints(0)}
    network = load_network(save(model(nodes, [12, 8], weights, rank=rank), tmp_path))
    assert (network.graph.input_shape, network.graph.output_shape) == ((12, 8), out)
    x = torch.from_numpy(floats(4, 12, 8, seed=1))
    torch.testing.assert_close(network.graph.to(torch.float32, "cpu")(x), network.runtime(x).reshape(4, *out))
    network.check(-torch.ones(12, 8), torch.ones(12, 8))


def test_weights_that_compress_a_thousandfold_are_read(tmp_path: Path) -> None:
    padded = np.zeros((4200, 4200), dtype=np.float32)
    padded[:4, :4] = floats(4, 4)
    built = model([op("MatMul", "x w", "h"), op("MatMul", "h v")], ["n", 4200], {"w": padded, "v": floats(4200, 2)})
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(built.SerializeToString()))
    assert path.stat().st_size * 100 < padded.nbytes
    assert load_network(path).graph.input_shape == (4200,)


def test_a_model_that_expands_beyond_the_free_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zonocuda.importers.onnx.file.free_host_memory", lambda: 4 * 1000)
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    expect_file_error(path, "expands to more than 1000 bytes: the free memory allows no more")


@pytest.mark.parametrize("name", ["missing.onnx", "missing.onnx.gz"])
def test_a_missing_file_is_an_error(name: str, tmp_path: Path) -> None:
    expect_file_error(tmp_path / name, "cannot be read")


def test_a_folder_is_not_a_network(tmp_path: Path) -> None:
    expect_file_error(tmp_path, "cannot be read")


@pytest.mark.parametrize("content", [b"", b"not an ONNX model", b"\x08\x07", bytes(100), b"\xff" * 50])
def test_a_file_that_is_not_onnx_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    expect_file_error(path, "is not an ONNX model")


def test_every_truncation_of_a_file_is_an_error(tmp_path: Path) -> None:
    content = small().SerializeToString()
    path = tmp_path / "net.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(NetworkFileError):
            load_onnx(path)


def test_every_truncation_of_a_compressed_file_is_an_error(tmp_path: Path) -> None:
    content = gzip.compress(small().SerializeToString())
    path = tmp_path / "net.onnx.gz"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(NetworkFileError):
            load_onnx(path)


def test_a_damaged_compressed_file_is_an_error(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(small().SerializeToString()))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(content)
    expect_file_error(path, "cannot be read")


def test_a_file_that_is_not_compressed_although_it_says_so_is_an_error(tmp_path: Path) -> None:
    expect_file_error(save(small(), tmp_path, "net.onnx.gz"), "cannot be read")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    weight = floats(4, 3)
    weight[2, 1] = value
    built = model([op("MatMul", "x w")], [1, 4], {"w": weight})
    expect_file_error(save(built, tmp_path), "tensor 'w' holds NaN or infinity")


def test_a_weight_of_the_wrong_length_is_an_error(tmp_path: Path) -> None:
    built = small()
    built.graph.initializer[0].raw_data = built.graph.initializer[0].raw_data[:-4]
    expect_file_error(save(built, tmp_path), "tensor 'w' is corrupt")


def test_a_tensor_that_is_computed_twice_is_an_error(tmp_path: Path) -> None:
    built = model([op("Relu", "x", "r"), op("Neg", "x", "r"), op("Relu", "r")], [1, 3])
    expect_file_error(save(built, tmp_path), "is invalid")


def test_a_tensor_that_nothing_computes_is_an_error(tmp_path: Path) -> None:
    expect_file_error(save(model([op("Add", "x nothing")], [1, 3]), tmp_path), "nothing")


def test_an_attribute_that_the_operator_does_not_have_is_an_error(tmp_path: Path) -> None:
    expect_file_error(save(model([op("Relu", "x", slope=0.1)], [1, 3]), tmp_path), "slope")


NORM = {"s": floats(6), "b": floats(6), "m": floats(6), "v": np.abs(floats(6)) + 1}
LEFT_OUT = {
    "an output of a split": (op("Split", "x", " y", axis=1), 11, "output 0"),
    "the last output of a split": (op("Split", "x", "y ", axis=1), 11, "output 1"),
    "statistics of a batch norm": (op("BatchNormalization", "x s b m v", "y    "), 9, "output 1"),
    "an operand": (op("Add", "x "), 13, "input 1"),
    "a part of a concatenation": (op("Concat", "x  x", axis=1), 13, "input 1"),
}


@pytest.mark.parametrize(("node", "opset", "place"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_not_optional_is_not_left_out(node: onnx.NodeProto, opset: int, place: str, tmp_path: Path) -> None:
    """The checker lets most of these pass; ONNX Runtime ends the process on some when it runs them."""
    built = model([node], [1, 6], NORM, opset=opset)
    expect_file_error(save(built, tmp_path), f"leaves out its {place}, which is not optional")


def test_what_is_optional_may_be_left_out(tmp_path: Path) -> None:
    nodes = [op("Gemm", "x w ", "g"), op("Dropout", "g  ", "y ")]
    network = load_network(save(model(nodes, [1, 4], {"w": floats(4, 3)}), tmp_path))
    assert network.check(-torch.ones(4), torch.ones(4)) < 1e-5


def test_nodes_that_the_output_does_not_need_are_not_executed(tmp_path: Path) -> None:
    """ONNX Runtime would: this one ends the process."""
    built = small()
    built.graph.node.insert(0, op("Sum", "x  x", "unused"))
    assert load_network(save(built, tmp_path)).check(-torch.ones(4), torch.ones(4)) < 1e-5


def test_a_model_without_operator_sets_is_an_error(tmp_path: Path) -> None:
    built = small()
    del built.opset_import[:]
    expect_file_error(save(built, tmp_path), "imports no version of the ONNX operators")


def external(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save_model(small(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    network = load_network(external(tmp_path))
    (tmp_path / "weights.bin").unlink()
    assert network.check(-torch.ones(4), torch.ones(4)) < 1e-5
    linear = network.graph["y"].op
    assert isinstance(linear, Relu)
    x = torch.randn(2, 4)
    assert torch.equal(network.graph(x), torch.relu(x @ torch.from_numpy(floats(4, 3)) + torch.from_numpy(floats(3))))


def test_absent_weights_are_an_error(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    expect_file_error(path, "external data of 'w' cannot be read")


def test_external_weights_are_an_error_where_there_is_no_folder(tmp_path: Path) -> None:
    content = external(tmp_path).read_bytes()
    with pytest.raises(NetworkFileError, match="tensor 'w' lies in another file"):
        OnnxRuntimeModel(content)


def test_weights_that_are_also_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    built = small()
    built.graph.input.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    network = load_network(save(built, tmp_path))
    assert network.graph.input_shape == (4,)
    assert network.check(-torch.ones(4), torch.ones(4)) < 1e-5


def test_a_bias_added_after_a_product_becomes_the_layer_s_bias(tmp_path: Path) -> None:
    graph = load_onnx(save(small(), tmp_path))
    assert [(node.name, node.op.kind) for node in graph.nodes] == [("x", "Input"), ("s", "Linear"), ("y", "Relu")]
    linear = graph["s"].op
    assert isinstance(linear, Linear)
    assert linear.bias is not None
    assert linear.bias.tolist() == floats(3).tolist()


def test_a_product_that_is_read_twice_keeps_its_own_node(tmp_path: Path) -> None:
    nodes = [op("MatMul", "x w", "p"), op("Add", "p b", "s"), op("Sub", "s p")]
    network = load_network(save(model(nodes, [1, 4], {"w": floats(4, 3), "b": floats(3)}), tmp_path))
    assert [node.op.kind for node in network.graph.nodes] == ["Input", "Linear", "ScaleShift", "Add"]
    assert network.check(-torch.ones(4), torch.ones(4)) < 1e-5


def test_a_shift_by_position_does_not_become_the_bias_of_a_convolution(tmp_path: Path) -> None:
    nodes = [op("Conv", "x w", "c"), op("Add", "c b")]
    weights = {"w": floats(2, 1, 2), "b": floats(1, 1, 4)}
    network = load_network(save(model(nodes, [1, 1, 5], weights, rank=3), tmp_path))
    assert [node.op.kind for node in network.graph.nodes] == ["Input", "Conv", "ScaleShift"]
    assert network.check(-torch.ones(5), torch.ones(5)) < 1e-5


def test_a_branch_that_the_output_does_not_need_is_not_read(tmp_path: Path) -> None:
    nodes = [
        op("Softmax", "x", "unused"),
        op("Relu", "x", "r"),
        op("Neg", "r", "also unused".replace(" ", "_")),
        op("Neg", "r"),
    ]
    graph = load_onnx(save(model(nodes, [1, 3]), tmp_path))
    assert [node.name for node in graph.nodes] == ["x", "r", "y"]


def test_nodes_keep_unique_names_and_take_their_tensor_s_otherwise(tmp_path: Path) -> None:
    nodes = [op("Relu", "x", "a"), op("Neg", "a", "b"), op("Relu", "b", "c"), op("Neg", "c", "d"), op("Relu", "d")]
    for node, name in zip(nodes, ["first", "same", "same", "x", ""], strict=True):
        node.name = name
    graph = load_onnx(save(model(nodes, [1, 3]), tmp_path))
    assert [node.name for node in graph.nodes] == ["x", "first", "b", "c", "d", "y"]


def test_inner_nodes_never_take_the_name_of_another_node(tmp_path: Path) -> None:
    nodes = [op("Pad", "x p", "a"), op("AveragePool", "a", "b", kernel_shape=[2], pads=[1, 0]), op("Relu", "b")]
    nodes[0].name, nodes[1].name, nodes[2].name = "pool/pad", "pool", "pool/pool"
    weights = {"p": ints(0, 0, 1, 0, 0, 1)}
    network = load_network(save(model(nodes, [1, 1, 5], weights, rank=3), tmp_path))
    assert network.graph["pool/pool"].op.kind == "Relu"
    assert len({node.name for node in network.graph.nodes}) == len(network.graph.nodes) == 6
    assert network.check(-torch.ones(5), torch.ones(5)) < 1e-5


def test_tensors_keep_the_precision_of_the_file_and_derived_ones_have_float64(tmp_path: Path) -> None:
    nodes = [op("Gemm", "x w b", "g"), op("Div", "g d")]
    weights = {"w": floats(4, 3), "b": floats(3), "d": np.float32([3.0])}
    graph = load_onnx(save(model(nodes, [1, 4], weights), tmp_path))
    gemm, division = graph["g"].op, graph["y"].op
    assert gemm.weight.dtype == torch.float32  # type: ignore[attr-defined]
    assert division.scale.item() == 1 / 3  # type: ignore[attr-defined]


def test_alpha_multiplies_the_weights_exactly(tmp_path: Path) -> None:
    alpha = float(np.float32(0.1))
    graph = load_onnx(save(model([op("Gemm", "x w", alpha=0.1)], [1, 4], {"w": floats(4, 3)}), tmp_path))
    weight = graph["y"].op.weight  # type: ignore[attr-defined]
    from fractions import Fraction

    exact = [[Fraction(float(entry)) * Fraction(alpha) for entry in row] for row in floats(4, 3).T]
    assert [[Fraction(entry) for entry in row] for row in weight.tolist()] == exact
