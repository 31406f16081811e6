"""Every supported ONNX operator and awkward attribute, against ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from tests.importers.onnx_models import Case, constant_first, floats, ints, one, op, save
from tests.importers.piecewise_models import PIECEWISE
from tests.importers.smooth_models import SMOOTH
from zonocuda.importers import load_network
from zonocuda.importers.onnx.ops import CONVERTERS

POSITIVE = np.abs(floats(3)) + np.float32(0.5)
STATISTICS = (floats(3), floats(3, seed=1), floats(3, seed=2), POSITIVE)

CASES = {
    # products
    "gemm": one("Gemm", [1, 4], (3,), floats(4, 3), floats(3)),
    "gemm transB, alpha, beta": one("Gemm", ["n", 4], (3,), floats(3, 4), floats(3), transB=1, alpha=0.3, beta=-1.7),
    "gemm without C": one("Gemm", [1, 4], (3,), floats(4, 3)),
    "gemm scalar C": one("Gemm", [1, 4], (3,), floats(4, 3), floats()),
    "gemm C of rank 2": one("Gemm", [1, 4], (3,), floats(4, 3), floats(1, 3)),
    "gemm C 1x1": one("Gemm", [1, 4], (3,), floats(4, 3), floats(1, 1), beta=0.5),
    "gemm beta 0": one("Gemm", [1, 4], (3,), floats(4, 3), floats(3), beta=0.0),
    "gemm transA of 1x1": one("Gemm", [1, 1], (3,), floats(1, 3), floats(3), transA=1),
    "gemm C from a branch": Case([op("Gemm", "x w x", alpha=2.0, beta=0.5)], [1, 3], (3,), {"w": floats(3, 3)}),
    "matmul right": one("MatMul", ["n", 4], (3,), floats(4, 3)),
    "matmul right of rank 3": one("MatMul", [1, 5, 4], (5, 3), floats(4, 3)),
    "matmul right by a vector": one("MatMul", [1, 5, 4], (5,), floats(4)),
    "matmul right by a vector to a scalar": one("MatMul", [1, 4], (), floats(4)),
    "matmul right with leading ones": one("MatMul", [1, 2, 5, 4], (2, 5, 3), floats(1, 1, 4, 3)),
    "matmul left": constant_first("MatMul", [1, 4, 5], (3, 5), floats(3, 4)),
    "matmul left of rank 4": constant_first("MatMul", [1, 2, 4, 5], (2, 3, 5), floats(3, 4)),
    "matmul left by a vector": constant_first("MatMul", [1, 4, 5], (5,), floats(4)),
    # elementwise
    "add": one("Add", [1, 3, 4], (3, 4), floats(3, 1)),
    "add constant first": constant_first("Add", [1, 3], (3,), floats(1, 3)),
    "add that expands": one("Add", [1, 1, 4], (3, 4), floats(3, 1)),
    "sub": one("Sub", [1, 3], (3,), floats(3)),
    "sub from a constant": constant_first("Sub", [1, 3], (3,), floats(3)),
    "mul": one("Mul", [1, 3], (3,), floats(1)),
    "mul that expands": one("Mul", ["n", 1, 4], (3, 4), floats(1, 3, 1)),
    "div": one("Div", [1, 3], (3,), np.array([3.0, -0.7, 1e-3], dtype=np.float32)),
    "neg": one("Neg", [1, 3], (3,)),
    "branches add": Case([op("Relu", "x", "r"), op("Add", "x r")], [1, 3], (3,)),
    "branches subtract": Case([op("Relu", "x", "r"), op("Sub", "r x")], [1, 3], (3,)),
    "branches broadcast": Case(
        [op("ReduceMean", "x", "m", axes=[2]), op("Relu", "x", "r"), op("Sub", "m r")], [1, 3, 4], (3, 4)
    ),
    "branches broadcast both ways": Case(
        [op("ReduceSum", "x a", "s"), op("ReduceSum", "x b", "t"), op("Add", "s t")],
        [1, 3, 4],
        (3, 4),
        {"a": ints(1), "b": ints(2)},
    ),
    "a branch added to itself": Case([op("Add", "x x")], [1, 3], (3,)),
    "relu": one("Relu", [1, 3], (3,)),
    "identity": Case([op("Relu", "x", "r"), op("Identity", "r")], [1, 3], (3,)),
    "cast to the same type": one("Cast", [1, 3], (3,), to=TensorProto.FLOAT),
    "cast to double and back": Case(
        [op("Cast", "x", "d", to=TensorProto.DOUBLE), op("Relu", "d", "r"), op("Cast", "r", to=TensorProto.FLOAT)],
        [1, 3],
        (3,),
    ),
    "dropout with ratio": Case([op("Relu", "x", "r"), op("Dropout", "r", ratio=0.5)], [1, 3], (3,), opset=9),
    "dropout with an unread mask": Case([op("Dropout", "x", "y mask", ratio=0.5)], [1, 3], (3,), opset=9),
    "dropout told not to train": one("Dropout", [1, 3], (3,), np.float32(0.5).reshape(()), np.array(False), seed=1),
    # normalisation
    "batch norm": one("BatchNormalization", ["n", 3, 4, 4], (3, 4, 4), *STATISTICS, epsilon=0.01, opset=9),
    "batch norm of rank 2": one("BatchNormalization", [1, 3], (3,), *STATISTICS, momentum=0.3, opset=15),
    "batch norm, small variance": one(
        "BatchNormalization", [1, 3, 2], (3, 2), *STATISTICS[:3], np.full(3, 1e-6, dtype=np.float32), opset=15
    ),
    # convolutions
    "conv 1d": one("Conv", [1, 2, 9], (3, 4), floats(3, 2, 3), floats(3), strides=[2]),
    "conv 2d": one("Conv", ["n", 2, 5, 6], (3, 3, 4), floats(3, 2, 3, 3), kernel_shape=[3, 3]),
    "conv 3d": one("Conv", [1, 2, 4, 5, 6], (3, 3, 4, 5), floats(3, 2, 2, 2, 2), floats(3)),
    "conv asymmetric pads": one("Conv", [1, 1, 5, 6], (2, 7, 6), floats(2, 1, 3, 3), pads=[1, 0, 3, 2]),
    "conv dilations": one("Conv", [1, 1, 7, 9], (2, 3, 7), floats(2, 1, 3, 2), dilations=[2, 2]),
    "conv groups": one("Conv", [1, 4, 5, 5], (6, 4, 4), floats(6, 2, 2, 2), floats(6), group=2),
    "conv depthwise": one("Conv", [1, 3, 5, 5], (3, 3, 3), floats(3, 1, 3, 3), group=3),
    "conv VALID": one("Conv", [1, 1, 5, 6], (2, 2, 2), floats(2, 1, 3, 3), auto_pad="VALID", strides=[2, 2]),
    "conv SAME_UPPER": one("Conv", [1, 1, 5, 6], (2, 3, 3), floats(2, 1, 2, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv SAME_LOWER": one("Conv", [1, 1, 5, 6], (2, 3, 3), floats(2, 1, 2, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv SAME_UPPER, even kernel": one("Conv", [1, 1, 6], (2, 6), floats(2, 1, 4), auto_pad="SAME_UPPER"),
    "conv SAME_LOWER, even kernel": one("Conv", [1, 1, 6], (2, 6), floats(2, 1, 4), auto_pad="SAME_LOWER"),
    "conv SAME, stride beyond kernel": one(
        "Conv", [1, 1, 7], (2, 2), floats(2, 1, 2), auto_pad="SAME_UPPER", strides=[4]
    ),
    "transposed conv": one("ConvTranspose", [1, 2, 4, 5], (3, 6, 7), floats(2, 3, 3, 3), floats(3)),
    "transposed conv 1d, all attributes": one(
        "ConvTranspose",
        [1, 4, 5],
        (6, 13),
        floats(4, 3, 3),
        floats(6),
        strides=[3],
        pads=[1, 2],
        output_padding=[1],
        group=2,
        dilations=[1],
        kernel_shape=[3],
    ),
    "transposed conv, dilated": one(
        "ConvTranspose",
        [1, 1, 4, 4],
        (1, 9, 8),
        floats(1, 1, 2, 2),
        dilations=[3, 2],
        strides=[2, 2],
        pads=[0, 0, 1, 1],
    ),
    "transposed conv, extended beyond its sums": one(
        "ConvTranspose", [1, 1, 3], (1, 8), floats(1, 1, 2), floats(1), strides=[3], output_padding=[2], pads=[1, 1]
    ),
    "transposed conv VALID": one("ConvTranspose", [1, 1, 3], (1, 6), floats(1, 1, 2), strides=[2], auto_pad="VALID"),
    "transposed conv 3d": one("ConvTranspose", [1, 1, 2, 2, 2], (1, 3, 3, 3), floats(1, 1, 2, 2, 2)),
    # pooling and reductions
    "average pool": one("AveragePool", [1, 2, 5, 6], (2, 4, 4), kernel_shape=[2, 3]),
    "average pool that leaves a rest": one("AveragePool", [1, 2, 6], (2, 2), kernel_shape=[3], strides=[2]),
    "average pool, padding not counted": one(
        "AveragePool", [1, 2, 5, 5], (2, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]
    ),
    "average pool, padding counted": one(
        "AveragePool",
        [1, 2, 5, 5],
        (2, 3, 3),
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        strides=[2, 2],
        count_include_pad=1,
    ),
    "average pool, asymmetric padding": one(
        "AveragePool", [1, 2, 5, 4], (2, 6, 5), kernel_shape=[3, 2], pads=[2, 1, 1, 1]
    ),
    "average pool SAME_UPPER": one(
        "AveragePool", [1, 1, 5, 6], (1, 3, 3), kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "average pool SAME_LOWER, counted": one(
        "AveragePool", [1, 1, 5], (1, 3), kernel_shape=[2], strides=[2], auto_pad="SAME_LOWER", count_include_pad=1
    ),
    "average pool 3d": one("AveragePool", [1, 1, 3, 4, 5], (1, 2, 3, 4), kernel_shape=[2, 2, 2]),
    "global average pool": one("GlobalAveragePool", ["n", 3, 4, 5], (3, 1, 1)),
    "reduce mean by attribute": one("ReduceMean", [1, 3, 4, 5], (3, 1, 1), axes=[-1, 2]),
    "reduce mean by input": one("ReduceMean", [1, 3, 4], (4,), ints(1), keepdims=0, opset=18),
    "reduce sum by attribute": one("ReduceSum", [1, 3, 4], (3,), axes=[2], keepdims=0, opset=11),
    "reduce sum by input": one("ReduceSum", [1, 3, 4], (1, 4), ints(-2)),
    "reduce sum of nothing": one("ReduceSum", [1, 3], (3,), noop_with_empty_axes=1),
    # shapes
    "flatten": one("Flatten", ["n", 3, 4], (12,)),
    "flatten of a negative axis": one("Flatten", [1, 3, 4], (12,), axis=-2),
    "flatten to a single row": one("Flatten", [1, 3, 4], (12,), axis=0),
    "reshape by -1": one("Reshape", ["n", 3, 4], (12,), ints(-1, 12)),
    "reshape by 0 and -1": one("Reshape", ["n", 3, 4, 2], (3, 8), ints(0, 0, -1)),
    "reshape by 1": one("Reshape", [1, 3, 4], (2, 6), ints(1, 2, -1)),
    "reshape, allowzero without zeros": one("Reshape", [1, 6], (2, 3), ints(1, 2, 3), allowzero=1, opset=14),
    "transpose": one("Transpose", ["n", 3, 4, 5], (5, 3, 4), perm=[0, 3, 1, 2]),
    "squeeze by attribute": one("Squeeze", [1, 3, 1, 4], (3, 4), axes=[2], opset=11),
    "squeeze by input": one("Squeeze", [1, 3, 1, 4, 1], (3, 4), ints(-1, 2)),
    "unsqueeze by attribute": one("Unsqueeze", [1, 3, 4], (1, 3, 4, 1), axes=[1, 4], opset=11),
    "unsqueeze by input": one("Unsqueeze", [1, 3, 4], (3, 1, 4, 1), ints(-1, 2)),
    "slice by attributes": one("Slice", [1, 5, 6], (3, 4), starts=[1, -5], ends=[4, -1], axes=[1, 2], opset=9),
    "slice without axes": one("Slice", [1, 5], (2,), ints(0, 1), ints(2**31, 3)),
    "slice with steps": one("Slice", [1, 9], (3,), ints(-1), ints(-(2**31)), ints(1), ints(-4)),
    "slice beyond the end": one("Slice", [1, 5], (2,), ints(3), ints(100), ints(-1)),
    "slice backwards to the front": one("Slice", [1, 5], (3,), ints(2), ints(-100), ints(1), ints(-1)),
    "slice, of which one axis stays whole": one("Slice", [1, 3, 5], (3, 2), ints(0, 1), ints(3, 3), ints(1, 2)),
    "split in equal parts": Case([op("Split", "x", "a b", axis=1), op("Sub", "b a")], [1, 6], (3,)),
    "split by attribute": Case([op("Split", "x", "a y", axis=-1, split=[2, 4])], [1, 6], (4,), opset=11),
    "split by input": Case([op("Split", "x s", "a y b", axis=2)], [1, 2, 6], (2, 3), {"s": ints(1, 3, 2)}),
    "split with a shorter last part": Case(
        [op("Split", "x", "a b c", axis=1, num_outputs=3), op("Relu", "c")], [1, 7], (1,), opset=18
    ),
    "concat": Case([op("Relu", "x", "r"), op("Concat", "x r x", axis=1)], [1, 3], (9,)),
    "concat of a negative axis": Case([op("Relu", "x", "r"), op("Concat", "r x", axis=-1)], [1, 3, 2], (3, 4)),
    "concat with constants": Case(
        [op("Relu", "x", "r"), op("Concat", "a x b r a b", axis=1)],
        [1, 3, 2],
        (12, 2),
        {"a": floats(1, 2, 2), "b": floats(1, 1, 2)},
    ),
    "pad by attribute": one("Pad", [1, 2, 3], (3, 6), pads=[0, 1, 2, 0, 0, 1], value=0.25, opset=9),
    "pad by input": one("Pad", [1, 2, 3], (5, 3), ints(0, 1, 0, 0, 2, 0), np.float32(-1.5).reshape(())),
    "pad by axes": one("Pad", [1, 2, 3], (2, 6), ints(1, 2), np.float32(0).reshape(()), ints(-1), opset=18),
    "gather": one("Gather", [1, 5, 3], (4, 3), ints(4, 0, 0, -2), axis=1),
    "gather a scalar": one("Gather", [1, 5, 3], (5,), np.array(-1, dtype=np.int64), axis=2),
    "gather by a matrix": one("Gather", [1, 5], (2, 3), np.array([[0, 1, 2], [4, 4, 4]], dtype=np.int32), axis=1),
    "expand": one("Expand", [1, 3, 1], (3, 4), ints(1, 1, 4)),
    "expand by a lower rank": one("Expand", [1, 1, 4], (3, 4), ints(3, 4)),
    # constants
    "constant node": Case(
        [helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]), op("Mul", "x c")], [1, 3], (3,)
    ),
    "a weight computed from constants": Case(
        [op("Sqrt", "a", "b"), op("Transpose", "b", "w", perm=[1, 0]), op("MatMul", "x w")],
        [1, 3],
        (2,),
        {"a": np.abs(floats(2, 3))},
    ),
    "constant of shape": Case(
        [
            op("ConstantOfShape", "s", "c", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])),
            op("Add", "x c"),
        ],
        [1, 3],
        (3,),
        {"s": ints(3)},
    ),
    "a shape computed as torch exports it": Case(
        [
            op("Shape", "x", "s"),
            op("Gather", "s zero", "n"),
            op("Unsqueeze", "n axes", "row"),
            op("Concat", "row minus", "target", axis=0),
            op("Reshape", "x target"),
        ],
        ["n", 3, 4],
        (12,),
        {"zero": np.array(0, dtype=np.int64), "axes": ints(0), "minus": ints(-1)},
    ),
    "a part of a shape": Case(
        [op("Shape", "x", "s", start=1), op("Expand", "c s", "e"), op("Add", "x e")],
        [1, 3, 4],
        (3, 4),
        {"c": floats(1)},
        15,
    ),
    # an input without a batch
    "vector input": Case(
        [op("MatMul", "w x", "a"), op("Add", "a b", "c"), op("Relu", "c", "r"), op("MatMul", "r v")],
        [4],
        (2,),
        {"w": floats(3, 4), "b": floats(3), "v": floats(3, 2)},
    ),
    "vector input made a row": Case(
        [op("Unsqueeze", "x zero", "row"), op("Gemm", "row w b", "g"), op("Squeeze", "g")],
        [4],
        (3,),
        {"zero": ints(0), "w": floats(4, 3), "b": floats(3)},
    ),
    "vector input made an image": Case(
        [
            op("Reshape", "x s", "i"),
            op("Conv", "i w", "c"),
            op("BatchNormalization", "c g b m v", "n"),
            op("AveragePool", "n", "p", kernel_shape=[2, 2]),
            op("GlobalAveragePool", "p"),
        ],
        [32],
        (1, 3, 1, 1),
        {"s": ints(1, 2, 4, 4), "w": floats(3, 2, 2, 2), **dict(zip("gbmv", STATISTICS, strict=True))},
    ),
    "vector input as a matrix": Case(
        [op("Reshape", "x s", "m"), op("Gemm", "m w", "g", transA=1), op("Transpose", "g", perm=[1, 0])],
        [6],
        (4, 3),
        {"s": ints(2, 3), "w": floats(2, 4)},
    ),
    "a single number": one("Mul", [1], (1,), floats(1)),
    **PIECEWISE,
}
"""Operators that executions, certificates and the checker know, too."""
EVERY_CASE = {**CASES, **SMOOTH}


@pytest.mark.parametrize("name", EVERY_CASE)
def test_an_operator_computes_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    case = EVERY_CASE[name]
    network = load_network(save(case.model(), tmp_path))
    shape = network.graph.input_shape
    network.check(-2 * torch.ones(shape), 3 * torch.ones(shape), points=4)
    assert network.graph.output_shape == case.out


def test_the_readme_lists_every_operator_and_every_piecewise_linear_one_has_a_case() -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = page.split("## What is supported", 1)[1].split("\n\n**What", 1)[0]
    words = set(re.findall(r"\w+", table.lower()))
    assert not [name for name in CONVERTERS if name.lower() not in words]
    pieces = {name for name, converter in CONVERTERS.items() if converter.__module__.endswith("piecewise")}
    cases = {node.op_type for case in PIECEWISE.values() for node in case.nodes}
    assert {"Clip", "Where"} <= pieces
    assert pieces | {"MaxPool", "GlobalMaxPool"} <= cases
