"""What the graph cannot express is refused by name, on one line, and never read as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.importers.onnx_models import Case, floats, ints, model, one, op, save
from zonocuda.importers import UnsupportedNetworkError, load_onnx

STATISTICS = (floats(3), floats(3), floats(3), np.abs(floats(3)) + 1)
SCALAR = np.float32(1).reshape(())

OPERATORS = {
    "acos": (one("Acos", [1, 3], (3,)), "node 'y' (op Acos) is not supported; supported ops: Abs, Add, Atan,"),
    "det": (one("Det", [1, 3, 3], (1,)), "op Det) is not supported; supported ops"),
    "a remainder": (one("Mod", [1, 3], (3,), floats(3), fmod=1), "on constants only; supported"),
    "a threshold that jumps": (one("ThresholdedRelu", [1, 3], (3,)), "it jumps at alpha"),
    "a condition that depends on the input": (
        Case([op("Where", "x a b")], [1, 3], (3,), {"a": floats(3), "b": floats(3)}),
        "a condition that depends on the network's input",
    ),
    "indices of maxima": (
        Case([op("MaxPool", "x", "m i", kernel_shape=[2]), op("Cast", "i", to=TensorProto.FLOAT)], [1, 1, 4], (1, 3)),
        "node 'm' (op MaxPool): its output 'i' is not supported",
    ),
    "a maximum of nothing but padding": (
        one("MaxPool", [1, 1, 3], (1, 5), kernel_shape=[2], pads=[2, 1]),
        "lies in the padding entirely",
    ),
    "a limit beyond all numbers": (one("Max", [1, 2], (2,), np.float32([np.inf, 0])), "leaves no number"),
    "a slope for each batch element": (one("PRelu", [1, 3], (3,), floats(2, 1)), "does not broadcast to its input"),
    "random numbers": (
        Case([op("RandomNormalLike", "c", "n"), op("Add", "x n")], [1, 3], (3,), {"c": floats(3)}),
        "(op RandomNormalLike) is not supported",
    ),
    "another domain": (
        Case([helper.make_node("Relu", ["x"], ["y"], domain="com.example")], [1, 3], (3,)),
        "(op com.example.Relu) is not supported",
    ),
    "division by zero": (one("Div", [1, 2], (2,), np.float32([1, 0])), "divides by zero"),
    "a convolution whose weight depends on the input": (
        Case([op("Conv", "c x")], [1, 1, 2, 2], (1, 2, 2), {"c": floats(1, 1, 3, 3)}),
        "input 1 must be constant",
    ),
    "training batch norm": (
        one("BatchNormalization", [1, 3], (3,), *STATISTICS, opset=15, training_mode=1),
        "training mode",
    ),
    "batch norm with statistics as outputs": (
        Case(
            [op("BatchNormalization", "x a b c d", "y m v s t")],
            [1, 3],
            (3,),
            dict(zip("abcd", STATISTICS, strict=True)),
            opset=9,
        ),
        "training mode",
    ),
    "batch norm per position": (
        one("BatchNormalization", [1, 3, 1], (3, 1), *STATISTICS, opset=7, spatial=0),
        "'spatial' = 0",
    ),
    "batch norm of a negative variance": (
        one("BatchNormalization", [1, 3], (3,), *STATISTICS[:3], np.float32([1, -1, 1])),
        "variance + epsilon must be positive",
    ),
    "batch norm of other channels": (one("BatchNormalization", [1, 4], (4,), *STATISTICS), "do not fit features (4,)"),
    "training dropout": (one("Dropout", [1, 3], (3,), SCALAR, np.array(True)), "training mode"),
    "a dropout mask": (
        Case([op("Dropout", "x", "r m"), op("Cast", "m", to=TensorProto.FLOAT)], [1, 3], (3,)),
        "node 'r' (op Dropout): its output 'm' is not supported",
    ),
    "cast to eight bits": (one("Cast", [1, 3], (3,), to=TensorProto.FLOAT8E4M3FN), "to FLOAT8E4M3FN is not supported"),
    "cast to integers": (one("Cast", [1, 3], (3,), to=TensorProto.INT64), "to INT64 is not supported"),
    "cast to truth values": (one("Cast", [1, 3], (3,), to=TensorProto.BOOL), "to BOOL is not supported"),
    "half weights": (
        Case([op("Relu", "x", "r"), op("Add", "r w")], [1, 3], (3,), {"w": floats(3).astype(np.float16)}),
        "a constant of type float16",
    ),
    "pooling with ceil": (
        one("AveragePool", [1, 1, 5], (1, 3), kernel_shape=[2], strides=[2], ceil_mode=1),
        "'ceil_mode'",
    ),
    "dilated pooling": (
        one("AveragePool", [1, 1, 5], (1, 3), kernel_shape=[2], dilations=[2], opset=19),
        "'dilations'",
    ),
    "pads as large as the kernel": (
        one("AveragePool", [1, 1, 5], (1, 3), kernel_shape=[2], pads=[2, 2]),
        "must be smaller than the kernel",
    ),
    "an output shape": (
        one("ConvTranspose", [1, 1, 3], (1, 5), floats(1, 1, 2), output_shape=[5], strides=[2]),
        "'output_shape'",
    ),
    "an automatic transposed padding": (
        one("ConvTranspose", [1, 1, 3], (1, 6), floats(1, 1, 2), auto_pad="SAME_UPPER", strides=[2]),
        "auto_pad SAME_UPPER",
    ),
    "automatic and explicit padding": (
        one("Conv", [1, 1, 3], (1, 3), floats(1, 1, 2), auto_pad="SAME_UPPER", pads=[1, 0]),
        "contradicts attribute 'pads'",
    ),
    "a kernel shape that is not the weight's": (
        one("Conv", [1, 1, 3], (1, 2), floats(1, 1, 2), kernel_shape=[3]),
        "contradicts the weight's kernel (2,)",
    ),
    "negative convolution pads": (one("Conv", [1, 1, 5], (1, 2), floats(1, 1, 2), pads=[-1, -1]), "'pads'"),
    "a zero stride": (one("Conv", [1, 1, 5], (1, 2), floats(1, 1, 2), strides=[0]), "'strides'"),
    "a convolution over 4 dimensions": (
        one("Conv", [1, 1, 2, 2, 2, 2], (1, 2, 2, 2, 2), floats(1, 1, 1, 1, 1, 1)),
        "over 4 dimensions",
    ),
    "a convolution of other channels": (one("Conv", [1, 2, 5], (1, 4), floats(1, 3, 2)), "do not fit"),
    "a kernel beyond the input": (one("Conv", [1, 1, 2], (1, 1), floats(1, 1, 3)), "do not fit"),
    "a linear layer of another size": (one("Gemm", [1, 3], (2,), floats(4, 2)), "do not fit"),
    "constants that do not broadcast": (one("Add", [1, 3], (3,), floats(4)), "do not broadcast"),
    "a C that expands": (one("Gemm", [1, 3], (2,), floats(3, 1), floats(1, 2)), "expands the product"),
    "reflection": (one("Pad", [1, 3], (5,), ints(0, 1, 0, 1), mode="reflect"), "mode 'reflect'"),
    "negative padding": (one("Pad", [1, 3], (1,), ints(0, -1, 0, -1)), "negative padding"),
    "infinite padding": (one("Pad", [1, 3], (4,), pads=[0, 1, 0, 0], value=np.inf, opset=9), "pads with inf"),
    "an empty slice": (one("Slice", [1, 5], (0,), ints(3), ints(2), ints(1)), "selects nothing"),
    "a slice of one axis twice": (
        one("Slice", [1, 5], (2,), ints(1, 1), ints(3, 3), ints(1, -1)),
        "one dimension twice",
    ),
    "an index beyond the extent": (one("Gather", [1, 5], (1,), ints(5), axis=1), "outside 0..4"),
    "an index that depends on the input": (
        Case([op("Cast", "x", "i", to=TensorProto.INT64), op("Gather", "w i")], [1, 3], (3,), {"w": floats(5)}),
        "to INT64 is not supported",
    ),
    "a shape that does not fit": (one("Reshape", [1, 6], (4,), ints(1, 4)), "do not reshape"),
    "a split that does not add up": (
        Case([op("Split", "x s", "y a", axis=1)], [1, 5], (2,), {"s": ints(2, 2)}),
        "do not fit extent 5",
    ),
    "an axis that does not exist": (one("ReduceSum", [1, 3], (1,), ints(2)), "dimension 2 does not exist"),
    "a squeezed extent other than 1": (one("Squeeze", [1, 3], (), ints(1)), "do not all have extent 1"),
    "a concatenated constant for two samples": (
        Case([op("Concat", "x w", axis=1)], [1, 3], (5,), {"w": floats(2, 2)}),
        "do not fit",
    ),
    "an infinite folded constant": (
        Case([op("Reciprocal", "z", "w"), op("Add", "x w")], [1, 1], (1,), {"z": np.float32([0])}),
        "holds NaN or infinity",
    ),
    "a constant node that cannot be evaluated": (
        Case([op("Reshape", "a s", "w"), op("Add", "x w")], [1, 4], (4,), {"a": floats(4), "s": ints(3)}),
        "cannot be evaluated",
    ),
}


def refused(case: Case, folder: Path) -> str:
    """The message of the refusal, which names the file on one line."""
    path = save(case.model(), folder)
    with pytest.raises(UnsupportedNetworkError) as caught:
        load_onnx(path)
    message = str(caught.value)
    assert message.startswith(f"importers.onnx: {path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_cannot_be_expressed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case, expected = OPERATORS[name]
    assert expected in refused(case, tmp_path)


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ([1, "width"], TensorProto.FLOAT, "leaves more than the batch open"),
        (["n"], TensorProto.FLOAT, "leaves more than the batch open"),
        ([], TensorProto.FLOAT, "leaves more than the batch open"),
        ([1, 0], TensorProto.FLOAT, "is empty"),
        ([0, 3], TensorProto.FLOAT, "is empty"),
        ([1, 3], TensorProto.FLOAT16, "must be float32 or float64"),
        ([1, 3], TensorProto.INT64, "must be float32 or float64"),
    ],
)
def test_an_input_of_unknown_extent_batch_or_type_is_refused(
    shape: list[int | str], dtype: int, expected: str, tmp_path: Path
) -> None:
    path = save(model([op("Identity", "x")], shape, rank=len(shape), dtype=dtype), tmp_path)
    with pytest.raises(UnsupportedNetworkError, match=expected):
        load_onnx(path)


def test_a_convolution_of_a_fixed_batch_is_refused_by_name(tmp_path: Path) -> None:
    path = save(model([op("Conv", "x w")], [2, 3, 4, 4], {"w": floats(5, 3, 3, 3)}, rank=4), tmp_path)
    with pytest.raises(UnsupportedNetworkError, match=r"\(op Conv\): .* needs a batch dimension of extent 1"):
        load_onnx(path)


def test_several_inputs_are_refused_by_name(tmp_path: Path) -> None:
    built = model([op("Add", "x z")], [1, 3])
    built.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3]))
    with pytest.raises(UnsupportedNetworkError, match=r"exactly one input, found \['x', 'z'\]"):
        load_onnx(save(built, tmp_path))


def test_several_outputs_are_refused_by_name(tmp_path: Path) -> None:
    built = model([op("Relu", "x"), op("Neg", "x", "z")], [1, 3])
    built.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3]))
    with pytest.raises(UnsupportedNetworkError, match=r"exactly one output, found \['y', 'z'\]"):
        load_onnx(save(built, tmp_path))


@pytest.mark.parametrize("opset", [6, 1000])
def test_an_operator_set_that_is_not_known_is_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedNetworkError, match=f"operator set {opset} is not supported; supported: 7"):
        load_onnx(save(model([op("Relu", "x")], [1, 3], opset=opset), tmp_path))


def test_local_functions_are_refused(tmp_path: Path) -> None:
    built = model([helper.make_node("Twice", ["x"], ["y"], domain="local")], [1, 3])
    opsets = [helper.make_opsetid("", 13)]
    built.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], [op("Add", "a a", "b")], opsets))
    with pytest.raises(UnsupportedNetworkError, match="local functions"):
        load_onnx(save(built, tmp_path))


def _unread(**attributes: Any) -> Case:
    return one("Conv", [1, 1, 5], (1, 4), floats(1, 1, 2), **attributes)


def test_an_attribute_that_no_converter_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zonocuda.importers.onnx import windows as onnx_windows
    from zonocuda.importers.onnx.ops import CONVERTERS

    def without_group(node: Any) -> Any:
        weight = node.tensor(1)
        node.ignore("kernel_shape", "strides", "pads", "dilations", "auto_pad")
        return onnx_windows.lowering.conv(
            node.builder, node.name, node.value(0), weight, None, (1,), ((0, 0),), (1,), 1
        )

    monkeypatch.setitem(CONVERTERS, "Conv", without_group)
    assert "attribute 'group' is not supported" in refused(_unread(group=1), tmp_path)


ENORMOUS = {
    "of a shape": op("ConstantOfShape", "extents", "big"),
    "expanded": op("Expand", "one extents", "big"),
    "repeated": op("Tile", "one extents", "big"),
    "a range": op("Range", "start end step", "big"),
    "padded": op("Pad", "one around", "big"),
    "a product of a column and a row": op("MatMul", "column row", "big"),
    "a sum of a column and a row": op("Add", "column row", "big"),
    "a selection": op("Gather", "column many", "big"),
}


@pytest.mark.parametrize("name", ENORMOUS)
def test_a_constant_that_a_few_bytes_make_enormous_is_refused_before_it_is_made(name: str, tmp_path: Path) -> None:
    weights = {
        "extents": ints(10**6, 10**6),
        "one": floats(1, 1),
        "start": np.float32(0).reshape(()),
        "end": np.float32(1e12).reshape(()),
        "step": np.float32(1).reshape(()),
        "around": ints(0, 10**6, 10**6, 0),
        "column": floats(20_000, 1),
        "row": floats(1, 20_000),
        "many": ints(*range(20_000)),
    }
    case = Case([ENORMOUS[name], op("Add", "x big")], [1, 3], (3,), weights)
    assert "would have too many elements" in refused(case, tmp_path)


def test_a_layer_of_too_many_features_is_refused(tmp_path: Path) -> None:
    padded = one("Pad", [1, 3], (3,), ints(0, 0, 0, 2**24))
    assert "more than 16777216 features" in refused(padded, tmp_path)
    links = [op("Pad", "x p", "v0")] + [op("Relu", f"v{i}", f"v{i + 1}") for i in range(17)] + [op("Relu", "v17")]
    chain = Case(links, [1, 3], (3,), {"p": ints(0, 0, 0, 2**24 - 3)})
    assert "more than 268435456 features, over all nodes" in refused(chain, tmp_path)


def test_an_attribute_of_a_kind_that_no_converter_expects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zonocuda.importers.onnx.ops import CONVERTERS

    def broken(node: Any) -> Any:
        raise TypeError("no such thing")

    monkeypatch.setitem(CONVERTERS, "Relu", broken)
    assert "(op Relu): cannot be converted: TypeError: no such thing" in refused(one("Relu", [1, 3], (3,)), tmp_path)


def test_an_attribute_whose_data_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    node = op("Constant", "", "c", value=helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    del node.input[:]
    tensor = node.attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="net.onnx")
    assert "data lie in another file" in refused(Case([node, op("Add", "x c")], [1, 3], (3,)), tmp_path)
